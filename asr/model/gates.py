"""What the gates of a recurrent cell do, frame by frame: fused cells tell their states only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.cells import LightGRU


@dataclass(frozen=True)
class CellTrace:
    """A cell over one utterance: `gates` by name, each (frames, hidden) in [0, 1], and the states (frames, hidden).

    input, forget and output gate of an LSTM; reset and update gate of a GRU; update gate of a Light GRU; none of a
    plain RNN. An update gate of 1 keeps the state of the frame before.
    """

    gates: dict[str, Tensor]
    states: Tensor


@torch.no_grad()
def trace_cell(cell: nn.Module, x: Tensor, zoneout: float = 0.0) -> CellTrace:
    """Compute a cell of `asr.model.cells.CELLS` over x (frames, input size) in a loop, from a state of zeros.

    The states are those of the cell itself in evaluation, where `zoneout` is the share that units keep.
    """
    recurrent = cast(Tensor, cell.weight_hh_l0)
    bias = None if isinstance(cell, LightGRU) else cast(Tensor, cell.bias_hh_l0)
    if isinstance(cell, LightGRU):
        inputs = cell.project(x[None], x.new_ones(1, len(x), dtype=torch.bool))[0]
    else:
        inputs = functional.linear(x, cast(Tensor, cell.weight_ih_l0), cast(Tensor, cell.bias_ih_l0))
    hidden = memory = recurrent.new_zeros(recurrent.size(1))
    gates: dict[str, list[Tensor]] = {}
    states = []
    for frame in inputs:
        opened, new_hidden, new_memory = _step(cell, frame, functional.linear(hidden, recurrent, bias), hidden, memory)
        for name, value in opened.items():
            gates.setdefault(name, []).append(value)
        memory = torch.lerp(new_memory, memory, zoneout)
        hidden = torch.lerp(new_hidden, hidden, zoneout)
        states.append(hidden)
    return CellTrace({name: torch.stack(values) for name, values in gates.items()}, torch.stack(states))


def _step(
    cell: nn.Module, frame: Tensor, recurrent: Tensor, hidden: Tensor, memory: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """One frame: what it and the hidden state give to the gates, hidden state, memory -> gates and the new two."""
    if isinstance(cell, LightGRU):
        update, new = (frame + recurrent).chunk(2)
        update = update.sigmoid()
        return {"update": update}, torch.lerp(new.relu(), hidden, update), memory
    if isinstance(cell, nn.LSTM):
        enter, forget, new, leave = (frame + recurrent).chunk(4)
        enter, forget, leave = enter.sigmoid(), forget.sigmoid(), leave.sigmoid()
        memory = forget * memory + enter * new.tanh()
        return {"input": enter, "forget": forget, "output": leave}, leave * memory.tanh(), memory
    if isinstance(cell, nn.GRU):
        (reset, update, new), (h_reset, h_update, h_new) = frame.chunk(3), recurrent.chunk(3)
        reset, update = (reset + h_reset).sigmoid(), (update + h_update).sigmoid()
        new = torch.tanh(new + reset * h_new)
        return {"reset": reset, "update": update}, torch.lerp(new, hidden, update), memory
    assert isinstance(cell, nn.RNN)
    return {}, torch.relu(frame + recurrent) if cell.mode == "RNN_RELU" else torch.tanh(frame + recurrent), memory
