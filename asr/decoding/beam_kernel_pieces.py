"""The beam search over labels that spell several characters, compiled: a text may be reached in several ways.

A hypothesis is a text prefix with its last label, and candidates with the same ones are found by a hash table and
added up. Otherwise it is the search of beam_kernel.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, uint64

from asr.decoding.beam_steps import (
    LARGE,
    SMALL,
    bucket_floor,
    bucket_of,
    clear_frame,
    end_known,
    end_unknown,
    history_with_unknown,
    history_with_word,
    key_of,
    leave_tree,
    mix,
    read_frame,
    record_end,
    record_symbol,
    spell_on,
)
from asr.decoding.lexicon import Tree, step
from asr.decoding.ngram_kernel import LMArrays
from asr.decoding.search_arrays import (
    FRAMES,
    LOG_SCALE,
    PENDING,
    SIDE,
    SIZE,
    STAMP,
    TRACES,
    Beam,
    HotwordArrays,
    Labels,
    Weights,
)

_ONE = np.uint64(1)
_NONE = np.uint64(0)
_LABEL = np.uint64(0xD6E8FEB86659FD93)
_NO_WORD, _UNKNOWN = -1, -2  # the word that ended in a step, where it is none of the tree


@njit(nogil=True, cache=True, inline="always")
def piece_key(history: int, node: int, spelled: int, label: int) -> int:
    """The hash of a text prefix and its last label."""
    return mix(key_of(history, node, spelled) + (uint64(label) + _ONE) * _LABEL)


@njit(nogil=True, cache=True)
def _walk(tree: Tree, labels: Labels, weights: Weights, node: int, spelled: int, c: int) -> Any:
    """Where a label leads inside a word: node, hash outside the tree, the LM's factor; 0 where it is not allowed."""
    size = labels.first[c + 1] - labels.first[c]
    if spelled == _NONE:
        to = np.int64(-1)
        if node == 0:
            to = np.int64(tree.root_child[c])
        else:
            low, high = tree.arc[node], tree.arc[node + 1]
            while low < high:
                middle = (low + high) >> 1
                if tree.arc_label[middle] < c:
                    low = middle + 1
                else:
                    high = middle
            if low < tree.arc[node + 1] and tree.arc_label[low] == c:
                to = np.int64(tree.arc_child[low])
        if to >= 0:
            return to, _NONE, labels.lookahead[to] / labels.lookahead[node]
    if not weights.open_vocabulary:
        return np.int64(node), spelled, 0.0
    at, outside = np.int64(node), spelled
    for k in range(labels.first[c], labels.first[c + 1]):
        symbol = labels.spelling[k]
        if outside == _NONE:
            to = step(tree.child, tree.symbol, at, symbol)
            if to >= 0:
                at = to
                continue
            outside = leave_tree(at)
        outside = spell_on(outside, symbol)
    if spelled != _NONE:
        return at, outside, np.exp(weights.unknown_symbol * size)
    said = weights.unknown_lookahead + weights.unknown_word + weights.unknown_symbol * (tree.depth[node] + size)
    return at, outside, np.exp(said) / labels.lookahead[node]


@njit(nogil=True, cache=True)
def _listen(hot: HotwordArrays, labels: Labels, state: int, c: int) -> Any:
    """The hotword automaton's state after a label's symbols, and the factor of all that was completed."""
    reward = 1.0
    for k in range(labels.first[c], labels.first[c + 1]):
        state = np.int64(hot.following[state, labels.spelling[k]])
        reward *= hot.reward[state]
    return state, reward


