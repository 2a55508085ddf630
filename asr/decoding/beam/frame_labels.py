"""The plausible labels of each frame of emissions, with their probabilities; and a fast check of emissions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types, uint64
from numba.extending import intrinsic

from asr.decoding.beam.arrays import Beam, Weights
from asr.lm.compiling import INTERNAL, compiled, internal

LEAST_PROBABILITY = -80.0  # natural log; keeps the probability of blanks above 0, so that the beam is never empty
_ONE = np.uint64(1)


@internal
def read_frame(log_probs: np.ndarray, t: int, weights: Weights, silent: np.ndarray, beam: Beam) -> Any:
    """Write the plausible labels of a frame to `beam.active`, and their probabilities. Returns their number.

    Labels below `least_label` are left out, except that the best label always stays: the result is 0 only if that is
    the blank. At most the `most_labels` best are kept.
    """
    active, active_score, probability, most = beam.active, beam.active_score, beam.probability, weights.most_labels
    width = log_probs.shape[1]
    threshold = np.float32(weights.least_label)
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


@internal
def read_bits(log_probs: np.ndarray, t: int, least: float, most: int, spoken: int, probability: np.ndarray) -> Any:
    """`read_frame` for at most 64 labels: returns the bits of plausible labels in `spoken`, 0 for only a blank."""
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


_LOG2_E = np.float32(1.4426950408889634)
_LEAST, _MOST = np.float32(-126.0), np.float32(2.0)
_LOWEST = np.float32(-3e38)
_CUBIC = (np.float32(1.0), np.float32(0.695556856), np.float32(0.226173572), np.float32(0.0781455737))
_BIAS, _EXPONENT = np.float32(127.0), np.float32(1 << 23)  # of float32


@compiled(fastmath={"reassoc", "contract"}, _nrt=True, **INTERNAL)
def sums_to_one(log_probs: np.ndarray, tolerance: float) -> bool:
    """Whether every row is finite and its exponentials sum to 1 within a factor e^tolerance.

    e^v is computed as 2^x with x = v log2(e), as 2^floor(x), made from its bits, times a cubic polynomial of the
    fraction (error below 2e-4). Each of the three loops does only one thing, so that it vectorizes: together they take
    a fifth of the time of a single loop.
    """
    rows, columns = log_probs.shape
    low, high = np.exp(-tolerance) - 2e-4, np.exp(tolerance) + 2e-4
    flat = log_probs.reshape(rows * columns)
    wrong = 0
    for i in range(rows * columns):
        wrong += not flat[i] > _LOWEST  # also counts NaN
    exponentials = np.empty(rows * columns, np.float32)
    for i in range(rows * columns):
        x = min(max(flat[i] * _LOG2_E, _LEAST), _MOST) + _BIAS  # positive, so that truncation rounds down
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


_intrinsic: Any = intrinsic  # untyped, because its type wrongly makes the context an argument of callers


@_intrinsic
def popcount(context: Any, bits: Any) -> Any:
    """The number of set bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@_intrinsic
def lowest_bit(context: Any, bits: Any) -> Any:
    """The index of the lowest set bit; `bits` must not be 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@_intrinsic
def prefetch(context: Any, array: Any, index: Any) -> Any:
    """Start loading an element into the cache, which takes as long as hundreds of instructions."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = ir.IntType(8).as_pointer()
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        builder.call(function, [place, number(0), number(3), number(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@_intrinsic
def float32_at(context: Any, address: Any) -> Any:
    """A pointer from an address: arrays are passed by address, because a list of arrays takes far longer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


@compiled(_nrt=True, forceinline=True, **INTERNAL)
def frames_at(address: int, frames: int, labels: int) -> Any:
    """The contiguous float32 array (frames, labels) at an address."""
    return carray(float32_at(address), (frames, labels), np.float32)
