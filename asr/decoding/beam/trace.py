"""The trace: what hypotheses have spelled, as linked records that lead back to the start, and reading it out.

A word in the tree is one record, at its end. A word outside is a record for the node where it left the tree, one for
each symbol after that, and one for its end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.beam.arrays import (
    END,
    KIND_BITS,
    NODE,
    PAUSE,
    SIDE,
    SIZE,
    SYMBOL,
    TRACES,
    WORD,
    Beam,
    Tree,
    Weights,
    WordArrays,
)
from asr.decoding.beam.candidates import NONE, leave_tree, spell_on
from asr.decoding.beam.lexicon import child_of
from asr.lm.compiling import allocating_internal, bare_kernel, embedded, internal

SPELLED, NOTHING, DROPPED, PARTIAL = -1, -2, -3, -4  # how a hypothesis ends, if not in a word of the tree


@embedded
def record(counts: np.ndarray, records: np.ndarray, before: int, symbol: int, frame: int) -> Any:
    """Append a record to the trace, and return its number. The lowest bits of `symbol` are the kind of the record."""
    at = counts[TRACES]
    place = records[at]
    place.parent, place.symbol, place.frame = before, symbol, frame
    counts[TRACES] = at + 1
    return at


@embedded
def record_end(
    counts: np.ndarray, records: np.ndarray, before: int, entry: int, node: int, spelled: int, frame: int
) -> Any:
    """Record the end of a word: word `entry` of the tree or, if below 0, one that is spelled out."""
    at = np.int64(before)
    if entry < 0 and spelled == NONE:  # an unknown word that is the beginning of known ones
        at = record(counts, records, at, (node << KIND_BITS) | NODE, frame)
    return record(counts, records, at, np.int64(END) if entry < 0 else (entry << KIND_BITS) | WORD, frame)


@internal
def record_label(
    tree: Tree, first: np.ndarray, spelling: np.ndarray, counts: np.ndarray, records: np.ndarray, trace: int, node: int,
    spelled: int, label: int, frame: int,
) -> Any:  # fmt: skip
    """Record the symbols of a label outside the tree and, before the first of them, where the word left the tree."""
    at, outside = np.int64(node), spelled
    for k in range(first[label], first[label + 1]):
        symbol = np.int64(spelling[k])
        if outside == NONE:
            to = child_of(tree.node, tree.symbol, at, symbol)
            if to >= 0:
                at = to
                continue
            trace = record(counts, records, trace, (at << KIND_BITS) | NODE, frame)
            outside = leave_tree(at)
        trace = record(counts, records, trace, (symbol << KIND_BITS) | SYMBOL, frame)
    return trace


@internal
def spell_outside(tree: Tree, first: np.ndarray, spelling: np.ndarray, node: int, spelled: int, label: int) -> Any:
    """Where a label leads out of the tree: the last node in the tree, and the hash of the symbols outside."""
    at, outside = np.int64(node), spelled
    for k in range(first[label], first[label + 1]):
        symbol = spelling[k]
        if outside == NONE:
            to = child_of(tree.node, tree.symbol, at, symbol)
            if to >= 0:
                at = to
                continue
            outside = leave_tree(at)
        outside = spell_on(outside, symbol)
    return at, outside


@bare_kernel
def forget_dead_traces(beam: Beam, first: int, size: int, moved: np.ndarray) -> None:
    """Keep only the records to which hypotheses `first` to `first + size` lead back."""
    count = beam.counts[TRACES]
    moved[:count] = 0
    for s in range(first, first + size):
        at = np.int64(beam.hypothesis[s].trace)
        while at >= 0 and moved[at] == 0:
            moved[at] = 1
            at = np.int64(beam.record[at].parent)
    kept = 0
    for i in range(count):
        if moved[i] != 0:
            beam.record[kept] = beam.record[i]
            if beam.record[i].parent >= 0:
                beam.record[kept].parent = moved[beam.record[i].parent]
            moved[i] = kept
            kept += 1
    for s in range(first, first + size):
        if beam.hypothesis[s].trace >= 0:
            beam.hypothesis[s].trace = moved[beam.hypothesis[s].trace]
    beam.counts[TRACES] = kept


@internal
def common_trace(weights: Weights, beam: Beam) -> Any:
    """The last record to which all hypotheses lead back, -1 if there is none."""
    size, base = beam.counts[SIZE], beam.counts[SIDE] * weights.beam_width
    common = np.int64(beam.hypothesis[base].trace)
    for s in range(base + 1, base + size):
        at = np.int64(beam.hypothesis[s].trace)
        while at != common:  # a record has a higher number than its parent, so the higher one goes back
            if at > common:
                at = np.int64(beam.record[at].parent)
            else:
                common = np.int64(beam.record[common].parent)
    return common


@internal
def _append_path(tree: Tree, node: int, symbols: np.ndarray, count: int) -> Any:
    depth = tree.node[node].depth
    at = node
    for i in range(depth - 1, -1, -1):
        if count + i < symbols.shape[0]:
            symbols[count + i] = tree.symbol[at]
        at = tree.parent[at]
    return count + depth


@allocating_internal
def spell_out(tree: Tree, beam: Beam, trace: int, node: int, spelled: int, end: int, texts: WordArrays) -> Any:
    """Write the words up to a record of the trace to `texts` (all arrays but the last three).

    The open word, at `node` or `spelled` out, is treated as `end` says (see `final_texts`; PARTIAL is as SPELLED).
    Returns the numbers of symbols and of words. If the arrays are too small for these, they are incomplete, and the
    caller tries again with larger ones.
    """
    symbols, starts, entries, ends_at, pauses = texts.symbols, texts.starts, texts.entries, texts.ends_at, texts.pauses
    length, at = 0, np.int64(trace)
    while at >= 0:
        length += 1
        at = beam.record[at].parent
    order = np.empty(length, np.int64)
    at = np.int64(trace)
    for i in range(length - 1, -1, -1):
        order[i] = at
        at = beam.record[at].parent
    count, words, fresh, rested = 0, 0, True, 0
    room = starts.shape[0] - 2
    for i in range(length + 1):
        if i < length:
            kind, value, frame = (
                beam.record[order[i]].symbol & ((1 << KIND_BITS) - 1),
                np.int64(beam.record[order[i]].symbol >> KIND_BITS),
                beam.record[order[i]].frame,
            )
            if kind == PAUSE:
                rested = 1
                continue
        elif end >= 0:
            kind, value, frame = WORD, np.int64(end), np.int32(-1)
        elif end in (DROPPED, NOTHING):
            break
        elif spelled != NONE:
            kind, value, frame = END, np.int64(0), np.int32(-1)
        elif node != 0:
            kind, value, frame = NODE, np.int64(node), np.int32(-1)
        else:
            break
        if fresh:
            if words > 0:
                if count < symbols.shape[0]:
                    symbols[count] = 0
                count += 1
            if words < room:
                starts[words], entries[words], pauses[words] = count, -1, rested
            words += 1
            fresh, rested = False, 0
        if kind == WORD:
            count = _append_path(tree, np.int64(tree.entry[value].end), symbols, count)
            if words <= room:
                entries[words - 1] = value
        elif kind == NODE:
            count = _append_path(tree, value, symbols, count)
        elif kind == SYMBOL:
            if count < symbols.shape[0]:
                symbols[count] = value
            count += 1
        if kind in (WORD, END):
            if words <= room:
                ends_at[words - 1] = frame
            fresh = True
    if not fresh:
        if end == DROPPED:  # only the finished words
            words -= 1
            count = starts[words] - (1 if words > 0 else 0) if words <= room else count
        elif words <= room:
            ends_at[words - 1] = -1
    if words <= room:
        starts[words] = count + 1
    return count, words
