"""Compiled parsing of ARPA rows: bytes to log-probabilities, word ids and back-off weights."""

from __future__ import annotations

import numpy as np

from asr.lm.automaton import Integer
from asr.lm.compiling import inlined, kernel
from asr.lm.tables import NGramTable

# Why parsing stopped: at the end of the bytes, before a line with a backslash, before a blank line, because the table
# is full, or at an error.
END, SECTION, BLANK, FULL, BAD_NUMBER, BAD_BACKOFF, POSITIVE, TOO_FEW, TOO_MANY, UNKNOWN_WORD = range(10)

_POWERS = 10.0 ** np.arange(0, 309)
_FNV_OFFSET = np.int64(-3750763034362895579)
_FNV_PRIME = np.int64(1099511628211)
_LOWEST = -100.0  # for "-inf": finite, so that sums of scores stay numbers


@inlined
def _is_space(byte: int) -> bool:
    return byte == 32 or byte == 9 or byte == 13


@inlined
def _is_digit(data: np.ndarray, at: int, end: int) -> bool:
    return at < end and 48 <= data[at] <= 57


@kernel
def _token(data: np.ndarray, at: int) -> tuple[int, int]:
    """Start and end of the next token of the line; start == end if there is none."""
    while _is_space(data[at]):
        at += 1
    start = at
    while data[at] != 10 and not _is_space(data[at]):
        at += 1
    return start, at


