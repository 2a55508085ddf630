"""The recognizer over a model file: every source, order, batches, failures as values, times inside the recording."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import asr
from asr.audio import read as read_module
from asr.corpus.manifest import Manifest
from asr.recognition.inputs import Recording
from asr.recognition.recognizer import Recognizer, fit_words
from asr.types import AudioError, Failure, ModelFileError, Transcript, UsageError, Word


@pytest.fixture(scope="module")
def recognizer(tiny_model):
    return asr.load(tiny_model, device="cpu")


def assert_times_are_sound(transcript):
    before = 0.0
    for word in transcript.words:
        assert before <= word.start < word.end <= transcript.duration
        assert 0.0 <= word.confidence <= 1.0
        before = word.end
    assert [word.word for word in transcript.words] == transcript.text.split()
    assert 0.0 <= transcript.confidence <= 1.0


def test_path_bytes_file_and_array_give_the_same_text(recognizer, write_audio, tmp_path):
    path = write_audio(tmp_path / "talk.wav", 2.0)
    samples, rate = soundfile.read(path, dtype="float32")
    expected = recognizer.transcribe(path)
    assert expected.text
    assert expected.id == "talk"
    assert expected.duration == pytest.approx(2.0)
    with path.open("rb") as file:
        others = [
            recognizer.transcribe(str(path)),
            recognizer.transcribe(path.read_bytes()),
            recognizer.transcribe(io.BytesIO(path.read_bytes())),
            recognizer.transcribe(file),
            recognizer.transcribe((samples, rate)),
        ]
    assert [other.text for other in others] == [expected.text] * 5
    assert [other.words for other in others] == [expected.words] * 5


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.5, 1.0, 1.37])
def test_word_times_are_source_seconds_inside_the_recording(recognizer, noise, rate, seconds):
    transcript = recognizer.transcribe((noise(seconds, 3, rate), rate))
    assert transcript.duration == pytest.approx(seconds, abs=1 / rate)
    assert_times_are_sound(transcript)
    if seconds > 1.0:
        assert transcript.words[-1].end > 0.6 * seconds


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=12), st.floats(0.01, 3.0))
def test_words_are_fitted_into_any_duration(gaps_and_lengths, duration):
    frame, words = 0, []
    for gap, length in gaps_and_lengths:
        words.append(Word("w", (frame + gap) * 0.04, (frame + gap + length) * 0.04, 0.5))
        frame += gap + length
    fitted = fit_words(words, duration)
    assert len(fitted) == len(words)
    before = 0.0
    for word in fitted:
        assert before <= word.start < word.end <= duration
        before = word.end
    if words[-1].end <= duration:
        assert fitted == tuple(words)


def test_many_come_in_input_order_with_the_texts_they_have_alone(recognizer, write_audio, tmp_path):
    generator = np.random.default_rng(1)
    paths = [write_audio(tmp_path / f"{i}.wav", float(generator.uniform(0.2, 3.0)), seed=i) for i in range(25)]
    alone = [recognizer.transcribe(path) for path in paths]
    for batch_seconds, workers in ((2.0, 1), (7.0, 3), (1000.0, 2)):
        together = list(recognizer.transcribe_many(paths, batch_seconds=batch_seconds, workers=workers))
        assert [t.audio_filepath for t in together] == [str(path) for path in paths]
        assert [t.text for t in together] == [t.text for t in alone]
        for one, other in zip(together, alone, strict=True):
            assert_times_are_sound(one)
            assert one.duration == other.duration
            assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


def test_batches_stay_within_their_padded_seconds(recognizer, noise, monkeypatch):
    sizes = []
    emissions = recognizer.acoustics.emissions

    def watched(samples, states):
        sizes.append(len(samples) * max(map(len, samples)) / recognizer.rate)
        return emissions(samples)

    monkeypatch.setattr(recognizer.acoustics, "emissions", watched)
    sources = [(noise(seconds), 16000) for seconds in (0.5, 3.0, 0.5, 1.0, 2.0, 0.7, 6.0)]
    assert len(list(recognizer.transcribe_many(sources, batch_seconds=4.0))) == 7
    assert max(sizes) == 6.0  # longer than a batch: alone
    assert sorted(sizes)[-2] <= 4.0
    assert len(sizes) < 7


def test_what_cannot_be_read_is_a_failure_in_its_place(recognizer, write_audio, noise, tmp_path):
    good = write_audio(tmp_path / "good.wav")
    (tmp_path / "empty.wav").touch()
    broken = noise(1.0)
    broken[500] = np.nan
    results = list(recognizer.transcribe_many([good, tmp_path / "empty.wav", "missing.wav", (broken, 16000), good]))
    assert [type(r) for r in results] == [Transcript, Failure, Failure, Failure, Transcript]
    assert results[0].text == results[4].text
    assert "empty.wav" in results[1].error
    assert results[2].error == "missing.wav: no such file"
    assert "NaN" in results[3].error
    with pytest.raises(AudioError, match=r"missing\.wav: no such file"):
        recognizer.transcribe("missing.wav")


def test_channels_mixed_chosen_and_each(recognizer, write_audio, noise, tmp_path):
    path = write_audio(tmp_path / "stereo.wav", 1.5, seed=10, channels=2)
    left, right = recognizer.transcribe(path, channel=0), recognizer.transcribe(path, channel=1)
    assert left.text != right.text
    mono = write_audio(tmp_path / "mono.wav", 1.0, seed=4)
    results = list(recognizer.transcribe_many([path, mono, "missing.wav"], channel="each"))
    assert [getattr(r, "channel", "failed") for r in results] == [0, 1, 0, "failed"]
    assert [r.text for r in results[:2]] == [left.text, right.text]
    assert recognizer.transcribe(path).channel is None
    with pytest.raises(UsageError, match="transcribe_many"):
        recognizer.transcribe(path, channel="each")
    with pytest.raises(AudioError, match="no channel 2"):
        recognizer.transcribe(path, channel=2)


def test_manifest_rows_bring_their_windows_and_channels(recognizer, write_audio, tmp_path):
    path = write_audio(tmp_path / "long.wav", 4.0, seed=2, channels=2)
    rows = [
        {"id": "whole", "audio_filepath": "long.wav", "duration": 4.0, "text": "", "channel": 1},
        {"id": "part", "audio_filepath": "long.wav", "duration": 1.5, "offset": 2.0, "text": "", "channel": 0},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    whole, part = recognizer.transcribe_many(Manifest.read(manifest))
    samples, rate = soundfile.read(path, dtype="float32")
    assert (whole.id, part.id) == ("whole", "part")
    assert whole.text == recognizer.transcribe((samples[:, 1], rate)).text
    assert part.text == recognizer.transcribe((samples[2 * rate : 3 * rate + rate // 2, 0], rate)).text
    assert part.duration == pytest.approx(1.5)
    assert part.text == recognizer.transcribe(Recording((samples[:, 0], rate), offset=2.0, duration=1.5)).text


def test_a_batch_that_does_not_fit_in_memory_is_done_one_by_one(recognizer, noise, monkeypatch):
    emissions = recognizer.acoustics.emissions

    def small(samples, states):
        if len(samples) > 1 or len(samples[0]) > 2.5 * recognizer.rate:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return emissions(samples)

    monkeypatch.setattr(recognizer.acoustics, "emissions", small)
    results = list(recognizer.transcribe_many([(noise(seconds), 16000) for seconds in (1.0, 3.0, 2.0)]))
    assert [type(r) for r in results] == [Transcript, Failure, Transcript]
    assert "not enough memory on cpu" in results[1].error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "not enough memory"),
        (ValueError("cannot reshape"), "unexpected ValueError: cannot reshape"),
        (OverflowError("int too large\nto convert"), "unexpected OverflowError: int too large to convert"),
        (RuntimeError("shapes do not match"), "unexpected RuntimeError: shapes do not match"),
    ],
)
@pytest.mark.parametrize("where", ["reading", "header", "model", "decoder", "long"])
def test_one_bad_input_stops_no_other(recognizer, noise, monkeypatch, tmp_path, where, error, expected):
    """Kind: an error that nobody expected, in any step, is that recording's failure: the others go on."""
    for name, seconds in (("a", 1.0), ("bad", 2.0), ("c", 1.5)):
        soundfile.write(tmp_path / f"{name}.wav", noise(seconds), 16000)

    def failing(function, is_bad):
        def call(*arguments, **options):
            if is_bad(*arguments, **options):
                raise error
            return function(*arguments, **options)

        return call

    of_bad = 2.0 * recognizer.rate
    if where == "reading":
        call = failing(read_module.resample, lambda samples, *rest: len(samples) == of_bad)
        monkeypatch.setattr(read_module, "resample", call)
    elif where == "header":
        call = failing(read_module.open_reader, lambda file, size, label, *rest: label.endswith("bad.wav"))
        monkeypatch.setattr(read_module, "open_reader", call)
    elif where == "model":
        call = failing(recognizer.acoustics.emissions, lambda samples, states: of_bad in map(len, samples))
        monkeypatch.setattr(recognizer.acoustics, "emissions", call)
    elif where == "decoder":
        frames = recognizer.acoustic_model.output_length(int(of_bad))
        for name in ("decode", "decode_many"):
            one = name == "decode"
            call = failing(
                getattr(recognizer.decoder, name),
                lambda given, one=one, **options: any(len(x) == frames for x in ([given] if one else given)),
            )
            monkeypatch.setattr(recognizer.decoder, name, call)
    else:
        monkeypatch.setattr(Recognizer, "longest", 1.6)
        monkeypatch.setattr("asr.recognition.recognizer.recognize_long", lambda *a, **k: (_ for _ in ()).throw(error))
    results = list(recognizer.transcribe_many([tmp_path / "a.wav", tmp_path / "bad.wav", tmp_path / "c.wav"]))
    assert [type(result) for result in results] == [Transcript, Failure, Transcript]
    message = results[1].error
    assert message.startswith(f"{tmp_path / 'bad.wav'}: ") and message.count("bad.wav") == 1 and "\n" not in message
    assert expected in message or "does not fit in memory" in message


