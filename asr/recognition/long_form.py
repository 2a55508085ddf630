"""Recordings of any length in bounded memory: overlapping windows, their emissions joined, one decode over all.

Models are trained on utterances, one or several joined, and windows are about as long wherever pauses allow: they begin
and end in a pause, and the part of a long pause that lies between two windows is blank. Where nobody pauses, windows
overlap: each is recognized with context on both sides, whose emissions are thrown away, so that what is kept was
recognized as in the middle of a recording, and they meet in the quietest moment near their end. All windows begin at
whole strides of the model, so that their frames fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from asr.audio.read import RawFormat
from asr.decoding.interface import Decoder, begin_stream
from asr.recognition.acoustics import SILENCE, Acoustics, RecordingEmissions
from asr.recognition.inputs import Recording
from asr.recognition.loading import open_samples, read_recording
from asr.recognition.windows import SHORTEST_UTTERANCE, Grid, Window, cut_windows
from asr.types import AsrError, Hypothesis, UsageError

USUAL_UTTERANCE = 10.0  # seconds; of models that do not say what they were trained on
# As shares of the usual length of an utterance in training: a window ends in the longest pause between these lengths.
LEAST_OF_USUAL, MOST_OF_USUAL = 0.25, 2.0


@dataclass(frozen=True)
class Windows:
    """Windows of at most `length` seconds, and `overlap` seconds more on sides where there is no pause.

    Recordings of up to `longest` seconds may be recognized in one piece, see `longest_piece`. Raises UsageError for
    values that cannot work.
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
class Recognition:
    """What was recognized in one channel of a recording: hypotheses, best first, and what is known of the audio."""

    hypotheses: list[Hypothesis]
    duration: float
    warnings: tuple[str, ...]
    source_rate: int
    silent: bool


def recognize_long(
    acoustics: Acoustics,
    decoder: Decoder,
    recording: Recording,
    windows: Windows,
    *,
    channel: str | int = "mix",
    nbest: int = 1,
    raw: RawFormat | None = None,
    batch_seconds: float = 60.0,
    on_text: Callable[[str], None] | None = None,
) -> Recognition:
    """Recognize one channel of a recording window by window and decode the joined emissions once.

    `on_text` is called with the words so far that will not change any more, whenever some were added (all of them, from
    the first). Raises AudioError, and AsrError where memory does not suffice for a window.
    """
    stream = begin_stream(decoder)
    reported = ""
    with open_samples(recording, acoustics.rate, channel, raw) as samples:
        for block in stitched(acoustics, samples, windows, batch_seconds):
            stream.feed(block)
            if on_text is not None and (stable := stream.stable()) != reported:
                reported = stable
                on_text(stable)
        hypotheses = stream.finish(nbest)
        return Recognition(hypotheses, samples.duration, samples.warnings, samples.source_rate, samples.silent)


def emissions_of(
    acoustics: Acoustics,
    recording: Recording,
    windows: Windows | None,
    *,
    channel: str | int = "mix",
    raw: RawFormat | None = None,
) -> RecordingEmissions:
    """The emissions that transcribing one channel of a recording decodes. Raises as `recognize_long` does."""
    longest = None if windows is None else longest_piece(windows, acoustics.file.training)
    audio = read_recording(recording, acoustics.rate, channel, raw, longest)
    if audio is not None:
        if audio.silent[0]:
            log_probs = acoustics.silence(len(audio.samples))
        else:
            [log_probs] = _checked(acoustics.emissions_or_errors([audio.samples]))
        silence = (SILENCE,) if audio.silent[0] else ()
        return RecordingEmissions(log_probs, audio.duration, (*audio.warnings, *silence))
    assert windows is not None
    with open_samples(recording, acoustics.rate, channel, raw) as samples:
        log_probs = np.concatenate(list(stitched(acoustics, samples, windows, windows.longest)))
        silence = (SILENCE,) if samples.silent else ()
        return RecordingEmissions(log_probs, samples.duration, (*samples.warnings, *silence))


def stitched(
    acoustics: Acoustics, samples: Iterable[np.ndarray], windows: Windows, batch_seconds: float
) -> Iterator[np.ndarray]:
    """Log-probabilities (time, vocab) of successive windows: joined, as many as of the whole recording.

    `samples` are blocks (time,) at the model's rate; no more of them is held than a batch. Windows are blank as long as
    all samples so far are the same.
    """
    batch: list[Window] = []
    for window in cut_windows(iter(samples), grid_of(acoustics, windows)):
        while batch:
            longest = max(len(w.samples) for w in [*batch, window])
            if longest * (len(batch) + 1) <= batch_seconds * acoustics.rate:
                break
            count = acoustics.full(len(batch))
            yield from _kept(acoustics, batch[:count], bool(getattr(samples, "silent", False)))
            batch = batch[count:]
        batch.append(window)
    if batch:
        yield from _kept(acoustics, batch, bool(getattr(samples, "silent", False)))


def longest_piece(windows: Windows, training: dict[str, Any]) -> float:
    """Seconds of a recording that is recognized in one piece, by a model of that training summary.

    A recording more than twice as long as anything that the model was trained on is recognized in windows.
    """
    if not training.get("train_longest"):
        return windows.longest
    return min(windows.longest, 2.0 * float(training["train_longest"]) * _joined_at_most(training))


def grid_of(acoustics: Acoustics, windows: Windows) -> Grid:
    """The sizes of windows in frames of the model, by what it was trained on, joined utterances included."""
    training = acoustics.file.training
    usual = USUAL_UTTERANCE
    if training.get("train_utterances") and training.get("train_hours"):
        usual = 3600.0 * float(training["train_hours"]) / float(training["train_utterances"])
    usual *= _joined_at_most(training)
    per_second = acoustics.rate / acoustics.stride
    length = max(1, round(windows.length * per_second))
    shortest = max(1, round(max(SHORTEST_UTTERANCE, LEAST_OF_USUAL * usual) * per_second))
    return Grid(
        acoustics.rate,
        acoustics.stride,
        length,
        overlap=round(windows.overlap * per_second),
        shortest=min(shortest, length // 2),
        usual=min(round(MOST_OF_USUAL * usual * per_second), length),
    )


def _joined_at_most(training: dict[str, Any]) -> int:
    """How many utterances were joined in training, at most."""
    augment = training.get("config", {}).get("augment", {})
    return int(augment.get("join_up_to", 2)) if augment.get("join") else 1


def _kept(acoustics: Acoustics, batch: list[Window], silent: bool) -> Iterator[np.ndarray]:
    """The emissions of the frames that each window of a batch keeps, with the silence around them."""
    waveforms = [window.samples for window in batch if len(window.samples)]
    if silent:
        results = iter([acoustics.silence(len(waveform)) for waveform in waveforms])
    else:
        results = iter(_checked(acoustics.emissions_or_errors(waveforms)) if waveforms else [])
    for window in batch:
        kept = next(results)[window.first : window.last] if len(window.samples) else acoustics.certain(0, 0)
        joined = np.concatenate([acoustics.certain(0, window.before), kept, acoustics.certain(0, window.after)])
        if window.ends_in_pause and " " in acoustics.labels and len(joined):
            # Utterances begin and end without a space, so nothing but this frame separates their words.
            joined[-1:] = acoustics.certain(acoustics.labels.index(" "), 1)
        if len(joined):
            yield joined


def _checked(results: list[np.ndarray | AsrError]) -> list[np.ndarray]:
    for result in results:
        if isinstance(result, AsrError):
            raise AsrError(f"{result}; choose shorter windows (--chunk-length)")
    return [result for result in results if not isinstance(result, AsrError)]
