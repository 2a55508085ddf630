"""Word and character error rates from summed edit counts, bootstrap intervals, and the paired bootstrap test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import zip_longest
from operator import add
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

Unit = Literal["word", "char"]
Kind = Literal["equal", "substitute", "delete", "insert"]
TAIL = 0.025  # probability on either side of a 95 % interval
FEWEST_SPEAKERS = 5  # with fewer, an interval over speakers means next to nothing
_DRAWS = 200_000_000  # units drawn over all resamples: bounds the time
_DRAWS_AT_ONCE = 2_000_000  # draws held in memory at a time
_NORMAL = NormalDist()
_BLOCK = 1000  # utterances passed to jiwer at a time: it needs several kilobytes for each
_KINDS: dict[str, Kind] = {"equal": "equal", "replace": "substitute", "delete": "delete", "insert": "insert"}


class Edit(NamedTuple):
    """A stretch of an alignment: reference tokens [start, end) against hypothesis tokens [start, end)."""

    kind: Kind
    reference_start: int
    reference_end: int
    hypothesis_start: int
    hypothesis_end: int

    def pairs(self, reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str]]:
        """The aligned tokens of both sides, "" where one side has none."""
        left = reference[self.reference_start : self.reference_end]
        right = hypothesis[self.hypothesis_start : self.hypothesis_end]
        return list(zip_longest(left, right, fillvalue=""))


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
        """Errors per reference token; the number of insertions if there is no reference token, as in jiwer."""
        return self.errors / max(self.reference_length, 1)

    def __add__(self, other: EditCounts) -> EditCounts:
        return EditCounts(*map(add, vars(self).values(), vars(other).values()))


@dataclass(frozen=True)
class Score:
    """The error rate of a test set: counts summed over all utterances, then divided once.

    `utterances` holds the counts of each utterance in input order, `speakers` their speakers if known. `resamples` is
    the number of bootstrap resamples for the interval (default: chosen from the number of units).
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
        return sum(counts.errors > 0 for counts in self.utterances)

    @property
    def sentence_error_rate(self) -> float:
        return self.sentence_errors / max(len(self.utterances), 1)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of `rate`, over speakers if these are known; computed on first use."""
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
    every token of its hypothesis is an insertion. Texts are not normalized here: normalize both sides alike first.
    With `speakers`, one per utterance, the interval is over speakers. Raises ValueError when the lists differ in
    length.
    """
    return score_alignments(align_texts(references, hypotheses, unit), unit, speakers)


