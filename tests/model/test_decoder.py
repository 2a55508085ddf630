"""The attention decoder against the formulas written out, alone and in padded batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.audio.features import FeatureConfig
from asr.config import to_dict
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model, read_metadata, save_model
from asr.model.config import DecoderConfig, RecurrentConfig, described_options
from asr.model.decoder import AttentionDecoder, with_end
from asr.text.tokenizer import CharTokenizer

TINY = DecoderConfig(
    hidden_size=6, embedding_size=3, attention_size=5, location_channels=2, location_width=3, dropout=0.0
)
OPTIONS = [TINY, replace(TINY, cell="gru", layers=2), replace(TINY, attention="dot", layers=2)]
STATES, VOCAB, LENGTHS = 4, 7, torch.tensor([9, 4, 1])
TOKENS, COUNTS = torch.tensor([[3, 1, 6, 2], [5, 5, 0, 0], [0, 0, 0, 0]]), torch.tensor([4, 2, 0])


def made(config: DecoderConfig) -> AttentionDecoder:
    """A decoder with weights large enough for attention that is far from even."""
    torch.manual_seed(4)
    decoder = AttentionDecoder(config, STATES, VOCAB).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2.0)
    return decoder


def states() -> Tensor:
    """Encoder states (3, 9, 4), of which LENGTHS are valid and the rest is large."""
    torch.manual_seed(5)
    valid = torch.arange(9)[None, :, None] < LENGTHS[:, None, None]
    return torch.where(valid, torch.randn(3, 9, STATES), torch.tensor(50.0))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def slow_log_probs(decoder: AttentionDecoder, h: np.ndarray, tokens: list[int]) -> np.ndarray:
    """(steps, vocab) for one utterance h (frames, width), step by step and frame by frame, in float64."""
    w = {name: tensor.double().numpy() for name, tensor in decoder.state_dict().items()}
    config, size, frames = decoder.config, decoder.config.hidden_size, len(h)
    hidden, memory = ([np.zeros(size) for _ in range(config.layers)] for _ in range(2))
    context, alpha = np.zeros(h.shape[1]), np.full(frames, 1.0 / frames)
    rows = []
    for token in [0, *tokens]:
        x = np.concatenate([w["embedding.weight"][token], context])
        for k in range(config.layers):
            a = w[f"cells.{k}.weight_ih"] @ x + w[f"cells.{k}.bias_ih"]
            b = w[f"cells.{k}.weight_hh"] @ hidden[k] + w[f"cells.{k}.bias_hh"]
            if config.cell == "lstm":
                i, f, g, o = (a + b).reshape(4, size)
                memory[k] = sigmoid(f) * memory[k] + sigmoid(i) * np.tanh(g)
                hidden[k] = sigmoid(o) * np.tanh(memory[k])
            else:
                (ar, az, an), (br, bz, bn) = a.reshape(3, size), b.reshape(3, size)
                z = sigmoid(az + bz)
                hidden[k] = (1 - z) * np.tanh(an + sigmoid(ar + br) * bn) + z * hidden[k]
            x = hidden[k]
        query, scores = w["query.weight"] @ x, np.zeros(frames)
        for j in range(frames):
            key = w["key.weight"] @ h[j] + w["key.bias"]
            if config.attention == "dot":
                scores[j] = query @ key / np.sqrt(config.attention_size)
            else:
                half = config.location_width // 2
                near = [alpha[j + d] if 0 <= j + d < frames else 0.0 for d in range(-half, half + 1)]
                f = w["location.weight"][:, 0] @ np.array(near)
                scores[j] = w["energy.weight"][0] @ np.tanh(query + key + w["located.weight"] @ f)
        alpha = np.exp(scores - scores.max())
        alpha /= alpha.sum()
        context = alpha @ h
        logits = w["output.weight"] @ np.concatenate([x, context]) + w["output.bias"]
        rows.append(logits - logits.max() - np.log(np.exp(logits - logits.max()).sum()))
    return np.array(rows)


@pytest.mark.parametrize("config", OPTIONS, ids=lambda c: f"{c.attention}-{c.cell}")
def test_teacher_forced_rows_of_a_padded_batch_equal_the_formulas_of_each_alone(config: DecoderConfig) -> None:
    decoder, encoded = made(config), states()
    with torch.no_grad():
        log_probs = decoder(encoded, LENGTHS, TOKENS)
        likelihoods = decoder.log_likelihoods(encoded, LENGTHS, TOKENS, COUNTS)
    assert log_probs.shape == (3, 5, VOCAB) and log_probs.dtype == torch.float32
    for row, (frames, count) in enumerate(zip(LENGTHS.tolist(), COUNTS.tolist(), strict=True)):
        tokens = TOKENS[row, :count].tolist()
        expected = slow_log_probs(decoder, encoded[row, :frames].double().numpy(), tokens)
        np.testing.assert_allclose(log_probs[row, : count + 1], expected, atol=2e-5)
        total = sum(expected[i, token] for i, token in enumerate([*tokens, 0]))
        assert float(likelihoods[row]) == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("config", OPTIONS, ids=lambda c: f"{c.attention}-{c.cell}")
def test_greedy_decoding_is_the_same_alone_and_never_longer_than_the_frames(config: DecoderConfig) -> None:
    decoder, encoded = made(config), states()
    found = decoder.greedy(encoded, LENGTHS)
    assert all(len(tokens) <= frames for tokens, frames in zip(found, LENGTHS.tolist(), strict=True))
    for row, frames in enumerate(LENGTHS.tolist()):
        assert decoder.greedy(encoded[row : row + 1, :frames], LENGTHS[row : row + 1]) == [found[row]]
        expected: list[int] = []
        while len(expected) < frames:
            step = slow_log_probs(decoder, encoded[row, :frames].double().numpy(), expected)[-1]
            if not step.argmax():
                break
            expected.append(int(step.argmax()))
        assert found[row] == expected


def test_one_utterance_is_read_by_several_rows_as_by_each_alone() -> None:
    for config in OPTIONS:
        decoder, encoded = made(config), states()[:1]
        with torch.no_grad():
            together = decoder(encoded, LENGTHS[:1], TOKENS)
            repeated = decoder(encoded.expand(3, -1, -1), LENGTHS[:1].expand(3), TOKENS)
        torch.testing.assert_close(together, repeated, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", OPTIONS, ids=lambda c: f"{c.attention}-{c.cell}")
def test_gradients_reach_all_parameters_and_rows_without_frames_stay_finite(config: DecoderConfig) -> None:
    decoder, encoded = made(config), states().requires_grad_()
    lengths = torch.tensor([9, 4, 0])
    log_probs = decoder(encoded, lengths, TOKENS)
    assert torch.isfinite(log_probs).all()
    log_probs[:, :, 1].sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert torch.isfinite(parameter.grad).all(), name
    assert encoded.grad is not None and (encoded.grad[1, 4:] == 0).all() and encoded.grad[1, :4].abs().min() > 0


def test_ends_follow_the_last_token_of_each_row() -> None:
    assert with_end(TOKENS, COUNTS).tolist() == [[3, 1, 6, 2, 0], [5, 5, 0, -1, -1], [0, -1, -1, -1, -1]]


def test_the_model_file_holds_the_decoder_and_says_nothing_of_one_that_is_not_there(tmp_path: Path) -> None:
    tokenizer = CharTokenizer(["", " ", *"abcde"])
    config = RecurrentConfig(subsampling_channels=4, hidden_size=2, layers=1, decoder=TINY)
    model = AcousticModel(config, FeatureConfig(n_mels=20), tokenizer.vocab_size)
    path = save_model(tmp_path / "m.asr", model, tokenizer, "none")
    loaded = load_model(path).model
    assert loaded.config == config and read_metadata(path)["model"]["decoder"] == to_dict(TINY)
    assert described_options(to_dict(config)).endswith("location_channels 2, location_width 3, dropout 0.0")
    assert loaded.decoder is not None and model.decoder is not None
    with torch.no_grad():
        found, expected = (m.decoder(states(), LENGTHS, TOKENS) for m in (loaded, model.eval()))  # type: ignore[misc]
    assert torch.equal(found, expected)
    plain = AcousticModel(replace(config, decoder=None), FeatureConfig(n_mels=20), tokenizer.vocab_size)
    assert "decoder" not in read_metadata(save_model(tmp_path / "p.asr", plain, tokenizer, "none"))["model"]
    assert load_model(tmp_path / "p.asr").model.decoder is None
