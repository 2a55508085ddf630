"""The beam search over characters, compiled: every text prefix has one parent, the prefix one character shorter.

CTC prefix beam search (Hannun et al. 2014, arXiv 1408.2873): a hypothesis is a text prefix and sums over its
alignments, apart for those that end in a blank and in its last label. Scores are probabilities times the language
model's weighted factors, in the linear domain, scaled together before they get too small or too large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam_steps import (
    LARGE,
    SMALL,
    admit,
    bucket_of,
    history_with_unknown,
    history_with_word,
    key_of,
    leave_tree,
    lowest_bit,
    popcount,
    read_frame,
    record_end,
    record_symbol,
    say_word,
    spell_on,
)
from asr.decoding.kernels import inlined, kernel
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


@inlined
def _find(
    table_key: np.ndarray, table_slot: np.ndarray, table_stamp: np.ndarray, key: int, stamp: int, mask: int
) -> Any:
    """The hypothesis with this key, -1."""
    h = key & mask
    while table_stamp[h] == stamp and table_key[h] != key:
        h = (h + _ONE) & mask
    return np.int64(table_slot[h]) if table_stamp[h] == stamp else np.int64(-1)


@kernel
def advance_characters(
    log_probs: np.ndarray,
    start: int,
    tree: Tree,
    lm: LMArrays,
    hot: HotwordArrays,
    labels: Labels,
    weights: Weights,
    beam: Beam,
) -> Any:
    """Go on with frames from `start`; the frame before which the trace is full, else the number of frames."""
    width = weights.beam_width
    # Every array by a name of its own: compiled code would copy the whole tuple at every use and call.
    keep, boost, unknown_least = weights.keep, weights.boost, weights.unknown_least
    has_hotwords, open_vocabulary = weights.has_hotwords, weights.open_vocabulary
    lookahead, silent = labels.lookahead, labels.silent
    children_from, child_bits, depths, entries = tree.child, tree.mask, tree.depth, tree.entry
    next_entry, text_of, lm_word, hot_following = tree.next_entry, tree.text, tree.lm_word, hot.following
    hot_credit, hot_reward, keys, parents, histories = hot.credit, hot.reward, beam.key, beam.parent, beam.history
    spellings, nodes, last_labels, states = beam.spelled, beam.node, beam.label, beam.state
    hotword_states, traces, blanks, label_masses = beam.hotword, beam.trace, beam.blank, beam.label_mass
    entered, endings, ending_states, present = beam.entered, beam.ending, beam.ending_state, beam.present
    new_blank, new_label_mass, scores, sources = beam.new_blank, beam.new_label_mass, beam.score, beam.source
    by_label, to_node, factors, to_state_of = beam.by_label, beam.to_node, beam.factor, beam.to_state
    to_hotwords, ended_words, table_key, table_slot = beam.to_hotword, beam.ended, beam.table_key, beam.table_slot
    table_stamp, histogram, probability = beam.table_stamp, beam.histogram, beam.probability
    active_labels, active_score, trace_parent = beam.active, beam.active_score, beam.trace_parent
    trace_symbol, trace_frame, counts, scales = beam.trace_symbol, beam.trace_frame, beam.counts, beam.scale
    separator = weights.separator
    table_mask = uint64(table_key.shape[0] - 1)
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
        active_bits = _NONE
        for k in range(active):
            if active_labels[k] != separator:
                active_bits |= _ONE << uint64(active_labels[k])
        p_blank = probability[0]
        p_separator = probability[separator]
        base = side * width
        frame = counts[FRAMES] + t
        stamp += 1
        for i in range(size):
            s = base + i
            if pending:
                blanks[s] += label_masses[s]
                label_masses[s] = 0.0
            h = keys[s] & table_mask
            while table_stamp[h] == stamp:
                h = (h + _ONE) & table_mask
            table_stamp[h], table_key[h], table_slot[h] = stamp, keys[s], i
            present[i] = _NONE
        pending = 0

        # Prefixes that stay as they are, and what flows into them from their parents.
        best, limit = 0.0, 0.0
        lowest, floor, above = np.int64(histogram.shape[0]), np.int64(0), 0
        for i in range(size):
            s = base + i
            c = np.int64(last_labels[s])
            p = probability[c]
            total = blanks[s] + label_masses[s]
            mass = 0.0
            if p > 0.0:
                # after a separator another one changes nothing
                mass = p * (total if nodes[s] == 0 and spellings[s] == _NONE else label_masses[s])
                if parents[s] != _NONE:
                    q = _find(table_key, table_slot, table_stamp, parents[s], stamp, table_mask)
                    if q >= 0:
                        u = base + q
                        source = blanks[u] + (label_masses[u] if last_labels[u] != c else 0.0)
                        mass += source * p * entered[s]
                        present[q] |= _ONE << uint64(c)
            new_blank[i] = total * p_blank
            new_label_mass[i] = mass
            score = total * p_blank + mass
            scores[i] = score
            if score >= limit and score > 0.0:
                best, limit, lowest, floor, above = admit(
                    histogram, width, keep, score, best, limit, lowest, floor, above
                )
        count = size

        # Prefixes that grow by a label.
        for i in range(size):
            s = base + i
            blank_mass = blanks[s]
            total = blank_mass + label_masses[s]
            node = np.int64(nodes[s])
            outside = spellings[s] != _NONE
            last = last_labels[s]
            state = hotword_states[s]
            lent = 1.0
            if has_hotwords:
                lent = 1.0 / hot_credit[state]
            inside = _NONE
            if not outside:
                children = child_bits[node]
                inside = children & active_bits
                todo = inside & ~present[i]
                if todo != _NONE:
                    scaled = lent / lookahead[node]
                    first = np.int64(children_from[node])
                    while todo != _NONE:
                        c = lowest_bit(todo)
                        bit = _ONE << uint64(c)
                        todo ^= bit
                        score = (total if c != last else blank_mass) * probability[c]
                        if score * boost < limit:
                            continue
                        to = first + np.int64(popcount(children & (bit - _ONE)))
                        factor = lookahead[to] * scaled
                        to_hotword = np.int32(0)
                        if has_hotwords:
                            to_hotword = hot_following[state, c]
                            factor *= hot_credit[to_hotword] * hot_reward[to_hotword]
                        score *= factor
                        if score < limit or score <= 0.0:
                            continue
                        scores[count], sources[count], by_label[count] = score, i, c
                        to_node[count], factors[count] = to, factor
                        to_hotwords[count], ended_words[count] = to_hotword, _KNOWN
                        count += 1
                        best, limit, lowest, floor, above = admit(
                            histogram, width, keep, score, best, limit, lowest, floor, above
                        )
            if open_vocabulary:
                grown = weights.unknown_symbol
                if outside:
                    step_factor = np.exp(grown) * lent
                else:
                    step_factor = (
                        np.exp(weights.unknown_lookahead + weights.unknown_word + grown * (depths[node] + 1))
                        / lookahead[node]
                        * lent
                    )
                todo = active_bits & ~inside & ~present[i]
                while todo != _NONE:
                    c = lowest_bit(todo)
                    todo &= todo - _ONE
                    score = (total if c != last else blank_mass) * probability[c] * step_factor
                    factor = step_factor
                    to_hotword = np.int32(0)
                    if has_hotwords:
                        to_hotword = hot_following[state, c]
                        change = hot_credit[to_hotword] * hot_reward[to_hotword]
                        factor *= change
                        score *= change
                    if score < limit or score <= 0.0:
                        continue
                    scores[count], sources[count], by_label[count] = score, i, c
                    to_node[count], factors[count] = node, factor
                    to_hotwords[count], ended_words[count] = to_hotword, _OUTSIDE
                    count += 1
                    best, limit, lowest, floor, above = admit(
                        histogram, width, keep, score, best, limit, lowest, floor, above
                    )
            if p_separator > 0.0 and (outside or node != 0):
                # no word is likelier than 1: spares most looks into the LM
                said = weights.unknown_lookahead_factor if outside else lookahead[node]
                if total * p_separator * boost * weights.word_factor < limit * said:
                    continue
                entry = np.int64(-1) if outside else np.int64(entries[node])
                if entry < 0 and not open_vocabulary:
                    continue
                while True:
                    following = entry if entry < 0 else np.int64(next_entry[entry])
                    only = entry < 0 or (following < 0 and entries[node] == entry)
                    factor, to_state = endings[s], np.int64(ending_states[s])
                    if not only or factor < 0.0:
                        word = np.int64(0) if entry < 0 else np.int64(lm_word[entry])
                        factor, to_state = say_word(lm, states[s], word, weights.alpha, weights.beta, unknown_least)
                        if outside:
                            factor /= weights.unknown_lookahead_factor
                        else:
                            factor /= lookahead[node]
                            if entry < 0:
                                factor *= np.exp(weights.unknown_word + weights.unknown_symbol * depths[node])
                        if only:
                            endings[s], ending_states[s] = factor, to_state
                    to_hotword = np.int32(0)
                    if has_hotwords:
                        to_hotword = hot_following[state, 0]
                        factor *= hot_credit[to_hotword] * hot_reward[to_hotword] * lent
                    score = total * p_separator * factor
                    if score >= limit and score > 0.0:
                        if entry >= 0:
                            history = history_with_word(histories[s], text_of[entry])
                        else:
                            spelled = spellings[s] if outside else leave_tree(node)
                            history = history_with_unknown(histories[s], spelled)
                        if _find(table_key, table_slot, table_stamp, key_of(history, 0, _NONE), stamp, table_mask) < 0:
                            scores[count], sources[count], by_label[count] = score, i, separator
                            to_node[count], factors[count] = entry, factor
                            to_state_of[count], to_hotwords[count] = to_state, to_hotword
                            ended_words[count] = _END_KNOWN if entry >= 0 else _END_UNKNOWN
                            count += 1
                            best, limit, lowest, floor, above = admit(
                                histogram, width, keep, score, best, limit, lowest, floor, above
                            )
                    entry = following
                    if entry < 0:
                        break

        # The best of them become the next generation.
        limit = max(limit, best * keep)
        spare = histogram[floor] - max(above - width, 0)  # of the lowest bucket so many still fit
        scale = 1.0
        if best < SMALL or best > LARGE:
            scale = 1.0 / best
            log_scale += np.log(best)
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
            if k < size:
                s = base + k
                keys[d], parents[d], histories[d] = keys[s], parents[s], histories[s]
                spellings[d], nodes[d], last_labels[d] = spellings[s], nodes[s], last_labels[s]
                states[d], hotword_states[d], traces[d] = states[s], hotword_states[s], traces[s]
                entered[d], endings[d] = entered[s], endings[s]
                ending_states[d] = ending_states[s]
                blanks[d] = new_blank[k] * scale
                label_masses[d] = new_label_mass[k] * scale
                continue
            s = base + sources[k]
            kind = ended_words[k]
            to, c = np.int64(to_node[k]), np.int64(by_label[k])
            history, spelled, trace = histories[s], spellings[s], traces[s]
            state = states[s]
            if kind == _OUTSIDE:
                trace = record_symbol(counts, trace_parent, trace_symbol, trace_frame, trace, to, spelled, c, frame)
                spelled = spell_on(spelled if spelled != _NONE else leave_tree(to), c)
            elif kind != _KNOWN:
                trace = record_end(
                    counts,
                    trace_parent,
                    trace_symbol,
                    trace_frame,
                    trace,
                    to if kind == _END_KNOWN else -1,
                    nodes[s],
                    spelled,
                    frame,
                )
                if kind == _END_KNOWN:
                    history = history_with_word(history, text_of[to])
                else:
                    history = history_with_unknown(history, spelled if spelled != _NONE else leave_tree(nodes[s]))
                spelled, to = _NONE, np.int64(0)
                state = to_state_of[k]
            keys[d], parents[d], histories[d] = key_of(history, to, spelled), keys[s], history
            spellings[d], nodes[d], last_labels[d] = spelled, to, c
            states[d], hotword_states[d], traces[d] = state, to_hotwords[k], trace
            entered[d], endings[d] = factors[k], -1.0
            blanks[d], label_masses[d] = 0.0, score * scale
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
