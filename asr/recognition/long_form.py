"""Recordings of any length in bounded memory: overlapping windows, their emissions joined, one decode over all.

Models are trained on utterances, one or several joined, and windows are as long as these wherever pauses allow: they
begin and end in a pause, and what of a long pause lies between them is blank. Where nobody pauses, windows overlap:
each is recognized with context on both sides, whose emissions are thrown away, so that what is kept was heard as in the
middle of a recording, and they part in the quietest moment near their end. All windows begin at whole strides of the
model: their frames fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.decoding.interface import begin_stream
from asr.recognition.finishing import SILENT
from asr.recognition.loading import Samples, open_samples, read_recording
from asr.recognition.windows import SHORTEST_UTTERANCE, Grid, Window, cut_windows
from asr.types import AsrError, Hypothesis, UsageError

if TYPE_CHECKING:
    from asr.audio.read import RawFormat
    from asr.recognition.inputs import Recording
    from asr.recognition.recognizer import Recognizer

USUAL_UTTERANCE = 10.0  # seconds; of models that do not say what they were trained on
# A window's length, as a share of what is usual in training: it ends in the longest pause between these.
LEAST_OF_USUAL, MOST_OF_USUAL = 0.25, 2.0
CERTAIN = 1.0 - 1e-6  # the probability of a blank, or of the space between utterances, that no model emitted


@dataclass(frozen=True)
class Windows:
    """Windows of at most `length` seconds, and `overlap` seconds more on sides where there is no pause.

    Recordings of up to `longest` seconds may be recognized in one piece, see `longest_piece`. Raises UsageError for
    what cannot work.
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
    silent: bool


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
        hypotheses = stream.finish(nbest)
        return LongResult(hypotheses, samples.duration, samples.warnings, samples.source_rate, samples.silent)


def emissions_of(
    recognizer: Recognizer, recording: Recording, *, name: str, channel: str | int = "mix", raw: RawFormat | None = None
) -> Emissions:
    """The emissions that transcribing one channel of a recording decodes. Raises as `recognize_long` does."""
    audio = read_recording(recording, recognizer.rate, channel, raw, recognizer.longest)
    if audio is not None:
        [log_probs] = recognizer.emissions_in_memory([audio.samples])
        return _noted(_checked(log_probs), audio.duration, audio.warnings, audio.silent[0])
    windows = recognizer.windows or Windows()
    with open_samples(recording, recognizer.rate, channel, raw, name) as samples:
        blocks = list(stitched(recognizer, samples, windows, windows.longest))
        return _noted(np.concatenate(blocks), samples.duration, samples.warnings, samples.silent)


def silenced(log_probs: np.ndarray) -> np.ndarray:
    """Nothing but blanks (time, vocab) for a constant signal: no model has heard one, and some make letters of it."""
    return np.repeat(_certain(0, log_probs.shape[1]), len(log_probs), axis=0)


def _noted(log_probs: np.ndarray, duration: float, warnings: tuple[str, ...], silent: bool) -> Emissions:
    if silent:
        return Emissions(silenced(log_probs), duration, (*warnings, SILENT))
    return Emissions(log_probs, duration, warnings)


def stitched(
    recognizer: Recognizer, samples: Samples | Iterator[np.ndarray], windows: Windows, batch_seconds: float
) -> Iterator[np.ndarray]:
    """Log-probabilities (time, vocab) of successive windows: joined, as many as of the whole recording.

    `samples` are blocks (time,) at the model's rate; what is held of them is bounded by the batch. Windows are blank as
    long as the recording is silent.
    """
    batch: list[Window] = []
    for window in cut_windows(iter(samples), grid_of(recognizer, windows)):
        longest = max(len(w.samples) for w in [*batch, window])
        if batch and longest * (len(batch) + 1) > batch_seconds * recognizer.rate:
            yield from _kept(recognizer, batch, bool(getattr(samples, "silent", False)))
            batch = []
        batch.append(window)
    if batch:
        yield from _kept(recognizer, batch, bool(getattr(samples, "silent", False)))


def longest_piece(windows: Windows, training: dict[str, Any]) -> float:
    """Seconds of a recording that is recognized in one piece, by a model of that training summary.

    What is more than twice as long as anything that the model was trained on is recognized in windows.
    """
    if not training.get("train_longest"):
        return windows.longest
    return min(windows.longest, 2.0 * float(training["train_longest"]) * _joined_at_most(training))


def grid_of(recognizer: Recognizer, windows: Windows) -> Grid:
    """The sizes of windows in frames of the model: as long as what it was trained on, joined utterances included."""
    training = recognizer.model_file.training
    usual = USUAL_UTTERANCE
    if training.get("train_utterances") and training.get("train_hours"):
        usual = 3600.0 * float(training["train_hours"]) / float(training["train_utterances"])
    usual *= _joined_at_most(training)
    per_second = recognizer.rate / recognizer.stride
    length = max(1, round(windows.length * per_second))
    shortest = max(1, round(max(SHORTEST_UTTERANCE, LEAST_OF_USUAL * usual) * per_second))
    return Grid(
        recognizer.rate,
        recognizer.stride,
        length,
        overlap=round(windows.overlap * per_second),
        shortest=min(shortest, length // 2),
        usual=min(round(MOST_OF_USUAL * usual * per_second), length),
    )


def _joined_at_most(training: dict[str, Any]) -> int:
    """How many utterances were joined in training, at most."""
    augment = training.get("config", {}).get("augment", {})
    return int(augment.get("join_up_to", 2)) if augment.get("join") else 1


def _kept(recognizer: Recognizer, batch: list[Window], silent: bool) -> Iterator[np.ndarray]:
    spoken = [window.samples for window in batch if len(window.samples)]
    results = iter(recognizer.emissions_in_memory(spoken) if spoken else [])
    labels = recognizer.tokenizer.labels
    blank = _certain(0, len(labels))
    space = _certain(labels.index(" "), len(labels)) if " " in labels else None
    for window in batch:
        parts = [np.repeat(blank, window.before, axis=0)]
        if len(window.samples):
            log_probs = _checked(next(results))
            parts.append((silenced(log_probs) if silent else log_probs)[window.first : window.last])
        joined = np.concatenate([*parts, np.repeat(blank, window.after, axis=0)])
        if window.ends_in_pause and space is not None and len(joined):
            joined[-1:] = space  # utterances begin and end without a space: it stands between them
        if len(joined):
            yield joined


def _checked(log_probs: np.ndarray | AsrError) -> np.ndarray:
    if isinstance(log_probs, AsrError):
        raise AsrError(f"{log_probs}; choose shorter windows (--chunk-length)")
    return log_probs


def _certain(label: int, labels: int) -> np.ndarray:
    """A frame (1, vocab) of which no model needs to be asked."""
    row = np.full((1, labels), np.log((1.0 - CERTAIN) / (labels - 1)), dtype=np.float32)
    row[0, label] = np.log(CERTAIN)
    return row
