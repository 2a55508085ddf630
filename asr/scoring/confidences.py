"""Word confidences against the references: which recognized words were right, and how well confidences say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asr.decoding.confidence import BINS, expected_calibration_error, normalized_cross_entropy
from asr.scoring.edits import Edit
from asr.scoring.texts import Line
from asr.text.normalize import normalize


@dataclass(frozen=True)
class Judged:
    """The recognized words of an utterance (or of many): the confidence of each, and whether it was right."""

    confidences: tuple[float, ...] = ()
    correct: tuple[bool, ...] = ()

    def quality(self) -> dict[str, Any]:
        """Words, share of right ones, mean confidence, ECE and normalized cross entropy (None: undefined), as JSON."""
        cross_entropy = normalized_cross_entropy(self.confidences, self.correct)
        count = max(len(self.confidences), 1)
        return {
            "words": len(self.confidences),
            "right": round(sum(self.correct) / count, 5),
            "mean_confidence": round(sum(self.confidences) / count, 5),
            "expected_calibration_error": round(expected_calibration_error(self.confidences, self.correct), 5),
            "normalized_cross_entropy": None if cross_entropy is None else round(cross_entropy, 5),
        }

    def bins(self) -> list[tuple[float, float, int]]:
        """Mean confidence, share of right words and number of words in each bin that has any, as ECE takes them."""
        members: dict[int, list[int]] = {}
        for i, confidence in enumerate(self.confidences):
            members.setdefault(min(int(confidence * BINS), BINS - 1), []).append(i)
        return [
            (
                sum(self.confidences[i] for i in chosen) / len(chosen),
                sum(self.correct[i] for i in chosen) / len(chosen),
                len(chosen),
            )
            for _, chosen in sorted(members.items())
        ]

    def below(self, limit: float) -> tuple[int, int]:
        """How many words have a confidence below `limit`, and how many of these were wrong."""
        doubtful = [right for c, right in zip(self.confidences, self.correct, strict=True) if c < limit]
        return len(doubtful), doubtful.count(False)


def judged(line: Line, hypothesis: str, normalizer: str, edits: Sequence[Edit]) -> Judged | None:
    """The words of `hypothesis`, the normalized text of `line`, aligned by `edits`; None where confidences are unknown.

    A recognized word of which the normalizer makes several gives its confidence to each. A word is right where it
    stands in the reference where it was recognized, as in NIST's scoring of confidences.
    """
    known = [(part, c) for word, _, _, c in line.words for part in normalize(word, normalizer).split()]
    if [part for part, _ in known] != hypothesis.split():
        return None
    correct = [False] * len(known)
    for edit in edits:
        if edit.kind == "equal":
            first, last = edit.hypothesis_start, edit.hypothesis_end
            correct[first:last] = [True] * (last - first)
    return Judged(tuple(c for _, c in known), tuple(correct))


def together(parts: Sequence[Judged | None]) -> Judged:
    """The words of all utterances, those without confidences left out."""
    known = [part for part in parts if part is not None]
    return Judged(
        tuple(c for part in known for c in part.confidences), tuple(right for part in known for right in part.correct)
    )


def quality_line(figures: dict[str, Any]) -> str:
    """What `Judged.quality` found, for people."""
    entropy = figures["normalized_cross_entropy"]
    return (
        f"{figures['words']} words, {figures['right']:.1%} right, mean confidence {figures['mean_confidence']:.1%}, "
        f"ECE {figures['expected_calibration_error']:.4f}, "
        f"NCE {'undefined' if entropy is None else format(entropy, '.4f')}"
    )
