"""Kind: a recording, or a channel, of one constant value heard as letters: it is empty, with a note, on every path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import asr
from asr.audio.read import from_array, open_stream, read
from asr.commands.transcribe import Tally, _report
from asr.recognition.acoustics import SILENCE, Windows
from asr.recognition.alignment import align_recording
from asr.recognition.inputs import as_recording
from asr.recognition.recognizer import Recognizer
from asr.types import Failure, Transcript

RATE = 16000
CONSTANT = {"zeros": 0.0, "offset": 0.25, "lowest": -1.0, "one step": 2**-15}


@pytest.fixture(scope="module", params=["greedy", "beam"])
def recognizer(tiny_model: Path, request: pytest.FixtureRequest) -> Recognizer:
    return asr.load(tiny_model, device="cpu", decoder=request.param)


@pytest.fixture
def in_windows(recognizer: Recognizer):  # type: ignore[no-untyped-def]
    usual, recognizer.windows = recognizer.windows, Windows(2.0, 0.5)
    yield recognizer
    recognizer.windows = usual


def write(path: Path, *channels: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, np.stack(channels, axis=1), rate, subtype="PCM_16")
    return path


def constant(value: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return np.full(round(seconds * rate), value, dtype=np.float32)


def assert_empty(transcript: Transcript | Failure, seconds: float) -> None:
    assert isinstance(transcript, Transcript)
    assert (transcript.text, transcript.words) == ("", ())
    assert transcript.warnings.count(SILENCE) == 1
    assert transcript.duration == pytest.approx(seconds)


@pytest.mark.parametrize("name", CONSTANT)
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_known_before_resampling(tmp_path: Path, name: str, rate: int) -> None:
    path = write(tmp_path / "a.wav", constant(CONSTANT[name], 0.7, rate), rate=rate)
    assert read(path).silent == (True,)
    assert from_array(constant(CONSTANT[name], 0.7, rate), rate).silent == (True,)
    with open_stream(path, rate=RATE) as stream:
        list(stream)
        assert stream.silent


def test_only_what_is_constant_is_silent(noise, tmp_path: Path) -> None:
    dither = np.random.default_rng(0).integers(-1, 2, 16000) / 2**15
    click = constant(0.0, 1.0)
    click[8000] = 2**-15
    speech = noise(1.0)
    for samples in (dither, click, speech, np.concatenate([constant(0.0, 3.0), speech])):
        assert from_array(samples.astype(np.float32), RATE).silent == (False,)
    path = write(tmp_path / "two.wav", constant(0.0, 1.0), speech)
    assert read(path, channel="each").silent == (True, False)
    assert read(path, channel=0).silent == (True,)
    assert read(path).silent == (False,)
    ends = np.concatenate([speech, constant(0.0, 1.0)])
    assert from_array(ends, RATE).silent == (False,)
    assert read(write(tmp_path / "ends.wav", ends), offset=1.0).silent == (True,)  # the window that is read counts


def test_short_recordings_alone_and_in_batches(recognizer: Recognizer, noise, tmp_path: Path) -> None:
    speech = noise(1.5)
    expected = recognizer.transcribe((speech, RATE))
    assert expected.text and not expected.warnings
    for value in CONSTANT.values():
        path = write(tmp_path / "dead.wav", constant(value, 2.0))
        assert_empty(recognizer.transcribe(path), 2.0)
        assert_empty(recognizer.transcribe(path, nbest=3), 2.0)
    first, second, third = recognizer.transcribe_many([(speech, RATE), path, (speech, RATE)])
    assert_empty(second, 2.0)
    assert isinstance(first, Transcript) and isinstance(third, Transcript)
    assert (first.text, third.text) == (expected.text, expected.text)
    assert first.warnings == third.warnings == ()


@pytest.mark.parametrize("seconds", [1.5, 9.0])
def test_a_dead_channel(in_windows: Recognizer, noise, tmp_path: Path, seconds: float) -> None:
    speech = noise(seconds)
    path = write(tmp_path / "call.wav", speech, constant(0.0, seconds), constant(0.1, seconds))
    alive, dead, offset = in_windows.transcribe_many([path], channel="each")
    assert isinstance(alive, Transcript)
    assert alive.text and SILENCE not in alive.warnings
    assert_empty(dead, seconds)
    assert_empty(offset, seconds)
    assert_empty(in_windows.transcribe(path, channel=1), seconds)
    assert in_windows.transcribe(path).text


def test_long_recordings(in_windows: Recognizer, noise, tmp_path: Path) -> None:
    heard = []
    in_windows.on_text = lambda recording, text: heard.append(text)
    try:
        for value in CONSTANT.values():
            path = write(tmp_path / "long.wav", constant(value, 13.0))
            assert_empty(in_windows.transcribe(path), 13.0)
            assert_empty(in_windows.transcribe((constant(value, 13.0), RATE)), 13.0)
        assert not any(heard)
        late = write(tmp_path / "late.wav", np.concatenate([constant(0.0, 13.0), noise(4.0)]))
        transcript = in_windows.transcribe(late)
    finally:
        in_windows.on_text = None
    assert transcript.text and transcript.warnings == ()


def test_emissions_and_alignment(in_windows: Recognizer, tmp_path: Path) -> None:
    for seconds in (1.5, 13.0):
        path = write(tmp_path / "dead.wav", constant(0.0, seconds))
        found = in_windows.emissions_of(path)
        assert (found.log_probs.argmax(axis=1) == 0).all() and found.warnings == (SILENCE,)
        frames = in_windows.acoustic_model.output_length(round(seconds * RATE))
        assert abs(len(found.log_probs) - frames) <= 1
        aligned = align_recording(in_windows, as_recording(path), "ab")
        assert aligned.warnings[0] == SILENCE and "hardly fits" in aligned.warnings[1]


def test_the_note_is_printed_once(recognizer: Recognizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / f"{name}.wav", constant(0.0, 1.0)) for name in "abc"]
    tally = Tally()
    for transcript in recognizer.transcribe_many(paths):
        assert isinstance(transcript, Transcript)
        _report([transcript], lambda result: "", tally)
    assert capsys.readouterr().err == f"asr: warning: {paths[0]}: {SILENCE}\n"
    assert tally.warnings == {SILENCE: 3}
