"""The shape of an acoustic model, as it stands in recipes and in model files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from asr.config import nearest
from asr.types import ConfigError

CLASSIFICATION = "classification"  # the task of models that name a class instead of writing a text
Pool = Literal["mean", "attention", "last"]


@dataclass(frozen=True)
class DecoderConfig:
    """A recurrent decoder with attention (Chorowski et al., 2015), which the objective `attention` trains.

    `attention` chooses how states of the encoder are compared with the decoder's, in `attention_size` dimensions:
    `location`, additive, sees where the attention was in the step before, through `location_channels` filters over
    `location_width` states (odd); `dot` is the scaled dot product. `dropout` acts on embeddings and before the output.
    """

    cell: Literal["lstm", "gru"] = "lstm"
    hidden_size: int = 256
    layers: int = 1
    embedding_size: int = 128
    attention: Literal["location", "dot"] = "location"
    attention_size: int = 128
    location_channels: int = 10
    location_width: int = 51
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("hidden_size", "layers", "embedding_size", "attention_size", "location_channels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.location_width < 1 or self.location_width % 2 == 0:
            raise ValueError(f"location_width must be odd, found {self.location_width}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), found {self.dropout}")


@dataclass(frozen=True)
class ModelConfig:
    """`encoder` names the encoder in the registry `asr.model.encoders.ENCODERS`; its options are a subclass of this.

    With `decoder`, the model has an attention decoder beside the CTC output layer. `SHAPELESS` names the options that
    may change between models that share their weights. `self_conditioning` numbers layers, from 1, whose posteriors are
    fed to the next layer (see `asr.model.conditioning`).
    """

    SHAPELESS: ClassVar[tuple[str, ...]] = ()

    encoder: str = "recurrent"
    self_conditioning: tuple[int, ...] = ()
    decoder: DecoderConfig | None = field(default=None, kw_only=True)

    @classmethod
    def chosen(cls, values: Mapping[str, Any], where: str) -> type[ModelConfig]:
        """The dataclass that nested values are read into: that of their encoder (see `asr.config.from_dict`)."""
        known = {options.encoder: options for options in _derived(ModelConfig)}
        name = str(values.get("encoder", cls.encoder))
        if name not in known:
            raise ConfigError(f"{where}.encoder: no encoder '{name}'{nearest(name, known)}")
        return known[name]

    @classmethod
    def renamed(cls, values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """Nested values, as older recipes and model files have them, with the names that options have today."""
        return values


def _derived(options: type[ModelConfig]) -> list[type[ModelConfig]]:
    return [one for derived in options.__subclasses__() for one in (derived, *_derived(derived))]


SUBSAMPLING = {"conv": (2, 4, 8), "vgg": (4,), "deepspeech2": (2, 4)}  # that each front end can do


@dataclass(frozen=True)
class RecurrentConfig(ModelConfig):
    """A convolutional front end, recurrent layers, and above them a linear layer over the vocabulary.

    Front end
    - `frontend`: `conv`, strided convolutions (by 2, 4 or 8); `vgg` (by 4; its second block has twice
      `subsampling_channels`); `deepspeech2` (by 2 or 4): see `asr.model.frontends`

    Cells
    - `lstm` (Hochreiter & Schmidhuber, 1997), `gru` (Cho et al., 2014), `rnn` with tanh (Elman, 1990)
    - `rnn-relu`: a plain RNN with ReLU whose recurrence begins as half the identity (Le et al., 2015)
    - `ligru`: Light GRU, without reset gate, with ReLU and batch norm on its input (Ravanelli et al., 2018)
    - `bidirectional`: two cells a layer, one of them backward in time (Schuster & Paliwal, 1997)

    Layers
    - `projection` > 0: a linear layer of that width after the cells, which shrinks the input of the next layer (Sak et
      al., 2014)
    - `norm`: of each layer's output and the first one's input: `layer` (Ba et al., 2016), `batch` over the valid frames
      of all utterances (Ioffe & Szegedy, 2015; Amodei et al., 2016), or `none`
    - `residual`: each layer's input is added to its output, through a linear layer where widths differ (He et al.,
      2016)
    - `time_reduction`: the layers, from 1, that read what is below them in pairs of frames (Chan et al., 2016)
    - `lookahead`: frames of the future that a one-directional model sees, by a convolution over each channel above the
      last layer (Wang et al., 2016)

    Regularization, in training only but for zoneout
    - `dropout` between layers, and `input_dropout` on the subsampled features (Srivastava et al., 2014)
    - `variational_dropout`: both drop the same channels in all frames of an utterance (Gal & Ghahramani, 2016)
    - `weight_dropout`: share of recurrent weights that a step does without (Merity et al., 2018)
    - `zoneout`: share of units that keep the value of the frame before (Krueger et al., 2017); evaluation mixes in that
      share, so it is part of the model. A loop over frames: on a CPU 1.7 times the time of an LSTM, on a GPU more
    - `layer_drop`: share of layers that an utterance goes around by the residual connection (Huang et al., 2016; Fan et
      al., 2020)

    On NVIDIA GPUs an LSTM is about three times faster in half precision (`trainer.precision=bf16-mixed`) where
    `hidden_size` is a multiple of 128 up to 1024. `projection`, and the first layer's input, which is
    `subsampling_channels` * `n_mels` / `subsampling` wide, should be multiples of 128 too.
    """

    SHAPELESS: ClassVar[tuple[str, ...]] = (
        "dropout",
        "input_dropout",
        "variational_dropout",
        "weight_dropout",
        "layer_drop",
    )

    frontend: Literal["conv", "vgg", "deepspeech2"] = "conv"
    subsampling: Literal[2, 4, 8] = 4
    subsampling_channels: int = 32
    cell: Literal["lstm", "gru", "rnn", "rnn-relu", "ligru"] = "lstm"
    hidden_size: int = 384
    layers: int = 3
    bidirectional: bool = True
    norm: Literal["layer", "batch", "none"] = "layer"
    dropout: float = 0.2
    input_dropout: float = 0.0
    projection: int = 0
    residual: bool = False
    time_reduction: tuple[int, ...] = ()
    lookahead: int = 0
    variational_dropout: bool = False
    weight_dropout: float = 0.0
    zoneout: float = 0.0
    layer_drop: float = 0.0

    @classmethod
    def renamed(cls, values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """Values from when there was only layer norm, as `layer_norm`, with its present name."""
        if not isinstance(old := values.get("layer_norm"), bool):
            return values
        norm = "layer" if old else "none"
        if values.get("norm", norm) != norm:
            raise ConfigError(f"{where}: layer_norm, the old name of norm, says '{norm}', norm '{values['norm']}'")
        return {"norm": norm} | {key: value for key, value in values.items() if key != "layer_norm"}

    def __post_init__(self) -> None:
        if self.subsampling not in (allowed := SUBSAMPLING[self.frontend]):
            raise ValueError(
                f"frontend {self.frontend} needs a subsampling of {' or '.join(map(str, allowed))}, "
                f"found {self.subsampling}"
            )
        for name in ("subsampling_channels", "hidden_size", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("dropout", "input_dropout", "weight_dropout", "zoneout", "layer_drop"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), found {getattr(self, name)}")
        if self.projection < 0:
            raise ValueError(f"projection must be 0 (off) or a width, found {self.projection}")
        if self.lookahead < 0:
            raise ValueError(f"lookahead must be 0 (off) or a number of frames, found {self.lookahead}")
        if self.lookahead and self.bidirectional:
            raise ValueError("lookahead is for one-directional models: set bidirectional to false")
        if self.layer_drop and not self.residual:
            raise ValueError("layer_drop needs the connections around the layers: set residual to true")
        reduced = self.time_reduction
        if len(set(reduced)) < len(reduced) or not set(reduced) <= set(range(1, self.layers + 1)):
            raise ValueError(f"time_reduction names layers from 1 to {self.layers}, each once, found {list(reduced)}")


def described_options(options: Mapping[str, Any]) -> str:
    """The encoder and its options, as a recipe or a model file has them, in one line."""
    given = {n: v for n, v in options.items() if n not in ("encoder", "decoder") and v not in ([], ())}
    rest = ", ".join(f"{name} {value}" for name, value in given.items())
    text = f"{options.get('encoder', ModelConfig.encoder)}: {rest}"
    if decoder := options.get("decoder"):
        text += "; attention decoder: " + ", ".join(f"{name} {value}" for name, value in decoder.items())
    return text