def test_a_decoder_error_is_a_failure_of_that_recording_alone(recognizer, noise, monkeypatch):
    emissions = recognizer.acoustics.emissions

    def poisoned(samples, states):
        results = emissions(samples)
        return [
            np.full_like(r, np.nan) if len(s) == recognizer.rate else r for s, r in zip(samples, results, strict=True)
        ]

    monkeypatch.setattr(recognizer.acoustics, "emissions", poisoned)
    bad, good = recognizer.transcribe_many([(noise(1.0), 16000), (noise(2.0), 16000)])
    assert isinstance(bad, Failure)
    assert "nan at frame 0" in bad.error
    assert isinstance(good, Transcript)


def test_results_do_not_wait_for_sources_far_ahead(recognizer, noise):
    def endless():
        while True:
            yield (noise(0.5), 16000)

    results = recognizer.transcribe_many(endless(), batch_seconds=2.0)
    assert [next(results).duration for _ in range(40)] == [0.5] * 40
    results.close()


def test_another_decoder_can_be_put_in(recognizer, tiny_model, noise):
    class Shouting:
        def decode(self, log_probs):
            [best] = recognizer.decoder.decode(log_probs)
            return [replace(best, text=best.text.upper()), best]

    loud = Recognizer(recognizer.model_file, decoder=Shouting())
    transcript = loud.transcribe((noise(1.0), 16000), nbest=5)
    assert transcript.text == recognizer.transcribe((noise(1.0), 16000)).text.upper()
    assert len(transcript.nbest) == 2
    assert len(loud.transcribe((noise(1.0), 16000)).nbest) == 1


