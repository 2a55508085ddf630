"""The texts of utterances and what is known about them, as files of references and hypotheses give them."""

from __future__ import annotations

from dataclasses import dataclass

from asr.scoring.alternatives import Wordings
from asr.types import AsrError


class TextsError(AsrError):
    """A file of references or hypotheses is malformed, or does not fit the other. The message names file and line."""


@dataclass(frozen=True)
class Line:
    """The text of one utterance and what its file says about it; seconds, decibels.

    `text` is None for a hypothesis that is there without a text (a recording that could not be read); where it leaves
    a choice, `wordings` holds what is scored. `words` are (word, start, end, confidence) in seconds where the file has
    them. `recording` is the recording with its channel in stm and ctm files.
    """

    id: str
    text: str | None
    speaker: str = ""
    duration: float | None = None
    snr: float | None = None
    snr_estimated: bool = False
    audio_filepath: str = ""
    offset: float = 0.0
    segment: bool = False
    channel: int | None = None
    words: tuple[tuple[str, float, float, float], ...] = ()
    wordings: Wordings | None = None
    recording: str = ""


@dataclass(frozen=True)
class TimedWord:
    """A word of a ctm file; seconds. Marks of alternatives have no times, words may have no confidence."""

    recording: str
    text: str
    start: float | None
    end: float | None
    confidence: float | None

    @property
    def middle(self) -> float:
        return (self.start or 0.0) + ((self.end or 0.0) - (self.start or 0.0)) / 2


@dataclass(frozen=True)
class Texts:
    """The lines of one file in file order.

    `numbered` where the ids are line numbers, as in a txt file; `predicted` where rows have `pred_text`; `whole` where
    the file is one text without an id (subtitles), called after the file. `chosen` where the format was given and not
    found. `ignored` are the segments of an stm file in which nothing is scored, `timed` the words of a ctm file.
    """

    path: str
    format: str
    lines: tuple[Line, ...]
    numbered: bool = False
    predicted: bool = False
    whole: bool = False
    chosen: bool = False
    ignored: tuple[Line, ...] = ()
    timed: tuple[TimedWord, ...] = ()
