"""The beam search over characters, compiled: every text prefix has one parent, the prefix one character shorter.

CTC prefix beam search (Hannun et al. 2014, arXiv 1408.2873): a hypothesis is a text prefix and sums over its
alignments, apart for those that end in a blank and in its last label. Scores are probabilities times the language
model's weighted factors, in the linear domain, made larger together before they get too small.
"""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from asr.decoding.beam_steps import (
    LARGE,
    SMALL,
    admit,
    bucket_of,
    clear_frame,
    end_known,
    end_unknown,
    history_with_unknown,
    history_with_word,
    key_of,
    leave_tree,
    lowest_bit,
    popcount,
    read_frame,
    record_end,
    record_symbol,
    spell_on,
)
from asr.decoding.lexicon import Tree
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
_KNOWN, _OUTSIDE, _END_KNOWN, _END_UNKNOWN = 0, -1, -2, -3  # what a candidate is, where it is no node


@njit(nogil=True, cache=True, inline="always")
def _find(beam: Beam, key: int, stamp: int, mask: int) -> int:
    """The hypothesis with this key, -1."""
    h = key & mask
    while beam.table_stamp[h] == stamp:
        if beam.table_key[h] == key:
            return np.int64(beam.table_slot[h])
        h = (h + _ONE) & mask
    return np.int64(-1)


