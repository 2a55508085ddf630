"""The registry of encoders, which turn features into states for the output layer; `model.encoder` chooses one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from asr.config import nearest
from asr.model.config import ModelConfig
from asr.model.convolution import RecurrentConvolutionalEncoder
from asr.model.latency import LatencyControlledEncoder
from asr.model.recurrent import AfterLayer, RecurrentEncoder
from asr.model.self_attention import RecurrentAttentionEncoder
from asr.types import ConfigError


class Encoder(Protocol):
    """An encoder: an `nn.Module` made by `EncoderClass(options, n_mels)`.

    Its options are a subclass of ModelConfig whose `encoder` defaults to the name that the encoder is registered under.
    An encoder that can stream has a method `stream(after_layer)`, which returns an EncoderStream, or raises ConfigError
    if its options do not allow streaming.
    """

    output_size: int  # width of a state
    stride: int  # feature frames from one state to the next
    layer_sizes: tuple[int, ...]  # output width of each layer

    def __call__(
        self, features: Tensor, lengths: Tensor, after_layer: AfterLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (batch, frames, mels) and their lengths (batch,) -> states (batch, frames', width), lengths.

        The states of an utterance are the same alone and in any padded batch; beyond its length they are finite but
        meaningless. Rows of length 0 fill up a batch. If an encoder has the attribute `backward_size`, its last
        `backward_size` channels were computed from the end of the utterance to its start. If some shapes are slow on
        GPUs, a method `slow_shapes` may say so (see RecurrentEncoder).

        `after_layer` is called with the output of each layer and may change it, frame by frame. It may get more rows
        than the batch has. An encoder without `layer_sizes` is never given it, and cannot be trained on objectives that
        look at inner layers.
        """

    def output_length(self, frames: int) -> int:
        """The number of states for `frames` feature frames."""

    def initialize(self) -> None:
        """Draw the initial weights. Separate from the constructor so that loading a model does not pay for it."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


ENCODERS: dict[str, Any] = {
    "recurrent": RecurrentEncoder,
    "recurrent-convolutional": RecurrentConvolutionalEncoder,
    "recurrent-attention": RecurrentAttentionEncoder,
    "latency-controlled": LatencyControlledEncoder,
}


def build_encoder(options: ModelConfig, n_mels: int) -> Encoder:
    """The encoder of these options over `n_mels` mel bands. Raises ConfigError for one that is not registered."""
    if options.encoder not in ENCODERS:
        raise ConfigError(f"no encoder '{options.encoder}'{nearest(options.encoder, ENCODERS)}")
    return ENCODERS[options.encoder](options, n_mels)


@functools.lru_cache(maxsize=8)
def encoder_shape(options: ModelConfig, n_mels: int) -> Encoder:
    """An encoder on the meta device, for its lengths and sizes: it allocates no weights."""
    with torch.device("meta"):
        return build_encoder(options, n_mels)
