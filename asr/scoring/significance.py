"""Whether a difference is more than chance: bootstrap intervals and the paired bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

TAIL = 0.025  # on either side of a 95 % interval
FEWEST_SPEAKERS = 5  # with fewer, an interval over speakers would mean next to nothing
_DRAWS = 200_000_000  # units drawn in all resamples together: bounds the time
_BLOCK = 2_000_000  # draws held in memory at a time
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Difference:
    """A statistic of a resampled test set: its `value`, 95 % `interval`, and the two-sided `p` for no difference.

    `bounded` where no resample went against the difference: `p` is then only known to be below the value given.
    """

    value: float
    interval: tuple[float, float]
    p: float
    bounded: bool = False


def resampling_units(counts: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, str]:
    """The units to resample, and what they are: counts (utterances, k) summed per speaker where these are known.

    Utterances of one speaker resemble each other, so that a set of few speakers says less than its number of
    utterances suggests (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation", ICASSP 2004). Speakers count as known where every utterance has one and there are FEWEST_SPEAKERS.
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
    percentiles are widened as Hesterberg ("What teachers should know about the bootstrap", The American Statistician
    2015) recommends, which matters for few units. Without any error the upper limit is the exact binomial one over
    reference tokens; a single unit, which has no spread, gives (0, 1).
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
    return _expanded_interval(sums[:, 0] / np.maximum(sums[:, 1], 1.0), units)


def paired_bootstrap(a: np.ndarray, b: np.ndarray, *, resamples: int | None = None) -> Difference:
    """The difference of two error rates, B's minus A's; `a` and `b` (units, 2) hold errors and reference tokens.

    Both systems are scored on the same resampled units, so that what is hard for both cancels (Bisani and Ney 2004).
    Interval and p agree: p < 0.05 exactly where the 95 % interval leaves out 0, but for the grain of the resamples.
    """
    units = len(a)
    table = np.concatenate([a, b], axis=1)

    def differences_of(sums: np.ndarray) -> np.ndarray:
        rates = sums[:, 0::2] / np.maximum(sums[:, 1::2], 1.0)
        return np.asarray(rates[:, 1] - rates[:, 0])

    value = float(differences_of(table.sum(axis=0, keepdims=True))[0])
    if units < 2:
        return Difference(value, (min(value, -1.0), max(value, 1.0)), 1.0)
    if np.array_equal(a, b):
        return Difference(0.0, (0.0, 0.0), 1.0)
    differences = differences_of(_resampled(table, resamples))
    equal = int((differences == 0).sum())  # counted half: errors are whole numbers, ties are common
    against = min(int((differences < 0).sum()), int((differences > 0).sum())) + equal / 2
    one_sided = min((against + 1) / (len(differences) + 1), 0.5)
    # the expansion of the interval, the other way round
    t = -_NORMAL.inv_cdf(one_sided) * math.sqrt((units - 1) / units)
    p = min(1.0, 2.0 * student_tail(t, units - 1))
    return Difference(value, _expanded_interval(differences, units), p, bounded=against == 0)


def _resampled(columns: np.ndarray, resamples: int | None) -> np.ndarray:
    """Sums (resamples, k) of the rows of `columns` (units, k) over units drawn with replacement."""
    units = len(columns)
    count = resamples or min(10_000, max(1000, _DRAWS // units))
    generator = np.random.default_rng(1)  # fixed, so that a report can be repeated
    values = np.asarray(columns, dtype=np.float64)
    sums = np.empty((count, values.shape[1]))
    rows = max(1, _BLOCK // units)
    for first in range(0, count, rows):
        here = min(rows, count - first)
        drawn = generator.integers(0, units, size=(here, units), dtype=np.int32).astype(np.int64)
        # how often each unit was drawn, then one product gives all sums: faster than gathering column by column
        drawn += np.arange(here, dtype=np.int64)[:, None] * units
        weights = np.bincount(drawn.ravel(), minlength=here * units).reshape(here, units)
        sums[first : first + here] = weights @ values
    return sums


def _expanded_interval(values: np.ndarray, units: int) -> tuple[float, float]:
    """The percentiles of a resampled statistic at which the interval has about the coverage that TAIL promises."""
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
    """The probability that Student's distribution with so many degrees of freedom exceeds t.

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
