"""Word and character error rates from summed edit counts; jiwer aligns behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from asr.scoring.significance import blocks, bootstrap_interval

Unit = Literal["word", "char"]
Kind = Literal["equal", "substitute", "delete", "insert"]
_BLOCK = 1000  # utterances that jiwer is given at a time: it takes some kilobytes for each of them
_KINDS: dict[str, Kind] = {"equal": "equal", "replace": "substitute", "delete": "delete", "insert": "insert"}


class Edit(NamedTuple):
    """A stretch of an alignment: reference tokens [start, end) against hypothesis tokens [start, end)."""

    kind: Kind
    reference_start: int
    reference_end: int
    hypothesis_start: int
    hypothesis_end: int


@dataclass(frozen=True)
class EditCounts:
    """Edits that turn a reference into a hypothesis; `reference_length` counts the reference's tokens."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    hits: int = 0
    reference_length: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference token; without any reference token the number of insertions, as in jiwer."""
        return self.errors / max(self.reference_length, 1)

    def __add__(self, other: EditCounts) -> EditCounts:
        return EditCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.hits + other.hits,
            self.reference_length + other.reference_length,
        )


@dataclass(frozen=True)
class Score:
    """The error rate of a test set: counts summed over all utterances and divided once.

    `utterances` holds the counts of each utterance in input order, `speakers` their speakers where these are known.
    """

    unit: Unit
    utterances: tuple[EditCounts, ...]
    speakers: tuple[str, ...] = ()

    @cached_property
    def counts(self) -> EditCounts:
        return sum(self.utterances, EditCounts())

    @property
    def rate(self) -> float:
        return self.counts.rate

    @property
    def wer(self) -> float:
        """The word error rate as a fraction (0.05 is 5 %); may exceed 1."""
        if self.unit != "word":
            raise AttributeError("this score counts characters: use .cer, or score(..., unit='word')")
        return self.rate

    @property
    def cer(self) -> float:
        """The character error rate as a fraction; spaces between words count as characters."""
        if self.unit != "char":
            raise AttributeError("this score counts words: use .wer, or score(..., unit='char')")
        return self.rate

    @property
    def substitutions(self) -> int:
        return self.counts.substitutions

    @property
    def deletions(self) -> int:
        return self.counts.deletions

    @property
    def insertions(self) -> int:
        return self.counts.insertions

    @property
    def reference_length(self) -> int:
        return self.counts.reference_length

    @property
    def reference_words(self) -> int:
        if self.unit != "word":
            raise AttributeError("this score counts characters: use .reference_length")
        return self.counts.reference_length

    @cached_property
    def sentence_errors(self) -> int:
        """Utterances with at least one error."""
        return sum(1 for counts in self.utterances if counts.errors)

    @property
    def sentence_error_rate(self) -> float:
        return self.sentence_errors / max(len(self.utterances), 1)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of `rate`, over speakers where these are known; computed when first asked for."""
        return self._interval[0]

    @property
    def interval_units(self) -> str:
        """What was resampled for the interval: "speakers" or "utterances"."""
        return self._interval[1]

    @cached_property
    def errors_and_lengths(self) -> np.ndarray:
        """Errors and reference tokens of each utterance, (utterances, 2) int64."""
        rows = [(counts.errors, counts.reference_length) for counts in self.utterances]
        return np.array(rows, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def _interval(self) -> tuple[tuple[float, float], str]:
        units, name = blocks(self.errors_and_lengths, self.speakers)
        return bootstrap_interval(units[:, 0], units[:, 1]), name


def score(
    references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word", *, speakers: Sequence[str] = ()
) -> Score:
    """Align each hypothesis with the reference at the same position and count edits.

    Words are what stands between white space; characters include one space between words. An empty reference
    is allowed: every token of its hypothesis is an insertion. Nothing is normalized: do that before, to both
    sides alike. With `speakers`, one per utterance, the interval is over speakers. Raises ValueError when the lists
    differ in length.
    """
    return count(align_texts(references, hypotheses, unit), unit, speakers)


def align_texts(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> list[list[Edit]]:
    """The alignments that `score` counts. Raises ValueError when the lists differ in length."""
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    if unit == "char":
        return [_align_characters(*pair) for pair in zip(references, hypotheses, strict=True)]
    return align([tokens(text, unit) for text in references], [tokens(text, unit) for text in hypotheses])


def count(alignments: Sequence[Sequence[Edit]], unit: Unit = "word", speakers: Sequence[str] = ()) -> Score:
    """The score of utterances that are aligned already. Raises ValueError when the lists differ in length."""
    if speakers and len(speakers) != len(alignments):
        raise ValueError(f"{len(alignments)} utterances but {len(speakers)} speakers")
    return Score(unit, tuple(map(_count, alignments)), tuple(speakers))


def tokens(text: str, unit: Unit) -> list[str]:
    """The words of `text`, or its characters with white space reduced to one space between words."""
    if unit == "word":
        return text.split()
    if unit == "char":
        return list(" ".join(text.split()))
    raise ValueError(f"unit is 'word' or 'char', found {unit!r}")


def align(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> list[list[Edit]]:
    """A minimum edit alignment (all edits cost 1) of each pair of token sequences."""
    # jiwer below 4 refuses empty references and all versions are spared trivial work: those are settled here
    alignments = [_trivial(reference, hypothesis) for reference, hypothesis in zip(references, hypotheses, strict=True)]
    filled = [i for i, reference in enumerate(references) if reference and not alignments[i]]
    for first in range(0, len(filled), _BLOCK):
        block = filled[first : first + _BLOCK]
        for i, edits in zip(
            block, _aligned([references[i] for i in block], [hypotheses[i] for i in block]), strict=True
        ):
            alignments[i] = edits
    return alignments


def _aligned(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> Iterator[list[Edit]]:
    import jiwer

    output = jiwer.process_words(
        list(map(list, references)),  # type: ignore[arg-type]
        list(map(list, hypotheses)),  # type: ignore[arg-type]
        reference_transform=_as_given,  # type: ignore[arg-type]
        hypothesis_transform=_as_given,  # type: ignore[arg-type]
    )
    for chunks in output.alignments:
        yield [
            Edit(c.type, c.ref_start_idx, c.ref_end_idx, c.hyp_start_idx, c.hyp_end_idx)  # type: ignore[arg-type]
            for c in chunks
        ]


def _align_characters(reference: str, hypothesis: str) -> list[Edit]:
    """What `align` says of the characters, by the library behind jiwer: its own lists of characters take five times as
    long.
    """
    from rapidfuzz.distance import Levenshtein

    ours, theirs = " ".join(reference.split()), " ".join(hypothesis.split())
    if ours == theirs:
        return _trivial(ours, theirs)
    codes = Levenshtein.opcodes(ours, theirs)
    return [Edit(_KINDS[c.tag], c.src_start, c.src_end, c.dest_start, c.dest_end) for c in codes]


def _trivial(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Edit]:
    """The alignment where one look shows it, else an empty one."""
    if not reference:
        return [Edit("insert", 0, 0, 0, len(hypothesis))] if hypothesis else []
    return [Edit("equal", 0, len(reference), 0, len(hypothesis))] if reference == hypothesis else []


def _as_given(sentences: list[list[str]]) -> list[list[str]]:
    return sentences


def _count(alignment: Sequence[Edit]) -> EditCounts:
    lengths = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for edit in alignment:
        from_hypothesis = edit.kind == "insert"
        start = edit.hypothesis_start if from_hypothesis else edit.reference_start
        end = edit.hypothesis_end if from_hypothesis else edit.reference_end
        lengths[edit.kind] += end - start
    hits, substitutions, deletions = lengths["equal"], lengths["substitute"], lengths["delete"]
    return EditCounts(substitutions, deletions, lengths["insert"], hits, hits + substitutions + deletions)
