"""Recurrent cells: Light GRU, batch norm over valid frames, weight dropout, zoneout, initialization."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class MaskedBatchNorm(nn.Module):
    """Batch norm (Ioffe & Szegedy, 2015) over the valid frames of all utterances in a batch; padding is ignored.

    Evaluation uses the running statistics. Under DDP each rank normalizes with the statistics of its own rows, as
    PyTorch's batch norm does, and the running statistics of rank 0 are broadcast before each step. Synchronizing in
    every layer instead would deadlock when one rank has no readable utterances in its batch.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(batch, frames, width), mask (batch, frames) of valid frames -> the same shape, calculated in float32."""
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(dtype, torch.float32))  # sums over frames overflow half precision
            mean, variance = self._statistics(x, valid) if self.training else (self.running_mean, self.running_var)
            return ((x - mean) * (torch.rsqrt(variance + self.eps) * self.weight) + self.bias).to(dtype)

    def _statistics(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        mask = valid[:, :, None].to(x.dtype)
        count = mask.sum()
        mean = (x * mask).sum((0, 1)) / count.clamp(min=1)
        variance = ((x - mean).square() * mask).sum((0, 1)) / count.clamp(min=1)
        with torch.no_grad():
            share = self.momentum * (count > 0)  # an empty batch changes nothing
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share.to(self.running_mean.dtype))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share.to(self.running_var.dtype))
        return mean, variance


class LightGRU(nn.Module):
    """Light GRU (Ravanelli et al., 2018): a GRU without reset gate, with a ReLU candidate and batch norm on the input.

        z = sigmoid(BN(W_z x) + U_z h'),  c = relu(BN(W_c x) + U_c h'),  h = z h' + (1 - z) c

    The batch norm's shift is the only bias. The parameters are named as those of PyTorch's cells.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(2 * hidden_size, hidden_size))
        self.norm = MaskedBatchNorm(2 * hidden_size)
        for weight in (self.weight_ih_l0, self.weight_hh_l0):
            nn.init.uniform_(weight, -(hidden_size**-0.5), hidden_size**-0.5)

    def project(self, x: Tensor, valid: Tensor) -> Tensor:
        """The input projection of all frames, normalized: (batch, frames, 2 * hidden_size)."""
        return self.norm(functional.linear(x, self.weight_ih_l0), valid)


def light_gru(inputs: Tensor, recurrent: Tensor) -> Tensor:
    """The recurrence of the Light GRU, computed in float32 from a state of zeros.

    inputs: (batch, frames, 2 * hidden), update gate before candidate; recurrent: (2 * hidden, hidden).
    Returns the states (batch, frames, hidden). Only first derivatives are supported.
    """
    with torch.autocast(inputs.device.type, enabled=False):
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        states: Tensor = _LightGRU.apply(inputs.to(dtype), recurrent.to(dtype))
        return states.to(inputs.dtype)


