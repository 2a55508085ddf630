"""What an objective makes of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class ObjectiveLoss:
    """What an objective makes of a batch: its `loss`, and what else an epoch logs, by name, as `sums` and `means`.

    A loss is a mean over the target tokens of the batch, or does not depend on it: where a step takes several batches,
    by accumulation or on several processes, each counts with its tokens (`asr.training.distribution.GlobalBatch`).
    Sums over the rows of two views are halved before they are logged.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)
