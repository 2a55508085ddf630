"""The result of an objective, and what objectives share."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from asr.model.acoustic import AcousticModel
from asr.model.padding import valid_frames


@dataclass(frozen=True)
class ObjectiveLoss:
    """The loss of a batch, and values that each epoch logs by name, as `sums` and `means`.

    A loss should be a mean over the target tokens of the batch, or not depend on the batch: if a step takes several
    batches, by accumulation or on several processes, each is weighted by its tokens
    (`asr.training.distribution.GlobalBatch`). The gradient of a mean over frames or utterances depends a little on how
    the batch was split. Sums over the rows of two views are halved before they are logged.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)


class PlainObjective(nn.Module):
    """An objective without options and parameters."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()


def per_token(values: Tensor, lengths: Tensor, token_lengths: Tensor) -> Tensor:
    """Sum of `values` (batch, frames) over valid frames, divided by the number of target tokens like CTC's loss."""
    total = values.masked_fill(~valid_frames(lengths, values.size(1)), 0.0).sum()
    return total / token_lengths.sum().clamp(min=1).to(total.device, non_blocking=True)
