"""The only module that opens audio: a file, bytes, a stream or an array, as float32 samples at the requested rate."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from asr.audio.formats import Source, open_file, open_reader
from asr.audio.readers import BLOCK, HIGHEST_RATE, LOWEST_RATE, AudioInfo, AudioReader, RawFormat, Undecodable
from asr.audio.resample import Resampler, resample
from asr.types import AsrError, AudioError, in_words

__all__ = ["Audio", "AudioInfo", "AudioStream", "RawFormat", "Source", "from_array", "open_stream", "probe", "read"]

_MAX_CHANNELS = 64  # of an array: with more, its axes must have been swapped
_MAX_PEAK = 16.0  # larger floats must have been scaled as integers


@dataclass(frozen=True)
class Audio:
    """Samples of a recording or of a window of it.

    `samples` is float32, `(time,)` for channel "mix" or a number and `(channels, time)` for "each", at `rate` hertz.
    `duration` is in seconds of the source. `warnings` are phrases without the name of the file. `silent` says of each
    channel of `samples` whether it is constant: all samples, as decoded, have the same value.
    """

    samples: np.ndarray
    rate: int
    duration: float
    source_rate: int
    source_channels: int
    warnings: tuple[str, ...] = ()
    silent: tuple[bool, ...] = (False,)


def probe(source: Source, raw: RawFormat | None = None) -> AudioInfo:
    """Duration, rate, channels and codec from the header (for a headerless file, from its size).

    If the header does not give the length, the recording is decoded to find out. Raises AudioError as `read` does.
    """
    with open_stream(source, rate=None, channel=0, raw=raw) as stream:
        info = stream.info
        if info.frames <= 0:
            for _ in stream:  # raises if there are no samples
                pass
            info = replace(info, frames=round(stream.duration * info.rate), duration=stream.duration)
        return info


def channel_count(source: Source, raw: RawFormat | None = None) -> int:
    """The number of channels of a recording, from its header. Raises AudioError as `read` does."""
    with open_stream(source, channel=0, raw=raw) as stream:
        return stream.info.channels


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
    """Read a recording, or `duration` seconds of it from `offset` on, if possible without decoding the rest.

    `source` is a path, the bytes of a file, a binary file object (read from its start if it can seek, else from its
    position), or a pair of samples and rate as for `from_array`. `rate` None keeps the source's. `channel` is "mix"
    (the mean), "each", or a number from 0. `raw` declares headerless samples. `name` is the name used in messages.

    Raises AudioError, one line with the name: missing, no permission, a folder, empty, not audio, no samples, NaN or
    infinite samples, no such channel, or a window outside the recording. A truncated or damaged recording is read as
    far as possible, with a warning in `Audio.warnings`. Errors of libraries become AudioError too.
    """
    with open_stream(
        source, rate=rate, channel=channel, offset=offset, duration=duration, raw=raw, name=name
    ) as stream:
        return stream.read()


@contextmanager
def open_stream(
    source: Source,
    *,
    rate: int | None = 16000,
    channel: str | int = "mix",
    offset: float = 0.0,
    duration: float | None = None,
    raw: RawFormat | None = None,
    name: str | None = None,
) -> Iterator[AudioStream]:
    """Open a recording as `read` does, to be read later or in blocks. Raises AudioError as `read` does, now or then."""
    with ExitStack() as stack:
        if isinstance(source, tuple):
            label = name or "array"
            reader: AudioReader = ArrayReader(*source, label)
        else:
            file, label, path = open_file(source, name, stack)
            with _named_errors(label):
                size = file.seek(0, os.SEEK_END)
                if not size:
                    raise AudioError(f"{label}: the file is empty (0 bytes)")
                reader = open_reader(file, size, label, path, raw, stack)
        source_rate = reader.info.rate
        if not LOWEST_RATE <= source_rate <= HIGHEST_RATE:
            audible = f"the {LOWEST_RATE} to {HIGHEST_RATE} Hz of audio"
            raise AudioError(f"{label}: a rate of {source_rate} Hz, outside {audible}")
        yield AudioStream(reader, label, rate, channel, offset, duration)


class AudioStream:
    """An opened recording, or a window of it, for one pass: `read` all of it, or iterate over its blocks.

    Iterating (not with channel "each") gives the samples that `read` gives, in blocks `(time,)` float32 at `rate`
    hertz, in bounded memory. After the last block `duration` (seconds of the source), `warnings` and `silent` are
    complete. `seconds` is the duration by the header, infinite if it does not say.
    """

    def __init__(
        self,
        reader: AudioReader,
        label: str,
        rate: int | None,
        channel: str | int,
        offset: float,
        duration: float | None,
    ) -> None:
        self.info = info = reader.info
        self.source_rate, self.rate = info.rate, rate or info.rate
        self.duration = 0.0
        self.warnings: tuple[str, ...] = ()
        self._reader, self._label, self._offset = reader, label, offset
        self._start, self._stop = _window(offset, duration, info, label)
        end = info.frames if info.frames >= 0 else math.inf
        self.seconds = (min(end, math.inf if self._stop is None else self._stop) - self._start) / info.rate
        self._channel = int(channel) if str(channel).removeprefix("-").isdecimal() else channel
        if isinstance(self._channel, int):
            if not 0 <= self._channel < info.channels:
                last = info.channels - 1
                there = f"{info.channels} channels (0 to {last})" if last else "1 channel (0)"
                raise AudioError(f"{label}: no channel {channel}, it has {there}")
        elif channel not in ("mix", "each"):
            raise AudioError(f"{label}: channel must be 'mix', 'each' or a number, found {channel!r}")
        picked = info.channels if channel == "each" else 1
        self._lowest, self._highest = np.full(picked, np.inf), np.full(picked, -np.inf)  # samples of each channel
        self._energy = np.zeros(2)  # mean over the channels, and of their mix

    @property
    def silent(self) -> bool:
        """Whether all samples decoded so far have the same value."""
        return bool(self._lowest[0] == self._highest[0])

    def read(self) -> Audio:
        """The whole recording or window at once."""
        parts = list(self._decoded())
        with _named_errors(self._label):
            samples = resample(np.concatenate(parts, axis=-1), self.source_rate, self.rate)
            samples = np.ascontiguousarray(samples, dtype=np.float32)
        silent = tuple((self._lowest == self._highest).tolist())
        return Audio(samples, self.rate, self.duration, self.source_rate, self.info.channels, self.warnings, silent)

    def __iter__(self) -> Iterator[np.ndarray]:
        resampler = Resampler(self.source_rate, self.rate)
        for block in self._decoded():
            with _named_errors(self._label):
                resampled = resampler(block)
            if len(resampled):
                yield resampled
        with _named_errors(self._label):
            rest = resampler.finish()
        if len(rest):
            yield rest

    def _decoded(self) -> Iterator[np.ndarray]:
        """Blocks of the selected channels at the source's rate; completes duration and warnings."""
        frames = 0
        blocks = self._reader.blocks(self._start, self._stop)
        while True:
            with _named_errors(self._label):
                block = next(blocks, None)
                picked = None if block is None else self._pick(block, frames)
            if picked is None:
                break
            frames += picked.shape[-1]
            self.duration = frames / self.source_rate
            yield picked
        if not frames:
            raise AudioError(f"{self._label}: {self._why_nothing()}")
        shortage = self._shortage(self._start + frames)
        self.warnings = (*self._reader.warnings, *shortage, *self._doubts())

    def _pick(self, block: np.ndarray, before: int) -> np.ndarray:
        """The selected channels, `(time,)` or for "each" `(channels, time)`, of a `(frames, channels)` block.

        `before` frames came before it. Raises AudioError on samples that are not finite.
        """
        if self._channel == "each":
            picked = block.T
        elif isinstance(self._channel, int) or self.info.channels == 1:
            picked = block[:, self._channel if isinstance(self._channel, int) else 0]
        else:
            with np.errstate(all="ignore"):  # samples that are not finite are rejected below
                picked = block.mean(axis=1, dtype=np.float32)
                self._energy += [np.square(block).mean(axis=1).sum(), np.square(picked).sum()]
        if len(block):
            lowest, highest = picked.min(axis=-1), picked.max(axis=-1)
            if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):  # min and max propagate NaN
                first = before + int(np.argmin(np.isfinite(np.atleast_2d(picked)).all(axis=0)))
                place = f"the first at {first / self.source_rate:.3f} s"
                raise AudioError(f"{self._label}: holds NaN or infinite samples ({place})")
            self._lowest, self._highest = np.minimum(self._lowest, lowest), np.maximum(self._highest, highest)
        return picked

    def _doubts(self) -> list[str]:
        """Warnings about the samples themselves."""
        doubts = []
        if self._energy[1] < 1e-3 * self._energy[0]:
            doubts.append("the channels cancel each other when mixed (one is inverted): choose one by its number")
        if (peak := max(-self._lowest.min(), self._highest.max())) > _MAX_PEAK:
            doubts.append(f"samples reach {peak:.0f}: floating-point audio belongs in [-1, 1]")
        if self.source_rate < self.rate:
            missing = f"frequencies above {self.source_rate / 2:g} Hz are missing"
            doubts.append(f"recorded at {self.source_rate} Hz, below the {self.rate} Hz required: {missing}")
        return doubts

    def _why_nothing(self) -> str:
        """Why no sample could be read."""
        info = self.info
        if self._reader.damage or 0 < self._start < info.frames:
            because = self._reader.damage or f"the header promises {info.duration:.2f} s"
            return f"cut off or damaged, nothing can be read at {self._offset:g} s ({because})"
        if self._start:
            return _beyond_the_end(self._offset, info)
        return "; ".join(["holds no samples", *self._reader.warnings])

    def _shortage(self, end: int) -> list[str]:
        """A warning if the recording ended, at frame `end`, earlier than its header or the window promises."""
        rate, stop, damage = self.source_rate, self._stop, self._reader.damage
        promised = max(self.info.frames, self._reader.promised_frames)
        because = f" ({damage})" if damage else ""
        if end + self._reader.tolerance < min(promised, promised if stop is None else stop):
            seconds = f"{promised / rate:.2f} s, it ends after {end / rate:.2f} s{because}"
            return [f"truncated: the header promises {seconds}; read as far as possible"]
        if damage:
            return [f"damaged after {end / rate:.2f} s{because}; read as far as possible"]
        if stop is not None and stop - end > rate / 10:  # manifests round
            window = f"{(stop - self._start) / rate:.2f} s from {self._start / rate:.2f} s on"
            return [f"the window ({window}) reaches beyond the end of the recording at {end / rate:.2f} s"]
        return []


