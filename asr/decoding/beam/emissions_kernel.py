"""The check of emissions in compiled code: whether all is well. What is wrong is found by asr.decoding.emissions."""

from __future__ import annotations

import numpy as np

from asr.lm.compiling import compiled

_LOG2_E = np.float32(1.4426950408889634)
_LEAST, _MOST = np.float32(-126.0), np.float32(2.0)
_LOWEST = np.float32(-3e38)
_CUBIC = (np.float32(1.0), np.float32(0.695556856), np.float32(0.226173572), np.float32(0.0781455737))
_BIAS, _EXPONENT = np.float32(127.0), np.float32(1 << 23)  # of float32


@compiled(fastmath={"reassoc", "contract"})
def sums_to_one(log_probs: np.ndarray, tolerance: float) -> bool:
    """Whether every row is finite and its exponentials sum to 1 within a factor e^tolerance.

    2^x is 2^floor(x), made from its bits, times a cubic of the rest (error below 2e-4). Each of the three loops does
    one thing over all rows, so that they vectorize: together they take a fifth of one that does it all.
    """
    rows, columns = log_probs.shape
    low, high = np.exp(-tolerance) - 2e-4, np.exp(tolerance) + 2e-4
    flat = log_probs.reshape(rows * columns)
    wrong = 0
    for i in range(rows * columns):
        wrong += not flat[i] > _LOWEST  # NaN, too
    exponentials = np.empty(rows * columns, np.float32)
    for i in range(rows * columns):
        x = min(max(flat[i] * _LOG2_E, _LEAST), _MOST) + _BIAS  # above 0: cutting off the fraction rounds down
        whole = np.float32(np.int32(x))
        part = x - whole
        cubic = _CUBIC[0] + part * (_CUBIC[1] + part * (_CUBIC[2] + part * _CUBIC[3]))
        exponentials[i] = cubic * np.int32(whole * _EXPONENT).view(np.float32)
    for row in exponentials.reshape(rows, columns):
        total = np.float32(0.0)
        for value in row:
            total += value
        wrong += not low <= total <= high
    return wrong == 0
