"""Keys of text prefixes, and the candidates of a frame: a rising bound on their scores, and selecting the best.

Equal texts reached by different labels have equal keys. A prefix is its finished words (`history`), the positions of
long pauses in it (`pauses`), and the open word: a `node` of the lexicon's tree or, once it has left the tree, the hash
of its symbols (`spelled`, NONE inside the tree). Hashes have 64 bits, and collisions are ignored.

The beam keeps the best `width` candidates. Sorting them would take longer than everything else. Instead, scores are
counted in buckets, eight for each power of two, and the bound below which a candidate cannot be kept rises as
candidates arrive.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import uint64

from asr.decoding.beam.arrays import BUCKET_SHIFT, Beam
from asr.lm.compiling import embedded, internal

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xBF58476D1CE4E5B9)
_C = np.uint64(0x94D049BB133111EB)
_LABEL = np.uint64(0xD6E8FEB86659FD93)
_STATE, _HOTWORD = np.uint64(0x8CB92BA72F3D8DD7), np.uint64(0xABC98388FB8FAC03)
_S32, _S29, _S30 = np.uint64(32), np.uint64(29), np.uint64(30)
ONE = np.uint64(1)
NONE = np.uint64(0)
EMPTY_HISTORY = np.uint64(0x632BE59BD9B4E019)


@embedded
def mix(x: int) -> Any:
    """A 64-bit hash (the finalizer of SplitMix, Steele et al. 2014)."""
    x = (x ^ (x >> _S30)) * _B
    x = (x ^ (x >> _S29)) * _C
    return x ^ (x >> _S32)


@embedded
def prefix_key(history: int, node: int, spelled: int) -> Any:
    """The key of a prefix; `history` includes the hash of its pauses."""
    # One chain of multiplications for both cases, since this is inlined in many places.
    return mix(history + (spelled * _A if spelled != NONE else (uint64(node) + ONE) * _C))


@embedded
def prefix_and_label_key(key: int, label: int) -> Any:
    """The key of a prefix together with its last label."""
    return mix(key + (uint64(label) + ONE) * _LABEL)


@embedded
def leave_tree(node: int) -> Any:
    """The hash of an open word that leaves the tree at `node`, before its first symbol outside."""
    return mix((uint64(node) + ONE) * _B + _A)


@embedded
def spell_on(spelled: int, symbol: int) -> Any:
    """The hash of an open word outside the tree, after one more symbol."""
    return mix(spelled + (uint64(symbol) + ONE) * _A)


@embedded
def history_after(history: int, entries: np.ndarray, entry: int, node: int, spelled: int) -> Any:
    """The hash of the finished words after one more: lexicon entry `entry` or, if below 0, the open word as spelled."""
    if entry >= 0:
        word = (uint64(entries[entry].text) + ONE) * _B
    else:
        word = (spelled if spelled != NONE else leave_tree(node)) * _C
    return mix(history ^ word)


@embedded
def pauses_after(pauses: int, rested: int, history: int) -> Any:
    """The hash of pause positions once a word with pauses `rested` in or after it has ended, giving `history`."""
    return pauses + rested * (mix(history) | ONE)


class Bound(NamedTuple):
    """The scores of a frame's candidates so far."""

    best: float  # the best score
    limit: float  # candidates below this cannot be kept
    lowest: Any  # int64: the lowest non-empty bucket
    floor: Any  # int64: the bucket of the limit that follows from the width
    above: Any  # int64: number of candidates in `floor` or higher


@embedded
def bucket_of(score: float) -> Any:
    """The bucket of a score: the leading bits of a positive float64, which sort like its value."""
    return np.float64(score).view(np.int64) >> BUCKET_SHIFT


@embedded
def count_score(histogram: np.ndarray, width: int, keep: float, score: float, bound: Bound) -> Any:
    """Count a candidate's score and raise the bound: to `keep` times the best score, or to exclude all but `width`."""
    best, limit, lowest, floor, above = bound
    if score > best:
        best = score
        limit = max(limit, best * keep)
    bucket = bucket_of(score)
    if bucket >= floor:
        histogram[bucket] += 1
        above += 1
        lowest = min(lowest, bucket)
    if above >= width:
        floor = max(floor, lowest)  # lower buckets are empty
        while above - histogram[floor] >= width:
            above -= histogram[floor]
            floor += 1
        limit = max(limit, float(np.int64(floor << BUCKET_SHIFT).view(np.float64)))
    return Bound(best, limit, lowest, floor, above)


