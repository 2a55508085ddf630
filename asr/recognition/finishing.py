"""Hypotheses of a decoder to a Transcript: word times inside the recording, confidences calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from asr.decoding.confidence import Calibration
from asr.recognition.inputs import Recording
from asr.types import Hypothesis, Transcript, Word

SILENT = "silence: every sample has the same value, there is nothing to recognize"
MINIMUM_WORD = 0.001  # seconds; a word squeezed against the end of its recording keeps at least this


def finished(
    recording: Recording,
    duration: float,
    warnings: tuple[str, ...],
    hypotheses: Sequence[Hypothesis],
    channel: int | None,
    calibration: Calibration | None,
    silent: bool = False,
) -> Transcript:
    """The transcript of a recording of `duration` seconds, or of one channel of it; the best hypothesis comes first.

    Of one that is `silent` (see `asr.audio.read.Audio`) it says so.
    """
    fitted = [replace(h, words=_calibrated(fit_words(h.words, duration), calibration)) for h in hypotheses]
    best = fitted[0]
    return Transcript(
        text=best.text,
        words=best.words,
        duration=duration,
        id=recording.id,
        audio_filepath=recording.audio_filepath,
        channel=channel,
        confidence=sum(word.confidence for word in best.words) / max(len(best.words), 1),
        nbest=tuple(fitted),
        warnings=(*warnings, SILENT) if silent else warnings,
    )


def fit_words(words: Sequence[Word], duration: float) -> tuple[Word, ...]:
    """Move words that end after `duration` back into the recording, keeping 0 <= start < end <= next start.

    A model's last frames reach past the end of the audio by up to the width of a frame.
    """
    if not words or words[-1].end <= duration:
        return tuple(words)
    shortest = min(MINIMUM_WORD, duration / len(words))
    fitted: list[Word] = []
    limit = duration
    for word in reversed(words):
        end = min(word.end, limit)
        limit = max(min(word.start, end - shortest), 0.0)
        fitted.append(replace(word, start=limit, end=end))
    return tuple(reversed(fitted))


def _calibrated(words: tuple[Word, ...], calibration: Calibration | None) -> tuple[Word, ...]:
    if calibration is None:
        return words
    return tuple(replace(word, confidence=calibration(word.confidence)) for word in words)
