"""The shape of an acoustic model, as it stands in recipes and in model files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from asr.config import nearest
from asr.types import ConfigError

CLASSIFICATION = "classification"  # the task of models that name a class instead of writing a text
Pool = Literal["mean", "attention", "last"]


@dataclass(frozen=True)
class ModelConfig:
    """`encoder` names the encoder in the registry `asr.model.encoders.ENCODERS`; its options are a subclass of this.

    `SHAPELESS` names the options that may change between models that share their weights.
    """

    SHAPELESS: ClassVar[tuple[str, ...]] = ()

    encoder: str = "recurrent"

    @classmethod
    def chosen(cls, values: Mapping[str, Any], where: str) -> type[ModelConfig]:
        """The dataclass that nested values are read into: that of their encoder (see `asr.config.from_dict`)."""
        known = {options.encoder: options for options in _derived(ModelConfig)}
        name = str(values.get("encoder", cls.encoder))
        if name not in known:
            raise ConfigError(f"{where}.encoder: no encoder '{name}'{nearest(name, known)}")
        return known[name]


def _derived(options: type[ModelConfig]) -> list[type[ModelConfig]]:
    return [one for derived in options.__subclasses__() for one in (derived, *_derived(derived))]


@dataclass(frozen=True)
class RecurrentConfig(ModelConfig):
    """Convolutional subsampling, then recurrent layers, then a linear layer over the vocabulary.

    `projection` > 0 puts a linear layer of that width after each recurrent layer, which shrinks the input of the next.
    `dropout` acts between layers, `input_dropout` on the subsampled features.

    On NVIDIA GPUs an LSTM is about three times faster in half precision (`trainer.precision=bf16-mixed`) where
    `hidden_size` is a multiple of 128 up to 1024. `projection`, and the first layer's input, which is
    `subsampling_channels` * `n_mels` / `subsampling` wide, should be multiples of 128 too.
    """

    SHAPELESS: ClassVar[tuple[str, ...]] = ("dropout", "input_dropout")

    subsampling: Literal[2, 4, 8] = 4
    subsampling_channels: int = 32
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    hidden_size: int = 384
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


def described_options(options: Mapping[str, Any]) -> str:
    """The encoder and its options, as a recipe or a model file has them, in one line."""
    rest = ", ".join(f"{name} {value}" for name, value in options.items() if name != "encoder")
    return f"{options.get('encoder', ModelConfig.encoder)}: {rest}"
