"""Latency-controlled layers against a loop over chunks, and streams against the whole utterance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.audio.features import FeatureConfig
from asr.model.acoustic import AcousticModel
from asr.model.blockwise import Blockwise
from asr.model.config import RecurrentConfig
from asr.model.encoders import ENCODERS
from asr.model.latency import LatencyControlledConfig, LatencyControlledEncoder
from asr.model.recurrent import RecurrentEncoder
from asr.model.self_attention import RecurrentAttentionConfig
from asr.model.streaming import AcousticStream
from asr.types import ConfigError

SMALL: dict[str, Any] = {"hidden_size": 6, "layers": 3, "subsampling_channels": 3, "dropout": 0.0}
CONFIG = LatencyControlledConfig(chunk=5, chunk_lookahead=3, **SMALL)


def chunk_by_chunk(encoder: LatencyControlledEncoder, features: Tensor) -> Tensor:
    """The states (frames, width) of one utterance (frames, mels): all layers over each chunk and its look-ahead."""
    [x], _ = encoder.front(features[None], torch.tensor([len(features)]))
    chunk, ahead = encoder.config.chunk, encoder.config.chunk_lookahead
    states: list[Any] = [None] * len(encoder.layers)
    found = []
    for first in range(0, len(x), chunk):
        window = x[None, first : first + chunk + ahead]
        for number, layer in enumerate(encoder.layers):
            out, states[number] = layer.forward_cell(window[:, :chunk], states[number])
            if window.size(1) > chunk:
                out = torch.cat([out, layer.forward_cell(window[:, chunk:], states[number])[0]], dim=1)
            backward = layer.backward_cell(window.flip(1))[0].flip(1)
            out = layer.norm(torch.cat([out, backward], dim=2))
            window = out if layer.skip is None else out + layer.skip(window)
        found.append(window[0, :chunk])
    return torch.cat(found)


@pytest.mark.parametrize("cell, residual, ahead", [("lstm", False, 3), ("gru", True, 7), ("rnn", False, 0)])
@torch.no_grad()
def test_all_chunks_at_once_are_the_chunks_in_turn(cell: Any, residual: bool, ahead: int) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, cell=cell, residual=residual, chunk_lookahead=ahead)
    encoder = LatencyControlledEncoder(config, 9).eval()
    lengths = torch.tensor([113, 0, 40, 18, 1])
    features = torch.randn(5, 117, 9)
    states, frames = encoder(features, lengths)
    assert states.isfinite().all()
    for row, length in enumerate(lengths.tolist()):
        if length:
            expected = chunk_by_chunk(encoder, features[row, :length])
            torch.testing.assert_close(states[row, : frames[row]], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_chunk_as_long_as_the_utterance_is_a_bidirectional_network() -> None:
    torch.manual_seed(0)
    encoder = LatencyControlledEncoder(replace(CONFIG, chunk=40), 9).eval()
    encoder.feature_norm.eps = 0.0
    plain = RecurrentEncoder(RecurrentConfig(**SMALL), 9).eval()
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("feature_norm")})
    features, lengths = torch.randn(2, 60, 9), torch.tensor([60, 33])
    features[1, 33:] = 0.0
    (states, frames), (expected, _) = encoder(features, lengths), plain(features, lengths)
    for row in (0, 1):
        torch.testing.assert_close(states[row, : frames[row]], expected[row, : frames[row]])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 4), st.integers(0, 7), st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_blocks_give_what_the_whole_sequence_gives(sizes: list[int], stride: int, before: int, after: int) -> None:
    def neighborhoods(x: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (before, after + stride))
        return padded.unfold(0, before + after + 1, stride)[: -(-len(x) // stride)].sum(1, keepdim=True)

    x = torch.randint(1, 1000, (sum(sizes),))
    blocks = Blockwise(neighborhoods, stride, (before, after), x[:0], 1)
    found = [blocks.feed(block) for block in x.split(sizes)]
    for count, outputs in zip(
        torch.tensor(sizes).cumsum(0).tolist(), torch.tensor([*map(len, found)]).cumsum(0), strict=True
    ):
        assert int(outputs) == max(0, (count - 1 - after) // stride + 1)  # none is given late
    assert torch.equal(torch.cat([*found, blocks.finish()]), neighborhoods(x) if len(x) else x[:, None])


def acoustic(config: RecurrentConfig, **features: Any) -> AcousticModel:
    torch.manual_seed(0)
    model = AcousticModel(config, FeatureConfig(n_mels=12, normalize="none", **features), vocab_size=5)
    for seed in (1, 2):  # running averages like those of speech
        model(torch.randn(1, 8000, generator=torch.Generator().manual_seed(seed)) * 0.1, torch.tensor([8000]))
    return model.eval()


CAUSAL = RecurrentConfig(bidirectional=False, **SMALL)


@pytest.mark.parametrize(
    "config, features",
    [
        (CONFIG, {}),
        (replace(CONFIG, frontend="vgg", cell="gru"), {"rate": 8000}),
        (replace(CONFIG, frontend="deepspeech2", subsampling=2), {}),
        (replace(CONFIG, self_conditioning=(1, 2)), {}),
        (replace(CAUSAL, lookahead=3), {}),
        (replace(CAUSAL, cell="rnn-relu", norm="batch", residual=True, projection=4), {"rate": 8000}),
    ],
)
@pytest.mark.parametrize("block", [160, 777, 9000])
@torch.no_grad()
def test_a_stream_gives_what_the_whole_recording_gives(config: RecurrentConfig, features: Any, block: int) -> None:
    model = acoustic(config, **features)
    for samples in (0, 90, 3100, 12345):
        waveform = torch.randn(samples) * 0.1
        stream = AcousticStream(model)
        found = torch.cat([*(stream.feed(part) for part in waveform.split(block)), stream.finish()])
        expected, frames = (
            model(waveform[None], torch.tensor([samples])) if samples else (found[None], torch.tensor([0]))
        )
        assert len(found) == int(frames[0])
        torch.testing.assert_close(found, expected[0, : len(found)], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_stream_waits_for_its_chunk_and_look_ahead_and_no_longer() -> None:
    model = acoustic(CONFIG)
    stream = AcousticStream(model)
    wait = (CONFIG.chunk_lookahead * 4 + 4) * 160 + 256  # samples: look-ahead, reach of the front end, half a window
    given = 0
    for count, part in enumerate((torch.randn(24000) * 0.1).split(160), 1):
        given += len(stream.feed(part))
        whole_chunks = max(0, count * 160 - wait) // (CONFIG.chunk * 4 * 160)
        assert given in (whole_chunks * CONFIG.chunk, (whole_chunks + 1) * CONFIG.chunk)
    assert given >= 30
    assert max(len(stream.features.held), 160 * len(stream.encoder.front.held)) < 4000  # nothing piles up


@pytest.mark.parametrize("config", [CONFIG, CAUSAL])
@torch.no_grad()
def test_what_is_done_after_layers_is_done_in_streams(config: RecurrentConfig) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[config.encoder](config, 9).eval()
    matrix = torch.randn(encoder.output_size, encoder.output_size)

    def after_layer(number: int, x: Tensor, lengths: Tensor) -> Tensor:
        return x + torch.tanh(x @ matrix * number)

    features = torch.randn(2, 93, 9)
    states, _ = encoder(features, torch.tensor([93, 60]), after_layer)
    stream = encoder.stream(after_layer)
    found = torch.cat([*(stream.feed(part) for part in features[0].split(11)), stream.finish()])
    torch.testing.assert_close(found, states[0], atol=1e-5, rtol=1e-5)


def test_a_model_that_cannot_stream_says_why() -> None:
    for config in (RecurrentConfig(**SMALL), RecurrentAttentionConfig(bidirectional=False, attention_heads=3, **SMALL)):
        with pytest.raises(
            ConfigError, match="streams need encoder latency-controlled, or encoder recurrent in one dir"
        ):
            AcousticStream(AcousticModel(config, FeatureConfig(n_mels=9, normalize="none"), 5))
    with pytest.raises(ConfigError, match=r"train with features\.normalize=none"):
        AcousticStream(AcousticModel(CONFIG, FeatureConfig(n_mels=9), 5))
