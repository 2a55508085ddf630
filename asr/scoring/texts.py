"""References and hypotheses, and which belongs to which: by id, nothing dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asr.types import AsrError


class TextsError(AsrError):
    """A file of references or hypotheses is malformed, or does not fit the other. The message names file and line."""


@dataclass(frozen=True)
class Line:
    """The text of one utterance and what its file says about it; seconds, decibels.

    `text` is None for a hypothesis that is there without a text (a recording that could not be read). `words` are
    (word, start, end, confidence) in seconds where the file has them.
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


@dataclass(frozen=True)
class Texts:
    """The lines of one file in file order.

    `numbered` where the ids are line numbers, as in a txt file; `predicted` where rows have `pred_text`.
    """

    path: str
    format: str
    lines: tuple[Line, ...]
    numbered: bool = False
    predicted: bool = False


@dataclass(frozen=True)
class TestSet:
    """References with the hypothesis of each, in the order of the references.

    `missing` are the ids of references without a hypothesis, which count as empty ones (every word deleted);
    `extra` those of hypotheses without a reference, which cannot be scored. Both are to be reported.
    """

    __test__ = False  # for pytest, which would collect a class of this name

    reference_path: str
    hypothesis_path: str
    references: tuple[Line, ...]
    hypotheses: tuple[Line, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What did not fit, one line each."""
        lines = []
        if self.missing:
            many = _count(len(self.missing), "utterance")
            lines.append(
                f"{self.hypothesis_path}: no hypothesis for {many} of {len(self.references)} "
                f"({_some(self.missing)}): scored as empty, every word deleted"
            )
        if self.extra:
            many = _count(len(self.extra), "hypothesis", "hypotheses")
            lines.append(f"{self.hypothesis_path}: {many} without a reference ({_some(self.extra)}): not scored")
        return tuple(lines)


def pair(references: Texts, hypotheses: Texts) -> TestSet:
    """Put every reference together with its hypothesis: by id, or by line number where both are txt.

    Raises TextsError where txt files differ in length, where only one of the two has ids, and where no id is common.
    """
    if references.numbered != hypotheses.numbered:
        bare, other = (references, hypotheses) if references.numbered else (hypotheses, references)
        raise TextsError(f"{bare.path} has no utterance ids and {other.path} has: give both as trn, or both as jsonl")
    if references.numbered and len(references.lines) != len(hypotheses.lines):
        raise TextsError(
            f"{references.path} has {len(references.lines)} lines and {hypotheses.path} {len(hypotheses.lines)}: "
            "txt files are paired line by line (an empty line is an empty text); use trn or jsonl to pair by id"
        )
    by_id = {line.id: line for line in hypotheses.lines}
    found = [by_id.get(line.id) for line in references.lines]
    if not any(found):
        raise TextsError(
            f"{hypotheses.path}: none of its ids is in {references.path} "
            f"('{hypotheses.lines[0].id}' there, '{references.lines[0].id}' here)"
        )
    known = {line.id for line in references.lines}
    missing = [
        line.id
        for line, hypothesis in zip(references.lines, found, strict=True)
        if hypothesis is None or hypothesis.text is None
    ]
    return TestSet(
        references.path,
        hypotheses.path,
        references.lines,
        tuple(h or Line(line.id, None) for line, h in zip(references.lines, found, strict=True)),
        tuple(missing),
        tuple(line.id for line in hypotheses.lines if line.id not in known),
    )


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
