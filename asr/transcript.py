"""What a recognizer returns: a transcript, its words in time, and what went wrong where nothing could be returned."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """A recognized word; `start` and `end` are seconds in the source recording, `confidence` lies in [0, 1].

    Times come from CTC peaks and are approximate. The confidence is acoustic (no language model), and calibrated where
    the model file holds a calibration (`asr calibrate`).
    """

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """One decoding of an utterance; scores are natural logarithms, `score` is what the decoder ranked by."""

    text: str
    score: float
    acoustic_score: float
    lm_score: float = 0.0
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """The recognition of one recording (or one channel of it). `duration` is in seconds.

    `tokens` are the model's labels in time; only forced alignment gives them.
    """

    text: str
    words: tuple[Word, ...]
    duration: float
    id: str = ""
    audio_filepath: str = ""
    channel: int | None = None
    confidence: float = 0.0
    nbest: tuple[Hypothesis, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    tokens: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed; `error` is one line that names the file."""

    id: str
    audio_filepath: str
    error: str
