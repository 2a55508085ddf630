"""Long recordings: windows joined give what the whole gives, in order, in bounded memory, from every kind of source."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import asr
from asr.audio.features import FeatureConfig
from asr.audio.read import open_stream
from asr.decoding.greedy import GreedyDecoder
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import ModelFile
from asr.model.config import RecurrentConfig
from asr.recognition.acoustics import Windows, grid_of, longest_piece, recognize_long, stitched
from asr.recognition.inputs import as_recording
from asr.recognition.recognizer import Recognizer
from asr.text.tokenizer import CharTokenizer
from asr.types import AsrError, Failure, Transcript, UsageError

RATE = 16000


@pytest.fixture(scope="module")
def recognizer(tiny_model):
    """Random weights, features normalized over the utterance: windows hear a little differently."""
    return asr.load(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def exact():
    """A model whose emissions depend only on some seconds around them: no normalization, cells that forget."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = RecurrentConfig(subsampling_channels=4, hidden_size=12, layers=1, dropout=0.0)
        tokenizer = CharTokenizer(["", " ", *"abcde"])
        model = AcousticModel(config, FeatureConfig(n_mels=20, normalize="none"), tokenizer.vocab_size).eval()
        with torch.no_grad():
            model.output.weight *= 20.0
    return Recognizer(ModelFile(model, tokenizer, "basic"))


def blocks_of(samples, size):
    return iter([samples[i : i + size] for i in range(0, len(samples), size)])


@settings(max_examples=25, deadline=None)
@given(
    seconds=st.floats(0.05, 20.0),
    length=st.sampled_from([1.0, 2.0, 3.7]),
    overlap=st.sampled_from([0.0, 0.5, 1.0]),
    block=st.integers(1000, 200_000),
    batch_seconds=st.sampled_from([1.0, 20.0]),
)
def test_the_frames_are_those_of_the_whole(recognizer, seconds, length, overlap, block, batch_seconds):
    samples = np.random.default_rng(int(seconds * 1000)).normal(size=round(seconds * RATE)).astype(np.float32) * 0.1
    blocks = list(stitched(recognizer.acoustics, blocks_of(samples, block), Windows(length, overlap), batch_seconds))
    frames = recognizer.acoustic_model.output_length(len(samples))
    assert sum(len(b) for b in blocks) == frames
    assert all(len(b) <= (length + overlap) / recognizer.frame_seconds + 2 for b in blocks)


def test_emissions_of_windows_are_those_of_the_whole_where_context_is_limited(exact, noise):
    samples = noise(30.0, 4)
    whole = exact.emissions([samples])[0]
    joined = np.concatenate(list(stitched(exact.acoustics, blocks_of(samples, 50_000), Windows(5.0, 2.5), 20.0)))
    assert joined.shape == whole.shape
    assert np.abs(np.exp(joined) - np.exp(whole)).max() < 1e-3
    without = np.concatenate(list(stitched(exact.acoustics, blocks_of(samples, 50_000), Windows(5.0, 0.0), 20.0)))
    assert np.abs(np.exp(without) - np.exp(whole)).max() > 1e-2  # the overlap is what makes them equal


def test_transcripts_of_windows_are_those_of_the_whole(exact, noise):
    source = (noise(33.3, 7), RATE)
    exact.windows = None
    whole = exact.transcribe(source)
    exact.windows = Windows(6.0, 3.0)
    windowed = exact.transcribe(source)
    assert windowed.text == whole.text
    assert [(w.word, w.start, w.end) for w in windowed.words] == [(w.word, w.start, w.end) for w in whole.words]
    assert windowed.duration == whole.duration
    assert windowed.confidence == pytest.approx(whole.confidence, abs=1e-3)


