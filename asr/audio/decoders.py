"""What turns an opened file into samples: libsndfile. Used by read.py and its neighbours only."""

from __future__ import annotations

import io
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, get_args

import numpy as np

from asr.audio.headers import Slice, ogg_goes_on, ogg_is_cut, promised_frames
from asr.types import ConfigError

Encoding = Literal["s8", "u8", "s16", "s24", "s32", "f32", "f64"]
ByteOrder = Literal["little", "big"]

LOWEST_RATE, HIGHEST_RATE = 1000, 768_000  # hertz; headers with others are damaged, and their filters fill the memory

_BLOCK = 65536  # frames
_UNKNOWN = 2**60  # libsndfile reports more frames than this where the header does not say how many there are
_SUBTYPES = {"s8": "PCM_S8", "u8": "PCM_U8", "f32": "FLOAT", "f64": "DOUBLE"}
_quiet_lock = threading.Lock()


@dataclass(frozen=True)
class AudioInfo:
    """A recording as its header tells: duration in seconds, rate in hertz, frames (samples per channel), codec."""

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
        if self.encoding not in get_args(Encoding):
            raise ConfigError(f"raw audio: encoding '{self.encoding}' is not one of {', '.join(get_args(Encoding))}")
        if self.byte_order not in get_args(ByteOrder):
            raise ConfigError(f"raw audio: byte order '{self.byte_order}' is neither little nor big")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * int(self.encoding[1:]) // 8

    def options(self) -> dict[str, Any]:
        """As soundfile wants to be told."""
        subtype = _SUBTYPES.get(self.encoding, f"PCM_{self.encoding[1:]}")
        told = {"format": "RAW", "subtype": subtype, "endian": self.byte_order.upper()}
        return {"samplerate": self.rate, "channels": self.channels, **told}


class Decoder(ABC):
    """An opened recording; `warnings` grows while it is read.

    `info.frames` is -1 where the header does not say. `promised_frames`, where it is more, is what the header of a
    truncated file says, give or take `tolerance`. `damage` tells, after reading, why it stopped before the end.
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
        """Yield `(frames, channels)` float32 blocks of frames `start` to `stop` (None: the end), as far as it goes."""


class Undecodable(Exception):
    """A decoder cannot read a file; the message says why, without the file's name."""


class SoundFileDecoder(Decoder):
    """wav, flac, ogg (vorbis, opus), mp3, aiff, au, caf, w64, sphere, headerless PCM and what else libsndfile knows."""

    def __init__(
        self, file: BinaryIO | Slice, sound_type: Callable[..., Any], quiet: bool = False, raw: RawFormat | None = None
    ) -> None:
        self.file, self.sound_type, self.quiet = file, sound_type, quiet
        self.options = raw.options() if raw is not None else {}
        with self._open() as sound:
            frames = int(sound.frames) if sound.frames < _UNKNOWN else -1
            duration = max(frames, 0) / sound.samplerate
            super().__init__(AudioInfo(duration, sound.samplerate, sound.channels, frames, sound.format, sound.subtype))
            log = sound.extra_info
        self.quiet = self.quiet or self.info.subtype.startswith("MPEG")  # in a WAV file, say
        self.promised_frames = promised_frames(file, self.info.format, self.info.channels, self.info.subtype, log)
        self.tolerance = 2 * 1152 if self.info.subtype.startswith("MPEG") else 0  # its header counts packets
        if self.info.format == "OGG" and ogg_is_cut(file):
            self.warnings.append("truncated: the stream has no proper end, read up to its last whole page")
        if self.info.format == "OGG" and ogg_goes_on(file):
            self.warn_of_another()
        if raw is not None and (rest := file.seek(0, os.SEEK_END) % raw.frame_bytes):
            self.warnings.append(
                f"the last {rest} bytes are no whole frame of {raw.channels} x {raw.encoding}: "
                "cut off, or stored in another format than the one given"
            )

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        done = start
        # The block in which a damaged file ends is lost as a whole, so the rest is read once more in small ones.
        for size in (_BLOCK, 256):
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
        try:
            with self._hush():
                return self.sound_type(_View(self.file), "r", closefd=False, **self.options)
        except RuntimeError as error:  # soundfile.LibsndfileError
            raise Undecodable(_first_line(error)) from error

    def _open_at(self, frame: int) -> Any:
        """The file opened at a frame: by seeking, or by reading up to it where a damaged file cannot be sought in."""
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
        return _quiet() if self.quiet else nullcontext()

    def _read(self, sound: Any, frames: int) -> np.ndarray:
        with self._hush():
            return sound.read(frames, "float32", always_2d=True)


class _View:
    """A file as libsndfile should see it: without a name, whose ending it would believe, and without failing seeks."""

    def __init__(self, file: BinaryIO | Slice) -> None:
        self.file = file
        file.seek(0)
        self.tell = file.tell
        self.read = file.read
        if hasattr(file, "readinto"):
            self.readinto = file.readinto

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except (ValueError, OSError):  # before the start, in a damaged file
            return self.file.tell()

    def write(self, data: bytes) -> int:
        raise io.UnsupportedOperation("opened for reading")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep stderr clean of mpg123, which writes remarks on cut files, and after seeks, to its file descriptor."""
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


def sequential_sound_file() -> Callable[..., Any]:
    """soundfile's SoundFile without its seek after every read.

    That seek costs an mp3 decoder its bit reservoir (it complains on stderr) and fails at the end of a FLAC
    file of undeclared length. Raises Undecodable where soundfile or its library is missing.
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
    """libsndfile's own words, without 'Error opening <_io.BytesIO object at 0x...>'."""
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    text = " ".join(str(text).split()).rstrip(".").removeprefix("Error : ")
    return "no audio found in it" if text.startswith("File does not exist") else text  # how it says so of an mp3
