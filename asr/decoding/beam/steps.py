"""What both beam searches are made of: hashes of text prefixes, the best candidates, ends of words, the trace."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam.arrays import (
    BUCKET_SHIFT,
    END,
    FRAMES,
    KIND_BITS,
    LOG_SCALE,
    MOST_STAMPS,
    NEVER,
    NODE,
    PAUSES,
    PENDING,
    QUIET,
    SIDE,
    SIZE,
    STAMP,
    SYMBOL,
    TRACES,
    WORD,
    Beam,
    HotwordArrays,
)
from asr.decoding.beam.frame_labels import prefetch
from asr.lm.automaton import hash_slot, lm_step
from asr.lm.compiling import inlined, kernel
from asr.lm.tables import LMArrays

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xBF58476D1CE4E5B9)
_C = np.uint64(0x94D049BB133111EB)
_LABEL = np.uint64(0xD6E8FEB86659FD93)
_S32, _S29, _S30 = np.uint64(32), np.uint64(29), np.uint64(30)
_ONE = np.uint64(1)
EMPTY_HISTORY = np.uint64(0x632BE59BD9B4E019)
SMALL, LARGE = 1e-90, 1e90  # when the best score leaves this range, all are divided by it


@inlined
def mix(x: int) -> Any:
    """A hash of 64 bits (the finalizer of Steele et al. 2014, SplitMix)."""
    x = (x ^ (x >> _S30)) * _B
    x = (x ^ (x >> _S29)) * _C
    return x ^ (x >> _S32)


@inlined
def key_of(history: int, node: int, spelled: int) -> Any:
    """The hash of a text prefix: finished words, and where the word begun is."""
    if spelled != np.uint64(0):
        return mix(history + spelled * _A)
    return mix(history + (uint64(node) + _ONE) * _C)


@inlined
def key_of_label(key: int, label: int) -> Any:
    """The hash of a text prefix and its last label."""
    return mix(key + (uint64(label) + _ONE) * _LABEL)


@inlined
def leave_tree(node: int) -> Any:
    """The hash of a beginning that is not in the tree, its longest beginning that is being `node`."""
    return mix((uint64(node) + _ONE) * _B + _A)


@inlined
def spell_on(spelled: int, symbol: int) -> Any:
    """The hash of one more symbol."""
    return mix(spelled + (uint64(symbol) + _ONE) * _A)


@inlined
def history_with_word(history: int, text: int) -> Any:
    """The hash of one more word, of the tree."""
    return mix(history ^ ((uint64(text) + _ONE) * _B))


@inlined
def history_with_unknown(history: int, spelled: int) -> Any:
    """The hash of one more word, spelled out."""
    return mix(history ^ (spelled * _C))


@inlined
def bucket_of(score: float) -> Any:
    """Scores in buckets of an eighth of a power of two."""
    return np.float64(score).view(np.int64) >> BUCKET_SHIFT


@inlined
def bucket_floor(bucket: int) -> Any:
    """The least score of a bucket."""
    return np.int64(bucket << BUCKET_SHIFT).view(np.float64)


@inlined
def raised(histogram: np.ndarray, width: int, limit: float, lowest: int, floor: int, above: int) -> Any:
    """The limit below which others cannot be among the best `width` any more, and the bucket that it is in."""
    if above >= width:
        floor = max(floor, lowest)  # nothing is below
        limit = max(limit, bucket_floor(floor))
    while above - histogram[floor] >= width:
        above -= histogram[floor]
        floor += 1
        limit = max(limit, bucket_floor(floor))
    return limit, floor, above


@inlined
def admit(
    histogram: np.ndarray,
    width: int,
    keep: float,
    score: float,
    best: float,
    limit: float,
    lowest: int,
    floor: int,
    above: int,
) -> Any:
    """Count a candidate, and raise the limit.

    `above` candidates are in the bucket `floor` or higher.
    """
    if score > best:
        best = score
        limit = max(limit, best * keep)
    b = bucket_of(score)
    histogram[b] += 1
    above += 1
    lowest = min(lowest, b)
    limit, floor, above = raised(histogram, width, limit, lowest, floor, above)
    return best, limit, lowest, floor, above


@inlined
def survivors(
    candidates: np.ndarray,
    count: int,
    histogram: np.ndarray,
    width: int,
    best: float,
    limit: float,
    lowest: int,
    floor: int,
    above: int,
    chosen: np.ndarray,
) -> Any:
    """The places of the candidates that make the next generation, into `chosen`; their number. Clears the histogram."""
    spare = histogram[floor] - max(above - width, 0)  # of the lowest bucket so many still fit
    kept = 0
    for k in range(count):
        score = candidates[k].score
        if score < limit or score <= 0.0:
            continue
        if above > width and bucket_of(score) == floor:
            if spare <= 0:
                continue
            spare -= 1
        chosen[kept] = k
        kept += 1
    for b in range(uint64(lowest), uint64(bucket_of(best) + 1)):  # unsigned, or no block is written at once
        histogram[b] = 0
    return kept


@kernel
def begin_beam(beam: Beam, hot: HotwordArrays, separator: int, begin: int, root: int) -> None:
    """The beam that holds the empty text, of key `root`, after which the language model is in state `begin`."""
    beam.counts[QUIET], beam.counts[PAUSES] = -NEVER, 0  # silence before the first word ends no sentence
    beam.counts[SIZE], beam.counts[SIDE], beam.counts[PENDING] = 1, 0, 0
    beam.counts[TRACES], beam.counts[FRAMES] = 0, 0
    beam.scale[LOG_SCALE] = 0.0
    if beam.counts[STAMP] > MOST_STAMPS:
        beam.counts[STAMP] = 0
        for h in range(beam.table.shape[0]):
            beam.table[h].stamp = 0
    hyp = beam.hypothesis[0]
    hyp.key, hyp.history, hyp.parent, hyp.spelled = root, EMPTY_HISTORY, np.uint64(0), np.uint64(0)
    hyp.pauses, hyp.rested, hyp.paused = np.uint64(0), np.uint64(0), 0
    hyp.node, hyp.label, hyp.state, hyp.hotword, hyp.trace = 0, separator, begin, hot.following[0, 0], -1
    hyp.blank, hyp.label_mass, hyp.entered, hyp.ending = 1.0, 0.0, 1.0, -1.0


@inlined
def foresee(
    nodes: np.ndarray,
    entries: np.ndarray,
    arcs: np.ndarray,
    states: np.ndarray,
    vocabulary: int,
    node: int,
    state: int,
) -> None:
    """Prefetch what a hypothesis that has come to `node` will need: its children and, if a word ends, the LM's arcs."""
    prefetch(nodes, np.int64(nodes[node].child))
    entry = np.int64(nodes[node].entry)
    if entry >= 0:
        prefetch(entries, entry)
        word, mask = np.int64(nodes[node].word), arcs.shape[0] - 1
        prefetch(arcs, hash_slot(np.int64(state) * vocabulary + word, mask))
        shorter = np.int64(states[state].next)
        prefetch(arcs, hash_slot(shorter * vocabulary + word, mask))


