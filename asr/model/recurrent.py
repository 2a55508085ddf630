"""The recurrent encoder. Bidirectional without packing: exact, and several times faster than packed cells on CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from asr.model.config import RecurrentConfig
from asr.model.shapes import WIDEST, fast_width

# Sees, and may change, the output of a layer: its number, from 1, (batch, frames, width), lengths (batch,).
AfterLayer = Callable[[int, Tensor, Tensor], Tensor]
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def reversal_index(lengths: Tensor, frames: int) -> Tensor:
    """Index (batch, frames) that reverses each sequence within its own length and leaves the padding in place.

    It is its own inverse: gathering twice restores the original.
    """
    steps = torch.arange(frames, device=lengths.device)[None, :]
    last = lengths[:, None] - 1
    return torch.where(steps <= last, last - steps, steps)


def reverse_within_length(sequence: Tensor, index: Tensor) -> Tensor:
    """(batch, frames, channels) -> the same, each utterance reversed within its own length."""
    return sequence.gather(1, index[:, :, None].expand(-1, -1, sequence.size(2)))


class RecurrentLayer(nn.Module):
    """One recurrent layer: cell(s), optional projection, layer norm, dropout.

    A bidirectional layer is two one-directional cells, of which the backward one reads each utterance reversed within
    its own length. A one-directional cell never lets padding reach the frames before it, so the result equals that of
    `pack_padded_sequence`, while PyTorch can use oneDNN's fused LSTM, which packed input rules out.
    """

    def __init__(self, config: RecurrentConfig, input_size: int) -> None:
        super().__init__()
        cell = CELLS[config.cell]
        self.forward_cell = cell(input_size, config.hidden_size, batch_first=True)
        self.backward_cell = cell(input_size, config.hidden_size, batch_first=True) if config.bidirectional else None
        width = config.hidden_size * (2 if config.bidirectional else 1)
        self.projection = nn.Linear(width, config.projection) if config.projection else None
        self.output_size = config.projection or width
        self.norm = nn.LayerNorm(self.output_size) if config.layer_norm else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, reversal: Tensor) -> Tensor:
        """(batch, frames, input_size) -> (batch, frames, output_size); `reversal` from `reversal_index`."""
        out, _ = self.forward_cell(x)
        if self.backward_cell is not None:
            backward, _ = self.backward_cell(reverse_within_length(x, reversal))
            out = torch.cat([out, reverse_within_length(backward, reversal)], dim=-1)
        if self.projection is not None:
            out = self.projection(out)
        if self.norm is not None:
            out = self.norm(out)
        return self.dropout(out)


class RecurrentEncoder(nn.Module):
    """Convolutional subsampling, then a stack of `config.layers` recurrent layers."""

    def __init__(self, config: RecurrentConfig, n_mels: int) -> None:
        super().__init__()
        self.subsampling = ConvSubsampling(n_mels, config.subsampling, config.subsampling_channels)
        width = self.subsampling.output_size
        self.input_norm = nn.LayerNorm(width) if config.layer_norm else None
        self.input_dropout = nn.Dropout(config.input_dropout)
        layers = []
        for _ in range(config.layers):
            layers.append(RecurrentLayer(config, width))
            width = layers[-1].output_size
        self.layers = nn.ModuleList(layers)
        self.layer_sizes = tuple(layer.output_size for layer in layers)
        self.output_size = width
        self.backward_size = config.hidden_size if config.bidirectional and not config.projection else 0
        self.stride = config.subsampling
        self.config = config

    def output_length(self, frames: int) -> int:
        """States made of `frames` feature frames."""
        return subsampled_length(frames, self.stride)

    def initialize(self) -> None:
        """Draw the initial weights of the recurrent layers; the convolutions keep PyTorch's."""
        for name, parameter in self.layers.named_parameters():
            _initialize(name, parameter, self.config.cell)

    def slow_shapes(self, precision: str) -> list[str]:
        """What cuDNN has no fast kernels for in training with that Lightning precision, with the cost, each in a line.

        The factors are those of `asr.model.shapes`.
        """
        cell, hidden, projection = self.config.cell, self.config.hidden_size, self.config.projection
        single = precision.startswith(("32", "64"))
        where = "on this GPU with trainer.precision=bf16-mixed" if single else "on this GPU"
        if cell != "lstm":
            return [f"cell {cell}: about 3 times slower than lstm {where}"] if cell == "gru" else []
        lines = ["float32 never gets the fast LSTM kernels: set trainer.precision=bf16-mixed"] if single else []
        if hidden != (better := fast_width(hidden, WIDEST)):
            lines.append(f"hidden_size {hidden}: about 3 times slower than {better} {where}")
        if projection != (better := fast_width(projection)):
            lines.append(f"projection {projection}: layers up to a third slower than with {better} {where}")
        width = self.subsampling.output_size
        if width != (better := fast_width(width)):
            channels = self.config.subsampling_channels
            product = f"{channels} x {width // channels} = {width}"
            lines.append(
                f"subsampling_channels {channels}: the first layer's input, {product}, "
                f"makes it up to a third slower than {better} would {where}"
            )
        return lines

    def forward(
        self, features: Tensor, lengths: Tensor, after_layer: AfterLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (batch, frames, mels), lengths (batch,) -> states (batch, ceil(frames / stride), width), lengths.

        `after_layer`: see `asr.model.encoders`.
        """
        x, lengths = self.subsampling(features, lengths)
        reversal = reversal_index(lengths, x.size(1))
        if self.input_norm is not None:
            x = self.input_norm(x)
        x = self.input_dropout(x)
        for number, layer in enumerate(self.layers, 1):
            x = layer(x, reversal)
            if after_layer is not None:
                x = after_layer(number, x, lengths)
        return x, lengths


def _initialize(name: str, parameter: Tensor, cell: str) -> None:
    """Orthogonal recurrence gate by gate (Saxe et al., 2014), Glorot inputs, forget bias 1 (Gers et al., 2000)."""
    with torch.no_grad():
        if "weight_hh" in name:
            for gate in parameter.split(parameter.size(1)):
                nn.init.orthogonal_(gate)
        elif "weight_ih" in name:
            nn.init.xavier_uniform_(parameter, gain=math.sqrt(2.0) if cell == "rnn" else 1.0)
        elif "_cell.bias" in name:
            parameter.zero_()
            if cell == "lstm" and "bias_ih" in name:
                hidden = parameter.numel() // 4
                parameter[hidden : 2 * hidden] = 1.0


Length = TypeVar("Length", int, Tensor)


def subsampled_length(frames: Length, factor: int) -> Length:
    """How many of `frames` (int or tensor) subsampling by `factor` leaves: a ceiling division by 2 per layer."""
    while factor > 1:
        frames = (frames + 1) // 2
        factor //= 2
    return frames


class ConvSubsampling(nn.Module):
    """log2(factor) layers of Conv2d(kernel 3, stride 2) + ReLU, after Deep Speech 2 (Amodei et al., 2016).

    Whatever lies beyond an utterance's own length is set to zero before each convolution, as the convolution itself
    pads the end of an unpadded utterance with zeros: so padding never leaks into the states.
    """

    def __init__(self, n_mels: int, factor: int, channels: int) -> None:
        super().__init__()
        self.factor = factor
        layers: list[nn.Module] = []
        inputs, bins = 1, n_mels
        while factor > 1:
            layers.append(nn.Conv2d(inputs, channels, kernel_size=3, stride=2, padding=1))
            inputs, bins, factor = channels, (bins + 1) // 2, factor // 2
        self.layers = nn.ModuleList(layers)
        self.output_size = channels * bins

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, mels), (batch,) -> (batch, ceil(frames / factor), output_size), (batch,)."""
        x = features.unsqueeze(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
            lengths = (lengths + 1) // 2
            x = x * valid_frames(lengths, x.size(2))[:, None, :, None].to(x.dtype)
        batch, channels, frames, bins = x.shape
        return x.transpose(1, 2).reshape(batch, frames, channels * bins), lengths


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """Boolean mask (batch, frames): True where a frame lies within its utterance's length."""
    return torch.arange(frames, device=lengths.device)[None, :] < lengths[:, None]