def test_the_default_decoder_is_that_of_the_commands_and_options_are_theirs(tiny_model, noise, tmp_path, asr_command):
    audio = tmp_path / "a.wav"
    soundfile.write(audio, noise(1.5), 16000)
    words = tmp_path / "words.txt"
    words.write_text("a\nd\nbad\nddd\ndbd\n", encoding="utf-8")
    for options, arguments in (
        ({}, ()),
        ({"decoder": "greedy"}, ("--decoder", "greedy")),
        ({"lexicon": words, "hotwords": ["d dbd"]}, ("--lexicon", words, "--hotwords", "d dbd")),
    ):
        model = asr.load(tiny_model, device="cpu", **options)
        done = asr_command("transcribe", audio, "-m", tiny_model, "--device", "cpu", *arguments)
        assert done.stdout == model.transcribe(audio).text + "\n" != "\n"
    assert len(asr.load(tiny_model, nbest=3).transcribe(audio, nbest=3).nbest) == 3
    with pytest.warns(UserWarning, match="1 hotwords cannot be spelled .*'xyz'"):
        asr.load(tiny_model, hotwords=["cab", "xyz"])
    with pytest.raises(UsageError, match="--hotwords has no effect with --decoder greedy"):
        asr.load("nowhere.asr", decoder="greedy", hotwords=["cab"])
    with pytest.raises(TypeError, match="decodr"):
        asr.load(tiny_model, decodr="greedy")


def test_source_rates_are_counted_by_recording(tiny_model, noise):
    fresh = asr.load(tiny_model)
    list(fresh.transcribe_many([(noise(0.5, rate=8000), 8000), (noise(0.5), 16000), (noise(0.5, rate=8000), 8000)]))
    assert dict(fresh.source_rates) == {8000: 2, 16000: 1}
    stereo = np.stack([noise(0.5, 1), noise(0.5, 2)])
    list(fresh.transcribe_many([(stereo, 16000)], channel="each"))
    fresh.transcribe((noise(0.5), 16000))
    assert dict(fresh.source_rates) == {8000: 2, 16000: 3}


def test_devices_and_threads(tiny_model):
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="asr doctor"):
            asr.load(tiny_model, device="cuda")
    with pytest.raises(UsageError, match="threads"):
        asr.load(tiny_model, threads=0)
    before = torch.get_num_threads()
    try:
        asr.load(tiny_model, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path):
    for content in (b"", b"not a model", b"\x00" * 100):
        path = tmp_path / "x.asr"
        path.write_bytes(content)
        with pytest.raises(ModelFileError) as failure:
            asr.load(path)
        assert "\n" not in str(failure.value)
    with pytest.raises(ModelFileError, match=r"nowhere\.asr"):
        asr.load(Path("nowhere.asr"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_texts_of_the_cpu(tiny_model, noise):
    sources = [(noise(seconds, seed), 16000) for seed, seconds in enumerate((1.0, 2.5, 0.4, 3.3))]
    on_cpu = [t.text for t in asr.load(tiny_model, device="cpu").transcribe_many(sources)]
    on_cuda = [t.text for t in asr.load(tiny_model, device="cuda").transcribe_many(sources)]
    assert on_cuda == on_cpu
