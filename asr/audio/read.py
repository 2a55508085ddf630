"""The only place that opens audio: a file, bytes, a stream or an array, to float32 samples at the rate asked for."""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr.audio.channels import ChannelPicker
from asr.audio.containers import open_decoder
from asr.audio.decoders import HIGHEST_RATE, LOWEST_RATE, AudioInfo, Decoder, RawFormat, Undecodable
from asr.audio.resample import resample
from asr.types import AsrError, AudioError, in_words

__all__ = ["Audio", "AudioInfo", "RawFormat", "Source", "from_array", "probe", "read"]

Source = str | Path | bytes | BinaryIO

_MAX_CHANNELS = 64  # of an array: beyond it, the axes have been swapped
_MAX_PEAK = 16.0  # floats beyond it were scaled as integers


@dataclass(frozen=True)
class Audio:
    """Samples of a recording or of a window of it.

    `samples` is float32, `(time,)` for channel "mix" or a number and `(channels, time)` for "each", at
    `rate` hertz. `duration` counts seconds of the source. `warnings` are phrases without the file's name.
    `silent` tells of each channel of `samples` whether it is constant: every sample, as decoded, has the same value.
    """

    samples: np.ndarray
    rate: int
    duration: float
    source_rate: int
    source_channels: int
    warnings: tuple[str, ...] = ()
    silent: tuple[bool, ...] = (False,)


def probe(source: Source, raw: RawFormat | None = None) -> AudioInfo:
    """Duration, rate, channels and codec from the header (of a headerless file: from its size).

    A recording whose header does not say how long it is gets decoded to find out. Raises AudioError as `read` does.
    """
    with opened(source, raw, None) as (decoder, label):
        info = decoder.info
        if info.frames < 0:
            frames = sum(len(block) for block in guarded(decoder.blocks(0, None), label))
            info = replace(info, frames=frames, duration=frames / info.rate)
        if not info.frames:
            raise AudioError(f"{label}: {'; '.join(['holds no samples', *decoder.warnings])}")
        return info


def channel_count(source: Source, raw: RawFormat | None = None) -> int:
    """How many channels a recording has, from its header. Raises AudioError as `read` does."""
    with opened(source, raw, None) as (decoder, _):
        return decoder.info.channels


def read(
    source: Source,
    *,
    rate: int | None = 16000,
    channel: str | int = "mix",
    offset: float = 0.0,
    duration: float | None = None,
    raw: RawFormat | None = None,
    name: str | None = None,
) -> Audio:
    """Read a recording, or `duration` seconds of it from `offset` on, without decoding the rest where that can be.

    `source` is a path, the bytes of a file, or a binary file object; one that can seek is read from its start, one
    that cannot (standard input) to its end. `rate` None keeps the source's. `channel` is "mix" (the mean), "each", or
    a number from 0. `raw` declares headerless samples. `name` stands for the source in messages.

    Raises AudioError, one line with the name in it: missing, no permission, a folder, empty, not audio, no samples,
    NaN or infinite samples, no such channel, or a window outside the recording. A truncated or damaged recording is
    read as far as it goes, with a warning in `Audio.warnings`. What libraries raise becomes an AudioError as well.
    """
    audio = read_unless_longer(
        source, None, rate=rate, channel=channel, offset=offset, duration=duration, raw=raw, name=name
    )
    assert audio is not None
    return audio


def read_unless_longer(
    source: Source,
    longest: float | None,
    *,
    rate: int | None = 16000,
    channel: str | int = "mix",
    offset: float = 0.0,
    duration: float | None = None,
    raw: RawFormat | None = None,
    name: str | None = None,
) -> Audio | None:
    """As `read`, but None for more than `longest` seconds, or for what may be more: such a source is not decoded."""
    with opened(source, raw, name) as (decoder, label):
        start, stop = window_frames(offset, duration, decoder.info, label)
        picker = ChannelPicker(channel, decoder.info.channels, label)
        info = decoder.info
        if longest is not None:
            last = info.frames if info.frames >= 0 else math.inf
            if min(last, math.inf if stop is None else stop) - start > longest * info.rate:
                return None
        parts = [picker(block) for block in guarded(decoder.blocks(start, stop), label)]
        frames = sum(part.shape[-1] for part in parts)
        if not frames:
            raise nothing_read(offset, start, decoder, label)
        with reading(label):
            samples = np.concatenate(parts, axis=-1)
            warnings = [*decoder.warnings, *shortage(start, stop, frames, decoder)]
            return _finish(samples, info.rate, rate, info.channels, warnings, picker)


