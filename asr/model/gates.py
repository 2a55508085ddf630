"""What the gates of a recurrent cell do, frame by frame: PyTorch's fused cells return their states only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from asr.model.cells import cell_loop


@dataclass(frozen=True)
class CellTrace:
    """A cell over one utterance: `gates` by name, each (frames, hidden) in [0, 1], and the states (frames, hidden).

    An LSTM has an input, a forget and an output gate, a GRU a reset and an update gate, a Light GRU an update gate, a
    plain RNN none. An update gate of 1 keeps the previous state.
    """

    gates: dict[str, Tensor]
    states: Tensor


@torch.no_grad()
def trace_cell(cell: nn.Module, x: Tensor, zoneout: float = 0.0) -> CellTrace:
    """Run a cell of `asr.model.cells.CELLS`, in evaluation mode, over x (frames, input size) from a state of zeros.

    `zoneout` is the rate at which units keep their previous value.
    """
    gates: dict[str, list[Tensor]] = {}
    valid = x.new_ones(1, len(x), dtype=torch.bool)
    states = cell_loop(cell, x[None], valid, cast(Tensor, cell.weight_hh_l0), zoneout, gates)
    return CellTrace({name: torch.cat(values) for name, values in gates.items()}, states[0])
