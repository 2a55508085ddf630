"""What an objective makes of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from asr.model.acoustic import AcousticModel
from asr.model.padding import valid_frames


@dataclass(frozen=True)
class ObjectiveLoss:
    """What an objective makes of a batch: its `loss`, and what else an epoch logs, by name, as `sums` and `means`.

    A loss is a mean over the target tokens of the batch, or does not depend on it: where a step takes several batches,
    by accumulation or on several processes, each counts with its tokens (`asr.training.distribution.GlobalBatch`). A
    mean over anything else (frames, utterances) is trained all the same, but then depends a little on the split.
    Sums over the rows of two views are halved before they are logged.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)


class PlainObjective(nn.Module):
    """An objective without options and parameters, which needs outputs and batch alone."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()


def per_token(values: Tensor, lengths: Tensor, token_lengths: Tensor) -> Tensor:
    """Sum of `values` (batch, frames) over valid frames, divided by the number of target tokens as CTC's loss is."""
    total = values.masked_fill(~valid_frames(lengths, values.size(1)), 0.0).sum()
    return total / token_lengths.sum().clamp(min=1).to(total.device, non_blocking=True)