def from_array(
    samples: np.ndarray, rate: int, *, target_rate: int | None = 16000, channel: str | int = "mix", name: str = "array"
) -> Audio:
    """As `read`, from samples `(time,)` or `(channels, time)` at `rate` hertz: floats in [-1, 1] or integers.

    Raises AudioError on other shapes (including swapped axes) and types, on no samples, and on NaN or infinity.
    """
    return read((samples, rate), rate=target_rate, channel=channel, name=name)


class ArrayReader(AudioReader):
    """Samples `(time,)` or `(channels, time)` as a recording. Raises AudioError as `from_array` does."""

    def __init__(self, samples: np.ndarray, rate: int, label: str) -> None:
        array = np.asarray(samples)
        if array.ndim not in (1, 2):
            raise AudioError(f"{label}: expected samples (time,) or (channels, time), found shape {array.shape}")
        count, frames = np.atleast_2d(array).shape
        if not array.size:
            raise AudioError(f"{label}: holds no samples")
        if count > _MAX_CHANNELS or count > frames:
            raise AudioError(f"{label}: shape {array.shape} means {count} channels of {frames} samples: pass samples.T")
        if int(rate) != rate or rate < 1:
            raise AudioError(f"{label}: the rate must be a whole number of hertz, found {rate}")
        if array.dtype.kind not in "fi" and array.dtype != np.uint8:
            raise AudioError(f"{label}: expected float or signed integer samples, found {array.dtype}")
        self._samples = np.atleast_2d(array).T
        super().__init__(AudioInfo(frames / rate, int(rate), count, frames, "array", str(array.dtype)))

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        kind, bits = self._samples.dtype.kind, 8 * self._samples.dtype.itemsize
        for first in range(start, min(self.info.frames, stop or self.info.frames), BLOCK):
            block = self._samples[first : min(first + BLOCK, stop or self.info.frames)]
            with np.errstate(over="ignore"):  # infinity is rejected later, with its position
                floats = block.astype(np.float32)
            yield floats if kind == "f" else (floats - 128.0 * (kind == "u")) / 2.0 ** (bits - 1)


