"""The larger encoders against slow references, and what the protocol asks of each that is registered."""

from __future__ import annotations

import cmath
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from asr.config import from_dict
from asr.model.config import ModelConfig, RecurrentConfig
from asr.model.convolution import ConvolutionModule, RecurrentConvolutionalConfig
from asr.model.encoders import ENCODERS, encoder_shape
from asr.model.latency import LatencyControlledConfig
from asr.model.self_attention import AttentionLayer, RecurrentAttentionConfig
from asr.types import ConfigError

SMALL = RecurrentConfig(hidden_size=12, layers=2, subsampling_channels=4, dropout=0.0)
SIZES = {name: getattr(SMALL, name) for name in ("hidden_size", "layers", "subsampling_channels", "dropout")}
KINDS: list[ModelConfig] = [
    SMALL,
    replace(SMALL, frontend="vgg"),
    replace(SMALL, frontend="deepspeech2", subsampling=2),
    RecurrentConvolutionalConfig(**SIZES, convolution_kernel=5),
    RecurrentAttentionConfig(**SIZES, attention_layers=2, attention_heads=3, feed_forward=10),
    LatencyControlledConfig(**SIZES, chunk=4, chunk_lookahead=2),
]


def name_of(config: ModelConfig) -> str:
    return f"{config.encoder}-{getattr(config, 'frontend', '')}"


@torch.no_grad()
def test_attention_depends_on_distances_and_valid_frames_alone() -> None:
    torch.manual_seed(0)
    width, heads = 12, 3
    layer = AttentionLayer(width, heads, feed_forward=7, dropout=0.0).double()
    lengths = torch.tensor([6, 0, 4])
    x = torch.randn(3, 8, width, dtype=torch.float64)
    out = layer(x, lengths)
    assert out.isfinite().all()
    size = width // heads
    for row in (0, 2):
        frames = x[row, : int(lengths[row])]
        queries, keys, values = layer.queries_keys_values(layer.norm(frames)).chunk(3, dim=1)
        mixed = torch.zeros_like(frames)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for i, query in enumerate(queries[:, part]):
                scores = [product(query, key, j - i) / math.sqrt(size) for j, key in enumerate(keys[:, part])]
                mixed[i, part] = torch.softmax(torch.tensor(scores, dtype=x.dtype), dim=0) @ values[:, part]
        y = frames + layer.mixed(mixed)
        y = layer.last_norm(y + layer.feed_forward(y))
        torch.testing.assert_close(out[row, : len(frames)], y)


def product(query: Tensor, key: Tensor, distance: int) -> float:
    """Of a query and a key, as complex numbers, of which the key's are turned by angles that grow with the distance."""
    half = len(query) // 2
    pairs = [(complex(v[k], v[k + half])) for v in (query, key) for k in range(half)]
    turned = [key * cmath.exp(1j * distance * 10000.0 ** (-k / half)) for k, key in enumerate(pairs[half:])]
    return sum((q.conjugate() * k).real for q, k in zip(pairs[:half], turned, strict=True))


@torch.no_grad()
def test_the_convolution_module_is_conformers_on_each_utterance() -> None:
    torch.manual_seed(0)
    module = ConvolutionModule(4, 5, dropout=0.0)
    lengths = torch.tensor([7, 2, 0])
    x = torch.randn(3, 9, 4)
    out = module(x, lengths)
    assert out.isfinite().all()
    for row in (0, 1):
        frames = x[row, : int(lengths[row])]
        value, gate = module.gated(module.norm(frames)).chunk(2, dim=1)
        gated = value * gate.sigmoid()
        convolved = torch.zeros_like(frames)
        for t in range(len(frames)):
            for k in range(5):
                if 0 <= t + k - 2 < len(frames):
                    convolved[t] += module.depthwise.weight[:, 0, k] * gated[t + k - 2]
        normed = module.inner_norm(convolved + module.depthwise.bias)
        expected = frames + module.pointwise(normed * normed.sigmoid())
        torch.testing.assert_close(out[row, : len(frames)], expected)


@pytest.mark.parametrize("config", KINDS, ids=name_of)
def test_after_each_layer_its_output_is_seen(config: ModelConfig) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[config.encoder](config, 20)
    encoder.initialize()
    features, lengths = torch.randn(4, 53, 20), torch.tensor([53, 0, 1, 30])
    seen: list[tuple[int, Tensor, Tensor]] = []

    def after_layer(number: int, x: Tensor, lengths: Tensor) -> Tensor:
        seen.append((number, x[:4], lengths[:4]))
        return x

    states, frames = encoder(features, lengths, after_layer)
    assert states.isfinite().all() and states.size(2) == encoder.output_size
    shape = encoder_shape(config, 20)
    assert frames.tolist() == [shape.output_length(length) for length in lengths.tolist()]
    assert [number for number, _, _ in seen] == list(range(1, len(encoder.layer_sizes) + 1))
    assert tuple(x.size(2) for _, x, _ in seen) == encoder.layer_sizes
    assert all(x.size(1) == states.size(1) and torch.equal(n, frames) for _, x, n in seen)
    assert torch.equal(seen[-1][1], states)


@pytest.mark.parametrize(
    "values, problem",
    [
        ({"encoder": "recurrent-convolutional", "convolution_kernel": 4}, "convolution_kernel must be an odd number"),
        ({"encoder": "recurrent-attention", "attention_heads": 0}, "attention_heads must be at least 1"),
        ({"encoder": "recurrent-attention", "attention_heads": 5}, "twice attention_heads must divide .* 768, found 5"),
        ({"encoder": "latency-controlled", "chunk": 0}, "chunk must be at least 1 frame"),
        ({"encoder": "latency-controlled", "bidirectional": False}, "for one direction choose encoder recurrent"),
        ({"encoder": "latency-controlled", "cell": "ligru"}, "take cells lstm, gru, rnn, rnn-relu, found ligru"),
        ({"encoder": "latency-controlled", "zoneout": 0.1}, "latency-controlled layers have no zoneout"),
    ],
)
def test_options_that_cannot_be_are_one_line(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"model: .*{problem}"):
        from_dict(ModelConfig, values, "model")


def test_all_encoders_are_tested() -> None:
    assert {config.encoder for config in KINDS} == set(ENCODERS)
