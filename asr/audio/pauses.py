"""Where a recording is silent: stretches of low energy, by the range of levels around them."""

from __future__ import annotations

import numpy as np

HOP_SECONDS = 0.01
SMOOTHING_SECONDS = 0.05
SHORTEST_PAUSE = 0.4  # seconds; closures and hesitations inside words are shorter
LEVEL = 0.3  # of the way from the quiet to the loud parts, in decibels; what lies below it is a pause
LEAST_RANGE = 18.0  # decibels between quiet and loud parts; with less there may be no silence in it at all
WIDEST_RANGE = 50.0  # decibels; quieter than that below the loud parts is no background noise but digital silence


def find_pauses(
    samples: np.ndarray, rate: int, within: tuple[float, float] | None = None, shortest: float = SHORTEST_PAUSE
) -> list[tuple[int, int]]:
    """Pauses of at least `shortest` seconds in samples (time,) at `rate` hertz, as (first sample, one past the last).

    `within` are the levels of the quiet and the loud parts in decibels, by default those of the samples.
    """
    quiet, loud = level_range(samples, rate) if within is None else within
    if loud - quiet < LEAST_RANGE:
        return []
    hop = _hop(rate)
    is_low = np.concatenate(([False], _levels(samples, rate) < quiet + LEVEL * (loud - quiet), [False]))
    edges = np.flatnonzero(is_low[1:] != is_low[:-1])
    return [
        (int(first) * hop, int(last) * hop)
        for first, last in zip(edges[::2], edges[1::2], strict=True)
        if (last - first) * hop >= shortest * rate
    ]


def level_range(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """The levels, in decibels, that 5 % of the time lie below, and above; of some seconds, or they mean little.

    Where a part is digital silence the quiet level is `WIDEST_RANGE` below the loud one: pauses with noise count too.
    """
    level = _levels(samples, rate)
    if not len(level):
        return 0.0, 0.0
    quiet, loud = np.percentile(level, [5, 95])
    return max(float(quiet), float(loud) - WIDEST_RANGE), float(loud)


def _hop(rate: int) -> int:
    return max(1, round(HOP_SECONDS * rate))


def _levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level in decibels (of full scale, -120 at least) of every hop, averaged over its neighbours."""
    hop, width = _hop(rate), max(1, round(SMOOTHING_SECONDS / HOP_SECONDS))
    count = len(samples) // hop
    if not count:
        return np.zeros(0)
    energy = np.square(samples[: count * hop].reshape(count, hop), dtype=np.float64).mean(axis=1)
    summed = np.cumsum(np.concatenate(([0.0], energy)))
    first = np.maximum(np.arange(count) - (width - 1) // 2, 0)
    last = np.minimum(np.arange(count) + width // 2 + 1, count)
    return 10.0 * np.log10(np.maximum((summed[last] - summed[first]) / (last - first), 1e-12))