class _LightGRU(torch.autograd.Function):
    """A hand-written backward pass: a few large operations per frame, where autograd would record many small ones.

    Without a C++ compiler, PyTorch can compile loops only with TorchScript, which is deprecated. On one CPU core,
    forward and backward of 16 rows of 250 frames, 512 -> 256, take 114 ms, most of it matrix products; autograd takes
    146 ms, TorchScript 135 ms, and nn.GRU 213 ms.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, recurrent: Tensor) -> Tensor:
        # Frames first, so that each frame is contiguous.
        gates = inputs.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        frames, batch, width = gates.shape
        update, candidate = gates.split(width // 2, -1)
        states = gates.new_zeros(frames + 1, batch, width // 2)
        weights = recurrent.t().contiguous()
        for t in range(frames):
            gates[t].addmm_(states[t], weights)
            update[t].sigmoid_()
            candidate[t].relu_()
            torch.lerp(candidate[t], states[t], update[t], out=states[t + 1])
        ctx.save_for_backward(gates, states, recurrent)
        return states[1:].transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gates, states, recurrent = ctx.saved_tensors
        frames, batch, width = gates.shape
        update, candidate = gates.split(width // 2, -1)
        # The derivative of each state by the inputs of both gates, for all frames at once.
        slopes = torch.stack([update * (1 - update) * (states[:-1] - candidate), (1 - update) * (candidate > 0)], 2)
        update = update.contiguous()
        grad = grads[0].transpose(0, 1)
        carried = torch.zeros_like(states[0])
        for t in range(frames - 1, -1, -1):
            carried = carried + grad[t]
            slopes[t].mul_(carried[:, None])
            carried = torch.addmm(carried * update[t], slopes[t].view(batch, width), recurrent)
        slopes = slopes.view(frames, batch, width)
        return slopes.transpose(0, 1), slopes.reshape(-1, width).t() @ states[:-1].reshape(-1, width // 2)


RELU_MEMORY = 0.5  # share of the state that a new ReLU cell keeps from frame to frame
CELLS: dict[str, Callable[[int, int], nn.Module]] = {
    "lstm": partial(nn.LSTM, batch_first=True),
    "gru": partial(nn.GRU, batch_first=True),
    "rnn": partial(nn.RNN, batch_first=True),
    "rnn-relu": partial(nn.RNN, nonlinearity="relu", batch_first=True),
    "ligru": LightGRU,
}


def run_cell(cell: nn.Module, x: Tensor, valid: Tensor, weight_dropout: float = 0.0, zoneout: float = 0.0) -> Tensor:
    """The states (batch, frames, hidden) of a cell over frames x (batch, frames, width) from a state of zeros.

    valid: mask (batch, frames) of valid frames. `weight_dropout` drops recurrent weights in training, the same ones in
    all rows and frames (DropConnect: Wan et al., 2013; Merity et al., 2018), and still uses the fused cells. `zoneout`
    (Krueger et al., 2017) needs a loop over the frames, also in evaluation: on one CPU core, an encoder's forward and
    backward take 1.7 times as long as with the fused LSTM, and 1.15 times as long as with nn.GRU.
    """
    drops = weight_dropout > 0 and cell.training
    if not (drops or zoneout or isinstance(cell, LightGRU)):
        return cell(x)[0]
    recurrent = cast(Tensor, cell.weight_hh_l0)
    if drops:
        recurrent = functional.dropout(recurrent, weight_dropout)
    if zoneout:
        return cell_loop(cell, x, valid, recurrent, zoneout)
    if isinstance(cell, LightGRU):
        return light_gru(cell.project(x, valid), recurrent)
    assert isinstance(cell, nn.RNNBase)
    start = x.new_zeros(1, len(x), cell.hidden_size)
    weight, _, *biases = cell.all_weights[0]
    weights = [weight, recurrent, *biases]
    # nn.LSTM calls these functions itself. It cannot be called: torch.func.functional_call breaks its list of weights.
    if cell.mode == "LSTM":
        return torch.lstm(x, (start, start), weights, True, 1, 0.0, True, False, True)[0]
    function = {"GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}[cell.mode]
    return function(x, start, weights, True, 1, 0.0, True, False, True)[0]


def cell_loop(
    cell: nn.Module,
    x: Tensor,
    valid: Tensor,
    recurrent: Tensor,
    zoneout: float = 0.0,
    gates: dict[str, list[Tensor]] | None = None,
) -> Tensor:
    """`run_cell` frame by frame, with these `recurrent` weights; the gates of each frame are added to `gates`.

    With `zoneout`, each unit (of an LSTM each memory cell too) keeps its previous value at that rate. Evaluation mixes
    the old and the new value in these shares, which is the expectation.
    """
    recurrent_bias: Tensor | None = None
    if isinstance(cell, LightGRU):
        inputs, step = cell.project(x, valid), _STEPS["LIGHT_GRU"]
    else:
        assert isinstance(cell, nn.RNNBase)
        weight, _, bias, recurrent_bias = cell.all_weights[0]
        inputs, step = functional.linear(x, weight, bias), _STEPS[cell.mode]
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(inputs.dtype, torch.float32)
        recurrent = recurrent.to(dtype)
        recurrent_bias = None if recurrent_bias is None else recurrent_bias.to(dtype)
        hidden = memory = recurrent.new_zeros(len(x), recurrent.size(1))
        states = []
        for frame in inputs.to(dtype).unbind(1):
            projected = functional.linear(hidden, recurrent, recurrent_bias)
            new_hidden, new_memory, frame_gates = step(frame, projected, hidden, memory)
            if new_memory is not memory:
                memory = _zoned(new_memory, memory, zoneout, cell.training)
            hidden = _zoned(new_hidden, hidden, zoneout, cell.training)
            states.append(hidden)
            if gates is not None:
                for name, value in frame_gates.items():
                    gates.setdefault(name, []).append(value)
        return torch.stack(states, 1).to(inputs.dtype)


def _zoned(new: Tensor, old: Tensor, rate: float, training: bool) -> Tensor:
    return torch.where(torch.rand_like(new) < rate, old, new) if training else torch.lerp(new, old, rate)


# One frame of each cell: the projections of the frame and of the hidden state, hidden state, memory -> the new hidden
# state, the new memory and the gates by name, as `asr.model.gates.CellTrace` explains them.
_Stepped = tuple[Tensor, Tensor, dict[str, Tensor]]


def _lstm_step(frame: Tensor, projected: Tensor, hidden: Tensor, memory: Tensor) -> _Stepped:
    enter, forget, new, leave = (frame + projected).chunk(4, -1)
    gates = {"input": enter.sigmoid(), "forget": forget.sigmoid(), "output": leave.sigmoid()}
    memory = gates["forget"] * memory + gates["input"] * new.tanh()
    return gates["output"] * memory.tanh(), memory, gates


def _gru_step(frame: Tensor, projected: Tensor, hidden: Tensor, memory: Tensor) -> _Stepped:
    (reset, update, new), (h_reset, h_update, h_new) = frame.chunk(3, -1), projected.chunk(3, -1)
    gates = {"reset": (reset + h_reset).sigmoid(), "update": (update + h_update).sigmoid()}
    candidate = torch.tanh(new + gates["reset"] * h_new)
    return torch.lerp(candidate, hidden, gates["update"]), memory, gates


def _light_gru_step(frame: Tensor, projected: Tensor, hidden: Tensor, memory: Tensor) -> _Stepped:
    update, candidate = (frame + projected).chunk(2, -1)
    gates = {"update": update.sigmoid()}
    return torch.lerp(candidate.relu(), hidden, gates["update"]), memory, gates


_STEPS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], _Stepped]] = {
    "LSTM": _lstm_step,
    "GRU": _gru_step,
    "LIGHT_GRU": _light_gru_step,
    "RNN_TANH": lambda frame, projected, hidden, memory: (torch.tanh(frame + projected), memory, {}),
    "RNN_RELU": lambda frame, projected, hidden, memory: (torch.relu(frame + projected), memory, {}),
}


def initialize(name: str, parameter: Tensor, cell: str) -> None:
    """Orthogonal recurrent matrices per gate (Saxe et al., 2014), Glorot inputs, forget bias 1 (Gers et al., 2000).

    The recurrent matrix of a ReLU network is RELU_MEMORY times the identity (after Le et al., 2015). With it, 2 layers
    of 96 learned 24 utterances of AN4 to 0.3 nats per letter in 160 steps; with the identity itself they reached 2.4,
    with an orthogonal matrix 2.1.
    """
    with torch.no_grad():
        if "weight_hh" in name:
            for gate in parameter.split(parameter.size(1)):
                if cell == "rnn-relu":
                    gate.copy_(RELU_MEMORY * torch.eye(len(gate)))
                else:
                    nn.init.orthogonal_(gate)
        elif "weight_ih" in name:
            nn.init.xavier_uniform_(parameter, gain=math.sqrt(2.0) if cell == "rnn" else 1.0)
        elif "_cell.bias" in name:
            parameter.zero_()
            if cell == "lstm" and "bias_ih" in name:
                hidden = parameter.numel() // 4
                parameter[hidden : 2 * hidden] = 1.0