def test_emissions_are_those_that_transcribing_decodes(recognizer, noise, monkeypatch):
    """A pause parts windows of a long recording; a short one is recognized in one piece, pauses or not."""
    samples = noise(9.0, 5)
    samples[3 * RATE : 4 * RATE] = 0.0
    [whole] = recognizer.emissions([samples])
    assert np.array_equal(recognizer.emissions_of((samples, RATE)).log_probs, whole)
    monkeypatch.setattr(recognizer, "windows", Windows(5.0, 1.0))
    parted = recognizer.emissions_of((samples, RATE))
    assert parted.log_probs.shape == whole.shape and parted.duration == 9.0
    assert np.abs(parted.log_probs - whole).max() > 0.1
    [decoded] = recognizer.decoder.decode(parted.log_probs)[:1]
    assert recognizer.transcribe((samples, RATE)).text == decoded.text


def test_windows_part_in_the_quietest_moment(exact, noise):
    samples = noise(12.0, 1)
    samples[round(4.2 * RATE) : round(4.7 * RATE)] *= 0.001  # within the last part of the first window of 5 s
    first = next(stitched(exact.acoustics, blocks_of(samples, 10_000), Windows(5.0, 1.0), 5.0))
    assert 4.2 <= len(first) * exact.frame_seconds <= 4.7


def test_what_is_held_is_bounded_and_blocks_are_not_read_far_ahead(exact, noise, monkeypatch):
    held, read = [], 0
    original = exact.acoustics.emissions_or_errors

    def watched(samples, *_):
        held.append(sum(map(len, samples)) / RATE)
        return original(samples)

    def endless():
        nonlocal read
        while True:
            read += 1
            yield noise(1.0, read)

    monkeypatch.setattr(exact.acoustics, "emissions_or_errors", watched)
    stream = stitched(exact.acoustics, endless(), Windows(4.0, 1.0), 12.0)
    seconds = 0.0
    while seconds < 100.0:
        seconds += len(next(stream)) * exact.frame_seconds
    assert max(held) <= 12.0
    assert read <= seconds + 12.0 + 6.0 + 2.0


def test_every_kind_of_source_in_its_place_among_short_ones(recognizer, noise, write_audio, tmp_path, monkeypatch):
    monkeypatch.setattr(recognizer, "windows", Windows(2.0, 0.5))
    path = write_audio(tmp_path / "long.wav", 9.0, seed=3)
    samples, rate = soundfile.read(path, dtype="float32")
    short = (noise(1.0), RATE)

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    sources = [short, path, path.read_bytes(), short, Pipe(path.read_bytes()), (samples, rate), "gone.wav", short]
    results = list(recognizer.transcribe_many(sources, batch_seconds=5.0))
    assert [type(r) for r in results] == [Transcript] * 6 + [Failure, Transcript]
    expected = recognizer.transcribe(path)
    assert expected.duration == pytest.approx(9.0)
    for i in (1, 2, 4, 5):
        assert results[i].text == expected.text
        assert [(w.word, w.start, w.end) for w in results[i].words] == [
            (w.word, w.start, w.end) for w in expected.words
        ]
    assert results[0].text == results[3].text == results[7].text == recognizer.transcribe(short).text
    window = replace(as_recording(path), offset=1.0, duration=7.0)
    cut = recognizer.transcribe((samples[RATE : 8 * RATE], rate))
    assert [recognizer.transcribe(window).text] == [cut.text]
    assert cut.duration == 7.0


