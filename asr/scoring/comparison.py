"""Two systems on the same utterances: the difference of their rates, its interval and p-values, and who wins where."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from asr.scoring.edits import (
    Difference,
    Edit,
    Score,
    Unit,
    align_texts,
    paired_bootstrap,
    resampling_units,
    score_alignments,
)

SIGNIFICANT = 0.05
GOOD_WORDS = 2  # words right in both systems that separate two segments, as in NIST's sc_stats


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs test over `segments`; `z` is positive where the first system makes more errors."""

    segments: int
    mean: float
    z: float
    p: float


@dataclass(frozen=True)
class Comparison(Difference):
    """Two scores of the same references, and the difference of their rates, B's minus A's: negative where B is better.

    Interval and p come from a paired bootstrap over `interval_units` ("speakers" if these are known, else
    "utterances"). `matched` is None for characters, for which the matched-pairs test is not defined.
    """

    a: Score
    b: Score
    interval_units: str
    matched: MatchedPairs | None

    @cached_property
    def gains(self) -> np.ndarray:
        """Errors of A minus errors of B in each utterance: positive where B wins, (utterances,) int64."""
        return np.subtract(self.a.errors_and_lengths[:, 0], self.b.errors_and_lengths[:, 0])

    @property
    def significant(self) -> bool:
        return is_significant(self)

    def verdict(self) -> str:
        """The result of the paired bootstrap, in one line."""
        if not self.gains.any():
            return "A and B make equally many errors in every utterance"
        return verdict(self, better=self.difference < 0)

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values; rates are fractions."""
        matched = self.matched
        return {
            "difference": self.difference,
            "interval_95": list(self.interval),
            "interval_over": self.interval_units,
            "p": self.p,
            "significant": self.significant,
            "relative": self.difference / self.a.rate if self.a.rate else None,
            "matched_pairs": matched and {**asdict(matched), "z": matched.z if math.isfinite(matched.z) else None},
            "wins": int((self.gains > 0).sum()),
            "losses": int((self.gains < 0).sum()),
            "ties": int((self.gains == 0).sum()),
        }


def compare(
    references: Sequence[str],
    hypotheses_a: Sequence[str],
    hypotheses_b: Sequence[str],
    unit: Unit = "word",
    *,
    speakers: Sequence[str] = (),
    references_b: Sequence[str] | None = None,
) -> Comparison:
    """Compare two systems' hypotheses for the same references; texts are not normalized here.

    With `speakers`, one per utterance, the interval is over speakers. `references_b` are the references as worded for
    B, when they leave a choice of wordings. Raises ValueError when the lists differ in length.
    """
    others = references if references_b is None else references_b
    alignments_a, alignments_b = align_texts(references, hypotheses_a, unit), align_texts(others, hypotheses_b, unit)
    a, b = (score_alignments(alignments, unit, speakers) for alignments in (alignments_a, alignments_b))
    units, name = resampling_units(np.concatenate([a.errors_and_lengths, b.errors_and_lengths], axis=1), speakers)
    matched = None
    if unit == "word":
        reworded = {i for i, (ours, other) in enumerate(zip(references, others, strict=True)) if ours != other}
        matched = matched_pairs(alignments_a, alignments_b, reworded)
    difference = paired_bootstrap(units[:, :2], units[:, 2:])
    return Comparison(**vars(difference), a=a, b=b, interval_units=name, matched=matched)


def is_significant(difference: Difference) -> bool:
    """Whether chance is ruled out by both p and the 95 % interval."""
    low, high = difference.interval
    return difference.p < SIGNIFICANT and not low <= 0.0 <= high


def verdict(difference: Difference, better: bool) -> str:
    """ "B is better: -0.8 % absolute [-1.2, -0.4], p = 0.001", or that the difference may be chance."""
    low, high = (100.0 * limit for limit in difference.interval)
    p = p_text(difference.p, difference.bounded)
    figures = f"{100.0 * difference.difference:+.2f} % absolute [{low:+.2f}, {high:+.2f}], {p}"
    if is_significant(difference):
        return f"B is {'better' if better else 'worse'}: {figures}"
    return f"no significant difference: B is at {figures}"


def p_text(p: float, bounded: bool = False) -> str:
    """ "p = 0.013", or "p < 0.001"; with `bounded` p is an upper bound."""
    if p < 0.001:
        return "p < 0.001"
    return f"p < {p + 0.0005:.3f}" if bounded else f"p = {p:.3f}"


def matched_pairs(
    alignments_a: Sequence[Sequence[Edit]], alignments_b: Sequence[Sequence[Edit]], whole: Collection[int] = ()
) -> MatchedPairs:
    """The matched-pairs sentence-segment word error test (Gillick and Cox, ICASSP 1989), as in NIST's sc_stats.

    Utterances are cut where both systems have GOOD_WORDS words in a row right. The differences in errors of the
    segments with errors are assumed to be independent, and their mean to be normally distributed, which requires about
    30 segments. Each utterance in `whole`, where the two references differ, is one segment.
    """
    differences: list[int] = []
    for i, alignments in enumerate(zip(alignments_a, alignments_b, strict=True)):
        places_a, places_b = map(_error_places, alignments)
        if i not in whole:
            differences += _segment_differences(places_a, places_b)
        elif places_a or places_b:
            differences.append(len(places_a) - len(places_b))
    n = len(differences)
    values = np.array(differences, dtype=np.float64)
    if n < 2 or not values.any():
        return MatchedPairs(n, float(values.mean()) if n else 0.0, 0.0, 1.0)
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation == 0.0:  # all segments differ by the same amount: use the sign test
        return MatchedPairs(n, mean, math.copysign(math.inf, mean), min(1.0, 2.0 * 0.5**n))
    z = mean / (deviation / math.sqrt(n))
    return MatchedPairs(n, mean, z, math.erfc(abs(z) / math.sqrt(2.0)))


def _segment_differences(places_a: Sequence[int], places_b: Sequence[int]) -> list[int]:
    """Errors of A minus errors of B in each segment of one utterance, given the `_error_places` of both."""
    events = sorted([*((place, 1) for place in places_a), *((place, -1) for place in places_b)])
    differences = [events[0][1]] if events else []
    for (before, _), (place, sign) in pairwise(events):
        if place // 2 - (before + 1) // 2 >= GOOD_WORDS:  # so many words between the two are right in both
            differences.append(sign)
        else:
            differences[-1] += sign
    return differences


def _error_places(edits: Sequence[Edit]) -> list[int]:
    """The positions of errors: 2i + 1 for one at reference word i, 2i for a word inserted before it."""
    places: list[int] = []
    for edit in edits:
        if edit.kind == "insert":
            places += [2 * edit.reference_start] * (edit.hypothesis_end - edit.hypothesis_start)
        elif edit.kind != "equal":
            places += range(2 * edit.reference_start + 1, 2 * edit.reference_end, 2)
    return places