def _window(offset: float, duration: float | None, info: AudioInfo, label: str) -> tuple[int, int | None]:
    """A window in frames, from seconds; adjacent windows meet without gap or overlap."""
    if not (math.isfinite(offset) and offset >= 0):
        raise AudioError(f"{label}: offset must be 0 s or more, found {offset:g}")
    start = round(offset * info.rate)
    if start and 0 <= info.frames <= start:
        raise AudioError(f"{label}: {_beyond_the_end(offset, info)}")
    if duration is None:
        return start, None
    stop = round((offset + duration) * info.rate) if math.isfinite(duration) else start
    if stop <= start:
        raise AudioError(f"{label}: a window of {duration:g} s from {offset:g} s on holds no samples")
    return start, stop


def _beyond_the_end(offset: float, info: AudioInfo) -> str:
    length = f" ({info.duration:.2f} s long)" if info.frames >= 0 else ""
    return f"offset {offset:g} s lies beyond the end of the recording{length}"


@contextmanager
def _named_errors(label: str) -> Iterator[None]:
    """Turn any exception in the body into an AudioError that names the recording."""
    try:
        yield
    except AsrError:
        raise
    except OSError as error:
        raise AudioError(f"{label}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise AudioError(f"{label}: does not fit in memory: read it in windows (offset and duration)") from error
    except Undecodable as error:
        raise AudioError(f"{label}: cannot be read: {error}") from error
    except Exception as error:
        raise AudioError(f"{label}: cannot be read: {in_words(error)}") from error
