"""Types used everywhere: transcripts with words and hypotheses, failures, and errors whose message suffices."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

VERSION = "0.1.0"  # a test keeps it equal to pyproject.toml's; reading installed metadata takes 50 ms


@dataclass(frozen=True)
class Word:
    """A recognized word; `start` and `end` are seconds in the source recording, `confidence` lies in [0, 1].

    Times come from CTC peaks and are approximate. The confidence is acoustic (no language model), and calibrated if
    the model file holds a calibration (`asr calibrate`).
    """

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """One decoding of an utterance. Scores are natural logarithms; the decoder ranks by `score`."""

    text: str
    score: float
    acoustic_score: float
    lm_score: float = 0.0
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """The recognition of one recording (or one channel of it). `duration` is in seconds.

    `tokens` are the model's labels with their times; only forced alignment sets them.
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
class Classification(Transcript):
    """The classification of a recording: `text` is the label, `nbest` holds all labels, best first."""

    @property
    def label(self) -> str:
        return self.text

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return self.confidence

    @property
    def probabilities(self) -> dict[str, float]:
        """The probabilities of all labels, the most probable first."""
        return {hypothesis.text: math.exp(hypothesis.score) for hypothesis in self.nbest}

    @property
    def windows(self) -> tuple[Word, ...]:
        """Segments of the recording, each with its label (`word`) and the label's probability (`confidence`)."""
        return self.words


@dataclass(frozen=True)
class Failure:
    """A recording that could not be transcribed; `error` is one line that names the file."""

    id: str
    audio_filepath: str
    error: str


class AsrError(Exception):
    """Base of all errors whose message is enough for the user; the command line shows no traceback for them."""


class AudioError(AsrError):
    """A recording is missing, empty, unreadable or holds no usable samples. The message names the file."""


class ManifestError(AsrError):
    """A manifest row is malformed. The message names file and line."""


class TextError(AsrError):
    """A transcript cannot be normalized or spelled with the model's alphabet."""


class ModelFileError(AsrError):
    """A file is not one of our models, is damaged, or was written by a newer version."""


class ConfigError(AsrError):
    """A configuration key or value is invalid. The message names the key and the nearest valid one."""


class UsageError(AsrError):
    """The command was called in a way that cannot work; the command line exits with status 2."""


def in_words(error: BaseException) -> str:
    """An unexpected error in one line, for inputs whose failure must not stop the others."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    return " ".join(f"unexpected {type(error).__name__}: {error}".split()).rstrip(": ")
