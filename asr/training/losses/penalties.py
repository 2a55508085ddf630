"""Penalties on the size of the weights: the objectives `l1` and `l2`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from asr.model.acoustic import AcousticModel, Outputs
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss
from asr.types import ConfigError


class _Penalty(nn.Module):
    """The sum of |w|^exponent / exponent over weight matrices; like AdamW's weight decay, without biases and norms.

    A sum and not a mean, so that each entry is pulled as hard in a large model as in a small one. Like CTC's loss per
    token, it does not depend on the size of the batch.
    """

    @dataclass(frozen=True)
    class Options:
        """`which` matrices: `all` of the model, the `recurrent` ones of its cells, or that of the `output` layer."""

        which: Literal["all", "recurrent", "output"] = "all"

    exponent: ClassVar[int]

    def __init__(self, model: AcousticModel, options: Options) -> None:
        super().__init__()
        self.named_parameters_of_model, self.which = model.named_parameters, options.which
        if not self.matrices():
            raise ConfigError(f"encoder {model.config.encoder} has no {options.which} weight matrices to penalize")

    def matrices(self) -> list[Tensor]:
        part = {"all": "", "recurrent": "weight_hh", "output": "output.weight"}[self.which]
        named = self.named_parameters_of_model()
        return [weight for name, weight in named if weight.dim() >= 2 and part in name]

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        sums = [weight.float().abs().pow(self.exponent).sum() for weight in self.matrices()]
        return ObjectiveLoss(torch.stack(sums).sum() / self.exponent)


class L1Objective(_Penalty):
    """Objective `l1`: the sum of |w|. Its gradient sign(w) pulls small weights toward 0 as hard as large ones.

    The optimizer makes weights small, not exactly 0.
    """

    exponent = 1


class L2Objective(_Penalty):
    """Objective `l2`: the sum of w^2 / 2, whose gradient is w.

    This is not `optimizer.weight_decay`, which shrinks each weight by lr * weight_decay * w apart from the gradient
    step. Adam divides the gradient of this objective, like CTC's, by the size of past gradients, so that weights with
    large gradients shrink less (Loshchilov & Hutter, 2019, "Decoupled weight decay regularization", arXiv 1711.05101).
    """

    exponent = 2
