"""Word and character error rates from summed edit counts, with an interval; jiwer aligns behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

Unit = Literal["word", "char"]


class Edit(NamedTuple):
    """A stretch of an alignment: reference tokens [start, end) against hypothesis tokens [start, end)."""

    kind: Literal["equal", "substitute", "delete", "insert"]
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

    `utterances` holds the counts of each utterance in input order.
    """

    unit: Unit
    utterances: tuple[EditCounts, ...]

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

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of `rate` over utterances; computed when first asked for."""
        errors = np.array([counts.errors for counts in self.utterances], dtype=np.int64)
        lengths = np.array([counts.reference_length for counts in self.utterances], dtype=np.int64)
        return bootstrap_interval(errors, lengths)


def score(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> Score:
    """Align each hypothesis with the reference at the same position and count edits.

    Words are what stands between white space; characters include one space between words. An empty reference
    is allowed: every token of its hypothesis is an insertion. Nothing is normalized: do that before, to both
    sides alike. Raises ValueError when the two lists differ in length.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    split_references = [tokens(text, unit) for text in references]
    split_hypotheses = [tokens(text, unit) for text in hypotheses]
    alignments = align(split_references, split_hypotheses)
    return Score(unit, tuple(map(_count, alignments)))


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
    alignments: list[list[Edit]] = [
        [Edit("insert", 0, 0, 0, len(hypothesis))] if hypothesis and not reference else []
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    filled = [i for i, reference in enumerate(references) if reference]
    if not filled:
        return alignments
    import jiwer

    output = jiwer.process_words(
        [list(references[i]) for i in filled],  # type: ignore[misc]
        [list(hypotheses[i]) for i in filled],  # type: ignore[misc]
        reference_transform=_as_given,  # type: ignore[arg-type]
        hypothesis_transform=_as_given,  # type: ignore[arg-type]
    )
    for i, chunks in zip(filled, output.alignments, strict=True):
        alignments[i] = [
            Edit(c.type, c.ref_start_idx, c.ref_end_idx, c.hyp_start_idx, c.hyp_end_idx)  # type: ignore[arg-type]
            for c in chunks
        ]
    return alignments


def bootstrap_interval(
    errors: np.ndarray, lengths: np.ndarray, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 1
) -> tuple[float, float]:
    """Percentile bootstrap of sum(errors) / sum(lengths) over units drawn with replacement.

    `errors` and `lengths`, both (units,), are per utterance, or summed per speaker for a bootstrap blocked by
    speaker (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
    ICASSP 2004). The seed is fixed so that a report can be repeated.
    """
    units = len(errors)
    if units == 0:
        return (0.0, 0.0)
    generator = np.random.default_rng(seed)
    both = np.stack([np.asarray(errors), np.asarray(lengths)], axis=1).astype(np.float64)
    rates = np.empty(resamples)
    rows = max(1, 1_000_000 // units)  # bounds the memory of one block of draws
    for first in range(0, resamples, rows):
        count = min(rows, resamples - first)
        drawn = generator.integers(0, units, size=(count, units), dtype=np.int32)
        # how often each unit was drawn, then one product gives both sums: faster than gathering twice
        offsets = np.arange(count, dtype=np.int64)[:, None] * units
        weights = np.bincount((drawn + offsets).ravel(), minlength=count * units).reshape(count, units)
        sums = weights @ both
        rates[first : first + count] = sums[:, 0] / np.maximum(sums[:, 1], 1.0)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(rates, [tail, 1.0 - tail])
    return (float(low), float(high))


def _as_given(sentences: list[list[str]]) -> list[list[str]]:
    return sentences


def _count(alignment: list[Edit]) -> EditCounts:
    lengths = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for edit in alignment:
        from_hypothesis = edit.kind == "insert"
        start = edit.hypothesis_start if from_hypothesis else edit.reference_start
        end = edit.hypothesis_end if from_hypothesis else edit.reference_end
        lengths[edit.kind] += end - start
    hits, substitutions, deletions = lengths["equal"], lengths["substitute"], lengths["delete"]
    return EditCounts(substitutions, deletions, lengths["insert"], hits, hits + substitutions + deletions)
