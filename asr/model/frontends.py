"""The front ends, which turn features into fewer, wider frames by convolution. An encoder's `frontend` chooses one.

Frames beyond an utterance's length are set to zero before each convolution and pooling, just as the convolution pads
the end of an unpadded utterance with zeros, so that padding never leaks into the states.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.cells import MaskedBatchNorm
from asr.model.padding import valid_frames, zero_padding

Length = TypeVar("Length", int, Tensor)


class FrontEnd(Protocol):
    """An `nn.Module`, made by `FrontEndClass(n_mels, factor, channels)`."""

    output_size: int
    reach: tuple[int, int]  # output frame t depends on feature frames t * factor - reach[0] to t * factor + reach[1]

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, mels), (batch,) -> (batch, ceil(frames / factor), output_size), (batch,)."""


def subsampled_length(frames: Length, factor: int) -> Length:
    """`frames` (int or tensor) after subsampling by `factor`, a power of 2, rounded up."""
    return (frames + factor - 1) // factor


class ConvSubsampling(nn.Module):
    """log2(factor) layers of Conv2d(kernel 3, stride 2) + ReLU."""

    def __init__(self, n_mels: int, factor: int, channels: int) -> None:
        super().__init__()
        self.reach = (factor - 1, factor - 1)
        layers: list[nn.Module] = []
        inputs, bins = 1, n_mels
        while factor > 1:
            layers.append(nn.Conv2d(inputs, channels, kernel_size=3, stride=2, padding=1))
            inputs, bins, factor = channels, (bins + 1) // 2, factor // 2
        self.layers = nn.ModuleList(layers)
        self.output_size = channels * bins

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `FrontEnd`."""
        x = _masked(features.unsqueeze(1), lengths)
        for layer in self.layers:
            lengths = (lengths + 1) // 2
            x = _masked(torch.relu(layer(x)), lengths)
        return _frames(x), lengths


class VGG(nn.Module):
    """Two blocks of two 3x3 convolutions with ReLU and 2x2 max pooling (Hori et al., 2017, after Simonyan & Zisserman,
    2014), the second with twice the channels. Pooling rounds lengths up, as in ESPnet's VGG2L.
    """

    def __init__(self, n_mels: int, factor: int, channels: int) -> None:
        super().__init__()
        if factor != 4:
            raise ValueError(f"VGG blocks subsample by 4, not by {factor}")
        self.reach = (6, 9)
        widths = (1, channels, channels, 2 * channels, 2 * channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs, outputs, kernel_size=3, padding=1) for inputs, outputs in itertools.pairwise(widths)
        )
        self.output_size = widths[-1] * ((n_mels + 3) // 4)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `FrontEnd`."""
        x = _masked(features.unsqueeze(1), lengths)
        for number, layer in enumerate(self.layers):
            x = _masked(torch.relu(layer(x)), lengths)
            if number % 2:  # no value is below 0, so zeros in the padding never win
                x = functional.max_pool2d(x, 2, ceil_mode=True)
                lengths = (lengths + 1) // 2
        return _frames(x), lengths


class DeepSpeech2(nn.Module):
    """Convolutions of 41 bins x 11 frames, strides 2 x 2, and of 21 x 11, strides 2 x factor / 2, each with batch norm
    and clipped ReLU (Amodei et al., 2016, "Deep Speech 2", which has factor 2).
    """

    def __init__(self, n_mels: int, factor: int, channels: int) -> None:
        super().__init__()
        if factor not in (2, 4):
            raise ValueError(f"the convolutions of Deep Speech 2 subsample by 2 or 4, not by {factor}")
        self.reach = (15, 15)
        first = nn.Conv2d(1, channels, (11, 41), stride=(2, 2), padding=(5, 20), bias=False)
        second = nn.Conv2d(channels, channels, (11, 21), stride=(factor // 2, 2), padding=(5, 10), bias=False)
        self.layers = nn.ModuleList([first, second])
        self.norms = nn.ModuleList(MaskedBatchNorm(channels) for _ in self.layers)
        self.time_strides = (2, factor // 2)
        self.output_size = channels * ((n_mels + 3) // 4)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See `FrontEnd`."""
        x = _masked(features.unsqueeze(1), lengths)
        for layer, norm, stride in zip(self.layers, self.norms, self.time_strides, strict=True):
            lengths = subsampled_length(lengths, stride)
            x = layer(x).permute(0, 2, 3, 1)
            _, frames, bins, _ = x.shape
            valid = valid_frames(lengths, frames).repeat_interleave(bins, dim=1)  # one value per bin and frame
            x = norm(x.flatten(1, 2), valid).unflatten(1, (frames, bins)).permute(0, 3, 1, 2)
            x = _masked(functional.hardtanh(x, 0.0, 20.0), lengths)
        return _frames(x), lengths


FRONT_ENDS: dict[str, Callable[[int, int, int], FrontEnd]] = {
    "conv": ConvSubsampling,
    "vgg": VGG,
    "deepspeech2": DeepSpeech2,
}


def _masked(x: Tensor, lengths: Tensor) -> Tensor:
    """(batch, channels, frames, bins) with zeros beyond each length."""
    return zero_padding(x.transpose(1, 2), lengths).transpose(1, 2)


def _frames(x: Tensor) -> Tensor:
    """(batch, channels, frames, bins) -> (batch, frames, channels * bins)."""
    return x.transpose(1, 2).flatten(2)
