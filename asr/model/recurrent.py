"""The recurrent encoder. It is bidirectional without packing: exact, and several times faster than packing on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.blockwise import Blockwise, EncoderStream
from asr.model.cells import CELLS, MaskedBatchNorm, initialize, run_cell
from asr.model.config import RecurrentConfig
from asr.model.frontends import FRONT_ENDS, subsampled_length
from asr.model.padding import reversal_index, reverse_within_length, valid_frames, zero_padding
from asr.model.shapes import WIDEST, fast_width
from asr.types import ConfigError

# Gets the number of a layer, from 1, its output (batch, frames, width) and lengths (batch,); returns the new output.
AfterLayer = Callable[[int, Tensor, Tensor], Tensor]


class Dropout(nn.Dropout):
    """Dropout of single values or, if `locked`, of the same channels in all frames of an utterance."""

    def __init__(self, p: float, locked: bool) -> None:
        super().__init__(p)
        self.locked = locked

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, channels) -> the same."""
        if not self.locked:
            return super().forward(x)
        return x * functional.dropout(x.new_ones(len(x), 1, x.size(2)), self.p, self.training)


class RecurrentLayer(nn.Module):
    """One recurrent layer: cell(s), optional projection, norm, dropout, and an optional residual connection around it.

    A bidirectional layer is two unidirectional cells, of which the backward one reads each utterance reversed within
    its length. Padding at the end never reaches the frames before it, so the result equals that of
    `pack_padded_sequence`, while PyTorch can use oneDNN's fused LSTM, which does not take packed input.

    The residual connection adds the layer's input, through a linear layer if the widths differ (He et al., 2016). Layer
    drop keeps only that connection for some utterances of a batch, and scales the layer up for the others, so that
    evaluation with all layers is the expectation (Huang et al., 2016; Fan et al., 2020, do not scale). It draws per
    utterance rather than per batch because under DDP every parameter needs a gradient.
    """

    def __init__(self, config: RecurrentConfig, input_size: int) -> None:
        super().__init__()
        cell = CELLS[config.cell]
        self.forward_cell = cell(input_size, config.hidden_size)
        self.backward_cell = cell(input_size, config.hidden_size) if config.bidirectional else None
        self.hidden = nn.Identity()  # gives forward hooks the states of the cells
        width = config.hidden_size * (2 if config.bidirectional else 1)
        self.projection = nn.Linear(width, config.projection) if config.projection else None
        self.output_size = config.projection or width
        self.norm = build_norm(config.norm, self.output_size)
        self.dropout = Dropout(config.dropout, config.variational_dropout)
        self.skip: nn.Module | None = None
        if config.residual:
            same = input_size == self.output_size
            self.skip = nn.Identity() if same else nn.Linear(input_size, self.output_size, bias=False)
        self.layer_drop, self.weight_dropout, self.zoneout = config.layer_drop, config.weight_dropout, config.zoneout

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, input_size), lengths (batch,) -> (batch, frames, output_size)."""
        valid = valid_frames(lengths, x.size(1))
        out = run_cell(self.forward_cell, x, valid, self.weight_dropout, self.zoneout)
        if self.backward_cell is not None:
            reversal = reversal_index(lengths, x.size(1))
            backward = reverse_within_length(x, reversal)
            backward = run_cell(self.backward_cell, backward, valid, self.weight_dropout, self.zoneout)
            out = torch.cat([out, reverse_within_length(backward, reversal)], dim=-1)
        return self.after_cells(self.hidden(out), x, valid)

    def after_cells(self, out: Tensor, x: Tensor, valid: Tensor) -> Tensor:
        """The layer's output from its cells' states `out` and its input `x`, both (batch, frames, width)."""
        if self.projection is not None:
            out = self.projection(out)
        out = self.dropout(normalized(self.norm, out, valid))
        if self.skip is None:
            return out
        if self.layer_drop:
            out = out * functional.dropout(out.new_ones(len(out), 1, 1), self.layer_drop, self.training)
        return self.skip(x) + out


def build_norm(kind: str, width: int) -> nn.LayerNorm | MaskedBatchNorm | None:
    """The norm of the kind that `model.norm` names."""
    return {"layer": nn.LayerNorm, "batch": MaskedBatchNorm}[kind](width) if kind != "none" else None


def normalized(norm: nn.LayerNorm | MaskedBatchNorm | None, x: Tensor, valid: Tensor) -> Tensor:
    """(batch, frames, width), mask (batch, frames) of valid frames -> the same shape."""
    if isinstance(norm, MaskedBatchNorm):
        return norm(x, valid)
    return x if norm is None else norm(x)


class Lookahead(nn.Module):
    """Row convolution (Wang et al., 2016): a weighted sum of each channel over a frame and the next `frames`.

    It starts as the identity. Frames beyond an utterance's length count as zeros.
    """

    def __init__(self, width: int, frames: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, 1, frames + 1))
        nn.init.ones_(self.weight[:, :, 0])

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, width), lengths (batch,) -> the same shape."""
        x = functional.pad(zero_padding(x, lengths).transpose(1, 2), (0, self.weight.size(2) - 1))
        return functional.conv1d(x, self.weight, groups=x.size(1)).transpose(1, 2)


