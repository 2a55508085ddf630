"""Decoding of opened files by libsndfile, and by the ffmpeg program for formats that libsndfile does not know."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from asr.audio.headers import Slice, data_extent
from asr.types import ConfigError

Encoding = Literal["s8", "u8", "s16", "s24", "s32", "f32", "f64"]
ByteOrder = Literal["little", "big"]

LOWEST_RATE, HIGHEST_RATE = 1000, 768_000  # hertz; others mean a damaged header, and resampling would fill the memory

BLOCK = 65536  # frames decoded at once
_MPEG_PACKET = 1152  # frames
_UNKNOWN = 2**60  # libsndfile reports more frames than this if the header does not give their number
_SUBTYPES = {"s8": "PCM_S8", "u8": "PCM_U8", "f32": "FLOAT", "f64": "DOUBLE"}
_SEEK_BEYOND = 60.0  # seconds; for a window that starts earlier, ffmpeg decodes from the beginning, which is exact
_SEEK_LEAD = 1.0  # seconds decoded before a window after a seek, since lossy codecs need some packets to settle
_PIPED = 1 << 20  # bytes read from ffmpeg at once
_quiet_lock = threading.Lock()


class Undecodable(Exception):
    """A reader cannot decode a file; the message says why, without the name of the file."""


@dataclass(frozen=True)
class AudioInfo:
    """A recording as described by its header: duration in seconds, rate in hertz, frames (samples per channel), codec.

    `frames` is -1 if the header does not say.
    """

    duration: float
    rate: int
    channels: int
    frames: int
    format: str
    subtype: str


@dataclass(frozen=True)
class RawFormat:
    """How headerless audio is stored: rate in hertz, interleaved channels, sample encoding and byte order."""

    rate: int
    channels: int = 1
    encoding: Encoding = "s16"
    byte_order: ByteOrder = "little"

    def __post_init__(self) -> None:
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            raise ConfigError(
                f"raw audio: the rate must lie between {LOWEST_RATE} and {HIGHEST_RATE} Hz, found {self.rate}"
            )
        if self.channels < 1:
            raise ConfigError(f"raw audio: at least 1 channel, found {self.channels}")
        for name, chosen, known in (("encoding", self.encoding, Encoding), ("byte order", self.byte_order, ByteOrder)):
            if chosen not in get_args(known):
                raise ConfigError(f"raw audio: {name} '{chosen}' is not one of {', '.join(get_args(known))}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * int(self.encoding[1:]) // 8

    def soundfile_options(self) -> dict[str, Any]:
        """The format as arguments of `soundfile.SoundFile`."""
        subtype = _SUBTYPES.get(self.encoding, f"PCM_{self.encoding[1:]}")
        stored = {"samplerate": self.rate, "channels": self.channels, "endian": self.byte_order.upper()}
        return {"format": "RAW", "subtype": subtype, **stored}


class AudioReader(ABC):
    """An opened recording; `warnings` grows while it is read.

    `promised_frames`, if above `info.frames`, is the length by the header of a truncated file, accurate to `tolerance`
    frames. `damage` says, after reading, why reading stopped before the end.
    """

    def __init__(self, info: AudioInfo) -> None:
        self.info = info
        self.warnings: list[str] = []
        self.promised_frames = -1
        self.tolerance = 0
        self.damage = ""

    def warn_of_another(self) -> None:
        end = f"{self.info.duration:.2f} s"
        self.warnings.append(f"another recording follows after {end} and is not read: split the file")

    @abstractmethod
    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """Yield `(frames, channels)` float32 blocks of the existing frames from `start` to `stop` (None: the end)."""


class SoundFileReader(AudioReader):
    """wav, flac, ogg (vorbis, opus), mp3, aiff, au, caf, w64, sphere, headerless PCM and what else libsndfile reads."""

    def __init__(self, file: Slice, quiet: bool = False, raw: RawFormat | None = None) -> None:
        self._file, self._quiet = file, quiet
        self._sound_type = _sequential_sound_file()
        self._options = raw.soundfile_options() if raw is not None else {}
        with self._open() as sound:
            frames = int(sound.frames) if sound.frames < _UNKNOWN else -1
            duration = max(frames, 0) / sound.samplerate
            super().__init__(AudioInfo(duration, sound.samplerate, sound.channels, frames, sound.format, sound.subtype))
        if self.info.subtype.startswith("MPEG"):  # which may be in a WAV file
            self._quiet, self.tolerance = True, 2 * _MPEG_PACKET  # its header counts packets
        if raw is not None and (rest := file.size % raw.frame_bytes):
            self.warnings.append(
                f"the last {rest} bytes do not make a whole frame of {raw.channels} x {raw.encoding}: "
                "cut off, or not in the given format"
            )

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        done = start
        # A damaged file loses the whole block in which it ends, so the rest is read again in small blocks.
        for size in (BLOCK, 256):
            sound = self._open_at(done)
            if sound is None:
                return
            with sound:
                while stop is None or done < stop:
                    try:
                        block = self._read(sound, size if stop is None else min(size, stop - done))
                    except RuntimeError as error:
                        self.damage = _first_line(error)
                        break
                    if not len(block):
                        return
                    done += len(block)
                    yield block
                else:
                    return

    def _open(self) -> Any:
        self._file.seek(0)
        try:
            with self._hush():
                return self._sound_type(self._file, "r", closefd=False, **self._options)
        except RuntimeError as error:  # soundfile.LibsndfileError
            raise Undecodable(_first_line(error)) from error

    def _open_at(self, frame: int) -> Any:
        """The file opened at a frame: by seeking or, if a damaged file cannot seek, by reading up to it."""
        sound = self._open()
        if frame == 0:
            return sound
        try:
            with self._hush():
                if sound.seek(frame) == frame:
                    return sound
        except RuntimeError:
            pass
        sound.close()
        sound = self._open()
        try:
            while frame and (count := len(self._read(sound, min(256, frame)))):
                frame -= count
        except RuntimeError as error:
            self.damage = _first_line(error)
        if frame == 0:
            return sound
        sound.close()
        return None

    def _hush(self) -> AbstractContextManager[None]:
        return _no_stderr() if self._quiet else nullcontext()

    def _read(self, sound: Any, frames: int) -> np.ndarray:
        with self._hush():
            return sound.read(frames, "float32", always_2d=True)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Silence libmpg123, which writes remarks on truncated files, and after seeks, to file descriptor 2."""
    locked = _quiet_lock.acquire(timeout=5)
    try:
        saved = os.dup(2) if locked else -1
    except OSError:  # there is no stderr
        saved = -1
    try:
        if saved >= 0:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 2)
            os.close(sink)
        yield
    finally:
        if saved >= 0:
            os.dup2(saved, 2)
            os.close(saved)
        if locked:
            _quiet_lock.release()


