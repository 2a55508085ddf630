"""What an objective makes of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class ObjectiveLoss:
    """What an objective makes of a batch: its `loss`, and what else an epoch logs, by name, as `sums` and `means`.

    Sums over the rows of two views are halved before they are logged.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)
