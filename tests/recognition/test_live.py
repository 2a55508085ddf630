"""Live recognition: words while the audio comes, and in the end what the whole recording gives."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.__main__ import main
from asr.audio.features import FeatureConfig
from asr.audio.read import RawFormat
from asr.decoding.greedy import GreedyDecoder
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import save_model
from asr.model.latency import LatencyControlledConfig
from asr.model.streaming import AcousticStream
from asr.recognition.acoustics import can_stream
from asr.recognition.inputs import Recording
from asr.recognition.recognizer import Recognizer
from asr.text.tokenizer import CharTokenizer
from asr.types import Transcript


@pytest.fixture(scope="module")
def streaming_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that can stream, and hears noise as many short words."""
    tokenizer = CharTokenizer(["", " ", *"abcde"])
    config = LatencyControlledConfig(
        subsampling_channels=4, hidden_size=12, layers=2, dropout=0.0, chunk=8, chunk_lookahead=4
    )
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(9)
        model = AcousticModel(config, FeatureConfig(n_mels=20, normalize="none"), tokenizer.vocab_size)
        model.encoder.feature_norm.running_var *= 6.7  # of the noise
        model.output.weight *= 200.0
        model.output.bias[1] += 10.0
    return save_model(tmp_path_factory.mktemp("model") / "live.asr", model.eval(), tokenizer, "none")


class Microphone(io.RawIOBase):
    """Gives a tenth of a second at a time, cut anywhere, and notes how many words were known by then."""

    def __init__(self, data: bytes, known: list[str]) -> None:
        self.blocks = [data[start : start + 3201] for start in range(0, len(data), 3201)]
        self.known, self.counts = known, []

    def read(self, size: int = -1) -> bytes:
        self.counts.append(len(self.known[-1].split()) if self.known else 0)
        return self.blocks.pop(0) if self.blocks else b""


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_words_come_before_the_end_and_are_those_of_the_whole(
    streaming_model: Path,
    noise: Callable[..., np.ndarray],
    decoder: str,
) -> None:
    samples = np.round(noise(6.0) * 32767).astype("<i2")
    recognizer = Recognizer.load(streaming_model, "cpu", decoder=decoder)
    recognizer.windows = None
    whole = recognizer.transcribe((samples.astype(np.float32) / 32768, 16000))
    assert len(whole.text.split()) > 5
    known: list[str] = []
    recognizer.on_text = lambda recording, text: known.append(text)
    microphone = Microphone(samples.tobytes() + b"\0", known)
    recording = Recording(microphone, "live", "-", live=True)
    [(_, [found])] = recognizer.recognize([recording], raw=RawFormat(16000))
    assert isinstance(found, Transcript)
    assert (found.text, found.words, found.duration) == (whole.text, whole.words, 6.0)
    assert found.warnings == ("the last 1 bytes do not make a whole frame: cut off, or of another format",)
    if decoder == "greedy":  # the beam search waits until its hypotheses agree
        assert 0 < microphone.counts[30] < microphone.counts[-1]
    assert all(found.text.startswith(text) for text in known)

    acoustic, text = AcousticStream(recognizer.acoustic_model), recognizer.decoder.stream()  # type: ignore[attr-defined]
    for block in torch.from_numpy(samples.astype(np.float32) / 32768).split(1600):
        if len(log_probs := acoustic.feed(block)):
            text.feed(log_probs)
    text.feed(acoustic.finish())
    assert text.finish()[0].text == whole.text


def test_the_command_prints_what_a_pipe_brings(
    streaming_model: Path,
    noise: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    data = (noise(3.0, rate=8000) * 32767).astype("<i2").tobytes()
    (tmp_path / "x.raw").write_bytes(data)
    options = ["-m", str(streaming_model), "--decoder", "greedy", "--raw-rate", "8000", "--device", "cpu"]
    assert main(["transcribe", str(tmp_path / "x.raw"), *options, "--chunk-length", "0"]) == 0
    expected = capsys.readouterr().out
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb") as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        writer = threading.Thread(target=lambda: (pipe.write(data), pipe.close()))
        writer.start()
        assert main(["transcribe", "-", *options]) == 0
        writer.join()
    assert capsys.readouterr().out == expected != "\n"


def test_what_cannot_stream_is_read_to_the_end(streaming_model: Path, tiny_model: Path) -> None:
    class ReadsStates(GreedyDecoder):
        reads_states = True

    streaming, whole = (Recognizer.load(path, "cpu", decoder="greedy") for path in (streaming_model, tiny_model))
    assert can_stream(streaming.acoustics, streaming.decoder)
    assert not can_stream(whole.acoustics, whole.decoder)
    assert not can_stream(streaming.acoustics, ReadsStates(streaming.tokenizer, 0.04))


def test_silence_is_not_recognized(streaming_model: Path) -> None:
    recognizer = Recognizer.load(streaming_model, "cpu", decoder="greedy")
    recording = Recording(io.BytesIO(bytes(64000)), "live", "-", live=True)
    [(_, [found])] = recognizer.recognize([recording], raw=RawFormat(16000))
    assert isinstance(found, Transcript) and found.text == "" and "silence" in found.warnings[0]


def test_a_live_recording_of_nothing_is_a_failure(streaming_model: Path) -> None:
    recognizer = Recognizer.load(streaming_model, "cpu", decoder="greedy")
    [(_, found)] = recognizer.recognize([Recording(io.BytesIO(), "live", "-", live=True)], raw=RawFormat(16000))
    assert str(found.error) == "stdin: holds no samples"
