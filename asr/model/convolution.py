"""The encoder `recurrent-convolutional`: a depthwise convolution module after each recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from asr.model.config import RecurrentConfig
from asr.model.padding import zero_padding
from asr.model.recurrent import RecurrentEncoder, RecurrentLayer


@dataclass(frozen=True)
class RecurrentConvolutionalConfig(RecurrentConfig):
    """The options of `recurrent`, and `convolution_kernel`, the width of each convolution in frames (odd)."""

    encoder: str = "recurrent-convolutional"
    convolution_kernel: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.convolution_kernel < 1 or self.convolution_kernel % 2 == 0:
            raise ValueError(f"convolution_kernel must be an odd number, found {self.convolution_kernel}")


class ConvolutionModule(nn.Module):
    """Conformer's convolution module (Gulati et al., 2020, section 2.2), with a residual connection.

    Layer norm replaces its batch norm, so that the output does not depend on the batch or on the training mode.
    """

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gated = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.inner_norm = nn.LayerNorm(width)
        self.pointwise = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, width), lengths (batch,) -> the same shape."""
        y = zero_padding(functional.glu(self.gated(self.norm(x))), lengths)
        y = self.depthwise(y.transpose(1, 2)).transpose(1, 2)
        y = self.pointwise(functional.silu(self.inner_norm(y)))
        return x + self.dropout(y)


class ConvolvedLayer(nn.Module):
    """A recurrent layer and a convolution module."""

    def __init__(self, recurrent: RecurrentLayer, config: RecurrentConvolutionalConfig) -> None:
        super().__init__()
        self.recurrent, self.output_size = recurrent, recurrent.output_size
        self.convolution = ConvolutionModule(self.output_size, config.convolution_kernel, config.dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, input_size), lengths (batch,) -> (batch, frames, output_size)."""
        return self.convolution(self.recurrent(x, lengths), lengths)


class RecurrentConvolutionalEncoder(RecurrentEncoder):
    """A front end, then recurrent layers, each with a convolution module."""

    def __init__(self, config: RecurrentConvolutionalConfig, n_mels: int) -> None:
        super().__init__(config, n_mels)
        self.layers = nn.ModuleList(ConvolvedLayer(cast(RecurrentLayer, layer), config) for layer in self.layers)