@kernel
def _sign(data: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """-1 for a minus, else 1, and the position after the sign."""
    if at < end and (data[at] == 45 or data[at] == 43):
        return (-1 if data[at] == 45 else 1), at + 1
    return 1, at


@kernel
def _number(data: np.ndarray, start: int, end: int) -> tuple[float, bool]:
    """A decimal number, and whether the bytes are one; "-inf" counts as -100."""
    sign, at = _sign(data, start, end)
    # "| 32" converts letters to lower case.
    if end - at == 3 and data[at] | 32 == 105 and data[at + 1] | 32 == 110 and data[at + 2] | 32 == 102:
        return _LOWEST, sign < 0
    # Collect the digits in one integer; `scale` is the power of ten by which it is off. After 18 digits, more than
    # a double can represent, further digits only change the scale.
    mantissa, digits, scale = np.int64(0), 0, 0
    after_point = False
    while _is_digit(data, at, end) or (at < end and data[at] == 46 and not after_point):
        if data[at] == 46:
            after_point = True
        else:
            if mantissa < 10**17:
                mantissa = mantissa * 10 + (data[at] - 48)
                scale -= after_point
            else:
                scale += not after_point
            digits += 1
        at += 1
    if digits == 0:  # only a sign or a point
        return 0.0, False
    if at < end and data[at] | 32 == 101:
        exponent_sign, at = _sign(data, at + 1, end)
        exponent, first = 0, at
        while _is_digit(data, at, end):
            exponent = min(exponent * 10 + (data[at] - 48), 10000)  # bounded, so that it cannot overflow
            at += 1
        if at == first:
            return 0.0, False
        scale += exponent_sign * exponent
    # A single multiplication or division has the rounding error of a double, far below the resolution of a float32.
    value = float(mantissa)
    if scale > 0:
        value *= _POWERS[min(scale, 308)]
    elif scale < 0:
        value /= _POWERS[min(-scale, 308)]
    return sign * value, at == end


@kernel
def _rest_of_row(data: np.ndarray, at: int, highest: bool, backoff: np.ndarray, row: int) -> tuple[int, int]:
    """Parse the optional back-off weight up to the end of the line. Returns -1 or the error, and the position."""
    start, end = _token(data, at)
    if start == end:
        return -1, end + 1
    value, good = _number(data, start, end)
    if not good:
        return TOO_MANY if _token(data, end)[0] != _token(data, end)[1] else BAD_BACKOFF, start
    if not highest:  # some programs write a weight, without meaning, for the longest n-grams too
        backoff[row] = value
    start, end = _token(data, end)
    return (-1, end + 1) if start == end else (TOO_MANY, start)


@kernel
def _begin_row(data: np.ndarray, at: int, row: int, logp: np.ndarray) -> tuple[int, int, int]:
    """Parse a row's probability. Returns -1 or why there is none, the position (of the error), the number's end."""
    if at >= data.shape[0]:
        return END, at, at
    if data[at] == 92:  # a backslash, so not an n-gram
        return SECTION, at, at
    start, end = _token(data, at)
    if start == end:
        return BLANK, at, at
    if row == logp.shape[0]:
        return FULL, at, at
    value, good = _number(data, start, end)
    if not good:
        return BAD_NUMBER, start, end
    if value > 0.0:
        return POSITIVE, start, end
    logp[row] = value
    return -1, start, end


@kernel
def parse_rows(
    data: np.ndarray, at: int, row: int, highest: bool, ngrams: NGramTable, spans: np.ndarray,
    table: np.ndarray, block: np.ndarray, offsets: np.ndarray,
) -> tuple[int, int, int]:  # fmt: skip
    """Parse rows from `at` on into `ngrams` from `row` on. `data` ends with a newline.

    Returns why it stopped, the position (of the error, if any) and the next row. The words of 1-grams are reported as
    data[spans[0, i]:spans[1, i]]; those of longer n-grams are looked up in the table of words (see `find_word`), and
    their ids written to `ngrams.words`.
    """
    words, logp, backoff = ngrams
    order = words.shape[1]
    while True:
        # `row` advances only after a complete row: on an error it is the row that failed.
        stop, at, end = _begin_row(data, at, row, logp)
        if stop >= 0:
            return stop, at, row
        for j in range(order):
            start, end = _token(data, end)
            if start == end:
                return TOO_FEW, start, row
            if order == 1:
                spans[0, row], spans[1, row] = start, end
            else:
                word = find_word(data, start, end, table, block, offsets)
                if word < 0:
                    return UNKNOWN_WORD, start, row
                words[row, j] = word
        wrong, at = _rest_of_row(data, end, highest, backoff, row)
        if wrong >= 0:
            return wrong, at, row
        row += 1


@kernel
def _hash(data: np.ndarray, start: Integer, end: Integer) -> Integer:
    """FNV-1a, with the high bits mixed into the low ones, which alone select a slot."""
    value = _FNV_OFFSET
    for i in range(start, end):
        value = (value ^ data[i]) * _FNV_PRIME
    return value ^ (value >> 29)


@kernel
def find_word(
    data: np.ndarray, start: Integer, end: Integer, table: np.ndarray, block: np.ndarray, offsets: np.ndarray
) -> Integer:
    """The id of the word data[start:end], -1 if it is not in the table.

    `table` is a hash table of ids (-1: free); word i is spelled block[offsets[i]:offsets[i + 1]].
    """
    mask = table.shape[0] - 1
    slot = _hash(data, start, end) & mask
    while table[slot] >= 0:
        word = table[slot]
        first = offsets[word]
        if offsets[word + 1] - first == end - start:  # most other words differ in length already
            i = 0
            while i < end - start and block[first + i] == data[start + i]:
                i += 1
            if i == end - start:
                return word
        slot = (slot + 1) & mask
    return np.int64(-1)


@kernel
def fill_word_table(table: np.ndarray, block: np.ndarray, offsets: np.ndarray) -> Integer:
    """Enter every word block[offsets[i]:offsets[i + 1]]. Returns the id of the first duplicate, or -1."""
    mask = table.shape[0] - 1
    for word in range(offsets.shape[0] - 1):
        if find_word(block, offsets[word], offsets[word + 1], table, block, offsets) >= 0:
            return word
        slot = _hash(block, offsets[word], offsets[word + 1]) & mask
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = word
    return -1
