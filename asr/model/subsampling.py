"""Convolutional subsampling: strided convolutions that shorten the sequence the recurrence must walk."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Length = TypeVar("Length", int, Tensor)


def subsampled_length(frames: Length, factor: int) -> Length:
    """Frames left of `frames` (int or tensor) after subsampling by `factor`: one ceiling division by 2 per layer."""
    while factor > 1:
        frames = (frames + 1) // 2
        factor //= 2
    return frames


class ConvSubsampling(nn.Module):
    """log2(factor) layers of Conv2d(kernel 3, stride 2) + ReLU, after Deep Speech 2 (Amodei et al., 2016).

    Whatever lies beyond an utterance's own length is set to zero before each convolution, which is what the convolution
    itself pads with at the end of an unpadded utterance: so padding never leaks (PAINS of every surveyed peer).
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
