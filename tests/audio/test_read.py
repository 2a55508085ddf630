"""Reading good recordings: formats, depths, channels, rates, windows, and every kind of source."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.read import Audio, from_array, probe, read
from asr.types import AudioError

ROOT = Path(__file__).parents[2]
Encode = Callable[..., bytes]

LOSSLESS = [
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-23),
    ("WAV", "PCM_32", 2**-23),
    ("WAV", "FLOAT", 0.0),
    ("WAV", "DOUBLE", 0.0),
    ("WAVEX", "PCM_16", 2**-15),
    ("RF64", "PCM_16", 2**-15),
    ("FLAC", "PCM_16", 2**-15),
    ("FLAC", "PCM_24", 2**-23),
    ("AIFF", "PCM_16", 2**-15),
    ("AU", "PCM_16", 2**-15),
    ("NIST", "PCM_16", 2**-15),
]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "ULAW"), ("WAV", "ALAW")]


@pytest.mark.parametrize(("format", "subtype", "step"), LOSSLESS)
def test_lossless_formats_give_the_samples_back(
    voice: np.ndarray, encode: Encode, format: str, subtype: str, step: float
) -> None:
    audio = read(encode(voice, format, subtype))
    assert audio.samples.dtype == np.float32 and audio.samples.flags.c_contiguous
    assert np.abs(audio.samples - voice).max() <= step
    assert (audio.rate, audio.source_rate, audio.source_channels, audio.warnings) == (16000, 16000, 1, ())
    assert audio.duration == pytest.approx(2.0)


@pytest.mark.parametrize(("format", "subtype"), LOSSY)
def test_lossy_formats_are_close_and_in_time(voice: np.ndarray, encode: Encode, format: str, subtype: str) -> None:
    audio = read(encode(voice, format, subtype))
    assert audio.samples.shape == voice.shape and audio.warnings == ()
    assert np.corrcoef(audio.samples, voice)[0, 1] > 0.98


@pytest.mark.parametrize(
    "name", ["späße.wav", "録音.flac", "with space & 'quote'.ogg", "wrong ending.mp3", "none", "a.raw"]
)
def test_any_file_name(tmp_path: Path, voice: np.ndarray, encode: Encode, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encode(voice, "FLAC"))
    assert np.abs(read(path).samples - voice).max() <= 2**-15
    assert np.array_equal(read(str(path)).samples, read(path).samples)


class Pipe(io.RawIOBase):
    """What standard input is when a program writes into it: readable, not seekable."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self.data.readinto(buffer)


def test_every_kind_of_source_gives_the_same(tmp_path: Path, voice: np.ndarray, encode: Encode) -> None:
    data = encode(voice, "FLAC")
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    moved = io.BytesIO(data)
    moved.seek(100)
    expected = read(path).samples
    for source in (data, bytearray(data), io.BytesIO(data), moved, Pipe(data), io.BufferedReader(Pipe(data))):
        assert np.array_equal(read(source).samples, expected)  # type: ignore[arg-type]
    with path.open("rb") as file:
        assert np.array_equal(read(file).samples, expected)
        assert not file.closed
        assert probe(file).duration == 2.0


def test_from_a_named_pipe(tmp_path: Path, voice: np.ndarray, encode: Encode) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(encode(voice)))
    writer.start()
    assert read(path).samples.shape == voice.shape
    writer.join()


@pytest.mark.parametrize("channel", ["mix", "each", 0, 1, "1"])
def test_channels(voice: np.ndarray, encode: Encode, channel: str | int) -> None:
    stereo = np.stack([voice, voice[::-1]], axis=1)
    audio = read(encode(stereo, "WAV", "FLOAT"), channel=channel)
    expected = {"mix": stereo.mean(axis=1), "each": stereo.T, 0: stereo[:, 0]}.get(channel, stereo[:, 1])
    assert audio.samples.shape == expected.shape
    np.testing.assert_allclose(audio.samples, expected, atol=1e-7)
    assert audio.source_channels == 2


def test_each_is_resampled_channel_by_channel(voice: np.ndarray, encode: Encode) -> None:
    data = encode(np.stack([voice, voice[::-1]], axis=1), "WAV", "FLOAT", rate=8000)
    both = read(data, channel="each").samples
    assert both.shape == (2, 2 * len(voice))
    for number in (0, 1):
        np.testing.assert_allclose(both[number], read(data, channel=number).samples, atol=1e-6)


def test_channels_that_cancel_are_told(voice: np.ndarray, encode: Encode) -> None:
    (warning,) = read(encode(np.stack([voice, -voice], axis=1))).warnings
    assert "cancel" in warning
    assert read(encode(np.stack([voice, voice], axis=1))).warnings == ()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 15999])
