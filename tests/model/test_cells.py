"""The cells against their formulas, one frame, one step at a time, in float64; their derivatives; how they begin."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import profile

from asr.model.cells import CELLS, RELU_MEMORY, LightGRU, MaskedBatchNorm, initialize, light_gru, run_cell

Step = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def lstm(x: Tensor, recurrent: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (x + recurrent).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(x: Tensor, recurrent: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    xr, xz, xn = x.chunk(3, -1)
    hr, hz, hn = recurrent.chunk(3, -1)
    z = torch.sigmoid(xz + hz)
    return z * h + (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn), c


def ligru(x: Tensor, recurrent: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    z, candidate = (x + recurrent).chunk(2, -1)
    z = torch.sigmoid(z)
    return z * h + (1 - z) * torch.relu(candidate), c


def rnn(x: Tensor, recurrent: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return torch.tanh(x + recurrent), c


def rnn_relu(x: Tensor, recurrent: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return torch.relu(x + recurrent), c


STEPS: dict[str, Step] = {"lstm": lstm, "gru": gru, "rnn": rnn, "rnn-relu": rnn_relu, "ligru": ligru}


def expected(name: str, cell: nn.Module, x: Tensor, recurrent: Tensor, zoneout: float = 0.0) -> Tensor:
    """The states of a cell in evaluation, row by row and frame by frame."""
    hidden = recurrent.size(1)
    rows = []
    for row in x:
        h = c = x.new_zeros(hidden)
        states = []
        for frame in row:
            entering = cell.weight_ih_l0 @ frame
            if isinstance(cell, LightGRU):
                norm = cell.norm
                entering = (entering - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps)
                entering = entering * norm.weight + norm.bias
                again = recurrent @ h
            else:
                entering, again = entering + cell.bias_ih_l0, recurrent @ h + cell.bias_hh_l0
            new_h, new_c = STEPS[name](entering, again, h, c)
            h, c = zoneout * h + (1 - zoneout) * new_h, zoneout * c + (1 - zoneout) * new_c
            states.append(h)
        rows.append(torch.stack(states))
    return torch.stack(rows)


def made(name: str, inputs: int = 5, hidden: int = 4) -> nn.Module:
    torch.manual_seed(4)
    cell = CELLS[name](inputs, hidden).double()
    if isinstance(cell, LightGRU):
        for tensor in (cell.norm.weight, cell.norm.running_var):
            nn.init.uniform_(tensor, 0.5, 2.0)
        for tensor in (cell.norm.bias, cell.norm.running_mean):
            nn.init.normal_(tensor)
    return cell


X = torch.randn(3, 7, 5, dtype=torch.double, generator=torch.Generator().manual_seed(5))
VALID = torch.arange(7)[None, :] < torch.tensor([7, 0, 3])[:, None]


@pytest.mark.parametrize("zoneout", [0.0, 0.3])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_its_formula(name: str, zoneout: float) -> None:
    cell = made(name).eval()
    states = run_cell(cell, X, VALID, weight_dropout=0.5, zoneout=zoneout)
    torch.testing.assert_close(states, expected(name, cell, X, cell.weight_hh_l0, zoneout))


@pytest.mark.parametrize("name", CELLS)
def test_the_loop_of_zoneout_is_the_fused_cell_where_it_zones_nothing(name: str) -> None:
    cell = made(name).train()
    results = []
    for zoneout in (0.0, 1e-300):  # a rate that no draw is below
        states = run_cell(cell, X, VALID, zoneout=zoneout)
        results.append([states, *torch.autograd.grad(states.square().sum(), list(cell.parameters()))])
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("name", CELLS)
def test_zoneout_keeps_units_at_its_rate_and_what_was_drawn_depends_on_the_seed_alone(name: str) -> None:
    cell = made(name, hidden=64).train()
    x = torch.randn(4, 60, 5, dtype=torch.double)
    everything = torch.ones(4, 60, dtype=torch.bool)

    def states(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return run_cell(cell, x, everything, zoneout=0.25)

    first = states(1)
    assert torch.equal(first, states(1)) and not torch.equal(first, states(2))
    before, after = first[:, :-1], first[:, 1:]
    kept = (after == before)[before != 0].double().mean()  # a ReLU's zeros may stay zeros by themselves
    assert abs(float(kept) - 0.25) < 0.03


@pytest.mark.parametrize("name", CELLS)
def test_weight_dropout_is_the_cell_with_the_weights_dropped(name: str) -> None:
    cell = made(name).train()
    torch.manual_seed(7)
    states = run_cell(cell, X, VALID, weight_dropout=0.5)
    gradient = torch.autograd.grad(states.square().sum(), cell.weight_hh_l0)[0]
    torch.manual_seed(7)
    dropped = functional.dropout(cell.weight_hh_l0, 0.5).detach()
    assert (dropped == 0).any() and torch.equal(gradient == 0, dropped == 0)
    whole = cell.weight_hh_l0.detach().clone()
    with torch.no_grad():
        cell.weight_hh_l0.copy_(dropped)
    torch.testing.assert_close(states, run_cell(cell, X, VALID))
    cell.eval()
    torch.testing.assert_close(run_cell(cell, X, VALID, weight_dropout=0.5), expected(name, cell, X, cell.weight_hh_l0))
    assert not torch.equal(cell.weight_hh_l0, whole)


def test_weight_dropout_keeps_the_fused_lstm_of_the_cpu() -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch without oneDNN")
    cell = made("lstm").float().train()
    with profile() as profiled:
        run_cell(cell, X.float(), VALID, weight_dropout=0.5)
    assert "aten::mkldnn_rnn_layer" in {event.key for event in profiled.key_averages()}


def test_the_light_grus_derivatives_are_those_of_its_formula() -> None:
    torch.manual_seed(8)
    inputs = torch.randn(3, 6, 8, dtype=torch.double, requires_grad=True)
    recurrent = torch.randn(8, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(light_gru, (inputs, recurrent))
    before = inputs.detach().clone()
    one = light_gru(inputs[:1], recurrent)
    assert torch.equal(inputs, before)  # also where a batch of one row needs no copy
    torch.testing.assert_close(one, light_gru(inputs, recurrent)[:1])
    assert light_gru(inputs[:, :0], recurrent).shape == (3, 0, 4)


def test_the_light_gru_calculates_in_float32_under_autocast() -> None:
    cell = made("ligru").float().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = run_cell(cell, X.float(), VALID)
    assert states.dtype == torch.float32
    states.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in cell.parameters())


def test_masked_batch_norm_is_batch_norm_over_the_valid_frames_alone() -> None:
    ours, theirs = MaskedBatchNorm(5).double(), nn.BatchNorm1d(5).double()
    x = (3 * X + 2).requires_grad_()
    weights = torch.randn(int(VALID.sum()), 5, dtype=torch.double)
    found, wanted = ours(x, VALID)[VALID], theirs(x[VALID])
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad((out * weights).sum(), x)[0] for out in (found, wanted)]
    torch.testing.assert_close(*gradients)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    torch.testing.assert_close(ours.eval()(x, VALID)[VALID], theirs.eval()(x[VALID]))


def test_a_batch_without_frames_changes_no_statistics() -> None:
    norm = MaskedBatchNorm(5)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    out = norm(torch.full((2, 3, 5), 9.0), torch.zeros(2, 3, dtype=torch.bool))
    assert torch.isfinite(out).all()
    torch.testing.assert_close(norm.state_dict(), before)


@pytest.mark.parametrize("name", CELLS)
def test_recurrence_starts_as_a_rotation_or_a_part_of_the_identity(name: str) -> None:
    cell = CELLS[name](6, 8)
    for parameter_name, parameter in cell.named_parameters():
        initialize(f"forward_cell.{parameter_name}", parameter, name)
    for gate in cell.weight_hh_l0.detach().split(8):
        if name == "rnn-relu":
            assert torch.equal(gate, RELU_MEMORY * torch.eye(8))
        else:
            torch.testing.assert_close(gate @ gate.T, torch.eye(8), atol=1e-5, rtol=0)
    assert cell.weight_ih_l0.std().item() > 0.1 / math.sqrt(8)
