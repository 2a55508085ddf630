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
    history_with_unknown,
    history_with_word,
    key_of,
    leave_tree,
    mix,
    read_frame,
    record_end,
    record_symbol,
    say_word,
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


@njit(nogil=True, cache=True, _nrt=False, inline="always")
def _arc(
    arc: np.ndarray, arc_label: np.ndarray, arc_child: np.ndarray, root_child: np.ndarray, node: int, c: int
) -> int:
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


@njit(nogil=True, cache=True, _nrt=False)
def _leave(
    children_from: np.ndarray,
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
            to = step(children_from, symbol_to, at, symbol)
            if to >= 0:
                at = to
                continue
            outside = leave_tree(at)
        outside = spell_on(outside, symbol)
    return at, outside


@njit(nogil=True, cache=True, _nrt=False)
def _listen(
    following: np.ndarray, rewards: np.ndarray, first: np.ndarray, spelling: np.ndarray, state: int, c: int
) -> Any:
    """The hotword automaton's state after a label's symbols, and the factor of all that was completed."""
    reward = 1.0
    for k in range(first[c], first[c + 1]):
        state = np.int64(following[state, spelling[k]])
        reward *= rewards[state]
    return state, reward


@njit(nogil=True, cache=True, _nrt=False, inline="always")
def _offer(
    table_key: np.ndarray,
    table_slot: np.ndarray,
    table_stamp: np.ndarray,
    scores: np.ndarray,
    new_label_mass: np.ndarray,
    new_blank: np.ndarray,
    new_keys: np.ndarray,
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
    mask = uint64(table_key.shape[0] - 1)
    h = key & mask
    while table_stamp[h] == stamp and table_key[h] != key:
        h = (h + _ONE) & mask
    before = np.int64(-1)
    if table_stamp[h] == stamp:
        k = np.int64(table_slot[h])
        before = bucket_of(scores[k])
        scores[k] += added
        new_label_mass[k] += added
    else:
        k = np.int64(count)
        table_stamp[h], table_key[h], table_slot[h] = stamp, key, k
        scores[k], new_label_mass[k], new_blank[k] = added, added, 0.0
        new_keys[k] = key
    score = scores[k]
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
    if above >= width:
        floor = max(floor, lowest)  # nothing is below
    while above - histogram[floor] >= width:
        above -= histogram[floor]
        floor += 1
        limit = max(limit, bucket_floor(floor))
    return k, best, limit, lowest, floor, above


@njit(nogil=True, cache=True, _nrt=False)
def _record_label(
    children_from: np.ndarray,
    symbol_to: np.ndarray,
    first: np.ndarray,
    spelling: np.ndarray,
    counts: np.ndarray,
    trace_parent: np.ndarray,
    trace_symbol: np.ndarray,
    trace_frame: np.ndarray,
    trace: int,
    node: int,
    spelled: int,
    c: int,
    frame: int,
) -> int:
    """The records of a label's symbols outside the tree."""
    at, outside = np.int64(node), spelled
    for k in range(first[c], first[c + 1]):
        symbol = spelling[k]
        if outside == _NONE:
            to = step(children_from, symbol_to, at, symbol)
            if to >= 0:
                at = to
                continue
        trace = record_symbol(
            counts, trace_parent, trace_symbol, trace_frame, trace, at, outside, np.int64(symbol), frame
        )
        if outside == _NONE:
            outside = leave_tree(at)
    return trace


@njit(nogil=True, cache=True, _nrt=False)
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
    # Every array by a name of its own: compiled code would copy the whole tuple at every use and call.
    keep, boost, unknown_least = weights.keep, weights.boost, weights.unknown_least
    has_hotwords, open_vocabulary = weights.has_hotwords, weights.open_vocabulary
    lookahead, silent, starts_word = labels.lookahead, labels.silent, labels.starts_word
    first, spelling = labels.first, labels.spelling
    arc, arc_label, arc_child, root_child = tree.arc, tree.arc_label, tree.arc_child, tree.root_child
    children_from, symbol_to = tree.child, tree.symbol
    depths = tree.depth
    entries = tree.entry
    next_entry = tree.next_entry
    text_of = tree.text
    lm_word = tree.lm_word
    hot_following = hot.following
    hot_credit = hot.credit
    hot_reward = hot.reward
    keys = beam.key
    histories = beam.history
    spellings = beam.spelled
    nodes = beam.node
    last_labels = beam.label
    states = beam.state
    hotword_states = beam.hotword
    traces = beam.trace
    blanks = beam.blank
    label_masses = beam.label_mass
    endings = beam.ending
    ending_states = beam.ending_state
    new_blank = beam.new_blank
    new_label_mass = beam.new_label_mass
    scores = beam.score
    table_key, table_slot, table_stamp = beam.table_key, beam.table_slot, beam.table_stamp
    sources = beam.source
    by_label = beam.by_label
    to_node = beam.to_node
    to_state_of = beam.to_state
    new_keys = beam.new_key
    new_histories = beam.new_history
    new_spellings = beam.new_spelled
    to_hotwords = beam.to_hotword
    ended_words = beam.ended
    histogram = beam.histogram
    probability = beam.probability
    active_labels = beam.active
    active_score = beam.active_score
    trace_parent = beam.trace_parent
    trace_symbol = beam.trace_symbol
    trace_frame = beam.trace_frame
    counts = beam.counts
    scales = beam.scale
    separator = weights.separator
    size, side = counts[SIZE], counts[SIDE]
    pending, stamp = counts[PENDING], counts[STAMP]
    log_scale = scales[LOG_SCALE]
    trace_room = trace_parent.shape[0] - width * weights.most_records
    frames = log_probs.shape[0]
    t = start
    while t < frames:
        if log_probs[t, 0] > weights.blank_skip:
            pending = 1
            log_scale += log_probs[t, 0]
            t += 1
            continue
        if counts[TRACES] > trace_room:
            break
        active = read_frame(
            log_probs,
            t,
            weights.least_label,
            weights.most_labels,
            silent,
            active_labels,
            active_score,
            probability,
        )
        p_blank = probability[0]
        most = 0.0
        for k in range(active):
            most = max(most, probability[active_labels[k]])
        base = side * width
        frame = counts[FRAMES] + t
        stamp += 1

        # Prefixes that stay as they are.
        best, limit = 0.0, 0.0
        lowest, floor, above = np.int64(histogram.shape[0]), np.int64(0), 0
        count = 0
        for i in range(size):
            s = base + i
            if pending:
                blanks[s] += label_masses[s]
                label_masses[s] = 0.0
            p = probability[last_labels[s]]
            total = blanks[s] + label_masses[s]
            # after a separator another one changes nothing
            mass = p * (total if nodes[s] == 0 and spellings[s] == _NONE else label_masses[s])
            k, best, limit, lowest, floor, above = _offer(
                table_key,
                table_slot,
                table_stamp,
                scores,
                new_label_mass,
                new_blank,
                new_keys,
                histogram,
                width,
                keep,
                keys[s],
                total * p_blank + mass,
                stamp,
                count,
                best,
                limit,
                lowest,
                floor,
                above,
            )
            new_blank[k], new_label_mass[k] = total * p_blank, mass
            count += 1
        pending = 0

        # Prefixes that grow by a label.
        for i in range(size):
            s = base + i
            blank_mass = blanks[s]
            total = blank_mass + label_masses[s]
            node, spelled = np.int64(nodes[s]), spellings[s]
            between = node == 0 and spelled == _NONE
            last = last_labels[s]
            heard = np.int64(hotword_states[s])
            lent = 1.0
            if has_hotwords:
                lent = 1.0 / hot_credit[heard]
            outside_factor = 1.0  # of a step outside the tree, but for the number of symbols
            if open_vocabulary and spelled == _NONE:
                said = weights.unknown_lookahead + weights.unknown_word + weights.unknown_symbol * depths[node]
                outside_factor = np.exp(said) / lookahead[node]
            ends_word = False
            for a in range(active):
                c = np.int64(active_labels[a])
                if c == separator or (starts_word[c] != 0 and not between):
                    ends_word = ends_word or not between
                    continue
                source = total if c != last else blank_mass
                if source * probability[c] * boost < limit and spelled == _NONE:
                    continue  # inside a word the LM's factors are at most 1
                to, outside = np.int64(-1), _NONE
                if spelled == _NONE:
                    to = _arc(arc, arc_label, arc_child, root_child, node, c)
                if to >= 0:
                    factor = lookahead[to] / lookahead[node]
                elif not open_vocabulary:
                    continue
                else:
                    to, outside = _leave(children_from, symbol_to, first, spelling, node, spelled, c)
                    factor = outside_factor * np.exp(weights.unknown_symbol * (first[c + 1] - first[c]))
                to_heard = heard
                if has_hotwords:
                    to_heard, reward = _listen(hot_following, hot_reward, first, spelling, heard, c)
                    factor *= reward * hot_credit[to_heard] * lent
                score = source * probability[c] * factor
                if score < limit or score <= 0.0:
                    continue
                history = histories[s]
                k, best, limit, lowest, floor, above = _offer(
                    table_key,
                    table_slot,
                    table_stamp,
                    scores,
                    new_label_mass,
                    new_blank,
                    new_keys,
                    histogram,
                    width,
                    keep,
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
                    sources[k], by_label[k], to_node[k], to_hotwords[k] = i, c, to, to_heard
                    new_histories[k], new_spellings[k] = history, outside
                    to_state_of[k], ended_words[k] = states[s], _NO_WORD
                    count += 1
            if not ends_word:
                continue
            said = weights.unknown_lookahead_factor if spelled != _NONE else lookahead[node]
            if total * most * boost * weights.word_factor < limit * said:
                continue
            entry = np.int64(-1) if spelled != _NONE else np.int64(entries[node])
            if entry < 0 and not open_vocabulary:
                continue
            while True:
                following = entry if entry < 0 else np.int64(next_entry[entry])
                only = entry < 0 or (following < 0 and entries[node] == entry)
                ending, to_state = endings[s], np.int64(ending_states[s])
                if not only or ending < 0.0:
                    word = np.int64(0) if entry < 0 else np.int64(lm_word[entry])
                    ending, to_state = say_word(lm, states[s], word, weights.alpha, weights.beta, unknown_least)
                    if spelled != _NONE:
                        ending /= weights.unknown_lookahead_factor
                    else:
                        ending /= lookahead[node]
                        if entry < 0:
                            ending *= np.exp(weights.unknown_word + weights.unknown_symbol * depths[node])
                    if only:
                        endings[s], ending_states[s] = ending, to_state
                if entry >= 0:
                    history = history_with_word(histories[s], text_of[entry])
                else:
                    history = history_with_unknown(histories[s], spelled if spelled != _NONE else leave_tree(node))
                ended_heard, ended_reward = np.int64(0), 1.0
                if has_hotwords:
                    ended_heard = np.int64(hot_following[heard, 0])
                    ended_reward = hot_reward[ended_heard]
                for a in range(active):
                    c = np.int64(active_labels[a])
                    if c != separator and starts_word[c] == 0:
                        continue
                    source = (total if c != last else blank_mass) * probability[c] * ending
                    if source * boost < limit:
                        continue
                    to, outside, factor, to_heard = np.int64(0), _NONE, 1.0, ended_heard
                    if c != separator:
                        to = np.int64(root_child[c])
                        if to >= 0:
                            factor = lookahead[to]
                        elif not open_vocabulary:
                            continue
                        else:
                            to, outside = _leave(children_from, symbol_to, first, spelling, 0, _NONE, c)
                            size_of = first[c + 1] - first[c]
                            said = weights.unknown_lookahead + weights.unknown_word + weights.unknown_symbol * size_of
                            factor = np.exp(said)
                    if has_hotwords:
                        reward = 1.0
                        if c != separator:
                            to_heard, reward = _listen(hot_following, hot_reward, first, spelling, ended_heard, c)
                        factor *= ended_reward * reward * hot_credit[to_heard] * lent
                    score = source * factor
                    if score < limit or score <= 0.0:
                        continue
                    k, best, limit, lowest, floor, above = _offer(
                        table_key,
                        table_slot,
                        table_stamp,
                        scores,
                        new_label_mass,
                        new_blank,
                        new_keys,
                        histogram,
                        width,
                        keep,
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
                        sources[k], by_label[k], to_node[k], to_hotwords[k] = i, c, to, to_heard
                        new_histories[k], new_spellings[k] = history, outside
                        to_state_of[k], ended_words[k] = to_state, entry if entry >= 0 else _UNKNOWN
                        count += 1
                entry = following
                if entry < 0:
                    break

        # The best of them become the next generation.
        limit = max(limit, best * keep)
        spare = histogram[floor] - max(above - width, 0)  # of the lowest bucket so many still fit
        scale = 1.0
        if best < SMALL:
            scale = LARGE
            log_scale -= np.log(LARGE)
        next_base = (1 - side) * width
        kept = 0
        for k in range(count):
            score = scores[k]
            if score < limit or score <= 0.0:
                continue
            if above > width and bucket_of(score) == floor:
                if spare <= 0:
                    continue
                spare -= 1
            d = next_base + kept
            kept += 1
            s = base + (k if k < size else np.int64(sources[k]))
            blanks[d], label_masses[d] = new_blank[k] * scale, new_label_mass[k] * scale
            if k < size:
                keys[d], histories[d], spellings[d] = keys[s], histories[s], spellings[s]
                nodes[d], last_labels[d], states[d] = nodes[s], last_labels[s], states[s]
                hotword_states[d], traces[d] = hotword_states[s], traces[s]
                endings[d], ending_states[d] = endings[s], ending_states[s]
                continue
            c, ended = np.int64(by_label[k]), np.int64(ended_words[k])
            trace, node, spelled = np.int64(traces[s]), np.int64(nodes[s]), spellings[s]
            if ended != _NO_WORD:
                trace = record_end(
                    counts,
                    trace_parent,
                    trace_symbol,
                    trace_frame,
                    trace,
                    ended if ended >= 0 else -1,
                    node,
                    spelled,
                    frame,
                )
                node, spelled = np.int64(0), _NONE
            if new_spellings[k] != _NONE:
                trace = _record_label(
                    children_from,
                    symbol_to,
                    first,
                    spelling,
                    counts,
                    trace_parent,
                    trace_symbol,
                    trace_frame,
                    trace,
                    node,
                    spelled,
                    c,
                    frame,
                )
            keys[d], histories[d], spellings[d] = new_keys[k], new_histories[k], new_spellings[k]
            nodes[d], last_labels[d], states[d] = to_node[k], c, to_state_of[k]
            hotword_states[d], traces[d] = to_hotwords[k], trace
            endings[d] = -1.0
        for b in range(lowest, bucket_of(best) + 1):
            histogram[b] = 0
        for k in range(active):
            probability[active_labels[k]] = 0.0
        size, side = kept, 1 - side
        t += 1
    counts[SIZE], counts[SIDE] = size, side
    counts[PENDING], counts[STAMP] = pending, stamp
    scales[LOG_SCALE] = log_scale
    return t
