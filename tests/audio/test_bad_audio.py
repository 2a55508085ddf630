"""The bad-audio matrix: each case one clear line that names the file, or a warning where something can be read."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr.audio.read import RawFormat, probe, read
from asr.types import AudioError, ConfigError

Encode = Callable[..., bytes]


def refused(source: object, *parts: str, **options: object) -> str:
    """The message of the AudioError that `read` raises, checked to be one line with these parts in it."""
    with pytest.raises(AudioError) as caught:
        read(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message and "0x" not in message
    for part in parts:
        assert part in message
    return message


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


NOT_AUDIO = {
    "text": b"hello world, this is no recording\n" * 20,
    "zeros": bytes(5000),
    "noise": np.random.default_rng(7).bytes(5000),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "one byte": b"R",
    "only RIFF": b"RIFF\x00\x00\x00\x00WAVE",
    "only fLaC": b"fLaC" + bytes(100),
    "only OggS": b"OggS" + bytes(100),
    "only ID3": b"ID3" + bytes(1000),
    "only mp3 sync": b"\xff\xfb\x90\x64" + bytes(1000),
}


@pytest.mark.parametrize("kind", NOT_AUDIO)
def test_not_audio(tmp_path: Path, no_ffmpeg: None, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    path = tmp_path / "späße.wav"
    path.write_bytes(NOT_AUDIO[kind])
    message = refused(path, str(path))
    assert "not an audio file" in message or "damaged or unsupported" in message
    with pytest.raises(AudioError, match="späße"):
        probe(path)
    assert refused(NOT_AUDIO[kind], name="<stdin>").startswith("<stdin>: ")
    assert capfd.readouterr().err == ""  # the libraries below keep quiet


def test_missing_folder_empty_and_dangling(tmp_path: Path) -> None:
    refused(tmp_path / "none.wav", "none.wav: no such file")
    refused(tmp_path, f"{tmp_path}: is a folder")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "empty.wav: the file is empty (0 bytes)")
    refused(b"", "bytes: the file is empty")
    refused(io.BytesIO(), "stream: the file is empty")
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    refused(tmp_path / "link.wav", "link.wav: no such file (a broken link)")
    refused("a\0b.wav", "cannot be opened")
    refused("x" * 5000, "cannot be opened")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path, voice: np.ndarray, encode: Encode) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(encode(voice))
    path.chmod(0)
    refused(path, "secret.wav: no permission to read it")


def test_no_permission_as_the_system_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    refused("secret.wav", "secret.wav: no permission to read it")


@pytest.mark.parametrize("format", ["WAV", "AIFF", "AU", "OGG"])
def test_no_samples(encode: Encode, format: str) -> None:
    data = encode(np.zeros((0, 1), np.float32), format)
    refused(data, "bytes: ")
    with pytest.raises(AudioError, match="bytes: "):
        probe(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(voice: np.ndarray, encode: Encode, value: float) -> None:
    samples = voice.copy()
    samples[8000] = value
    data = encode(samples, "WAV", "FLOAT")
    refused(data, "a.wav: holds NaN or infinite samples (the first at 0.500 s)", name="a.wav")
    stereo = np.stack([voice, samples], axis=1)
    for channel in ("mix", "each", 1):
        refused(encode(stereo, "WAV", "FLOAT"), "NaN or infinite", channel=channel)
    assert read(encode(stereo, "WAV", "FLOAT"), channel=0).warnings == ()
    huge = voice.astype(np.float64)
    huge[100] = 1e300
    refused(encode(huge, "WAV", "DOUBLE"), "NaN or infinite")


def test_integers_stored_as_floats_are_told(voice: np.ndarray, encode: Encode) -> None:
    (warning,) = read(encode(voice * 32768, "WAV", "FLOAT")).warnings
    assert "belongs in [-1, 1]" in warning


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"offset": 5.0}, ["offset 5 s lies beyond the end", "2.00 s long"]),
        ({"offset": 2.0}, ["beyond the end"]),
        ({"offset": -1.0}, ["offset must be 0 s or more, found -1"]),
        ({"offset": float("nan")}, ["offset"]),
        ({"duration": 0.0}, ["holds no samples"]),
        ({"duration": -3.0}, ["holds no samples"]),
        ({"duration": float("inf")}, ["holds no samples"]),
        ({"channel": 2}, ["no channel 2, it has 2 channels (0 to 1)"]),
        ({"channel": -1}, ["no channel -1"]),
        ({"channel": "left"}, ["'mix', 'each' or a number, found 'left'"]),
    ],
)
def test_windows_and_channels_that_are_not_there(
    voice: np.ndarray, encode: Encode, options: dict[str, object], parts: list[str]
) -> None:
    for format in ("WAV", "FLAC"):
        refused(encode(np.stack([voice, voice], axis=1), format), "a: ", *parts, name="a", **options)
    raw = np.zeros((32000, 2), np.int16).tobytes()
    refused(raw, *parts, raw=RawFormat(16000, channels=2), **options)


def test_a_window_that_reaches_out_is_told(voice: np.ndarray, encode: Encode) -> None:
    audio = read(encode(voice), offset=1.5, duration=2.0)
    assert len(audio.samples) == 8000 and "reaches beyond the end" in audio.warnings[0]
    assert read(encode(voice), offset=1.5, duration=0.55).warnings == ()  # manifests round


CUT = ["WAV", "FLAC", "OGG", "OPUS", "MP3", "AIFF", "AU", "NIST", "RF64"]


@pytest.fixture(scope="module")
def cuttable(voice: np.ndarray, encode: Encode) -> dict[str, bytes]:
    long = np.tile(voice, 4)
    return {kind: encode(long, "OGG", "OPUS") if kind == "OPUS" else encode(long, kind) for kind in CUT}


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("kept", [0.6, 0.3])
def test_truncated_is_read_as_far_as_possible(
    cuttable: dict[str, bytes], capfd: pytest.CaptureFixture[str], kind: str, kept: float
) -> None:
    data = cuttable[kind]
    whole = read(data).samples
    audio = read(data[: int(len(data) * kept)], name="cut")
    (warning,) = audio.warnings
    assert warning.startswith("truncated") or warning.startswith("damaged")
    assert len(audio.samples) > (kept - 0.25) * len(whole)
    assert len(audio.samples) < len(whole)
    last = len(audio.samples) - 4000  # a codec's last packet may come out incomplete
    np.testing.assert_allclose(audio.samples[:last], whole[:last], atol=1e-5)
    assert read(data[: int(len(data) * kept)], offset=0.25, duration=0.5).samples.shape == (8000,)
    message = refused(data[: int(len(data) * kept)], "cut: ", name="cut", offset=7.5)
    assert "7.5 s" in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", CUT)
def test_cut_anywhere_is_an_error_or_a_warning(cuttable: dict[str, bytes], no_ffmpeg: None, kind: str) -> None:
    data = cuttable[kind]
    for kept in (1, 10, 30, 43, 44, 50, 80, 120, 500, 1100, 5000, len(data) - 1000, len(data) - 3):
        try:
            audio = read(data[:kept], name="cut")
        except AudioError as error:
            assert str(error).startswith("cut: ") and "\n" not in str(error)
        else:
            assert len(audio.samples)
            # The last bytes of an mp3 can be missing without any sign of it.
            assert audio.warnings or (kind == "MP3" and kept > len(data) // 2)


def test_a_flac_damaged_inside_is_told(voice: np.ndarray, encode: Encode) -> None:
    data = bytearray(encode(np.tile(voice, 4), "FLAC"))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    audio = read(bytes(data))
    assert len(audio.samples) > 4 * 8000
    assert audio.warnings or len(audio.samples) == 4 * len(voice)


def test_a_wav_that_was_never_closed_is_read(voice: np.ndarray, encode: Encode) -> None:
    data = bytearray(encode(voice))
    data[40:44] = bytes(4)
    audio = read(bytes(data))
    assert audio.samples.shape == voice.shape
    assert "interrupted" in audio.warnings[0]


def test_text_mode_and_other_objects() -> None:
    refused(io.StringIO("RIFF"), "opened as text")
    closed = io.BytesIO(b"x")
    closed.close()
    refused(closed, "cannot be read")
    with pytest.raises(TypeError, match="from_array"):
        read(np.zeros(10))  # type: ignore[arg-type]


def test_other_containers_need_ffmpeg_and_say_so(no_ffmpeg: None, tmp_path: Path) -> None:
    path = tmp_path / "talk.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(200))
    refused(path, "talk.m4a: m4a/mp4 audio needs the ffmpeg program", "apt install ffmpeg", "convert the file to wav")


ZEROS = bytes(2000)
ELSEWHERE = {  # what a file is, how it begins, and what is said to convert it
    "amr": (b"#!AMR\n", "ffmpeg"),
    "amr-wb": (b"#!AMR-WB\n", "ffmpeg"),
    "speex": (b"OggS\0\2" + bytes(20) + b"\1\x50" + b"Speex   1.2", "`speexdec IN OUT.wav`"),
    "shortened sphere": (
        b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n",
        "`sph2pipe -f wav IN OUT.wav`",
    ),
    "wma": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "ffmpeg"),
    "webm/matroska": (b"\x1a\x45\xdf\xa3", "ffmpeg"),
    "m4a/mp4": (b"\0\0\0\x1cftypmp42", "ffmpeg"),
    "aac": (b"\xff\xf1\x50\x80", "ffmpeg"),
    "dss": (b"\2dss", "ffmpeg"),
    "ds2": (b"\3ds2", "dictation software"),
    "silk": (b"\2#!SILK_V3", "silk_v3_decoder"),
    "ape": (b"MAC \x96\x0f", "ffmpeg"),
    "wavpack": (b"wvpk", "ffmpeg"),
    "tta": (b"TTA1", "ffmpeg"),
    "musepack": (b"MPCK", "ffmpeg"),
    "realaudio": (b".RMF", "ffmpeg"),
    "qcelp": (b"RIFF\0\0\0\0QLCMfmt ", "ffmpeg"),
    "shorten": (b"ajkg\2", "ffmpeg"),
    "optimfrog": (b"OFR \x0c", "ofr --decode IN"),
    "midi": (b"MThd\0\0\0\6", "notes"),
    "zip": (b"PK\x03\x04", "unpack it first"),
    "gzip": (b"\x1f\x8b\x08", "unpack it first"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_is_not_read_here_is_named_with_what_converts_it(
    tmp_path: Path, no_ffmpeg: None, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """Kind: a file called "not audio" or "damaged" that is neither."""
    start, tool = ELSEWHERE[kind]
    path = tmp_path / "a.wav"  # the name says nothing
    path.write_bytes(start + ZEROS)
    refused(path, f"a.wav: {kind} ", tool)
    refused(start + ZEROS, f"bytes: {kind} ", tool)
    assert capfd.readouterr().err == ""


def test_an_ffmpeg_that_cannot_read_it_does_not_hide_what_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho 'no decoder found for: none' >&2\nexit 1\n", encoding="utf-8")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(ELSEWHERE["shortened sphere"][0] + ZEROS, "no decoder found", "`sph2pipe -f wav IN OUT.wav`")
    refused(ELSEWHERE["ds2"][0] + ZEROS, "no decoder found", "dictation software")


class TestRaw:
    @pytest.mark.parametrize("order", ["little", "big"])
    @pytest.mark.parametrize(
        ("encoding", "step"),
        [("s8", 2**-7), ("u8", 2**-7), ("s16", 2**-15), ("s24", 2**-23), ("s32", 2**-24), ("f32", 0.0), ("f64", 0.0)],
    )
    @pytest.mark.parametrize("channels", [1, 2])
    def test_round_trip(self, voice: np.ndarray, encoding: str, order: str, channels: int, step: float) -> None:
        samples = np.stack([voice, -0.5 * voice], axis=1)[:, :channels]
        mark = "<" if order == "little" else ">"
        bits = int(encoding[1:])
        if encoding[0] == "f":
            data = samples.astype(f"{mark}f{bits // 8}").tobytes()
        elif encoding == "u8":
            data = (samples * 128 + 128).round().clip(0, 255).astype(np.uint8).tobytes()
        else:
            integers = (samples.astype(np.float64) * 2.0 ** (bits - 1)).round().astype(np.int64)
            eight = integers.astype(f"{mark}i8").reshape(-1, 1).view(np.uint8)
            kept = slice(0, bits // 8) if order == "little" else slice(8 - bits // 8, 8)
            data = np.ascontiguousarray(eight[:, kept]).tobytes()
        layout = RawFormat(16000, channels, encoding, order)  # type: ignore[arg-type]
        audio = read(data, raw=layout, channel="each")
        np.testing.assert_allclose(audio.samples, samples.T, atol=step + 1e-7)
        assert audio.warnings == ()
        info = probe(data, layout)
        assert (info.frames, info.rate, info.channels) == (len(voice), 16000, channels)
        part = read(data, raw=layout, offset=0.5, duration=0.25, channel=0)
        assert np.array_equal(part.samples, audio.samples[0, 8000:12000])

    def test_byte_order_matters(self, voice: np.ndarray) -> None:
        data = (voice * 2**15).astype(">i2").tobytes()
        right = read(data, raw=RawFormat(16000, byte_order="big")).samples
        wrong = read(data, raw=RawFormat(16000, byte_order="little")).samples
        assert np.corrcoef(right, voice)[0, 1] > 0.999 > 0.5 > abs(np.corrcoef(wrong, voice)[0, 1])

    def test_half_a_frame_at_the_end_is_told(self) -> None:
        audio = read(bytes(1001), raw=RawFormat(16000))
        assert len(audio.samples) == 500 and "a whole frame" in audio.warnings[0]
        refused(bytes(1), "a whole frame", raw=RawFormat(16000))

    def test_a_header_where_none_was_declared(self, voice: np.ndarray, encode: Encode) -> None:
        for format in ("WAV", "FLAC", "OGG"):
            refused(encode(voice, format), "leave the raw format out", raw=RawFormat(16000))

    def test_no_format_given(self, tmp_path: Path, voice: np.ndarray) -> None:
        path = tmp_path / "an4.raw"
        for first in (b"", b"\xff\xfb"):
            path.write_bytes(first + (voice * 2**15).astype(">i2").tobytes())
            refused(path, "an4.raw: headerless audio: give its format")

    @pytest.mark.parametrize(
        "wrong",
        [{"rate": 0}, {"rate": 8000, "channels": 0}, {"rate": 8000, "encoding": "s12"}, {"rate": 1, "byte_order": "x"}],
    )
    def test_formats_that_do_not_exist(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match="raw audio"):
            RawFormat(**wrong)  # type: ignore[arg-type]


def test_stdin_that_is_text_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("x"))
    refused(sys.stdin, "sys.stdin.buffer")
