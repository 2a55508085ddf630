"""The shape of an acoustic model, as it stands in recipes and in model files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """Convolutional subsampling, then recurrent layers, then a linear layer over the vocabulary.

    `projection` > 0 puts a linear layer of that width after each recurrent layer, which shrinks the input of the next.
    `dropout` acts between layers, `input_dropout` on the subsampled features.
    """

    subsampling: Literal[2, 4, 8] = 4
    subsampling_channels: int = 32
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    hidden_size: int = 320
    layers: int = 3
    bidirectional: bool = True
    layer_norm: bool = True
    dropout: float = 0.2
    input_dropout: float = 0.0
    projection: int = 0

    def __post_init__(self) -> None:
        for name in ("subsampling_channels", "hidden_size", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("dropout", "input_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), found {getattr(self, name)}")
        if self.projection < 0:
            raise ValueError(f"projection must be 0 (off) or a width, found {self.projection}")
