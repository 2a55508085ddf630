"""Invariants of the acoustic model: exact bidirectional recurrence, batch invariance everywhere, lengths."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.audio.features import FeatureConfig
from asr.config import from_dict, to_dict
from asr.model.acoustic import AcousticModel, output_length
from asr.model.checkpoint import load_model, save_model
from asr.model.config import RecurrentConfig
from asr.model.encoders import build_encoder
from asr.model.padding import reversal_index, reverse_within_length, valid_frames
from asr.model.recurrent import RecurrentLayer
from asr.text.tokenizer import CharTokenizer

PACKED = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
ARCHITECTURES = [
    RecurrentConfig(
        cell=cell,
        bidirectional=bidirectional,
        subsampling=subsampling,
        projection=projection,
        norm=norm,  # type: ignore[arg-type]
        hidden_size=12,
        layers=2,
        subsampling_channels=4,
    )
    for cell, bidirectional, (subsampling, projection, norm) in itertools.product(
        ("lstm", "gru", "rnn"), (True, False), ((2, 0, "layer"), (4, 7, "none"), (8, 7, "layer"))
    )
]
OPTIONS: list[dict[str, Any]] = [
    {"cell": "rnn-relu"},
    {"cell": "ligru"},
    {"cell": "ligru", "bidirectional": False, "zoneout": 0.2, "weight_dropout": 0.3},
    {"norm": "batch", "projection": 7},
    {"residual": True, "layers": 3},
    {"residual": True, "layer_drop": 0.5, "projection": 7, "norm": "none"},
    {"subsampling": 2, "time_reduction": [1, 3], "layers": 3, "residual": True, "norm": "batch"},
    {"bidirectional": False, "lookahead": 5},
    {"variational_dropout": True, "dropout": 0.3, "input_dropout": 0.2},
    {"weight_dropout": 0.3},
    *({"cell": cell, "zoneout": 0.2} for cell in ("lstm", "gru", "rnn")),
    {"frontend": "vgg"},
    {"frontend": "deepspeech2", "subsampling": 2},
    {"encoder": "recurrent-convolutional", "convolution_kernel": 7},
    {"encoder": "recurrent-attention", "attention_heads": 3},
    {"encoder": "latency-controlled", "chunk": 6, "chunk_lookahead": 3},
]
OPTIONAL = [
    from_dict(RecurrentConfig, {"hidden_size": 12, "layers": 2, "subsampling_channels": 4} | options)
    for options in OPTIONS
]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_bidirectional_layer_equals_packed_sequence(cell: str) -> None:
    torch.manual_seed(0)
    config = RecurrentConfig(cell=cell, hidden_size=16, norm="none", dropout=0.0)  # type: ignore[arg-type]
    layer = RecurrentLayer(config, 10)
    packed = PACKED[cell](10, 16, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, parameter in layer.forward_cell.named_parameters():
            getattr(packed, name).copy_(parameter)
        for name, parameter in layer.backward_cell.named_parameters():
            getattr(packed, f"{name}_reverse").copy_(parameter)
    lengths = torch.tensor([9, 31, 1, 17])
    x = torch.randn(4, 31, 10)
    ours = layer(x, lengths)
    theirs, _ = pad_packed_sequence(
        packed(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0], batch_first=True
    )
    valid = (torch.arange(31) < lengths[:, None])[:, :, None]
    assert torch.allclose(ours * valid, theirs, atol=1e-6)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_reversal_is_its_own_inverse_and_leaves_padding_alone(lengths: list[int]) -> None:
    frames = max(lengths) + 2
    x = torch.arange(len(lengths) * frames, dtype=torch.float32).reshape(len(lengths), frames, 1)
    index = reversal_index(torch.tensor(lengths), frames)
    reversed_ = reverse_within_length(x, index)
    assert torch.equal(reverse_within_length(reversed_, index), x)
    for row, length in enumerate(lengths):
        assert torch.equal(reversed_[row, :length], x[row, :length].flip(0))
        assert torch.equal(reversed_[row, length:], x[row, length:])


def name(config: RecurrentConfig) -> str:
    """Of a test: the options that are not as usual."""
    usual = to_dict(RecurrentConfig(hidden_size=12, layers=2, subsampling_channels=4))
    return "-".join(f"{key}:{value}" for key, value in to_dict(config).items() if value != usual.get(key)) or "usual"


@pytest.mark.parametrize("config", [*ARCHITECTURES, *OPTIONAL], ids=name)
def test_log_probs_are_the_same_alone_and_in_any_batch(config: RecurrentConfig) -> None:
    torch.manual_seed(1)
    features = FeatureConfig(n_mels=20)
    model = AcousticModel(config, features, vocab_size=9).eval()
    utterances = [torch.randn(n) * 0.1 for n in (16000, 5333, 799, 12001)]
    lengths = torch.tensor([len(u) for u in utterances])
    batch = torch.full((4, 17000), 7.7)  # what lies in the padding must not matter
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    with torch.no_grad():
        together, frames = model(batch, lengths)
        for row, utterance in enumerate(utterances):
            alone, count = model(utterance[None], lengths[row : row + 1])
            assert int(count) == int(frames[row]) == output_length(len(utterance), features, config)
            assert torch.allclose(together[row, : int(count)], alone[0], atol=1e-4)


@pytest.mark.parametrize("config", OPTIONAL, ids=name)
def test_training_reaches_every_parameter_and_the_model_file_holds_them_all(
    config: RecurrentConfig, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    model = AcousticModel(config, FeatureConfig(n_mels=20), vocab_size=4)
    model.encoder.initialize()
    frames = torch.tensor([43, 0, 17, 30])  # a row without a frame fills up a batch
    states, lengths = model.encoder(torch.randn(4, 43, 20), frames)
    assert torch.isfinite(states).all()
    assert lengths.tolist() == [model.encoder.output_length(n) for n in frames.tolist()]
    valid = valid_frames(lengths, states.size(1))
    (states * torch.randn_like(states))[valid].sum().backward()
    for key, parameter in model.encoder.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key

    loaded = load_model(save_model(tmp_path / "m.asr", model, CharTokenizer(["", " ", "a", "b"]), "none"))
    assert loaded.model_config == config
    waveforms, samples = torch.randn(2, 8000), torch.tensor([8000, 3000])
    with torch.no_grad():
        expected, found = model.eval()(waveforms, samples), loaded.model(waveforms, samples)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "batch"},
        {"cell": "ligru"},
        {"frontend": "deepspeech2"},
        {"encoder": "latency-controlled", "norm": "batch", "chunk": 3, "chunk_lookahead": 2},
    ],
    ids=str,
)
def test_the_statistics_of_training_are_those_of_valid_frames(options: dict[str, Any]) -> None:
    torch.manual_seed(4)
    sizes = {"hidden_size": 12, "layers": 2, "subsampling_channels": 4, "dropout": 0.0}
    config = from_dict(RecurrentConfig, sizes | options)
    encoder = build_encoder(config, 20)
    assert isinstance(encoder, nn.Module)
    begun = copy.deepcopy(encoder.state_dict())
    features, results = torch.randn(2, 40, 20), []
    for rows, frames in ((2, 40), (3, 61)):
        encoder.load_state_dict(begun)
        padded = torch.zeros(rows, frames, 20)
        padded[2:] = -7.0  # what fills up a batch
        padded[0, :40], padded[1, :17] = features[0], features[1, :17]
        states, lengths = encoder(padded, torch.tensor([40, 17, 0][:rows]))
        results.append((states[valid_frames(lengths, states.size(1))], copy.deepcopy(encoder.state_dict())))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_batch_invariance_holds_for_gradients_too() -> None:
    torch.manual_seed(2)
    config = RecurrentConfig(hidden_size=12, layers=2, subsampling_channels=4, dropout=0.0)
    model = AcousticModel(config, FeatureConfig(n_mels=20), vocab_size=9).double()
    model.features.float()
    waves = torch.randn(2, 9000) * 0.1
    lengths = torch.tensor([9000, 5000])

    def gradients(rows: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        model.zero_grad()
        for wave, length in rows:
            features, frames = model.features(wave, length)
            states, frames = model.encoder(features.double(), frames)
            out = model.output(states).log_softmax(-1)
            for row, count in enumerate(frames.tolist()):
                out[row, :count, 1].sum().backward(retain_graph=True)
        return [p.grad.clone() for p in model.parameters()]

    together = gradients([(waves, lengths)])
    alone = gradients([(waves[i : i + 1, : int(n)], lengths[i : i + 1]) for i, n in enumerate(lengths)])
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)


def test_log_probs_are_normalized_float32_even_under_autocast() -> None:
    model = AcousticModel(RecurrentConfig(hidden_size=8, layers=1), FeatureConfig(), vocab_size=5).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs, _ = model(torch.randn(1, 8000), torch.tensor([8000]))
    assert log_probs.dtype == torch.float32
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(1, log_probs.size(1)), atol=1e-5)


def test_forget_gates_start_open_and_recurrence_orthogonal() -> None:
    model = AcousticModel(RecurrentConfig(hidden_size=8, layers=1), FeatureConfig(), 5)
    model.encoder.initialize()
    layer = model.encoder.layers[0]
    assert isinstance(layer, RecurrentLayer) and isinstance(layer.forward_cell, nn.LSTM)
    forget = layer.forward_cell.bias_ih_l0[8:16]
    assert torch.equal(forget, torch.ones(8))
    gate = layer.forward_cell.weight_hh_l0[:8]
    assert torch.allclose(gate @ gate.T, torch.eye(8), atol=1e-5)
