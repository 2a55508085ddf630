"""The registry of encoders, which turn features into the states under the output layer; `model.encoder` chooses."""

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
    """What the rest of the package asks of an encoder, an `nn.Module` made by `EncoderClass(options, n_mels)`.

    Its options are a subclass of ModelConfig, whose `encoder` defaults to the name the encoder is registered by. One
    that can give states while features come has a method `stream(after_layer)`, which returns an EncoderStream, or
    raises ConfigError where its options do not allow it.
    """

    output_size: int  # width of a state
    stride: int  # feature frames from one state to the next

    layer_sizes: tuple[int, ...]  # width of the output of each layer

    def __call__(
        self, features: Tensor, lengths: Tensor, after_layer: AfterLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features (batch, frames, mels) and their lengths (batch,) -> states (batch, frames', width), lengths.

        The states of an utterance are the same alone and in any padded batch; beyond its length they mean nothing, but
        are finite. A length may be 0: such rows only fill up the batch. An encoder that is slow on GPUs in some shapes
        may say so in a method `slow_shapes` (see RecurrentEncoder). The last `backward_size` channels, where an
        encoder has that attribute, were computed from the end of the utterance to its start.

        `after_layer` sees, and may change, the output of each layer, frame by frame and possibly of more rows than the
        batch has; one without `layer_sizes` is never given it, and cannot be trained on objectives that look inside.
        """

    def output_length(self, frames: int) -> int:
        """States made of `frames` feature frames."""

    def initialize(self) -> None:
        """Draw the initial weights; not in the constructor, because loading a model must not pay for it."""

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
    encoder: Encoder = ENCODERS[options.encoder](options, n_mels)
    return encoder


@functools.lru_cache(maxsize=8)
def encoder_shape(options: ModelConfig, n_mels: int) -> Encoder:
    """An encoder without memory for its weights, which knows lengths and sizes before there is a model."""
    with torch.device("meta"):
        return build_encoder(options, n_mels)
