"""Penalties on the change of hidden states from frame to frame: the objective `stability`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asr.model.acoustic import AcousticModel, Outputs
from asr.model.conditioning import check_layers
from asr.model.padding import valid_frames
from asr.model.recurrent import RecurrentLayer
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss
from asr.types import ConfigError


def stability_loss(states: Tensor, lengths: Tensor, kind: str) -> Tensor:
    """Mean over successive valid frames of `states` (batch, frames, width), with `lengths` (batch,), of

    - `norm`: (|h_t| - |h_t-1|)^2, which keeps the norm steady (Krueger & Memisevic, 2016, "Regularizing RNNs by
      stabilizing activations", arXiv 1511.08400);
    - `difference`: |h_t - h_t-1|^2 / width, which makes the states themselves slow (temporal activation
      regularization of Merity et al., 2017, arXiv 1708.01009, squared).
    """
    states = states.float()
    if kind == "norm":
        norms = (states.square().sum(dim=-1) + 1e-12).sqrt()  # the root has no gradient at 0
        changes = norms.diff(dim=1).square()
    else:
        changes = states.diff(dim=1).square().mean(dim=-1)
    valid = valid_frames(lengths - 1, changes.size(1))
    return changes.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)


class StabilityObjective(nn.Module):
    """Objective `stability`: the mean `stability_loss` of the hidden states of all recurrent cells.

    Hidden states are taken before the projection, norm and dropout of a layer: layer norm would remove their norm, and
    dropout changes from frame to frame. Both directions have the same weight.
    """

    needs_layers = True

    @dataclass(frozen=True)
    class Options:
        """`kind`: see `stability_loss`. `layers` are numbers from 1; by default all layers with recurrent cells."""

        kind: Literal["norm", "difference"] = "norm"
        layers: tuple[int, ...] = ()

    def __init__(self, model: AcousticModel, options: Options) -> None:
        super().__init__()
        self.kind, self.states = options.kind, list[tuple[int, Tensor]]()
        layers = list(getattr(model.encoder, "layers", ()))
        check_layers(options.layers, len(layers), "objectives.stability")
        numbers = options.layers or range(1, len(layers) + 1)
        cells = [(n, part) for n in numbers for part in layers[n - 1].modules() if isinstance(part, RecurrentLayer)]
        if without := [number for number in options.layers if number not in dict(cells)]:
            raise ConfigError(f"objectives.stability: layer {without[0]} has no recurrent cells")
        if not cells:
            raise ConfigError(f"objectives.stability: encoder {model.config.encoder} has no recurrent cells")
        for number, part in cells:
            part.hidden.register_forward_hook(partial(self._keep, number, 1 if part.backward_cell is None else 2))

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        losses = []
        for number, states in self.states:
            x, lengths = outputs.layers[number - 1]
            losses.append(stability_loss(states[: len(x)], lengths, self.kind))
        self.forget()
        return ObjectiveLoss(torch.stack(losses).mean())

    def forget(self) -> None:
        """Drop the states of the last batch."""
        self.states.clear()

    def _keep(self, number: int, directions: int, module: nn.Module, arguments: Any, states: Tensor) -> None:
        if self.training:
            self.states += [(number, half) for half in states.chunk(directions, dim=-1)]
