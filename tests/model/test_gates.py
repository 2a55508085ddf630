"""Gates computed in a loop: the states that come with them are those of the fused cells."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from asr.model.cells import CELLS, run_cell
from asr.model.gates import trace_cell

GATES = {"lstm": ["input", "forget", "output"], "gru": ["reset", "update"], "ligru": ["update"]}


@pytest.mark.parametrize("zoneout", [0.0, 0.2])
@pytest.mark.parametrize("name", CELLS)
def test_states_are_those_of_the_cell(name, zoneout):
    torch.manual_seed(1)
    cell = CELLS[name](7, 5).eval()
    x = torch.randn(1, 30, 7)
    with torch.no_grad():
        fused = run_cell(cell, x, torch.ones(1, 30, dtype=torch.bool), zoneout=zoneout)[0]
    trace = trace_cell(cell, x[0], zoneout)
    torch.testing.assert_close(trace.states, fused, atol=1e-5, rtol=0)
    assert list(trace.gates) == GATES.get(name, [])
    assert all(values.shape == (30, 5) and 0 <= values.min() <= values.max() <= 1 for values in trace.gates.values())


def test_a_gate_has_its_own_name():
    """Biases hold one gate open and another closed: in PyTorch's order, input, forget, cell, output."""
    cell = nn.LSTM(2, 3, batch_first=True)
    with torch.no_grad():
        cell.bias_ih_l0 += torch.tensor([30.0, -30.0, 0.0, 30.0]).repeat_interleave(3)
    gates = trace_cell(cell, torch.randn(4, 2)).gates
    assert gates["input"].min() > 0.99 and gates["forget"].max() < 0.01 and gates["output"].min() > 0.99