@njit(nogil=True, cache=True)
def advance_characters(
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
    table_mask = uint64(beam.table_key.shape[0] - 1)
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
        active_bits = _NONE
        for k in range(active):
            if beam.active[k] != separator:
                active_bits |= _ONE << uint64(beam.active[k])
        p_blank = beam.probability[0]
        p_separator = beam.probability[separator]
        base = side * width
        frame = beam.counts[FRAMES] + t
        stamp += 1
        for i in range(size):
            s = base + i
            if pending:
                beam.blank[s] += beam.label_mass[s]
                beam.label_mass[s] = 0.0
            h = beam.key[s] & table_mask
            while beam.table_stamp[h] == stamp:
                h = (h + _ONE) & table_mask
            beam.table_stamp[h], beam.table_key[h], beam.table_slot[h] = stamp, beam.key[s], i
            beam.present[i] = _NONE
        pending = 0

        # Prefixes that stay as they are, and what flows into them from their parents.
        best, limit = 0.0, 0.0
        lowest, floor, above = np.int64(beam.histogram.shape[0]), np.int64(0), 0
        for i in range(size):
            s = base + i
            c = np.int64(beam.label[s])
            p = beam.probability[c]
            total = beam.blank[s] + beam.label_mass[s]
            mass = 0.0
            if p > 0.0:
                # after a separator another one changes nothing
                mass = p * (total if beam.node[s] == 0 and beam.spelled[s] == _NONE else beam.label_mass[s])
                if beam.parent[s] != _NONE:
                    q = _find(beam, beam.parent[s], stamp, table_mask)
                    if q >= 0:
                        u = base + q
                        source = beam.blank[u] + (beam.label_mass[u] if beam.label[u] != c else 0.0)
                        mass += source * p * beam.entered[s]
                        beam.present[q] |= _ONE << uint64(c)
            beam.new_blank[i] = total * p_blank
            beam.new_label_mass[i] = mass
            score = total * p_blank + mass
            beam.score[i] = score
            if score >= limit and score > 0.0:
                best, limit, lowest, floor, above = admit(beam, weights, score, best, limit, lowest, floor, above)
        count = size

        # Prefixes that grow by a label.
        for i in range(size):
            s = base + i
            blank_mass = beam.blank[s]
            total = blank_mass + beam.label_mass[s]
            node = np.int64(beam.node[s])
            outside = beam.spelled[s] != _NONE
            last = beam.label[s]
            state = beam.hotword[s]
            lent = 1.0
            if weights.has_hotwords:
                lent = 1.0 / hot.credit[state]
            inside = _NONE
            if not outside:
                children = tree.mask[node]
                inside = children & active_bits
                todo = inside & ~beam.present[i]
                if todo != _NONE:
                    scaled = lent / labels.lookahead[node]
                    first = np.int64(tree.child[node])
                    while todo != _NONE:
                        c = lowest_bit(todo)
                        bit = _ONE << uint64(c)
                        todo ^= bit
                        score = (total if c != last else blank_mass) * beam.probability[c]
                        if score * weights.boost < limit:
                            continue
                        to = first + np.int64(popcount(children & (bit - _ONE)))
                        factor = labels.lookahead[to] * scaled
                        to_hotword = np.int32(0)
                        if weights.has_hotwords:
                            to_hotword = hot.following[state, c]
                            factor *= hot.credit[to_hotword] * hot.reward[to_hotword]
                        score *= factor
                        if score < limit or score <= 0.0:
                            continue
                        beam.score[count], beam.source[count], beam.by_label[count] = score, i, c
                        beam.to_node[count], beam.factor[count] = to, factor
                        beam.to_hotword[count], beam.ended[count] = to_hotword, _KNOWN
                        count += 1
                        best, limit, lowest, floor, above = admit(
                            beam, weights, score, best, limit, lowest, floor, above
                        )
            if weights.open_vocabulary:
                grown = weights.unknown_symbol
                if outside:
                    step_factor = np.exp(grown) * lent
                else:
                    step_factor = (
                        np.exp(weights.unknown_lookahead + weights.unknown_word + grown * (tree.depth[node] + 1))
                        / labels.lookahead[node]
                        * lent
                    )
                todo = active_bits & ~inside & ~beam.present[i]
                while todo != _NONE:
                    c = lowest_bit(todo)
                    todo &= todo - _ONE
                    score = (total if c != last else blank_mass) * beam.probability[c] * step_factor
                    factor = step_factor
                    to_hotword = np.int32(0)
                    if weights.has_hotwords:
                        to_hotword = hot.following[state, c]
                        change = hot.credit[to_hotword] * hot.reward[to_hotword]
                        factor *= change
                        score *= change
                    if score < limit or score <= 0.0:
                        continue
                    beam.score[count], beam.source[count], beam.by_label[count] = score, i, c
                    beam.to_node[count], beam.factor[count] = node, factor
                    beam.to_hotword[count], beam.ended[count] = to_hotword, _OUTSIDE
                    count += 1
                    best, limit, lowest, floor, above = admit(beam, weights, score, best, limit, lowest, floor, above)
            if p_separator > 0.0 and (outside or node != 0):
                # no word is likelier than 1: spares most looks into the LM
                said = weights.unknown_lookahead_factor if outside else labels.lookahead[node]
                if total * p_separator * weights.boost * weights.word_factor < limit * said:
                    continue
                entry = np.int64(-1) if outside else np.int64(tree.entry[node])
                if entry < 0 and not weights.open_vocabulary:
                    continue
                while True:
                    following = entry if entry < 0 else np.int64(tree.next_entry[entry])
                    only = entry < 0 or (following < 0 and tree.entry[node] == entry)
                    factor, to_state = beam.ending[s], np.int64(beam.ending_state[s])
                    if not only or factor < 0.0:
                        if entry >= 0:
                            factor, to_state = end_known(tree, labels, lm, weights, node, beam.state[s], entry)
                        else:
                            factor, to_state = end_unknown(
                                tree, labels, lm, weights, node, beam.state[s], beam.spelled[s]
                            )
                        if only:
                            beam.ending[s], beam.ending_state[s] = factor, to_state
                    to_hotword = np.int32(0)
                    if weights.has_hotwords:
                        to_hotword = hot.following[state, 0]
                        factor *= hot.credit[to_hotword] * hot.reward[to_hotword] * lent
                    score = total * p_separator * factor
                    if score >= limit and score > 0.0:
                        if entry >= 0:
                            history = history_with_word(beam.history[s], tree.text[entry])
                        else:
                            spelled = beam.spelled[s] if outside else leave_tree(node)
                            history = history_with_unknown(beam.history[s], spelled)
                        if _find(beam, key_of(history, 0, _NONE), stamp, table_mask) < 0:
                            beam.score[count], beam.source[count], beam.by_label[count] = score, i, separator
                            beam.to_node[count], beam.factor[count] = entry, factor
                            beam.to_state[count], beam.to_hotword[count] = to_state, to_hotword
                            beam.ended[count] = _END_KNOWN if entry >= 0 else _END_UNKNOWN
                            count += 1
                            best, limit, lowest, floor, above = admit(
                                beam, weights, score, best, limit, lowest, floor, above
                            )
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
            if k < size:
                s = base + k
                beam.key[d], beam.parent[d], beam.history[d] = beam.key[s], beam.parent[s], beam.history[s]
                beam.spelled[d], beam.node[d], beam.label[d] = beam.spelled[s], beam.node[s], beam.label[s]
                beam.state[d], beam.hotword[d], beam.trace[d] = beam.state[s], beam.hotword[s], beam.trace[s]
                beam.entered[d], beam.ending[d] = beam.entered[s], beam.ending[s]
                beam.ending_state[d] = beam.ending_state[s]
                beam.blank[d] = beam.new_blank[k] * scale
                beam.label_mass[d] = beam.new_label_mass[k] * scale
                continue
            s = base + beam.source[k]
            kind = beam.ended[k]
            to, c = np.int64(beam.to_node[k]), np.int64(beam.by_label[k])
            history, spelled, trace = beam.history[s], beam.spelled[s], beam.trace[s]
            state = beam.state[s]
            if kind == _OUTSIDE:
                trace = record_symbol(beam, trace, to, spelled, c, frame)
                spelled = spell_on(spelled if spelled != _NONE else leave_tree(to), c)
            elif kind != _KNOWN:
                trace = record_end(beam, trace, to if kind == _END_KNOWN else -1, beam.node[s], spelled, frame)
                if kind == _END_KNOWN:
                    history = history_with_word(history, tree.text[to])
                else:
                    history = history_with_unknown(history, spelled if spelled != _NONE else leave_tree(beam.node[s]))
                spelled, to = _NONE, np.int64(0)
                state = beam.to_state[k]
            beam.key[d], beam.parent[d], beam.history[d] = key_of(history, to, spelled), beam.key[s], history
            beam.spelled[d], beam.node[d], beam.label[d] = spelled, to, c
            beam.state[d], beam.hotword[d], beam.trace[d] = state, beam.to_hotword[k], trace
            beam.entered[d], beam.ending[d] = beam.factor[k], -1.0
            beam.blank[d], beam.label_mass[d] = 0.0, score * scale
        for b in range(lowest, bucket_of(best) + 1):
            beam.histogram[b] = 0
        clear_frame(active, beam)
        size, side = kept, 1 - side
        t += 1
    beam.counts[SIZE], beam.counts[SIDE] = size, side
    beam.counts[PENDING], beam.counts[STAMP] = pending, stamp
    beam.scale[LOG_SCALE] = log_scale
    return t
