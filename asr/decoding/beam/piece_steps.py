"""What the search over pieces is made of besides steps.py: labels of several characters, candidates added up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam.lexicon import step
from asr.decoding.beam.steps import bucket_of, key_of, key_of_label, leave_tree, raised, record_symbol, spell_on
from asr.lm.compiling import inlined, kernel

_ONE = np.uint64(1)
_NONE = np.uint64(0)


@inlined
def piece_key(history: int, node: int, spelled: int, label: int) -> Any:
    """The hash of a text prefix and its last label."""
    return key_of_label(key_of(history, node, spelled), label)


@inlined
def arc_from(
    arc: np.ndarray, arc_label: np.ndarray, arc_child: np.ndarray, root_child: np.ndarray, node: int, c: int
) -> Any:
    """The node that a label leads to inside the tree, -1."""
    to = np.int64(-1)
    if node == 0:
        to = np.int64(root_child[c])
    else:
        low, high = np.int64(arc[node]), np.int64(arc[node + 1])
        end = high
        while low < high:
            middle = (low + high) >> 1
            if arc_label[middle] < c:
                low = middle + 1
            else:
                high = middle
        if low < end and arc_label[low] == c:
            to = np.int64(arc_child[low])
    return to


@kernel
def leave_by(
    nodes: np.ndarray,
    symbol_to: np.ndarray,
    first: np.ndarray,
    spelling: np.ndarray,
    node: int,
    spelled: int,
    c: int,
) -> Any:
    """Where a label leads that the tree has no arc for: the last node of the tree, and the hash outside."""
    at, outside = np.int64(node), spelled
    for k in range(first[c], first[c + 1]):
        symbol = spelling[k]
        if outside == _NONE:
            to = step(nodes, symbol_to, at, symbol)
            if to >= 0:
                at = to
                continue
            outside = leave_tree(at)
        outside = spell_on(outside, symbol)
    return at, outside


@kernel
def listen(
    following: np.ndarray, rewards: np.ndarray, first: np.ndarray, spelling: np.ndarray, state: Any, c: int
) -> Any:
    """The hotword automaton's state after a label's symbols, and the factor of all that was completed."""
    reward = 1.0
    for k in range(first[c], first[c + 1]):
        state = np.int64(following[state, spelling[k]])
        reward *= rewards[state]
    return state, reward


@inlined
def offer(
    table: np.ndarray,
    candidates: np.ndarray,
    histogram: np.ndarray,
    width: int,
    keep: float,
    key: int,
    added: float,
    stamp: int,
    count: int,
    best: float,
    limit: float,
    lowest: int,
    floor: int,
    above: int,
) -> Any:
    """Add mass to the candidate with this key, or make it the candidate `count`; which one, and the running limits.

    The histogram counts every candidate in the bucket `floor` or higher.
    """
    mask = uint64(table.shape[0] - 1)
    h = key & mask
    while table[h].stamp == stamp and table[h].key != key:
        h = (h + _ONE) & mask
    before = np.int64(-1)
    if table[h].stamp == stamp:
        k = np.int64(table[h].slot)
        before = bucket_of(candidates[k].score)
        candidates[k].score += added
        candidates[k].label_mass += added
    else:
        k = np.int64(count)
        place, fresh = table[h], candidates[k]
        place.stamp, place.key, place.slot = stamp, key, k
        fresh.score, fresh.label_mass, fresh.blank, fresh.key = added, added, 0.0, key
    score = candidates[k].score
    if score > best:
        best = score
        limit = max(limit, best * keep)
    b = bucket_of(score)
    if before >= floor:
        histogram[before] -= 1
        histogram[b] += 1
    elif b >= floor:
        histogram[b] += 1
        above += 1
        lowest = min(lowest, b)
    limit, floor, above = raised(histogram, width, limit, lowest, floor, above)
    return k, best, limit, lowest, floor, above


@kernel
def record_label(
    nodes: np.ndarray,
    symbol_to: np.ndarray,
    first: np.ndarray,
    spelling: np.ndarray,
    counts: np.ndarray,
    records: np.ndarray,
    trace: int,
    node: int,
    spelled: int,
    c: int,
    frame: int,
) -> Any:
    """The records of a label's symbols outside the tree."""
    at, outside = np.int64(node), spelled
    for k in range(first[c], first[c + 1]):
        symbol = spelling[k]
        if outside == _NONE:
            to = step(nodes, symbol_to, at, symbol)
            if to >= 0:
                at = to
                continue
        trace = record_symbol(counts, records, trace, at, outside, np.int64(symbol), frame)
        if outside == _NONE:
            outside = leave_tree(at)
    return trace