def join_pairs(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Join frames in pairs: (batch, frames, width), (batch,) -> (batch, ceil(frames / 2), 2 * width), (batch,).

    An odd last frame is joined to zeros.
    """
    x = functional.pad(zero_padding(x, lengths), (0, 0, 0, x.size(1) % 2))
    return x.reshape(len(x), x.size(1) // 2, 2 * x.size(2)), (lengths + 1) // 2


class RecurrentEncoder(nn.Module):
    """A front end, then a stack of `config.layers` recurrent layers."""

    layer: ClassVar[type[RecurrentLayer]] = RecurrentLayer

    def __init__(self, config: RecurrentConfig, n_mels: int) -> None:
        super().__init__()
        self.subsampling = FRONT_ENDS[config.frontend](n_mels, config.subsampling, config.subsampling_channels)
        width = self.subsampling.output_size
        self.input_norm = build_norm(config.norm, width)
        self.input_dropout = Dropout(config.input_dropout, config.variational_dropout)
        layers = []
        for number in range(1, config.layers + 1):
            layers.append(self.layer(config, width * (2 if number in config.time_reduction else 1)))
            width = layers[-1].output_size
        self.layers = nn.ModuleList(layers)
        self.layer_sizes = tuple(layer.output_size for layer in layers)
        self.lookahead = Lookahead(width, config.lookahead) if config.lookahead else None
        self.output_size = width
        self.stride = config.subsampling * 2 ** len(config.time_reduction)
        self.backward_size = config.hidden_size if config.bidirectional and not config.projection else 0
        self.config, self.n_mels = config, n_mels

    def output_length(self, frames: int) -> int:
        """The number of states for `frames` feature frames."""
        return subsampled_length(frames, self.stride)

    def initialize(self) -> None:
        """Draw the initial weights of the recurrent layers; the convolutions keep PyTorch's."""
        for name, parameter in self.layers.named_parameters():
            initialize(name, parameter, self.config.cell)

    def slow_shapes(self, precision: str) -> list[str]:
        """A line for each option without fast cuDNN kernels in training with this Lightning precision, with its cost.

        The factors were measured for `asr.model.shapes`.
        """
        cell, hidden, projection = self.config.cell, self.config.hidden_size, self.config.projection
        single = precision.startswith(("32", "64"))
        where = "on this GPU with trainer.precision=bf16-mixed" if single else "on this GPU"
        if self.config.zoneout or cell == "ligru":
            name = "zoneout" if self.config.zoneout else "cell ligru"
            return [f"{name}: a loop over frames, for which GPUs have no fast kernel"]
        if cell != "lstm":
            return [f"cell {cell}: about 3 times slower than lstm {where}"] if cell == "gru" else []
        lines = ["float32 has no fast LSTM kernels: set trainer.precision=bf16-mixed"] if single else []
        if hidden != (better := fast_width(hidden, WIDEST)):
            lines.append(f"hidden_size {hidden}: about 3 times slower than {better} {where}")
        if projection != (better := fast_width(projection)):
            lines.append(f"projection {projection}: layers up to a third slower than with {better} {where}")
        width = self.subsampling.output_size * (2 if 1 in self.config.time_reduction else 1)
        if width != (better := fast_width(width)):
            channels = self.config.subsampling_channels
            lines.append(
                f"subsampling_channels {channels}: the first layer, whose input is {channels} x {width // channels} = "
                f"{width} wide, is up to a third slower than with {better} {where}"
            )
        return lines

    def forward(
        self, features: Tensor, lengths: Tensor, after_layer: AfterLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (batch, frames, mels), lengths (batch,) -> states (batch, ceil(frames / stride), width), lengths.

        `after_layer`: see `asr.model.encoders.Encoder`.
        """
        x, lengths = self.front(features, lengths)
        for number, layer in enumerate(self.layers, 1):
            if number in self.config.time_reduction:
                x, lengths = join_pairs(x, lengths)
            x = layer(x, lengths)
            if after_layer is not None:
                x = after_layer(number, x, lengths)
        if self.lookahead is not None:
            x = self.lookahead(x, lengths)
        return x, lengths

    def front(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The input of the first layer (batch, frames', width), and its lengths."""
        x, lengths = self.subsampling(features, lengths)
        x = normalized(self.input_norm, x, valid_frames(lengths, x.size(1)))
        return self.input_dropout(x), lengths

    def stream(self, after_layer: AfterLayer | None = None) -> EncoderStream:
        """The states of one utterance while its features arrive. Raises ConfigError if the layers do not allow it."""
        config = self.config
        whole = config.bidirectional or config.time_reduction or config.zoneout or config.cell == "ligru"
        if whole or any(type(layer) is not RecurrentLayer for layer in self.layers):
            raise ConfigError(
                "streams need encoder latency-controlled, or encoder recurrent in one direction with cells lstm, gru, "
                "rnn or rnn-relu, without time_reduction and zoneout"
            )
        return CausalStream(self, after_layer)


def front_stream(encoder: RecurrentEncoder) -> Blockwise:
    """An encoder's front end over one utterance while its features (frames, mels) arrive."""

    def front(features: Tensor) -> Tensor:
        return encoder.front(features[None], _length(features))[0][0]

    begin = next(encoder.parameters()).new_zeros(0, encoder.n_mels)
    return Blockwise(front, encoder.stride, encoder.subsampling.reach, begin, encoder.subsampling.output_size)


class CausalStream:
    """Unidirectional layers with the states of their cells, and an optional look-ahead; see `EncoderStream`."""

    def __init__(self, encoder: RecurrentEncoder, after_layer: AfterLayer | None) -> None:
        self.layers, self.after_layer, self.width = encoder.layers, after_layer, encoder.output_size
        self.states: list[Any] = [None] * len(encoder.layers)
        self.front = front_stream(encoder)
        lookahead, none = encoder.lookahead, self.front.held.new_zeros(0, self.width)
        self.ahead = None
        if lookahead is not None:
            reach = (0, encoder.config.lookahead)
            self.ahead = Blockwise(lambda x: lookahead(x[None], _length(x))[0], 1, reach, none, self.width)

    def feed(self, features: Tensor) -> Tensor:
        states = self._over(self.front.feed(features))
        return states if self.ahead is None else self.ahead.feed(states)

    def finish(self) -> Tensor:
        states = self._over(self.front.finish())
        return states if self.ahead is None else torch.cat([self.ahead.feed(states), self.ahead.finish()])

    def _over(self, frames: Tensor) -> Tensor:
        if not len(frames):
            return frames.new_zeros(0, self.width)
        x, lengths = frames[None], _length(frames)
        for number, layer in enumerate(self.layers, 1):
            assert isinstance(layer, RecurrentLayer)
            out, self.states[number - 1] = layer.forward_cell(x, self.states[number - 1])
            x = layer.after_cells(out, x, valid_frames(lengths, x.size(1)))
            if self.after_layer is not None:
                x = self.after_layer(number, x, lengths)
        return x[0]


def _length(x: Tensor) -> Tensor:
    return torch.tensor([len(x)], device=x.device)