def align_texts(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> list[list[Edit]]:
    """A minimum edit alignment of each pair, all edits at cost 1. Raises ValueError when the lists differ in length."""
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    left, right = [tokens(text, unit) for text in references], [tokens(text, unit) for text in hypotheses]
    alignments: list[list[Edit]] = []
    if unit == "char":
        from rapidfuzz.distance import Levenshtein  # jiwer is built on it, and takes five times as long for characters

        for reference, hypothesis in zip(left, right, strict=True):
            ops = Levenshtein.opcodes(reference, hypothesis)
            alignments.append([Edit(_KINDS[o.tag], o.src_start, o.src_end, o.dest_start, o.dest_end) for o in ops])
        return alignments
    import jiwer

    for first in range(0, len(left), _BLOCK):
        block = slice(first, first + _BLOCK)
        output = jiwer.process_words([*map(" ".join, left[block])], [*map(" ".join, right[block])])
        alignments += [
            [Edit(c.type, c.ref_start_idx, c.ref_end_idx, c.hyp_start_idx, c.hyp_end_idx) for c in chunks]  # type: ignore[arg-type]
            for chunks in output.alignments
        ]
    return alignments


def score_alignments(alignments: Sequence[Sequence[Edit]], unit: Unit = "word", speakers: Sequence[str] = ()) -> Score:
    """The score of already aligned utterances. Raises ValueError when the lists differ in length."""
    if speakers and len(speakers) != len(alignments):
        raise ValueError(f"{len(alignments)} utterances but {len(speakers)} speakers")
    return Score(unit, tuple(map(_count, alignments)), tuple(speakers))


def tokens(text: str, unit: Unit) -> Sequence[str]:
    """The words of `text`, or its characters (a string) with each run of white space reduced to one space."""
    if unit not in ("word", "char"):
        raise ValueError(f"unit is 'word' or 'char', found {unit!r}")
    return text.split() if unit == "word" else " ".join(text.split())


def _count(alignment: Sequence[Edit]) -> EditCounts:
    lengths = dict.fromkeys(_KINDS.values(), 0)
    for kind, reference_start, reference_end, hypothesis_start, hypothesis_end in alignment:
        lengths[kind] += max(reference_end - reference_start, hypothesis_end - hypothesis_start)
    hits, substitutions, deletions = lengths["equal"], lengths["substitute"], lengths["delete"]
    return EditCounts(substitutions, deletions, lengths["insert"], hits, hits + substitutions + deletions)


@dataclass(frozen=True)
class Difference:
    """A difference on a resampled test set: its value, 95 % `interval`, and two-sided `p` under no difference.

    `bounded` means that no resample contradicted the difference, so that `p` is only an upper bound.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    bounded: bool


def resampling_units(counts: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, str]:
    """The units to resample and their name: counts (utterances, k), summed per speaker if speakers are known.

    Utterances of one speaker resemble each other, so a test set with few speakers says less than its number of
    utterances suggests (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation", ICASSP 2004). Speakers count as known if every utterance has one and there are at least
    FEWEST_SPEAKERS of them.
    """
    if len(speakers) == len(counts) and all(speakers):
        names, index = np.unique(np.asarray(speakers, dtype=object).astype(str), return_inverse=True)
        if len(names) >= FEWEST_SPEAKERS:
            sums = [np.bincount(index, weights=column, minlength=len(names)) for column in counts.T]
            return np.stack(sums, axis=1), "speakers"
    return counts, "utterances"


def bootstrap_interval(errors: np.ndarray, lengths: np.ndarray, *, resamples: int | None = None) -> tuple[float, float]:
    """The 95 % interval of sum(errors) / sum(lengths): an expanded percentile bootstrap over units.

    `errors` and `lengths`, both (units,), are per utterance, or summed per speaker (see `resampling_units`). The
    percentiles are widened as recommended by Hesterberg ("What teachers should know about the bootstrap", The American
    Statistician 2015), which matters when units are few. If there are no errors, the upper limit is the exact binomial
    one over reference tokens; a single unit, which has no spread, gives (0, 1).
    """
    units = len(errors)
    total, tokens = float(np.sum(errors)), float(np.sum(lengths))
    if units == 0:
        return (0.0, 0.0)
    if total == 0:
        return (0.0, 1.0 - TAIL ** (1.0 / max(tokens, 1.0)))
    if units == 1:
        return (0.0, max(1.0, total / max(tokens, 1.0)))
    sums = _resampled(np.stack([errors, lengths], axis=1), resamples)
    return expanded_interval(sums[:, 0] / np.maximum(sums[:, 1], 1.0), units)


def paired_bootstrap(a: np.ndarray, b: np.ndarray, *, resamples: int | None = None) -> Difference:
    """The difference of two error rates, B's minus A's; `a` and `b` (units, 2) hold errors and reference tokens.

    Both systems are scored on the same resampled units, so what is hard for both cancels out (Bisani and Ney 2004).
    Interval and p agree: up to the resolution of the resamples, p < 0.05 exactly when the 95 % interval excludes 0.
    """
    units = len(a)
    table = np.concatenate([a, b], axis=1)

    def differences_of(sums: np.ndarray) -> np.ndarray:
        rates = sums[:, 0::2] / np.maximum(sums[:, 1::2], 1.0)
        return np.asarray(rates[:, 1] - rates[:, 0])

    value = float(differences_of(table.sum(axis=0, keepdims=True))[0])
    if units < 2:
        return Difference(value, (min(value, -1.0), max(value, 1.0)), 1.0, bounded=False)
    if np.array_equal(a, b):
        return Difference(0.0, (0.0, 0.0), 1.0, bounded=False)
    differences = differences_of(_resampled(table, resamples))
    equal = int((differences == 0).sum())  # counted half: errors are integers, so ties are common
    against = min(int((differences < 0).sum()), int((differences > 0).sum())) + equal / 2
    one_sided = min((against + 1) / (len(differences) + 1), 0.5)
    # the inverse of the expansion in `expanded_interval`
    t = -_NORMAL.inv_cdf(one_sided) * math.sqrt((units - 1) / units)
    p = min(1.0, 2.0 * student_tail(t, units - 1))
    return Difference(value, expanded_interval(differences, units), p, bounded=against == 0)


def _resampled(columns: np.ndarray, resamples: int | None) -> np.ndarray:
    """Sums (resamples, k) of the rows of `columns` (units, k) over units drawn with replacement."""
    units = len(columns)
    count = resamples or min(10_000, max(1000, _DRAWS // units))
    generator = np.random.default_rng(1)  # fixed, so that a report can be repeated
    values = np.asarray(columns, dtype=np.float64)
    sums = np.empty((count, values.shape[1]))
    rows = max(1, _DRAWS_AT_ONCE // units)
    for first in range(0, count, rows):
        here = min(rows, count - first)
        drawn = generator.integers(0, units, size=(here, units), dtype=np.int32).astype(np.int64)
        # Count how often each unit was drawn; one matrix product then gives all sums, faster than gathering columns.
        drawn += np.arange(here, dtype=np.int64)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=here * units).reshape(here, units)
        sums[first : first + here] = weights @ values
    return sums


def expanded_interval(values: np.ndarray, units: int) -> tuple[float, float]:
    """The percentiles of a resampled statistic, widened so that the coverage is about what TAIL promises."""
    tail = _NORMAL.cdf(-student_quantile(TAIL, units - 1) * math.sqrt(units / (units - 1)))
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return (float(low), float(high))


@lru_cache(maxsize=64)
def student_quantile(tail: float, degrees: int) -> float:
    """The t above which Student's distribution has the probability `tail` (below 0.5)."""
    low, high = 0.0, 1.0
    while student_tail(high, degrees) > tail:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if student_tail(middle, degrees) > tail else (low, middle)
    return high


def student_tail(t: float, degrees: int) -> float:
    """The probability that a Student's t variable with `degrees` degrees of freedom exceeds t.

    A finite series in the cosine of arctan(t / sqrt(degrees)): Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    if degrees > 10_000:
        return 0.5 * math.erfc(t / math.sqrt(2.0))
    angle, odd = math.atan(t / math.sqrt(degrees)), degrees % 2
    k = np.arange(2 + odd, degrees - 1, 2)
    series = 1.0 + float(np.cumprod((k - 1) / k * math.cos(angle) ** 2).sum())
    if not odd:
        return 0.5 - 0.5 * math.sin(angle) * series
    within = angle + math.sin(angle) * math.cos(angle) * series if degrees > 1 else angle
    return 0.5 - within / math.pi