@kernel
def word_logp(lm: LMArrays, state: int, word: int, paused: int, unknown_least: float, begin: int, end_word: int) -> Any:
    """Natural log p of a word after `state`, and the next state.

    After a long pause (`paused`) it is that of </s> and of the word as the first of a sentence, if that is likelier.
    """
    logp, following = lm_step(lm, state, word)
    if word == 0:
        logp = max(logp, unknown_least)
    if paused:
        again, other = lm_step(lm, begin, word)
        if word == 0:
            again = max(again, unknown_least)
        again += lm_step(lm, state, end_word)[0]
        if again > logp:
            logp, following = again, other
    return logp, following


@kernel
def say_word(lm: LMArrays, state: int, word: int, alpha: float, beta: float, unknown_least: float) -> Any:
    """The factor of a whole word after `state`, and the next state."""
    logp, following = lm_step(lm, state, word)
    if word == 0:
        logp = max(logp, unknown_least)
    return np.exp(alpha * logp + beta), following


@inlined
def record(
    counts: np.ndarray,
    records: np.ndarray,
    before: int,
    symbol: int,
    frame: int,
) -> Any:
    """One more record in the trace."""
    at = counts[TRACES]
    records[at].parent, records[at].symbol, records[at].frame = before, symbol, frame
    counts[TRACES] = at + 1
    return at


@inlined
def record_end(
    counts: np.ndarray,
    records: np.ndarray,
    before: int,
    ended: int,
    node: int,
    spelled: int,
    frame: int,
) -> Any:
    """The record of a word's end: of the tree's word `ended`, or (below 0) of one that is spelled out."""
    if ended >= 0:
        at = record(counts, records, before, (ended << KIND_BITS) | WORD, frame)
    else:
        at = np.int64(before)
        if spelled == np.uint64(0):
            at = record(counts, records, at, (node << KIND_BITS) | NODE, frame)
        at = record(counts, records, at, END, frame)
    return at


@inlined
def record_symbol(
    counts: np.ndarray,
    records: np.ndarray,
    before: int,
    node: int,
    spelled: int,
    symbol: int,
    frame: int,
) -> Any:
    """The record of a symbol outside the tree; the first one of a word is preceded by where it left."""
    at = np.int64(before)
    if spelled == np.uint64(0):
        at = record(counts, records, at, (node << KIND_BITS) | NODE, frame)
    return record(counts, records, at, (symbol << KIND_BITS) | SYMBOL, frame)


@kernel
def forget_dead_traces(beam: Beam, first: int, size: int, moved: np.ndarray) -> None:
    """Keep only the records that the hypotheses `first` to `first + size` lead back to."""
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
