"""Which recognized words were right, and how well their confidences say so; models that carry a calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.decoding.confidence import Calibration, expected_calibration_error, normalized_cross_entropy
from asr.model.checkpoint import load_model, save_model
from asr.scoring.edits import align
from asr.text.normalize import normalize
from asr.transcript import Word

KEY = "confidence"  # in a model file's training summary


def judged_words(
    references: Sequence[str], recognized: Iterable[Sequence[Word]], normalizer: str
) -> tuple[list[float], list[bool]]:
    """The confidence of every recognized word, and whether it stands in the reference where it was recognized.

    Texts and words are normalized; where a word becomes several, each has its confidence.
    """
    spoken = [normalize(text, normalizer).split() for text in references]
    heard: list[list[Word]] = [
        [replace(word, word=part) for word in words for part in normalize(word.word, normalizer).split()]
        for words in recognized
    ]
    confidences: list[float] = []
    correct: list[bool] = []
    for words, edits in zip(heard, align(spoken, [[w.word for w in words] for words in heard]), strict=True):
        right = [False] * len(words)
        for edit in edits:
            if edit.kind == "equal":
                right[edit.hypothesis_start : edit.hypothesis_end] = [True] * (
                    edit.hypothesis_end - edit.hypothesis_start
                )
        confidences += [word.confidence for word in words]
        correct += right
    return confidences, correct


def quality(confidences: Sequence[float], correct: Sequence[bool]) -> dict[str, Any]:
    """Words, share of right ones, mean confidence, ECE and normalized cross entropy (None: undefined), as JSON."""
    cross_entropy = normalized_cross_entropy(confidences, correct)
    count = max(len(confidences), 1)
    return {
        "words": len(confidences),
        "right": round(sum(correct) / count, 5),
        "mean_confidence": round(sum(confidences) / count, 5),
        "expected_calibration_error": round(expected_calibration_error(confidences, correct), 5),
        "normalized_cross_entropy": None if cross_entropy is None else round(cross_entropy, 5),
    }


def write_calibrated(model: str | Path, target: str | Path, calibration: Calibration, summary: dict[str, Any]) -> Path:
    """A copy of a model file whose confidences are calibrated; `summary` is kept with it. Raises ModelFileError."""
    file = load_model(model)
    training = {**file.training, KEY: {**calibration.to_dict(), **summary}}
    return save_model(target, file.model, file.tokenizer, file.normalizer, training)