@njit(nogil=True, cache=True)
def _offer(
    beam: Beam,
    weights: Weights,
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
    mask = uint64(beam.table_key.shape[0] - 1)
    h = key & mask
    while beam.table_stamp[h] == stamp and beam.table_key[h] != key:
        h = (h + _ONE) & mask
    if beam.table_stamp[h] == stamp:
        k = np.int64(beam.table_slot[h])
        before = bucket_of(beam.score[k])
        beam.score[k] += added
        beam.new_label_mass[k] += added
    else:
        k = np.int64(count)
        beam.table_stamp[h], beam.table_key[h], beam.table_slot[h] = stamp, key, k
        before = np.int64(-1)
        beam.score[k], beam.new_label_mass[k], beam.new_blank[k] = added, added, 0.0
        beam.new_key[k] = key
    score = beam.score[k]
    if score > best:
        best = score
        limit = max(limit, best * weights.keep)
    b = bucket_of(score)
    if before >= floor:
        beam.histogram[before] -= 1
        beam.histogram[b] += 1
    elif b >= floor:
        beam.histogram[b] += 1
        above += 1
        lowest = min(lowest, b)
    while above - beam.histogram[floor] >= weights.beam_width:
        above -= beam.histogram[floor]
        floor += 1
        limit = max(limit, bucket_floor(floor))
    return k, best, limit, lowest, floor, above


@njit(nogil=True, cache=True)
def _record_label(
    tree: Tree, labels: Labels, beam: Beam, trace: int, node: int, spelled: int, c: int, frame: int
) -> int:
    """The records of a label's symbols outside the tree."""
    at, outside = np.int64(node), spelled
    for k in range(labels.first[c], labels.first[c + 1]):
        symbol = labels.spelling[k]
        if outside == _NONE:
            to = step(tree.child, tree.symbol, at, symbol)
            if to >= 0:
                at = to
                continue
            trace = record_symbol(beam, trace, at, outside, symbol, frame)
            outside = leave_tree(at)
        else:
            trace = record_symbol(beam, trace, at, outside, symbol, frame)
    return trace


@njit(nogil=True, cache=True)
def advance_pieces(
    log_probs: np.ndarray,
    start: int,
    tree: Tree,
    lm: LMArrays,
    hot: HotwordArrays,
    labels: Labels,
    weights: Weights,
    beam: Beam,
) -> int:
    """Go on with frames from `start`; the frame before which the trace is full, else the number of frames."""
    width = weights.beam_width
    separator = weights.separator
    size, side = beam.counts[SIZE], beam.counts[SIDE]
    pending, stamp = beam.counts[PENDING], beam.counts[STAMP]
    log_scale = beam.scale[LOG_SCALE]
    trace_room = beam.trace_parent.shape[0] - width * weights.most_records
    frames = log_probs.shape[0]
    t = start
    while t < frames:
        if log_probs[t, 0] > weights.blank_skip:
            pending = 1
            log_scale += log_probs[t, 0]
            t += 1
            continue
        if beam.counts[TRACES] > trace_room:
            break
        active = read_frame(log_probs, t, labels, weights, beam)
        p_blank = beam.probability[0]
        most = 0.0
        for k in range(active):
            most = max(most, beam.probability[beam.active[k]])
        base = side * width
        frame = beam.counts[FRAMES] + t
        stamp += 1

        # Prefixes that stay as they are.
        best, limit = 0.0, 0.0
        lowest, floor, above = np.int64(beam.histogram.shape[0]), np.int64(0), 0
        count = 0
        for i in range(size):
            s = base + i
            if pending:
                beam.blank[s] += beam.label_mass[s]
                beam.label_mass[s] = 0.0
            p = beam.probability[beam.label[s]]
            total = beam.blank[s] + beam.label_mass[s]
            # after a separator another one changes nothing
            mass = p * (total if beam.node[s] == 0 and beam.spelled[s] == _NONE else beam.label_mass[s])
            k, best, limit, lowest, floor, above = _offer(
                beam, weights, beam.key[s], total * p_blank + mass, stamp, count, best, limit, lowest, floor, above
            )
            beam.new_blank[k], beam.new_label_mass[k] = total * p_blank, mass
            count += 1
        pending = 0

        # Prefixes that grow by a label.
        for i in range(size):
            s = base + i
            blank_mass = beam.blank[s]
            total = blank_mass + beam.label_mass[s]
            node, spelled = np.int64(beam.node[s]), beam.spelled[s]
            between = node == 0 and spelled == _NONE
            last = beam.label[s]
            heard = np.int64(beam.hotword[s])
            lent = 1.0
            if weights.has_hotwords:
                lent = 1.0 / hot.credit[heard]
            ends_word = False
            for a in range(active):
                c = np.int64(beam.active[a])
                if c == separator or (labels.starts_word[c] != 0 and not between):
                    ends_word = ends_word or not between
                    continue
                source = total if c != last else blank_mass
                if source * beam.probability[c] * weights.boost < limit and spelled == _NONE:
                    continue  # inside a word the LM's factors are at most 1
                to, outside, factor = _walk(tree, labels, weights, node, spelled, c)
                to_heard = heard
                if weights.has_hotwords:
                    to_heard, reward = _listen(hot, labels, heard, c)
                    factor *= reward * hot.credit[to_heard] * lent
                score = source * beam.probability[c] * factor
                if score < limit or score <= 0.0:
                    continue
                history = beam.history[s]
                k, best, limit, lowest, floor, above = _offer(
                    beam,
                    weights,
                    piece_key(history, to, outside, c),
                    score,
                    stamp,
                    count,
                    best,
                    limit,
                    lowest,
                    floor,
                    above,
                )
                if k == count:
                    beam.source[k], beam.by_label[k], beam.to_node[k], beam.to_hotword[k] = i, c, to, to_heard
                    beam.new_history[k], beam.new_spelled[k] = history, outside
                    beam.to_state[k], beam.ended[k] = beam.state[s], _NO_WORD
                    count += 1
            if not ends_word:
                continue
            said = weights.unknown_lookahead_factor if spelled != _NONE else labels.lookahead[node]
            if total * most * weights.boost * weights.word_factor < limit * said:
                continue
            entry = np.int64(-1) if spelled != _NONE else np.int64(tree.entry[node])
            if entry < 0 and not weights.open_vocabulary:
                continue
            while True:
                following = entry if entry < 0 else np.int64(tree.next_entry[entry])
                only = entry < 0 or (following < 0 and tree.entry[node] == entry)
                ending, to_state = beam.ending[s], np.int64(beam.ending_state[s])
                if not only or ending < 0.0:
                    if entry >= 0:
                        ending, to_state = end_known(tree, labels, lm, weights, node, beam.state[s], entry)
                    else:
                        ending, to_state = end_unknown(tree, labels, lm, weights, node, beam.state[s], spelled)
                    if only:
                        beam.ending[s], beam.ending_state[s] = ending, to_state
                if entry >= 0:
                    history = history_with_word(beam.history[s], tree.text[entry])
                else:
                    history = history_with_unknown(beam.history[s], spelled if spelled != _NONE else leave_tree(node))
                ended_heard, ended_reward = np.int64(0), 1.0
                if weights.has_hotwords:
                    ended_heard = np.int64(hot.following[heard, 0])
                    ended_reward = hot.reward[ended_heard]
                for a in range(active):
                    c = np.int64(beam.active[a])
                    if c != separator and labels.starts_word[c] == 0:
                        continue
                    source = (total if c != last else blank_mass) * beam.probability[c] * ending
                    if source * weights.boost < limit:
                        continue
                    to, outside, factor, to_heard = np.int64(0), _NONE, 1.0, ended_heard
                    if c != separator:
                        to, outside, factor = _walk(tree, labels, weights, 0, _NONE, c)
                    if weights.has_hotwords:
                        reward = 1.0
                        if c != separator:
                            to_heard, reward = _listen(hot, labels, ended_heard, c)
                        factor *= ended_reward * reward * hot.credit[to_heard] * lent
                    score = source * factor
                    if score < limit or score <= 0.0:
                        continue
                    k, best, limit, lowest, floor, above = _offer(
                        beam,
                        weights,
                        piece_key(history, to, outside, c),
                        score,
                        stamp,
                        count,
                        best,
                        limit,
                        lowest,
                        floor,
                        above,
                    )
                    if k == count:
                        beam.source[k], beam.by_label[k], beam.to_node[k], beam.to_hotword[k] = i, c, to, to_heard
                        beam.new_history[k], beam.new_spelled[k] = history, outside
                        beam.to_state[k], beam.ended[k] = to_state, entry if entry >= 0 else _UNKNOWN
                        count += 1
                entry = following
                if entry < 0:
                    break

        # The best of them become the next generation.
        limit = max(limit, best * weights.keep)
        spare = beam.histogram[floor] - max(above - width, 0)  # of the lowest bucket so many still fit
        scale = 1.0
        if best < SMALL:
            scale = LARGE
            log_scale -= np.log(LARGE)
        next_base = (1 - side) * width
        kept = 0
        for k in range(count):
            score = beam.score[k]
            if score < limit or score <= 0.0:
                continue
            if above > width and bucket_of(score) == floor:
                if spare <= 0:
                    continue
                spare -= 1
            d = next_base + kept
            kept += 1
            s = base + (k if k < size else np.int64(beam.source[k]))
            beam.blank[d], beam.label_mass[d] = beam.new_blank[k] * scale, beam.new_label_mass[k] * scale
            if k < size:
                beam.key[d], beam.history[d], beam.spelled[d] = beam.key[s], beam.history[s], beam.spelled[s]
                beam.node[d], beam.label[d], beam.state[d] = beam.node[s], beam.label[s], beam.state[s]
                beam.hotword[d], beam.trace[d] = beam.hotword[s], beam.trace[s]
                beam.ending[d], beam.ending_state[d] = beam.ending[s], beam.ending_state[s]
                continue
            c, ended = np.int64(beam.by_label[k]), np.int64(beam.ended[k])
            trace, node, spelled = np.int64(beam.trace[s]), np.int64(beam.node[s]), beam.spelled[s]
            if ended != _NO_WORD:
                trace = record_end(beam, trace, ended if ended >= 0 else -1, node, spelled, frame)
                node, spelled = np.int64(0), _NONE
            if beam.new_spelled[k] != _NONE:
                trace = _record_label(tree, labels, beam, trace, node, spelled, c, frame)
            beam.key[d], beam.history[d], beam.spelled[d] = beam.new_key[k], beam.new_history[k], beam.new_spelled[k]
            beam.node[d], beam.label[d], beam.state[d] = beam.to_node[k], c, beam.to_state[k]
            beam.hotword[d], beam.trace[d] = beam.to_hotword[k], trace
            beam.ending[d] = -1.0
        for b in range(lowest, bucket_of(best) + 1):
            beam.histogram[b] = 0
        clear_frame(active, beam)
        size, side = kept, 1 - side
        t += 1
    beam.counts[SIZE], beam.counts[SIDE] = size, side
    beam.counts[PENDING], beam.counts[STAMP] = pending, stamp
    beam.scale[LOG_SCALE] = log_scale
    return t