def test_any_rate_becomes_the_one_asked_for(voice: np.ndarray, encode: Encode, rate: int) -> None:
    data = encode(voice, rate=rate)
    audio = read(data)
    assert len(audio.samples) == -(-len(voice) * 16000 // rate)
    assert audio.duration == pytest.approx(len(voice) / rate)
    assert audio.source_rate == rate
    assert any(f"{rate} Hz" in warning for warning in audio.warnings) == (rate < 16000)
    kept = read(data, rate=None)
    assert kept.rate == rate and len(kept.samples) == len(voice) and kept.warnings == ()


@settings(max_examples=60, deadline=None)
@given(
    format=st.sampled_from(["WAV", "FLAC", "OGG", "MP3"]),
    offset=st.floats(0.0, 1.95),
    duration=st.one_of(st.none(), st.floats(0.001, 3.0)),
)
def test_a_window_is_a_slice_of_the_whole(
    windows: dict[str, tuple[bytes, np.ndarray]], format: str, offset: float, duration: float | None
) -> None:
    data, whole = windows[format]
    start = round(offset * 16000)
    stop = len(whole) if duration is None else min(len(whole), round((offset + duration) * 16000))
    audio = read(data, offset=offset, duration=duration)
    assert audio.samples.shape == (stop - start,)
    # Where an mp3 decoder starts afresh it rounds differently.
    np.testing.assert_allclose(audio.samples, whole[start:stop], atol=1e-6 if format == "MP3" else 0.0)
    assert audio.duration == pytest.approx((stop - start) / 16000)


@pytest.fixture(scope="module")
def windows(voice: np.ndarray, encode: Encode) -> dict[str, tuple[bytes, np.ndarray]]:
    encoded = {format: encode(voice, format) for format in ("WAV", "FLAC", "OGG", "MP3")}
    return {format: (data, read(data).samples) for format, data in encoded.items()}


def test_adjacent_windows_meet(voice: np.ndarray, encode: Encode) -> None:
    data = encode(voice, rate=22050)
    edges = np.linspace(0.0, len(voice) / 22050, 8)
    parts = [read(data, rate=None, offset=a, duration=b - a).samples for a, b in itertools.pairwise(edges)]
    assert np.array_equal(np.concatenate(parts), read(data, rate=None).samples)


def test_a_window_does_not_read_the_rest(voice: np.ndarray, encode: Encode) -> None:
    class Counting(io.BytesIO):
        count = 0

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            got = super().readinto(buffer)
            self.count += got
            return got

    long = Counting(encode(np.tile(voice, 100)))
    read(long, offset=150.0, duration=1.0)
    assert long.count < len(long.getvalue()) // 20


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_probe_tells_what_read_gives(voice: np.ndarray, encode: Encode, format: str) -> None:
    info = probe(encode(np.stack([voice, voice], axis=1), format, rate=22050))
    assert (info.rate, info.channels, info.frames, info.format) == (22050, 2, len(voice), format)
    assert info.duration == pytest.approx(len(voice) / 22050)


def test_a_flac_stream_of_undeclared_length(voice: np.ndarray, encode: Encode) -> None:
    data = bytearray(encode(voice, "FLAC"))
    data[21] &= 0xF0  # the 36 bits of "total samples" in the STREAMINFO block: 0 is "unknown"
    data[22:26] = bytes(4)
    assert probe(bytes(data)).frames == len(voice)
    assert read(bytes(data)).samples.shape == voice.shape
    assert read(bytes(data), offset=1.0).samples.shape == (16000,)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_is_not_taken_for_truncated(voice: np.ndarray, encode: Encode, size: int) -> None:
    data = bytearray(encode(voice))
    data[40:44] = size.to_bytes(4, "little")
    audio = read(bytes(data))
    assert audio.samples.shape == voice.shape and audio.warnings == ()


def test_from_array_takes_floats_and_integers(voice: np.ndarray) -> None:
    expected = from_array(voice, 16000)
    assert isinstance(expected, Audio) and np.array_equal(expected.samples, voice)
    for samples in (
        voice.astype(np.float64),
        (voice * 2**15).round().astype(np.int16),
        (voice * 2.0**31).round().astype(np.int32),
        (voice * 127 + 128).round().astype(np.uint8),
    ):
        step = 2**-7 if samples.dtype == np.uint8 else 2**-15
        np.testing.assert_allclose(from_array(samples, 16000).samples, voice, atol=step)
    stereo = np.stack([voice, 0.5 * voice])
    np.testing.assert_allclose(from_array(stereo, 16000).samples, 0.75 * voice, atol=1e-6)
    assert from_array(stereo, 8000, channel="each").samples.shape == (2, 2 * len(voice))
    assert from_array(voice, 44100, target_rate=None).rate == 44100


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((16000, 2), np.float32), 16000, "pass samples.T"),
        (np.zeros((2, 2, 2), np.float32), 16000, "shape \\(2, 2, 2\\)"),
        (np.zeros(0, np.float32), 16000, "no samples"),
        (np.zeros(100, bool), 16000, "found bool"),
        (np.zeros(100, complex), 16000, "found complex128"),
        (np.full(100, np.nan, np.float32), 16000, "NaN"),
        (np.zeros(100, np.float32), 0, "rate"),
        (np.zeros(100, np.float32), 16000.5, "rate"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(samples: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        from_array(samples, rate, name="my array")
    assert str(caught.value).startswith("my array: ")


def test_reading_needs_neither_torch_nor_torchaudio(tmp_path: Path, voice: np.ndarray, encode: Encode) -> None:
    (tmp_path / "a.flac").write_bytes(encode(voice, "FLAC"))
    code = (
        "import sys\n"
        "for name in ('torch', 'torchaudio', 'torchcodec'): sys.modules[name] = None\n"
        "from asr.audio.read import read\n"
        f"print(len(read({str(tmp_path / 'a.flac')!r}).samples))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == str(len(voice)), done.stderr


class TestWithoutSoundfile:
    @pytest.fixture(autouse=True)
    def _absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "soundfile", None)
        monkeypatch.setenv("PATH", "")

    @pytest.mark.parametrize("data", [b"fLaC", b"RIFF\0\0\0\0WAVE", b""])
    def test_what_to_install_is_said(self, data: bytes) -> None:
        with pytest.raises(AudioError, match=r"a\.flac: .*pip install soundfile"):
            read(data + bytes(100), name="a.flac")
