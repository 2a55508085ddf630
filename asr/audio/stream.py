"""A recording of any length as successive blocks of samples: decoded once, resampled without seams, bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from asr.audio.channels import ChannelPicker
from asr.audio.decoders import Decoder, RawFormat
from asr.audio.read import (
    Source,
    finite_peak,
    guarded,
    nothing_read,
    opened,
    quality_warnings,
    reading,
    shortage,
    window_frames,
)
from asr.audio.resample import filter_reach, reduced_rates, resample

_BLOCK_SECONDS = 5.0  # resampled at once: long beside the filter's reach


class AudioStream:
    """Iterating gives what `read` gives, in blocks `(time,)` float32 at `rate` hertz; once.

    After the last block `duration` (seconds of the source) and `warnings` are complete; `seconds` is what the header
    promises, None where it does not say.
    """

    def __init__(
        self, decoder: Decoder, label: str, offset: float, duration: float | None, channel: str | int, rate: int
    ) -> None:
        info = decoder.info
        self.rate, self.source_rate = rate, info.rate
        self.duration = 0.0
        self.warnings: tuple[str, ...] = ()
        self._decoder, self._label, self._offset = decoder, label, offset
        self._start, self._stop = window_frames(offset, duration, info, label)
        self._picker = ChannelPicker(channel, info.channels, label)
        frames = min((end for end in (self._stop, info.frames) if end is not None and end >= 0), default=None)
        self.seconds = None if frames is None else (frames - self._start) / info.rate

    @property
    def silent(self) -> bool:
        """Whether all samples decoded so far are the same; those that came in blocks are among them."""
        return self._picker.constant[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        resampler = Resampler(self.source_rate, self.rate)
        frames, peak = 0, 0.0
        for block in guarded(self._decoder.blocks(self._start, self._stop), self._label):
            samples = self._picker(block)
            peak = max(peak, finite_peak(samples, self.source_rate, self._label, frames))
            frames += len(samples)
            self.duration = frames / self.source_rate
            with reading(self._label):
                resampled = resampler(samples)
            if len(resampled):
                yield resampled
        if not frames:
            raise nothing_read(self._offset, self._start, self._decoder, self._label)
        self.warnings = (
            *self._decoder.warnings,
            *shortage(self._start, self._stop, frames, self._decoder),
            *self._picker.warnings(),
            *quality_warnings(peak, self.source_rate, self.rate),
        )
        with reading(self._label):
            rest = resampler.finish()
        if len(rest):
            yield rest


@contextmanager
def open_stream(
    source: Source,
    *,
    rate: int,
    channel: str | int = "mix",
    offset: float = 0.0,
    duration: float | None = None,
    raw: RawFormat | None = None,
    name: str | None = None,
) -> Iterator[AudioStream]:
    """Open what `read` opens, for iterating; `channel` is "mix" or a number. Raises AudioError as `read` does."""
    with opened(source, raw, name) as (decoder, label):
        yield AudioStream(decoder, label, offset, duration, channel, rate)


class Resampler:
    """`resample` of a long signal `(time,)`, given in blocks: the same samples, each block with its neighbourhood."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self.source_rate, self.target_rate = source_rate, target_rate
        self._source, self._target = reduced_rates(source_rate, target_rate)
        self._margin = -(-filter_reach(source_rate, target_rate) // self._source)  # in periods of the two rates
        self._least = max(1, int(_BLOCK_SECONDS * source_rate) // self._source)
        self._parts: list[np.ndarray] = []
        self._waiting = 0
        self._before = 0  # periods of what is waiting that have been given out and are kept for the filter

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """What can be given out now."""
        if self._source == self._target:
            return np.ascontiguousarray(samples, dtype=np.float32)
        self._parts.append(samples)
        self._waiting += len(samples)
        ready = self._waiting // self._source - self._before - self._margin
        if ready < self._least:
            return np.zeros(0, dtype=np.float32)
        waiting = np.concatenate(self._parts)
        stop = self._before + ready
        resampled = resample(waiting[: (stop + self._margin) * self._source], self.source_rate, self.target_rate)
        kept = min(self._margin, stop)
        self._parts = [waiting[(stop - kept) * self._source :]]
        self._waiting = len(self._parts[0])
        first, self._before = self._before, kept
        return resampled[first * self._target : stop * self._target]

    def finish(self) -> np.ndarray:
        """The rest; nothing may be given afterwards."""
        if not self._waiting:
            return np.zeros(0, dtype=np.float32)
        waiting = np.concatenate(self._parts)
        return resample(waiting, self.source_rate, self.target_rate)[self._before * self._target :]