def test_channels_and_damage(recognizer, write_audio, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(recognizer, "windows", Windows(2.0, 0.5))
    stereo = write_audio(tmp_path / "stereo.wav", 6.0, seed=11, channels=2)
    left, right = recognizer.transcribe_many([stereo], channel="each")
    assert [left.channel, right.channel] == [0, 1]
    assert left.text == recognizer.transcribe(stereo, channel=0).text != right.text
    samples = noise(8.0)
    samples[7 * RATE] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    [failed] = recognizer.transcribe_many([tmp_path / "nan.wav"])
    assert failed.error == f"{tmp_path / 'nan.wav'}: holds NaN or infinite samples (the first at 7.000 s)"
    good = write_audio(tmp_path / "good.wav", 8.0)
    (tmp_path / "cut.wav").write_bytes(good.read_bytes()[: good.stat().st_size * 3 // 4])
    assert "truncated" in recognizer.transcribe(tmp_path / "cut.wav").warnings[0]

    def memory(samples, states):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(recognizer.acoustics, "emissions", memory)
    for windows in (Windows(2.0, 0.5), None):  # in windows and in one piece
        monkeypatch.setattr(recognizer, "windows", windows)
        with pytest.raises(AsrError, match=r"not enough memory on cpu .*; choose shorter windows \(--chunk-length\)"):
            recognizer.emissions_of(good)
    monkeypatch.setattr(recognizer, "windows", Windows(2.0, 0.5))
    [failed] = recognizer.transcribe_many([good])
    assert "shorter windows (--chunk-length)" in failed.error
    assert failed.error.startswith(f"{good}: ")


def test_text_appears_as_it_becomes_certain(exact, noise):
    seen = []
    with open_stream((noise(30.0, 9), RATE)) as source:
        [best] = recognize_long(
            exact.acoustics, exact.decoder, source, Windows(3.0, 1.0), batch_seconds=5.0, on_text=seen.append
        )
    final = best.text
    assert all(final.startswith(text) for text in seen)
    assert all(after.startswith(before) for before, after in pairwise(seen))
    if len(final.split()) > 3:
        assert seen


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_a_greedy_stream_ends_where_decoding_at_once_ends(seed, sizes):
    logits = np.random.default_rng(seed).normal(size=(sum(sizes), 5)) * 3
    log_probs = torch.log_softmax(torch.from_numpy(logits), dim=-1).numpy().astype(np.float32)
    decoder = GreedyDecoder(CharTokenizer(["", " ", *"abc"]), 0.04)
    [whole] = decoder.decode(log_probs)
    stream = decoder.stream()
    for part in np.split(log_probs, np.cumsum(sizes)[:-1]):
        stream.feed(part)
        assert f"{whole.text} ".startswith(f"{stream.stable()} ".lstrip())
    [streamed] = stream.finish()
    assert (streamed.text, streamed.words) == (whole.text, whole.words)
    assert streamed.score == pytest.approx(whole.score, rel=1e-6)


def test_windows_are_as_long_as_what_the_model_was_trained_on(exact, monkeypatch):
    """250 utterances in an hour, 14.4 s each; alone, or up to two of them joined; never above the windows' length."""
    rows = {"train_utterances": 250, "train_hours": 1.0}
    joined = {"config": {"augment": {"join": 0.3, "join_up_to": 2}}}
    apart = {"config": {"augment": {"join": 0.0, "join_up_to": 2}}}
    for training, shortest, usual in (({}, 2.5, 20.0), (rows | apart, 3.6, 28.8), (rows | joined, 7.2, 57.6)):
        monkeypatch.setattr(exact.model_file, "training", training)
        grid = grid_of(exact.acoustics, Windows(60.0, 5.0))
        seconds = [frames * exact.frame_seconds for frames in (grid.length, grid.overlap, grid.shortest, grid.usual)]
        assert seconds == pytest.approx([60.0, 5.0, shortest, usual], abs=0.03)
    assert grid_of(exact.acoustics, Windows(20.0, 5.0)).usual == round(20.0 / exact.frame_seconds)


def test_what_is_much_longer_than_all_training_is_not_recognized_in_one_piece(exact, noise, monkeypatch):
    joined = {"config": {"augment": {"join": 0.3, "join_up_to": 3}}}
    for training, longest in (
        ({}, 40.0),
        ({"train_longest": 6.0}, 12.0),
        ({"train_longest": 6.0} | joined, 36.0),
        ({"train_longest": 25.0}, 40.0),
    ):
        assert longest_piece(Windows(), training) == longest
    monkeypatch.setattr(exact.model_file, "training", {"train_longest": 6.0})
    monkeypatch.setattr(exact, "windows", Windows())
    seen = []
    monkeypatch.setattr(exact, "on_text", lambda _, text: seen.append(text))
    exact.transcribe((noise(11.9, 3), RATE))
    assert not seen
    exact.transcribe((noise(30.1, 3), RATE))
    assert seen


def test_windows_that_cannot_work():
    assert Windows().longest == 40.0
    for length, overlap in ((0.5, 0.1), (10.0, -1.0), (10.0, 11.0), (float("nan"), 1.0)):
        with pytest.raises(UsageError):
            Windows(length, overlap)