def nothing_read(offset: float, start: int, decoder: Decoder, label: str) -> AudioError:
    """Why a recording, or a window of it from frame `start` on, gave no samples."""
    info = decoder.info
    if decoder.damage or 0 < start < info.frames:
        because = decoder.damage or f"the header promises {info.duration:.2f} s"
        return AudioError(f"{label}: cut off or damaged, nothing can be read at {offset:g} s ({because})")
    if start:
        return AudioError(f"{label}: offset {offset:g} s lies beyond the end of the recording{_length(info)}")
    return AudioError(f"{label}: {'; '.join(['holds no samples', *decoder.warnings])}")


def from_array(
    samples: np.ndarray, rate: int, *, target_rate: int | None = 16000, channel: str | int = "mix", name: str = "array"
) -> Audio:
    """What `read` gives, from samples `(time,)` or `(channels, time)` at `rate` hertz: floats in [-1, 1] or integers.

    Raises AudioError on other shapes (swapped axes among them) and types, on no samples, and on NaN or infinity.
    """
    array = np.asarray(samples)
    if array.ndim not in (1, 2):
        raise AudioError(f"{name}: expected samples (time,) or (channels, time), found shape {array.shape}")
    array = np.atleast_2d(array)
    channels, frames = array.shape
    if not array.size:
        raise AudioError(f"{name}: holds no samples")
    if channels > _MAX_CHANNELS or channels > frames:
        raise AudioError(f"{name}: shape {array.shape} means {channels} channels of {frames} samples: pass samples.T")
    if int(rate) != rate:
        raise AudioError(f"{name}: the rate must be a whole number of hertz, found {rate}")
    check_rate(int(rate), name)
    picker = ChannelPicker(channel, channels, name)
    picked = picker(_to_float(array, name).T)
    with reading(name):
        return _finish(picked, int(rate), target_rate, channels, [], picker)


def _to_float(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return array.astype(np.float32)
    if array.dtype.kind == "i":
        return array.astype(np.float32) / 2.0 ** (8 * array.dtype.itemsize - 1)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    raise AudioError(f"{name}: expected float or signed integer samples, found {array.dtype}")


def _finish(
    samples: np.ndarray, source_rate: int, rate: int | None, channels: int, warnings: list[str], picker: ChannelPicker
) -> Audio:
    peak = finite_peak(samples, source_rate, picker.label)
    warnings = [*warnings, *picker.warnings(), *quality_warnings(peak, source_rate, rate)]
    duration = samples.shape[-1] / source_rate
    if rate is not None and rate != source_rate:
        samples = resample(samples, source_rate, rate)
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    return Audio(samples, rate or source_rate, duration, source_rate, channels, tuple(warnings), picker.constant)


def finite_peak(samples: np.ndarray, rate: int, label: str, before: int = 0) -> float:
    """The largest magnitude of `(..., time)`, `before` samples into a recording; AudioError where one is not finite."""
    finite = np.isfinite(samples)
    if not finite.all():
        first = before + int(np.argmin(finite.all(axis=0) if finite.ndim == 2 else finite))
        raise AudioError(f"{label}: holds NaN or infinite samples (the first at {first / rate:.3f} s)")
    return float(np.abs(samples).max(initial=0.0))


def quality_warnings(peak: float, source_rate: int, rate: int | None) -> list[str]:
    """What a recording's level and rate make doubtful."""
    found = [f"samples reach {peak:.0f}: floating-point audio belongs in [-1, 1]"] if peak > _MAX_PEAK else []
    if rate is not None and source_rate < rate:
        found.append(
            f"recorded at {source_rate} Hz, below the {rate} Hz asked for: "
            f"frequencies above {source_rate / 2:g} Hz are missing"
        )
    return found


def window_frames(offset: float, duration: float | None, info: AudioInfo, label: str) -> tuple[int, int | None]:
    """The frames of a window in seconds; adjacent windows meet without gap or overlap."""
    if not (math.isfinite(offset) and offset >= 0):
        raise AudioError(f"{label}: offset must be 0 s or more, found {offset:g}")
    start = round(offset * info.rate)
    if start and 0 <= info.frames <= start:
        raise AudioError(f"{label}: offset {offset:g} s lies beyond the end of the recording{_length(info)}")
    if duration is None:
        return start, None
    stop = round((offset + duration) * info.rate) if math.isfinite(duration) else start
    if stop <= start:
        raise AudioError(f"{label}: a window of {duration:g} s from {offset:g} s on holds no samples")
    return start, stop


def shortage(start: int, stop: int | None, frames: int, decoder: Decoder) -> list[str]:
    """Says so where fewer frames came than the header, or the caller, had reason to expect."""
    info, end = decoder.info, start + frames
    promised = max(info.frames, decoder.promised_frames)
    because = f" ({decoder.damage})" if decoder.damage else ""
    if end + decoder.tolerance < min(promised, promised if stop is None else stop):
        seconds = f"{promised / info.rate:.2f} s, it ends after {end / info.rate:.2f} s{because}"
        return [f"truncated: the header promises {seconds}; read as far as possible"]
    if decoder.damage:
        return [f"damaged after {end / info.rate:.2f} s{because}; read as far as possible"]
    if stop is not None and stop - end > info.rate / 10:
        asked = f"{(stop - start) / info.rate:.2f} s from {start / info.rate:.2f} s on"
        return [f"the window ({asked}) reaches beyond the end of the recording at {end / info.rate:.2f} s"]
    return []


def _length(info: AudioInfo) -> str:
    return f" ({info.duration:.2f} s long)" if info.frames >= 0 else ""


def check_rate(rate: int, label: str) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"{label}: a rate of {rate} Hz, where audio has {LOWEST_RATE} to {HIGHEST_RATE} Hz")


