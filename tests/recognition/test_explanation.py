"""Looking inside a model: saliency on one that hears tones, gates and attention of every encoder, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from asr.audio.features import FeatureConfig
from asr.decoding.align import AlignmentError
from asr.model.acoustic import AcousticModel
from asr.model.cells import CELLS
from asr.model.checkpoint import ModelFile
from asr.model.config import DecoderConfig, RecurrentConfig
from asr.model.convolution import RecurrentConvolutionalConfig
from asr.model.gates import trace_cell
from asr.model.latency import LatencyControlledConfig
from asr.model.self_attention import RecurrentAttentionConfig
from asr.recognition import explanation
from asr.recognition.explanation import band_centers, explain
from asr.recognition.inputs import as_recording
from asr.recognition.recognizer import Recognizer
from asr.recognition.saliency import integrated_gradients
from asr.text.tokenizer import CharTokenizer
from asr.types import AsrError, AudioError, TextError, UsageError

RATE = 16000
TONES = {"a": 400.0, "b": 900.0, "c": 2000.0}  # hertz of the letters; a space is a pause
TOKENIZER = CharTokenizer(["", " ", *TONES])


def speak(text, seed=0):
    chance = np.random.default_rng(seed)
    parts = []
    for letter in text:
        t = np.arange(int(chance.uniform(0.12, 0.18) * RATE)) / RATE
        loudness = 0.0 if letter == " " else 0.3
        parts.append(loudness * np.sin(2 * np.pi * TONES.get(letter, 0.0) * t) * np.hanning(len(t)))
    samples = np.concatenate(parts)
    return (samples + 0.01 * chance.standard_normal(len(samples))).astype(np.float32)


def recognizer(config, training=None):
    torch.manual_seed(3)
    model = AcousticModel(config, FeatureConfig(n_mels=24), TOKENIZER.vocab_size)
    model.encoder.initialize()
    return Recognizer(ModelFile(model.eval(), TOKENIZER, "basic", training or {}))


def small(config=RecurrentConfig, **options):
    return config(**{"subsampling_channels": 4, "hidden_size": 8, "layers": 2, "dropout": 0.0} | options)


@pytest.fixture(scope="module")
def hearing():
    """A model that was trained until it heard the tones."""
    found = recognizer(small(hidden_size=24, layers=1))
    model, chance = found.acoustic_model.train(), np.random.default_rng(1)
    texts = [" ".join("".join(chance.choice([*TONES], 2)) for _ in range(2)) for _ in range(32)]
    sounds = [torch.from_numpy(speak(text, seed)) for seed, text in enumerate(texts)]
    lengths = torch.tensor([len(sound) for sound in sounds])
    padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    targets = torch.tensor([TOKENIZER.encode(text) for text in texts])
    with torch.no_grad():
        features, frames = model.features(padded, lengths)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(120):
        outputs = model.recognize(features, frames)
        counts = torch.full_like(outputs.lengths, targets.size(1))
        loss = functional.ctc_loss(outputs.log_probs.transpose(0, 1), targets, outputs.lengths, counts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return found


@pytest.mark.parametrize("word", ["cb", "1"])
def test_removing_what_is_salient_costs_more_than_removing_at_random(hearing, word):
    found = explain(hearing, as_recording((speak("ab cb", 99), RATE)), word=word)
    assert (found.text, found.words[found.chosen].word) == ("ab cb", {"1": "ab"}.get(word, word))
    saliency = found.saliency
    assert saliency.score - saliency.without_salient > 2 * (saliency.score - saliency.without_random)
    assert saliency.without_salient < saliency.score - 1
    # Completeness: the attributions explain what separates the word from the average sound.
    difference = saliency.score - saliency.baseline_score
    assert difference > 1
    assert saliency.attributions.sum() - difference == pytest.approx(saliency.gap, abs=1e-2)
    assert abs(saliency.gap) < 0.1 * difference


def test_what_is_salient_is_where_the_tone_is(hearing):
    found = explain(hearing, as_recording((speak("ab ac", 98), RATE)), word="ac")
    word = found.words[found.chosen]
    times = found.feature_seconds * np.arange(len(found.features))
    inside = (times > word.start - 0.1) & (times < word.end + 0.1)
    amount = np.abs(found.saliency.attributions)
    assert amount[inside].sum() > 0.7 * amount.sum()
    near = amount[inside][:, np.abs(np.log2(found.band_hz / TONES["c"])) < 0.4]
    assert near.mean() > 1.5 * amount[inside].mean()


def test_integrated_gradients_of_known_functions():
    torch.manual_seed(0)
    weights, features, baseline = torch.randn(3, 6, 4).unbind()
    attributions, steps = integrated_gradients(lambda x: (weights * x).sum((1, 2)), features, baseline)
    torch.testing.assert_close(attributions, weights * (features - baseline))
    assert steps == 16
    # A leap somewhere on the way: the sum is right all the same, after more steps there.
    middle = (weights * torch.lerp(baseline, features, 0.4)).sum()

    def leap(x):
        return torch.sigmoid(400 * ((weights * x).sum((1, 2)) - middle))

    attributions, steps = integrated_gradients(leap, features, baseline)
    whole = (leap(features[None]) - leap(baseline[None])).item()
    assert float(attributions.sum()) == pytest.approx(whole, abs=0.05) and 16 < steps < 300


def test_bands_lie_where_the_filters_are_highest():
    model = AcousticModel(small(), FeatureConfig(n_mels=24), 3)
    highest = model.features.filters.argmax(dim=0).numpy() * RATE / model.features.fft_size
    np.testing.assert_allclose(band_centers(model.feature_config), highest, atol=RATE / model.features.fft_size)


ENCODERS = {
    **{cell: small(cell=cell) for cell in CELLS},
    "one direction": small(bidirectional=False, lookahead=3, norm="batch", residual=True, projection=6),
    "pairs": small(time_reduction=(2,), zoneout=0.1, frontend="vgg"),
    "recurrent-convolutional": small(RecurrentConvolutionalConfig),
    "latency-controlled": small(LatencyControlledConfig, chunk=7, chunk_lookahead=3),
    "recurrent-attention": small(RecurrentAttentionConfig, attention_heads=2, attention_layers=2, feed_forward=8),
    "decoder": small(decoder=DecoderConfig(hidden_size=8, embedding_size=4, attention_size=4)),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_shows_what_it_has(name, monkeypatch):
    traced = []
    monkeypatch.setattr(explanation, "trace_cell", lambda *given: traced.append(trace_cell(*given)) or traced[-1])
    config = ENCODERS[name]
    found = explain(recognizer(config), as_recording((speak("abc abc ab"), RATE)), text="a b", layer=2)
    view = found.layer
    frames = len(found.log_probs)
    directions = ["forward", "backward"] if config.bidirectional else ["forward"]
    assert list(view.states) == directions
    assert all(states.shape == (frames, 8) for states in view.states.values())
    assert view.frame_seconds == pytest.approx(found.frame_seconds)
    # The loop that gives the gates gives the states of the layer, too.
    for direction, trace in zip(directions, traced, strict=False):
        states = trace.states.flip(0) if direction == "backward" else trace.states
        np.testing.assert_allclose(states, view.states[direction], atol=1e-5)
    plain = config.cell.startswith("rnn")
    assert bool(view.gates) != plain and (not plain or "no gates" in " ".join(found.notes))
    assert list(view.gates) == ([] if plain else directions[: 1 if name == "latency-controlled" else 2])
    maps = {"recurrent-attention": 1, "decoder": 1}.get(name, 0)
    assert len(found.attention) == maps
    for one in found.attention:
        np.testing.assert_allclose(one.weights.sum(axis=1), 1, atol=1e-5)
        assert one.weights.shape == (4 if one.tokens else frames, frames)


def test_a_layer_of_self_attention_has_no_gates():
    found = explain(
        recognizer(ENCODERS["recurrent-attention"]), as_recording((speak("abc abc"), RATE)), text="a", layer=3
    )
    assert (list(found.layer.states), found.layer.gates, found.attention[0].layer) == (["output"], {}, 3)
    assert "no recurrent cells" in found.notes[-1]


def test_nothing_recognized_is_said(hearing):
    silent = recognizer(small())
    with torch.no_grad():
        silent.acoustic_model.output.bias[0] += 100
    found = explain(silent, as_recording((speak("ab"), RATE)))
    assert (found.text, found.words, found.saliency) == ("", (), None)
    assert "give a text" in found.notes[0]
    with pytest.raises(UsageError, match="no word was recognized"):
        explain(silent, as_recording((speak("ab"), RATE)), word="a")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": "x"}, TextError, "'x' not in the alphabet"),
        ({"text": "..."}, AsrError, "the text is empty"),
        ({"text": "abc " * 30}, AlignmentError, "needs at least"),
        ({"word": "3"}, UsageError, "has words 1 to 2"),
        ({"word": "acb"}, UsageError, "--word acb: not in the text 'ab cb'"),
        ({"layer": 2}, UsageError, "has layers 1 to 1"),
        ({"layer": 0}, UsageError, "has layers 1 to 1"),
    ],
)
def test_what_cannot_be_explained(hearing, options, error, message):
    with pytest.raises(error, match=message):
        explain(hearing, as_recording((speak("ab cb", 99), RATE)), **options)


@pytest.mark.parametrize(("seconds", "message"), [(1.0, "silence: every sample"), (61.0, "61.0 s is too long")])
def test_recordings_that_cannot_be_looked_at(hearing, seconds, message):
    samples = np.zeros(int(seconds * RATE), np.float32)
    with pytest.raises(AudioError, match=message):
        explain(hearing, as_recording((samples, RATE)))


def test_a_model_without_ctc_is_refused():
    deaf = recognizer(small(), {"config": {"objectives": {"attention": 1.0}}})
    with pytest.raises(UsageError, match="trained without CTC"):
        explain(deaf, as_recording((speak("ab"), RATE)))
