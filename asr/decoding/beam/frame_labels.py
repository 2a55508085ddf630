"""Which labels a frame of emissions may be, and their probabilities: the first step of both beam searches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam.instructions import lowest_bit, popcount
from asr.decoding.beam.kernels import kernel

LEAST_PROBABILITY = -80.0  # natural log; keeps blanks from becoming 0 so that a beam never dies
_ONE = np.uint64(1)


@kernel
def read_frame(
    log_probs: np.ndarray,
    t: int,
    least: float,
    most: int,
    silent: np.ndarray,
    active: np.ndarray,
    active_score: np.ndarray,
    probability: np.ndarray,
) -> Any:
    """Fill `active` with the labels that a frame may be, `probability` with theirs; the number of labels.

    Those below `least` are left out, but never the best one of all, blank included: 0 if the frame can be nothing but
    a blank. Of more than `most` the best are kept.
    """
    width = log_probs.shape[1]
    threshold = np.float32(least)
    count = 0
    for c in range(1, width):
        value = log_probs[t, c]
        if value < threshold or silent[c] != 0:
            continue
        if count < most:
            active[count], active_score[count] = c, value
            count += 1
            continue
        worst = 0
        for k in range(1, count):
            if active_score[k] < active_score[worst]:
                worst = k
        if value > active_score[worst]:
            active[worst], active_score[worst] = c, value
    if count == 0:
        best, best_score = 0, log_probs[t, 0]
        for c in range(1, width):
            if log_probs[t, c] > best_score and silent[c] == 0:
                best, best_score = c, log_probs[t, c]
        if best == 0:
            return 0
        active[0], active_score[0] = best, best_score
        count = 1
    for k in range(count):
        probability[active[k]] = np.exp(np.float64(active_score[k]))
    blank: Any = max(np.float64(log_probs[t, 0]), LEAST_PROBABILITY)
    probability[0] = np.exp(blank)
    return count


@kernel
def read_bits(log_probs: np.ndarray, t: int, least: float, most: int, spoken: int, probability: np.ndarray) -> Any:
    """`read_frame` for at most 64 labels: the bits of those that a frame may be, of `spoken`, 0 if only a blank."""
    threshold = np.float32(least)
    bits: Any = np.uint64(0)
    for c in range(log_probs.shape[1]):
        bits |= uint64(log_probs[t, c] >= threshold) << uint64(c)
    bits &= spoken
    if bits == np.uint64(0):
        best = 0
        for c in range(1, log_probs.shape[1]):
            if log_probs[t, c] > log_probs[t, best] and (spoken >> uint64(c)) & _ONE:
                best = c
        if best == 0:
            return bits
        bits = _ONE << uint64(best)
    while popcount(bits) > uint64(most):
        worst, todo = lowest_bit(bits), bits
        while todo != np.uint64(0):
            c = lowest_bit(todo)
            todo &= todo - _ONE
            if log_probs[t, c] < log_probs[t, worst]:
                worst = c
        bits ^= _ONE << uint64(worst)
    todo = bits
    while todo != np.uint64(0):
        c = lowest_bit(todo)
        todo &= todo - _ONE
        probability[c] = np.exp(np.float64(log_probs[t, c]))
    blank: Any = max(np.float64(log_probs[t, 0]), LEAST_PROBABILITY)
    probability[0] = np.exp(blank)
    return bits