def _sequential_sound_file() -> Any:
    """soundfile's SoundFile without its seek after every read.

    That seek makes an mp3 decoder lose its bit reservoir (it complains on stderr), and fails at the end of a FLAC file
    of undeclared length. Raises Undecodable if soundfile or its library is missing.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise Undecodable(f"soundfile is missing: pip install soundfile; {error}") from error

    class SequentialSoundFile(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    return SequentialSoundFile


def _first_line(error: BaseException) -> str:
    """libsndfile's own message, without 'Error opening <_io.BytesIO object at 0x...>'."""
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    text = " ".join(str(text).split()).rstrip(".").removeprefix("Error : ")
    return "no audio found in it" if text.startswith("File does not exist") else text  # said of an mp3 without frames


class FfmpegReader(AudioReader):
    """Any file on disk that the ffmpeg program on PATH decodes. Raises Undecodable if it finds no audio in it.

    Without ffprobe, which comes with ffmpeg and reads lengths from headers, the length is unknown.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._complaint = path, ""
        info = _ffprobe(path)
        if info is None:
            pieces = self._decode(0.0, None)
            rate, block = next(pieces, (0, np.zeros((0, 0))))
            pieces.close()
            if not rate:
                raise Undecodable(self._complaint or "ffmpeg: no output")
            info = AudioInfo(0.0, rate, block.shape[1], -1, "ffmpeg", "")
        super().__init__(info)
        self.tolerance = info.rate // 10  # containers count in packets and round

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        rate = self.info.rate
        skipped = round(_SEEK_LEAD * rate) if start > _SEEK_BEYOND * rate else start
        left = None if stop is None else stop - start
        seconds = None if left is None else (skipped + left) / rate
        for _, block in self._decode((start - skipped) / rate, seconds):
            part = block[skipped:] if left is None else block[skipped : skipped + left]
            skipped = max(0, skipped - len(block))
            left = None if left is None else left - len(part)
            if len(part):
                yield part
        if self._complaint:
            self.warnings.append(f"{self._complaint}; read as far as possible")

    def _decode(self, offset: float, seconds: float | None) -> Generator[tuple[int, np.ndarray], None, None]:
        """(rate, `(frames, channels)` block) as ffmpeg decodes, in the memory of a block.

        The first comes as soon as ffmpeg has written a header, even without samples. At the end, `_complaint` is the
        error message of ffmpeg, if any.
        """
        window = ["-ss", f"{offset:.6f}"] if offset else []
        window += ["-t", f"{seconds:.6f}"] if seconds is not None else []
        # After a seek, the first packets may give nothing: silence in their place keeps times right to some ms.
        align = ["-af", "aresample=async=1:first_pts=0"] if offset else []
        output = ["-map", "a:0", *align, "-c:a", "pcm_f32le", "-f", "wav", "-"]
        command = ["ffmpeg", "-v", "error", "-nostdin", *window, "-i", f"file:{self._path}", *output]
        with tempfile.TemporaryFile() as stderr, _started(command, stderr) as process:
            assert process.stdout is not None
            try:
                data = process.stdout.read(_PIPED)
                if data:
                    rate, channels, start = _wav_header(data)
                    data = data[start:]
                    yield rate, np.zeros((0, channels), np.float32)
                while data:
                    whole = len(data) // (4 * channels) * 4 * channels
                    yield rate, np.frombuffer(data[:whole], "<f4").reshape(-1, channels)
                    more = process.stdout.read(_PIPED)
                    data = data[whole:] + more if more else b""
                status = process.wait()
            finally:
                process.kill()  # if the rest is not needed
            stderr.seek(0)
            complaint = _last_line(stderr.read()) or (f"exit status {status}" if status else "")
            self._complaint = f"ffmpeg: {complaint}" if complaint else ""


def _started(command: list[str], stderr: Any) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
    except OSError as error:
        raise Undecodable(f"{command[0]} cannot be started: {error.strerror or error}") from error


def _wav_header(data: bytes) -> tuple[int, int, int]:
    """Rate, channels and start of the samples of a WAV file, in which ffmpeg writes the format chunk first."""
    extent = data_extent(io.BytesIO(data), len(data))
    channels, rate = int.from_bytes(data[22:24], "little"), int.from_bytes(data[24:28], "little")
    if extent is None or not channels:
        raise Undecodable("ffmpeg: no WAV header")
    return rate, channels, extent.start


def _ffprobe(path: Path) -> AudioInfo | None:
    """What ffprobe reads from the header; None if the program is missing or cannot say."""
    entries = "stream=sample_rate,channels,duration,codec_name:format=duration,format_name"
    options = ["-v", "error", "-select_streams", "a:0", "-show_entries", entries, "-of", "json"]
    if shutil.which("ffprobe") is None:
        return None
    with _started(["ffprobe", *options, f"file:{path}"], subprocess.DEVNULL) as process:
        output = process.communicate()[0]
    try:
        description = json.loads(output)
        stream, container = description["streams"][0], description["format"]
        rate, channels = int(stream["sample_rate"]), int(stream["channels"])
        duration = float(stream.get("duration") or container["duration"])
        name, codec = str(container["format_name"]), str(stream["codec_name"])
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return AudioInfo(duration, rate, channels, round(duration * rate), name, codec) if rate > 0 else None


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return re.sub(r"^\[[^\]]* @ 0x[0-9a-f]+\]\s*", "", lines[-1]) if lines else ""
