"""Recordings of any length in bounded memory: overlapping windows, their emissions joined, one decode over all.

Each window is recognized with some context on both sides, whose emissions are thrown away: what is kept was heard with
both sides known, as in the middle of a recording. Windows begin at whole strides of the model, so that frames of
neighbouring windows fall on the same times, and part, where they can, in the quietest moment near their end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from asr.decoding.streams import begin_stream
from asr.errors import AsrError, UsageError
from asr.loading import Samples, open_samples
from asr.transcript import Hypothesis

if TYPE_CHECKING:
    from asr.audio.read import RawFormat
    from asr.recognizer import Recognizer
    from asr.recordings import Recording

SMOOTHING = 0.2  # seconds over which loudness is averaged to find a pause
EARLIEST_CUT = 0.6  # share of a window after which it may end at a pause


@dataclass(frozen=True)
class Windows:
    """`length` seconds are kept of each window, at most; `overlap` seconds of context on each side are not.

    Recordings of up to `longest` seconds are recognized in one piece. Raises UsageError for what cannot work.
    """

    length: float = 30.0
    overlap: float = 5.0

    def __post_init__(self) -> None:
        if not self.length >= 1.0:
            raise UsageError(f"the length of a window must be at least 1 s, found {self.length:g}")
        if not 0.0 <= self.overlap <= self.length:
            raise UsageError(f"the overlap of windows must lie between 0 and their length, found {self.overlap:g} s")

    @property
    def longest(self) -> float:
        return self.length + 2 * self.overlap


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities (time, vocab) of a recording, its duration in seconds, and what was wrong with it."""

    log_probs: np.ndarray
    duration: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class LongResult:
    """What the decoder made of a long recording."""

    hypotheses: list[Hypothesis]
    duration: float
    warnings: tuple[str, ...]
    source_rate: int


def recognize_long(
    recognizer: Recognizer,
    recording: Recording,
    *,
    name: str,
    channel: str | int = "mix",
    nbest: int = 1,
    raw: RawFormat | None = None,
    batch_seconds: float = 60.0,
    on_text: Callable[[str], None] | None = None,
) -> LongResult:
    """Recognize one channel of a recording window by window and decode the joined emissions once.

    `on_text` is called with the words so far that will not change any more, whenever some were added (all of them, from
    the first). Raises AudioError, and AsrError where memory does not suffice for a window.
    """
    windows = recognizer.windows or Windows()
    stream = begin_stream(recognizer.decoder)
    said = ""
    with open_samples(recording, recognizer.rate, channel, raw, name) as samples:
        for block in stitched(recognizer, samples, windows, batch_seconds):
            stream.feed(block)
            if on_text is not None and (stable := stream.stable()) != said:
                said = stable
                on_text(stable)
        return LongResult(stream.finish(nbest), samples.duration, samples.warnings, samples.source_rate)


def emissions_of(
    recognizer: Recognizer, recording: Recording, *, name: str, channel: str | int = "mix", raw: RawFormat | None = None
) -> Emissions:
    """The emissions of one channel of a recording of any length. Raises as `recognize_long` does."""
    windows = recognizer.windows or Windows(length=1e9)
    with open_samples(recording, recognizer.rate, channel, raw, name) as samples:
        blocks = list(stitched(recognizer, samples, windows, windows.longest))
        return Emissions(np.concatenate(blocks), samples.duration, samples.warnings)


def stitched(
    recognizer: Recognizer, samples: Samples | Iterator[np.ndarray], windows: Windows, batch_seconds: float
) -> Iterator[np.ndarray]:
    """Log-probabilities (time, vocab) of the windows without their overlaps: joined, those of the whole recording.

    `samples` are blocks (time,) at the model's rate; what is held of them is bounded by the batch.
    """
    batch: list[_Window] = []
    for window in _cut(iter(samples), recognizer, windows):
        longest = max(len(w.samples) for w in [*batch, window])
        if batch and longest * (len(batch) + 1) > batch_seconds * recognizer.rate:
            yield from _kept(recognizer, batch)
            batch = []
        batch.append(window)
    if batch:
        yield from _kept(recognizer, batch)


@dataclass(frozen=True)
class _Window:
    """Samples to recognize, and which of the frames to keep: `first` to `last` (None: to the end)."""

    samples: np.ndarray
    first: int
    last: int | None


def _cut(blocks: Iterator[np.ndarray], recognizer: Recognizer, windows: Windows) -> Iterator[_Window]:
    stride = recognizer.stride
    length = max(1, round(windows.length * recognizer.rate / stride))  # in frames of the model, as all below
    overlap = round(windows.overlap * recognizer.rate / stride)
    held = np.zeros(0, dtype=np.float32)  # the samples from frame `origin` on
    parts: list[np.ndarray] = []
    waiting = 0
    origin = begin = 0  # `begin`: the first frame not yet given out
    for block in blocks:
        parts.append(block)
        waiting += len(block)
        # One stride more than the window shows that the recording goes on after it.
        while waiting >= (begin - origin + length + overlap + 1) * stride:
            held = np.concatenate([held, *parts]) if parts else held
            parts = []
            quiet = _quietest(held[(begin - origin) * stride : (begin - origin + length) * stride], stride, recognizer)
            end = begin + quiet
            yield _Window(held[: (end + overlap - origin) * stride], begin - origin, end - origin)
            kept = max(origin, end - overlap)
            held = held[(kept - origin) * stride :]
            waiting, origin, begin = len(held), kept, end
    held = np.concatenate([held, *parts])
    if recognizer.acoustic_model.output_length(len(held)) > begin - origin:
        yield _Window(held, begin - origin, None)


def _quietest(samples: np.ndarray, stride: int, recognizer: Recognizer) -> int:
    """After how many frames to end a window: at the least energy in its last part, late rather than early."""
    frames = len(samples) // stride
    energy = np.square(samples[: frames * stride].reshape(frames, stride), dtype=np.float64).mean(axis=1)
    width = max(1, round(SMOOTHING * recognizer.rate / stride))
    smooth = np.convolve(energy, np.full(width, 1.0 / width), mode="same")
    first = min(int(EARLIEST_CUT * frames), frames - 1)
    last = max(first + 1, frames - width // 2)  # at its very end the average lacks its other half
    return last - int(np.argmin(smooth[first:last][::-1]))


def _kept(recognizer: Recognizer, batch: list[_Window]) -> Iterator[np.ndarray]:
    results = recognizer.emissions_in_memory([window.samples for window in batch])
    for window, log_probs in zip(batch, results, strict=True):
        if isinstance(log_probs, AsrError):
            raise AsrError(f"{log_probs}; choose shorter windows (--chunk-length)")
        yield log_probs[window.first : window.last]
