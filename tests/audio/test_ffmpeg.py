"""Other containers through the ffmpeg program: a stand-in for it here, the real one where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr.audio import readers
from asr.audio.read import probe, read
from asr.types import AudioError

Encode = Callable[..., bytes]
M4A = b"\0\0\0\x20ftypM4A "

# Takes a "container" that is a FLAC file behind 12 bytes, and answers as ffmpeg would: a WAV with sizes unknown.
STAND_IN = """#!{python}
import io, json, sys
import numpy as np, soundfile
arguments = sys.argv[1:]
path = next(a for a in arguments if a.startswith("file:"))[5:]
data = open(path, "rb").read()
if b"BROKEN" in data:
    sys.exit("[mov,mp4,m4a @ 0x55d0c0ffee] moov atom not found\\nInvalid data found when processing input")
samples, rate = soundfile.read(io.BytesIO(data[12:]), dtype="float32", always_2d=True)
if {probing}:
    stream = dict(sample_rate=str(rate), channels=samples.shape[1], codec_name="aac", duration=str(len(samples) / rate))
    print(json.dumps(dict(streams=[stream], format=dict(format_name="mov,mp4,m4a", duration=stream["duration"]))))
    sys.exit()
def option(name, default):
    return float(arguments[arguments.index(name) + 1]) if name in arguments else default
start = round(option("-ss", 0.0) * rate)
samples = samples[start : start + round(option("-t", 1e6) * rate)]
out = io.BytesIO()
soundfile.write(out, samples, rate, format="WAV", subtype="FLOAT")
wav = bytearray(out.getvalue())
at = wav.index(b"data")
wav[at + 4 : at + 8] = b"\\xff\\xff\\xff\\xff"
sys.stdout.buffer.write(wav)
if b"DAMAGED" in data:
    print("[aac @ 0x1234abcd] Input buffer exhausted before END element found", file=sys.stderr)
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a stand-in for ffmpeg, and for ffprobe if asked to, on an otherwise empty PATH."""

    def install(*, ffprobe: bool) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ["ffmpeg", *(["ffprobe"] if ffprobe else [])]:
            program = folder / name
            program.write_text(STAND_IN.format(python=sys.executable, probing=name == "ffprobe"), encoding="utf-8")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return install


@pytest.mark.parametrize("ffprobe", [True, False])
def test_windows_channels_and_bytes(
    programs: Callable[..., None], tmp_path: Path, voice: np.ndarray, encode: Encode, ffprobe: bool
) -> None:
    programs(ffprobe=ffprobe)
    path = tmp_path / "späße -i.m4a"
    stereo = np.stack([voice, 0.5 * voice], axis=1)
    path.write_bytes(M4A + encode(stereo, "FLAC"))
    whole = read(path, channel="each")
    np.testing.assert_allclose(whole.samples, stereo.T, atol=2**-15)
    assert whole.warnings == () and whole.source_channels == 2
    assert np.array_equal(read(path.read_bytes(), channel="each").samples, whole.samples)
    part = read(path, channel=1, offset=1.25, duration=0.5)
    assert np.array_equal(part.samples, whole.samples[1, 20000:28000])
    info = probe(path)
    assert (info.frames, info.rate, info.channels) == (32000, 16000, 2)
    with pytest.raises(AudioError, match="offset 9 s lies beyond the end"):
        read(path, offset=9.0)


def test_a_late_window_is_sought(
    programs: Callable[..., None], tmp_path: Path, voice: np.ndarray, encode: Encode
) -> None:
    programs(ffprobe=True)
    long = np.tile(voice, 35)
    path = tmp_path / "long.m4a"
    path.write_bytes(M4A + encode(long, "FLAC"))
    part = read(path, offset=65.5, duration=1.0)
    np.testing.assert_allclose(part.samples, long[round(65.5 * 16000) : round(66.5 * 16000)], atol=2**-15)


def test_more_than_a_pipe_holds_comes_in_blocks_and_may_be_left_unread(
    programs: Callable[..., None], tmp_path: Path, voice: np.ndarray, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(ffprobe=True)
    monkeypatch.setattr(readers, "_PIPED", 10_007)  # no multiple of a frame
    three = np.stack([voice, 0.5 * voice, -voice], axis=1)
    path = tmp_path / "three.m4a"
    path.write_bytes(M4A + encode(three, "FLAC"))
    np.testing.assert_allclose(read(path, channel="each").samples, three.T, atol=2**-15)
    part = read(path, channel=1, offset=0.3, duration=0.9)
    np.testing.assert_allclose(part.samples, three[4800:19200, 1], atol=2**-15)
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])
    reader = readers.FfmpegReader(path)
    blocks = reader.blocks(0, None)
    assert 0 < len(next(blocks)) < 1000
    blocks.close()
    assert started[-1].poll() is not None and reader.warnings == []


@pytest.mark.parametrize("ffprobe", [True, False])
def test_what_ffmpeg_complains_of_is_passed_on(
    programs: Callable[..., None], tmp_path: Path, voice: np.ndarray, encode: Encode, ffprobe: bool
) -> None:
    programs(ffprobe=ffprobe)
    path = tmp_path / "talk.m4a"
    path.write_bytes(M4A + encode(voice, "FLAC") + b"DAMAGED")
    (warning,) = read(path).warnings
    assert warning == "ffmpeg: Input buffer exhausted before END element found; read as far as possible"
    path.write_bytes(M4A + b"BROKEN")
    with pytest.raises(AudioError, match=r"damaged or unsupported m4a/mp4 .ffmpeg: Invalid data found") as caught:
        read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    (tmp_path / "x.txt").write_text("BROKEN " * 100, encoding="utf-8")
    with pytest.raises(AudioError, match="not an audio file"):
        read(tmp_path / "x.txt")


def test_an_ffmpeg_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match="ffmpeg cannot be started"):
        read(M4A + bytes(100), name="a.m4a")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(("ending", "codec"), [("m4a", "aac"), ("webm", "libopus"), ("mka", "flac")])
def test_the_real_one(tmp_path: Path, voice: np.ndarray, encode: Encode, ending: str, codec: str) -> None:
    (tmp_path / "a.wav").write_bytes(encode(voice))
    path = tmp_path / f"a.{ending}"
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "a.wav"), "-c:a", codec, str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip(f"this ffmpeg has no {codec}")
    audio = read(path)
    # AAC comes in frames of 1,024 samples: where ffmpeg does not cut it off, the filling of the last one is heard, too
    filled = -(-len(voice) // 1024) * 1024 if codec == "aac" else len(voice)
    assert abs(len(audio.samples) - len(voice)) <= 400 or len(audio.samples) == filled
    assert np.corrcoef(audio.samples[:30000], voice[:30000])[0, 1] > 0.95
    part = read(path, offset=0.5, duration=0.5)
    np.testing.assert_allclose(part.samples[100:7900], audio.samples[8100:15900], atol=1e-3)
