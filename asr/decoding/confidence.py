"""Calibration of word confidences: fitting temperature and offset, and measuring how good confidences are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asr.types import AsrError

BINS = 15  # of equal width, as in Guo et al. 2017
_LEAST = 1e-6  # smallest distance of confidences from 0 and 1
_PRIOR = 1.0  # pulls toward no change with the weight of a few words, which matters only if words are few
_SMALLEST_SLOPE = 0.01


@dataclass(frozen=True)
class Calibration:
    """`sigmoid(logit(confidence) / temperature + offset)` (Platt 1999; Guo et al. 2017, arXiv 1706.04599).

    The order of confidences stays the same. Temperature 1 and offset 0 change nothing.
    """

    temperature: float = 1.0
    offset: float = 0.0

    def __call__(self, confidence: float) -> float:
        """The calibrated value of a confidence in [0, 1]."""
        return 1.0 / (1.0 + math.exp(-(_logit(confidence) / self.temperature + self.offset)))


def calibration_from_dict(values: Any) -> Calibration | None:
    """The calibration from a mapping of its two fields, None if it is not valid."""
    try:
        calibration = Calibration(float(values["temperature"]), float(values["offset"]))
    except (KeyError, TypeError, ValueError):
        return None
    return calibration if calibration.temperature > 0 and math.isfinite(calibration.offset) else None


def fit_calibration(confidences: Sequence[float], correct: Sequence[bool]) -> Calibration:
    """The most probable calibration, given confidences of words and whether each was right. AsrError for no words."""
    if not len(confidences):
        raise AsrError("no recognized words to calibrate confidences on")
    x = np.array([_logit(c) for c in confidences])
    y = np.asarray(correct, dtype=np.float64)
    inputs = np.stack([x, np.ones_like(x)], axis=1)
    at, prior = np.array([1.0, 0.0]), np.array([1.0, 0.0])

    def cost(weights: np.ndarray) -> float:
        z = inputs @ weights
        return float((np.logaddexp(0.0, z) - y * z).sum() + 0.5 * _PRIOR * np.square(weights - prior).sum())

    for _ in range(100):  # Newton's method on a convex cost
        p = 1.0 / (1.0 + np.exp(-np.clip(inputs @ at, -500, 500)))
        gradient = inputs.T @ (p - y) + _PRIOR * (at - prior)
        hessian = inputs.T @ (inputs * (p * (1 - p))[:, None]) + _PRIOR * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while cost(at - length * step) > cost(at) and length > 1e-6:
            length /= 2
        at = at - length * step
        if np.abs(length * step).max() < 1e-9:
            break
    return Calibration(1.0 / max(float(at[0]), _SMALLEST_SLOPE), float(at[1]))


def expected_calibration_error(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> float:
    """The distance between the mean confidence of a bin and its share of correct words, averaged over the words."""
    c, y = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if not len(c):
        return 0.0
    where = np.minimum((c * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(where, c, bins) - np.bincount(where, y, bins)
    return float(np.abs(gaps).sum() / len(c))


def normalized_cross_entropy(confidences: Sequence[float], correct: Sequence[bool]) -> float | None:
    """NIST's measure: 1 for full confidences that are always right, 0 for the share of correct words as confidence.

    Below 0, confidences are misleading. None if all words are correct, or none is: the measure is undefined.
    """
    c = np.clip(np.asarray(confidences, dtype=np.float64), _LEAST, 1.0 - _LEAST)
    y = np.asarray(correct, dtype=bool)
    share = float(y.mean()) if len(y) else 0.0
    if share in (0.0, 1.0):
        return None
    most = -len(y) * (share * math.log2(share) + (1 - share) * math.log2(1 - share))
    entropy = -float(np.log2(np.where(y, c, 1.0 - c)).sum())
    return (most - entropy) / most


def _logit(confidence: float) -> float:
    clipped = min(max(confidence, _LEAST), 1.0 - _LEAST)
    return math.log(clipped / (1.0 - clipped))