@embedded
def find_slot(table: np.ndarray, key: int, stamp: int) -> Any:
    """The place of `key` in the hash table, or a free place for it; places with other stamps are free."""
    mask = uint64(table.shape[0] - 1)
    h = key & mask
    while table[h].stamp == stamp and table[h].key != key:
        h = (h + ONE) & mask
    return h


@embedded
def add_mass(
    table: np.ndarray, candidates: np.ndarray, histogram: np.ndarray, width: int, keep: float, key: int, mass: float,
    stamp: int, count: int, bound: Bound,
) -> Any:  # fmt: skip
    """Add mass to the candidate with this key, or make it candidate `count`. Returns its number and the bound."""
    place = table[find_slot(table, key, stamp)]
    if place.stamp == stamp:
        k = np.int64(place.slot)
        before = bucket_of(candidates[k].score)
        candidates[k].score += mass
        candidates[k].label_mass += mass
        if before >= bound.floor:  # uncount it here, as it is counted with its new score below
            histogram[before] -= 1
            bound = Bound(bound.best, bound.limit, bound.lowest, bound.floor, bound.above - 1)
    else:
        k = np.int64(count)
        place.stamp, place.key, place.slot = stamp, key, k
        fresh = candidates[k]
        fresh.score, fresh.label_mass, fresh.blank, fresh.key = mass, mass, 0.0, key
    return k, count_score(histogram, width, keep, candidates[k].score, bound)


@embedded
def choose_best(
    candidates: np.ndarray, count: int, histogram: np.ndarray, width: int, bound: Bound, chosen: np.ndarray
) -> Any:
    """Write the numbers of the candidates to keep to `chosen`, and return how many. Clears the histogram."""
    limit, floor, above = bound.limit, bound.floor, bound.above
    spare = histogram[floor] - max(above - width, 0)  # how many candidates of the lowest bucket fit in
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
    for b in range(uint64(bound.lowest), uint64(bucket_of(bound.best) + 1)):  # unsigned, to be compiled to a memset
        histogram[b] = 0
    return kept


@internal
def forget_alternatives(beam: Beam, base: int, size: int, most: int, stamp: int) -> Any:
    """After a long pause, keep the `most` best of each set of hypotheses with the same future; return how many remain.

    Otherwise, all combinations of earlier ambiguities would fill the beam for the rest of a recording.
    """
    hyps, table, candidates, order = beam.hypothesis, beam.table, beam.candidate, beam.chosen
    # An insertion sort, best first: the beam is small, this runs once per pause, and `argsort` takes 2 s to compile.
    for i in range(size):
        mass = hyps[base + i].blank + hyps[base + i].label_mass
        candidates[i].score = mass
        at = i
        while at > 0 and candidates[order[at - 1]].score < mass:
            order[at] = order[at - 1]
            at -= 1
        order[at] = i
    for k in range(size):
        i = order[k]
        hyp = hyps[base + i]
        # Hypotheses with equal keys score the same whatever follows.
        key = prefix_key(uint64(hyp.state) * _STATE + uint64(hyp.hotword) * _HOTWORD, np.int64(hyp.node), hyp.spelled)
        key = prefix_and_label_key(key, (np.int64(hyp.label) << 2) + (np.int64(hyp.paused) << 1) + (hyp.rested != NONE))
        place = table[find_slot(table, key, stamp)]
        if place.stamp != stamp:
            place.stamp, place.key, place.slot = stamp, key, 0
        place.slot += 1  # number of hypotheses with this key so far
        candidates[i].ended = place.slot > most  # `ended` serves as the mark for dropped ones
    kept = 0  # in their old order, so that a hypothesis only moves to the front, over a dropped one
    for i in range(size):
        if candidates[i].ended == 0:
            if kept < i:
                hyps[base + kept] = hyps[base + i]
            kept += 1
    return kept
