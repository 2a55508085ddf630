"""The shape of an acoustic model, as recipes and model files describe it."""

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
    """A recurrent decoder with attention (Chorowski et al., 2015), trained by the objective `attention`.

    `attention` chooses how the states of encoder and decoder are compared, in `attention_size` dimensions: `location`
    is additive, and sees the attention weights of the previous step through `location_channels` filters over
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
    """`encoder` names an encoder in `asr.model.encoders.ENCODERS`, whose options are a subclass of this class.

    With `decoder`, the model has an attention decoder besides the CTC output layer. `self_conditioning` lists layers,
    from 1, whose posteriors are fed to the next layer (see `asr.model.conditioning`). `SHAPELESS` names the options
    that may differ between models that share weights.
    """

    SHAPELESS: ClassVar[tuple[str, ...]] = ()

    encoder: str = "recurrent"
    self_conditioning: tuple[int, ...] = ()
    decoder: DecoderConfig | None = field(default=None, kw_only=True)

    @classmethod
    def chosen(cls, values: Mapping[str, Any], where: str) -> type[ModelConfig]:
        """The options of the encoder that `values` name (see `asr.config.from_dict`)."""
        known = _by_encoder(ModelConfig)
        name = str(values.get("encoder", cls.encoder))
        if name not in known:
            raise ConfigError(f"{where}.encoder: no encoder '{name}'{nearest(name, known)}")
        return known[name]


def _by_encoder(options: type[ModelConfig]) -> dict[str, type[ModelConfig]]:
    """The subclasses of `options`, at any depth, by the name of their encoder."""
    known: dict[str, type[ModelConfig]] = {}
    for subclass in options.__subclasses__():
        known |= {subclass.encoder: subclass} | _by_encoder(subclass)
    return known


SUBSAMPLING = {"conv": (2, 4, 8), "vgg": (4,), "deepspeech2": (2, 4)}  # the factors that each front end supports


@dataclass(frozen=True)
class RecurrentConfig(ModelConfig):
    """A convolutional front end and recurrent layers, under a linear layer over the vocabulary.

    Front end
    - `frontend`: `conv`, strided convolutions (by 2, 4 or 8); `vgg` (by 4; its second block has twice
      `subsampling_channels`); `deepspeech2` (by 2 or 4): see `asr.model.frontends`

    Cells
    - `lstm` (Hochreiter & Schmidhuber, 1997), `gru` (Cho et al., 2014), `rnn` with tanh (Elman, 1990)
    - `rnn-relu`: a plain RNN with ReLU, whose recurrent matrix starts as half the identity (Le et al., 2015)
    - `ligru`: Light GRU, without reset gate, with ReLU and batch norm on its input (Ravanelli et al., 2018)
    - `bidirectional`: two cells per layer, one of them backward in time (Schuster & Paliwal, 1997)

    Layers
    - `projection` > 0: the width of a linear layer after the cells, which shrinks the input of the next layer (Sak et
      al., 2014)
    - `norm` of each layer's output and of the first layer's input: `layer` (Ba et al., 2016), `batch` over the valid
      frames of all utterances (Ioffe & Szegedy, 2015; Amodei et al., 2016), or `none`
    - `residual`: adds each layer's input to its output, through a linear layer if widths differ (He et al., 2016)
    - `time_reduction`: the layers, from 1, whose input frames are joined in pairs (Chan et al., 2016)
    - `lookahead`: future frames that a unidirectional model sees, by a convolution over each channel above the last
      layer (Wang et al., 2016)

    Regularization, in training only except for zoneout
    - `dropout` between layers, and `input_dropout` on the subsampled features (Srivastava et al., 2014)
    - `variational_dropout`: both drop the same channels in all frames of an utterance (Gal & Ghahramani, 2016)
    - `weight_dropout`: share of recurrent weights dropped in a step (Merity et al., 2018)
    - `zoneout`: share of units that keep their previous value (Krueger et al., 2017). Evaluation mixes in that share,
      so it is part of the model. It needs a loop over frames: 1.7 times the time of an LSTM on a CPU, more on a GPU
    - `layer_drop`: share of layers that an utterance skips by the residual connection (Huang et al., 2016; Fan et al.,
      2020)

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
        """Values from when layer norm was the only norm, and its switch `layer_norm`."""
        if not isinstance(old := values.get("layer_norm"), bool):
            return values
        norm = "layer" if old else "none"
        if values.get("norm", norm) != norm:
            raise ConfigError(f"{where}: layer_norm (now norm) means '{norm}', but norm is '{values['norm']}'")
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
            raise ValueError("lookahead is for unidirectional models: set bidirectional to false")
        if self.layer_drop and not self.residual:
            raise ValueError("layer_drop needs residual connections: set residual to true")
        reduced = self.time_reduction
        if len(set(reduced)) < len(reduced) or not set(reduced) <= set(range(1, self.layers + 1)):
            raise ValueError(f"time_reduction takes layers from 1 to {self.layers}, each once, found {list(reduced)}")


def described_options(options: Mapping[str, Any]) -> str:
    """The encoder and its options in one line, without those that are off by default and were left off."""
    encoder = options.get("encoder", ModelConfig.encoder)
    defaults = _by_encoder(ModelConfig).get(encoder, ModelConfig)
    shown = {k: v for k, v in options.items() if k not in ("encoder", "decoder") and (v or getattr(defaults, k, None))}
    text = f"{encoder}: " + ", ".join(f"{name} {value}" for name, value in shown.items())
    if decoder := options.get("decoder"):
        text += "; attention decoder: " + ", ".join(f"{name} {value}" for name, value in decoder.items())
    return text
