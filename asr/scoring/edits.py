"""Word and character error rates from summed edit counts; jiwer aligns behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Literal, NamedTuple

import numpy as np

from asr.scoring.significance import bootstrap_interval, resampling_units

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

    def pairs(self, reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str]]:
        """The tokens of both sides that stand opposite each other, "" where one side has none."""
        ours = reference[self.reference_start : self.reference_end]
        theirs = hypothesis[self.hypothesis_start : self.hypothesis_end]
        return list(zip_longest(ours, theirs, fillvalue=""))


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
    `resamples` sets the number of bootstrap resamples for the interval (default: as `bootstrap_interval` chooses).
    """

    unit: Unit
    utterances: tuple[EditCounts, ...]
    speakers: tuple[str, ...] = ()
    resamples: int | None = None

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
        units, name = resampling_units(self.errors_and_lengths, self.speakers)
        return bootstrap_interval(units[:, 0], units[:, 1], resamples=self.resamples), name


def score(
    references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word", *, speakers: Sequence[str] = ()
) -> Score:
    """Align each hypothesis with the reference at the same position and count edits.

    Words are separated by white space; characters include one space between words. An empty reference is allowed:
    every token of its hypothesis is an insertion. Nothing is normalized: do that before, to both sides alike. With
    `speakers`, one per utterance, the interval is over speakers. Raises ValueError when the lists differ in length.
    """
    return score_alignments(align_texts(references, hypotheses, unit), unit, speakers)


def align_texts(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> list[list[Edit]]:
    """A minimum edit alignment (all edits cost 1) of each pair. Raises ValueError when the lists differ in length."""
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    ours, theirs = [tokens(text, unit) for text in references], [tokens(text, unit) for text in hypotheses]
    if unit == "word":
        return _align_words(ours, theirs)
    from rapidfuzz.distance import Levenshtein  # what jiwer stands on: its lists of characters take five times as long

    return [
        [
            Edit(_KINDS[op.tag], op.src_start, op.src_end, op.dest_start, op.dest_end)
            for op in Levenshtein.opcodes(reference, hypothesis)
        ]
        for reference, hypothesis in zip(ours, theirs, strict=True)
    ]


def _align_words(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> list[list[Edit]]:
    import jiwer

    alignments: list[list[Edit]] = []
    for first in range(0, len(references), _BLOCK):
        block = slice(first, first + _BLOCK)
        output = jiwer.process_words([*map(" ".join, references[block])], [*map(" ".join, hypotheses[block])])
        alignments += [
            [Edit(c.type, c.ref_start_idx, c.ref_end_idx, c.hyp_start_idx, c.hyp_end_idx) for c in chunks]  # type: ignore[arg-type]
            for chunks in output.alignments
        ]
    return alignments


def score_alignments(alignments: Sequence[Sequence[Edit]], unit: Unit = "word", speakers: Sequence[str] = ()) -> Score:
    """The score of utterances that are aligned already. Raises ValueError when the lists differ in length."""
    if speakers and len(speakers) != len(alignments):
        raise ValueError(f"{len(alignments)} utterances but {len(speakers)} speakers")
    return Score(unit, tuple(map(_count, alignments)), tuple(speakers))


def tokens(text: str, unit: Unit) -> Sequence[str]:
    """The words of `text`, or its characters (a string) with white space reduced to one space between words."""
    if unit not in ("word", "char"):
        raise ValueError(f"unit is 'word' or 'char', found {unit!r}")
    return text.split() if unit == "word" else " ".join(text.split())


def _count(alignment: Sequence[Edit]) -> EditCounts:
    lengths = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for kind, reference_start, reference_end, hypothesis_start, hypothesis_end in alignment:
        lengths[kind] += max(reference_end - reference_start, hypothesis_end - hypothesis_start)
    hits, substitutions, deletions = lengths["equal"], lengths["substitute"], lengths["delete"]
    return EditCounts(substitutions, deletions, lengths["insert"], hits, hits + substitutions + deletions)