def guarded(blocks: Iterator[np.ndarray], label: str) -> Iterator[np.ndarray]:
    """The blocks; what a decoder raises becomes an AudioError, what their reader raises does not."""
    while True:
        with reading(label):
            block = next(blocks, None)
        if block is None:
            return
        yield block


@contextmanager
def reading(label: str) -> Iterator[None]:
    """Whatever goes wrong in here is the trouble of one recording: an AudioError with its name."""
    try:
        yield
    except AsrError:
        raise
    except OSError as error:
        raise AudioError(f"{label}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise AudioError(f"{label}: does not fit into memory: read it in windows of offset and duration") from error
    except Undecodable as error:
        raise AudioError(f"{label}: cannot be read: {error}") from error
    except Exception as error:
        raise AudioError(f"{label}: cannot be read: {in_words(error)}") from error


@contextmanager
def opened(source: Source, raw: RawFormat | None, name: str | None) -> Iterator[tuple[Decoder, str]]:
    with ExitStack() as stack:
        file, label, path = _binary(source, name, stack)
        with reading(label):
            size = file.seek(0, os.SEEK_END)
            if not size:
                raise AudioError(f"{label}: the file is empty (0 bytes)")
            decoder = open_decoder(file, size, label, path, raw, stack)
            check_rate(decoder.info.rate, label)
        yield decoder, label


def _binary(source: Source, name: str | None, stack: ExitStack) -> tuple[BinaryIO, str, Path | None]:
    """A seekable binary file, what to call it, and its path where it has one on disk."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source), name or "bytes", None
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        label = name or str(source)
        file = stack.enter_context(_open_path(path, label))
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file, label, path
        return io.BytesIO(file.read()), label, None  # a named pipe, /dev/stdin
    if not hasattr(source, "read"):
        raise TypeError(f"expected a path, bytes or a binary file, found {type(source).__name__}; arrays: from_array")
    given = getattr(source, "name", None)
    label = name or (given if isinstance(given, str) else "stream")
    try:
        if isinstance(source, io.TextIOBase):
            raise AudioError(f"{label}: opened as text: open it with mode 'rb' (standard input: sys.stdin.buffer)")
        if hasattr(source, "seekable") and source.seekable():
            return source, label, None
        return io.BytesIO(source.read()), label, None
    except (OSError, ValueError) as error:  # ValueError: closed
        raise AudioError(f"{label}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _open_path(path: Path, label: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        link = " (a link that leads nowhere)" if path.is_symlink() else ""
        raise AudioError(f"{label}: no such file{link}") from error
    except IsADirectoryError as error:
        raise AudioError(f"{label}: is a folder, not a recording") from error
    except PermissionError as error:
        if path.is_dir():
            raise AudioError(f"{label}: is a folder, not a recording") from error
        raise AudioError(f"{label}: no permission to read it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise AudioError(f"{label}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error
