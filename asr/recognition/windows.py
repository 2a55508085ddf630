"""Finds pauses and cuts long recordings into windows there or, if nobody pauses, at the quietest moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SMOOTHING = 0.2  # seconds over which loudness is averaged to find the quietest moment
EARLIEST_CUT = 0.6  # share of a window after which it may end at its quietest moment
KEPT_PAUSE = 0.25  # seconds of a pause that are recognized with the speech before and after it
LONG_PAUSE = 2.0  # seconds; a pause this long ends even a short utterance
SHORTEST_UTTERANCE = 0.4  # seconds; shorter noises between long pauses get no window of their own

LEAST_RANGE = 18.0  # decibels between quiet and loud parts; with less, there may be no silence at all
_HOP_SECONDS = 0.01
_SMOOTHED_HOPS = 5
_SHORTEST_PAUSE = 0.4  # seconds; closures and hesitations inside words are shorter
_LEVEL = 0.3  # share of the range in decibels from quiet to loud parts below which there is a pause
_WIDEST_RANGE = 50.0  # decibels; anything further below the loud parts is not background noise but digital silence


@dataclass(frozen=True)
class Window:
    """Samples to recognize (possibly none), and which of their frames to keep: `first` to `last` (None: to the end).

    `before` and `after` count the frames of silence around them, which need not be recognized. If it `ends_in_pause`,
    another utterance follows.
    """

    samples: np.ndarray
    first: int
    last: int | None
    before: int
    after: int
    ends_in_pause: bool


class Grid(NamedTuple):
    """The frames of a model and the sizes of windows in them. `rate` in hertz, `stride` in samples per frame."""

    rate: int
    stride: int
    length: int
    overlap: int
    shortest: int  # before this length, only a long pause ends an utterance
    usual: int  # up to this length, the longest pause ends an utterance; beyond it, the next one does


def cut_windows(blocks: Iterator[np.ndarray], grid: Grid) -> Iterator[Window]:
    """Cut blocks (time,) of samples into windows whose kept frames and silences follow one another without gaps.

    A window ends in a pause if there is one within `grid.length` frames: in the longest of those after `grid.shortest`
    to `grid.usual` frames, else in the next one; a long pause may come earlier. Without a pause, the two windows
    overlap: each has `grid.overlap` more frames on that side. At most `length + 2 * overlap` frames and one block are
    held.
    """
    cutter = _Cutter(grid)
    for block in blocks:
        cutter.add(block)
        # One frame more than the window shows that the recording continues after it.
        while cutter.ahead > grid.length + grid.overlap:
            yield from cutter.take(cutter.begin + grid.length)
    yield from cutter.rest()


class _Cutter:
    """Cuts the samples from frame `origin` onward; frames are counted from the start of the recording."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.begin = 0  # the first frame that is not yet in a window
        self.origin = 0  # the first frame whose samples are held
        self.silent = 0  # the number of silent frames from `begin` onward
        self.in_pause = True  # whether `begin` is in a pause, and needs no context before it
        self.loud = -np.inf  # the loud level in decibels of the last stretch with both speech and silence
        self._kept_pause = max(1, round(KEPT_PAUSE * grid.rate / grid.stride))  # frames
        self._parts: list[np.ndarray] = []
        self._samples = 0  # in all parts

    @property
    def ahead(self) -> int:
        """Whole frames held after `begin`."""
        return self._samples // self.grid.stride - (self.begin - self.origin)

    def add(self, block: np.ndarray) -> None:
        self._parts.append(block)
        self._samples += len(block)

    def take(self, limit: int) -> Iterator[Window]:
        """At least one window, and all others that end by `limit` and do not depend on later samples."""
        began = self.begin
        yield from self._utterances(self._pauses(limit), limit)
        if self.begin == began and self.silent:
            yield self._silence(min(self.silent, limit - self.begin))
        elif self.begin == began:
            end = self.begin + self._quietest(limit)
            yield self._window(end, end + self.grid.overlap)
            self._advance(end, in_pause=False)
        self._forget()

    def rest(self) -> Iterator[Window]:
        """The windows up to the end of the recording."""
        if not self._samples:
            return
        end = self.origin + -(-self._samples // self.grid.stride)
        yield from self._utterances([p for p in self._pauses(end) if p[1] < end], None)
        # Only the model knows how many frames the last samples make, so the last window must have samples, and enough
        # of them to be recognized as silence.
        self.silent = max(0, min(self.silent, end - self.begin - 2 * self._kept_pause))
        yield self._window(None, None)

    def _utterances(self, pauses: list[tuple[int, int]], limit: int | None) -> Iterator[Window]:
        """Windows that end in `pauses`, given as first frame and one past the last.

        `limit` is the first frame for which pauses are not known yet; None at the end of the recording.
        """
        while pauses:
            start = self.begin + self.silent
            if pauses[0][0] <= start:  # the pause in which the window begins
                if self.in_pause:
                    self.silent = max(self.silent, pauses[0][1] - self._kept_pause - self.begin)
                pauses = pauses[1:]
                continue
            late_enough = [p for p in pauses if p[0] - start >= self._shortest(p[1] - p[0])]
            if not late_enough:
                return
            # A longer pause may still come within the usual length: wait for it as long as more samples may be held.
            if limit is not None and limit < start + self.grid.usual and self.begin + self.grid.length > limit:
                return
            usual = [p for p in late_enough if p[0] - start <= self.grid.usual]
            first, last = max(usual, key=lambda p: p[1] - p[0]) if usual else late_enough[0]
            cut = (first + last) // 2
            yield self._window(cut, min(first + self._kept_pause, cut))
            self._advance(cut, in_pause=True)
            self.silent = max(0, last - self._kept_pause - cut)
            pauses = [p for p in pauses if p[0] > first]

    def _shortest(self, pause: int) -> int:
        """The fewest frames of a window that ends in a pause of `pause` frames."""
        if pause < LONG_PAUSE * self.grid.rate / self.grid.stride:
            return self.grid.shortest
        return min(self.grid.shortest, round(SHORTEST_UTTERANCE * self.grid.rate / self.grid.stride))

    def _held(self) -> np.ndarray:
        if len(self._parts) != 1:
            self._parts = [np.concatenate(self._parts)] if self._parts else [np.zeros(0, dtype=np.float32)]
        return self._parts[0]

    def _pauses(self, limit: int) -> list[tuple[int, int]]:
        """Pauses between `begin` and `limit` as first frame and one past the last."""
        stride = self.grid.stride
        samples = self._held()[(self.begin - self.origin) * stride :]
        quiet, loud = level_range(samples, self.grid.rate)
        if loud - quiet >= LEAST_RANGE:
            self.loud = loud
        # A stretch of constant level has no range of its own: it is silence if it is far below the speech before it.
        pauses = find_pauses(samples, self.grid.rate, (quiet, max(loud, self.loud)))
        frames = [(self.begin + -(-first // stride), self.begin + last // stride) for first, last in pauses]
        return [(first, min(last, limit)) for first, last in frames if first < limit]

    def _window(self, end: int | None, stop: int | None) -> Window:
        """The frames from `begin` to `end`, with samples up to frame `stop` (None: all of them)."""
        stride, held = self.grid.stride, self._held()
        start = self.begin + self.silent if self.in_pause else max(self.origin, self.begin - self.grid.overlap)
        silent = self.silent if self.in_pause else 0
        samples = held[(start - self.origin) * stride : None if stop is None else (stop - self.origin) * stride]
        first = self.begin + silent - start
        if end is None or stop is None:
            return Window(samples, first, None, silent, 0, False)
        return Window(samples, first, min(end, stop) - start, silent, max(0, end - stop), stop <= end)

    def _silence(self, frames: int) -> Window:
        self.begin += frames
        self.silent -= frames
        return Window(np.zeros(0, dtype=np.float32), 0, 0, frames, 0, False)

    def _advance(self, frame: int, *, in_pause: bool) -> None:
        self.begin, self.silent, self.in_pause = frame, 0, in_pause

    def _forget(self) -> None:
        """Drop the samples that no later window needs."""
        first = self.begin if self.in_pause else max(self.origin, self.begin - self.grid.overlap)
        self._parts = [self._held()[(first - self.origin) * self.grid.stride :].copy()]
        self._samples, self.origin = len(self._parts[0]), first

    def _quietest(self, limit: int) -> int:
        """The number of frames after which to end a window: where the energy is lowest, late in the window."""
        stride, frames = self.grid.stride, limit - self.begin
        samples = self._held()[(self.begin - self.origin) * stride :][: frames * stride]
        energy = np.square(samples.reshape(frames, stride), dtype=np.float64).mean(axis=1)
        width = max(1, round(SMOOTHING * self.grid.rate / stride))
        smooth = np.convolve(energy, np.full(width, 1.0 / width), mode="same")
        first = min(int(EARLIEST_CUT * frames), frames - 1)
        last = max(first + 1, frames - width // 2)  # beyond it, averages lack samples
        return last - int(np.argmin(smooth[first:last][::-1]))


def find_pauses(samples: np.ndarray, rate: int, levels: tuple[float, float] | None = None) -> list[tuple[int, int]]:
    """Pauses of at least 0.4 s in samples (time,) at `rate` hertz, as (first sample, one past the last).

    `levels` are the levels of the quiet and the loud parts in decibels (default: the `level_range` of the samples).
    """
    quiet, loud = level_range(samples, rate) if levels is None else levels
    if loud - quiet < LEAST_RANGE:
        return []
    hop = _hop(rate)
    is_low = np.concatenate(([False], _levels(samples, rate) < quiet + _LEVEL * (loud - quiet), [False]))
    edges = np.flatnonzero(is_low[1:] != is_low[:-1])
    return [
        (int(first) * hop, int(last) * hop)
        for first, last in zip(edges[::2], edges[1::2], strict=True)
        if (last - first) * hop >= _SHORTEST_PAUSE * rate
    ]


def level_range(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """The 5th and 95th percentiles of the level in decibels, which mean little for less than a few seconds.

    If a part is digital silence, the quiet level is 50 dB below the loud one, so that pauses with noise also count.
    """
    level = _levels(samples, rate)
    if not len(level):
        return 0.0, 0.0
    quiet, loud = np.percentile(level, [5, 95])
    return max(float(quiet), float(loud) - _WIDEST_RANGE), float(loud)


def _hop(rate: int) -> int:
    return max(1, round(_HOP_SECONDS * rate))


def _levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """The level of every hop in decibels relative to full scale (at least -120), averaged over its neighbors."""
    hop, width = _hop(rate), _SMOOTHED_HOPS
    count = len(samples) // hop
    if not count:
        return np.zeros(0)
    energy = np.square(samples[: count * hop].reshape(count, hop), dtype=np.float64).mean(axis=1)
    summed = np.cumsum(np.concatenate(([0.0], energy)))
    first = np.maximum(np.arange(count) - (width - 1) // 2, 0)
    last = np.minimum(np.arange(count) + width // 2 + 1, count)
    return 10.0 * np.log10(np.maximum((summed[last] - summed[first]) / (last - first), 1e-12))
