"""The beam search over characters, compiled: every text prefix has one parent, the prefix one character shorter.

CTC prefix beam search (Hannun et al. 2014, arXiv 1408.2873): a hypothesis is a text prefix and sums over its
alignments, apart for those that end in a blank and in its last label. Scores are probabilities times the language
model's weighted factors, in the linear domain, scaled together before they get too small or too large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam.arrays import (
    FRAMES,
    LOG_SCALE,
    PAUSE,
    PENDING,
    QUIET,
    QUIET_SHARE,
    SIDE,
    SIZE,
    STAMP,
    TRACES,
    Beam,
    HotwordArrays,
    Labels,
    Weights,
)
from asr.decoding.beam.frame_labels import LEAST_PROBABILITY, lowest_bit, popcount, prefetch, read_bits
from asr.decoding.beam.lexicon import Tree
from asr.decoding.beam.pauses import carry_pauses, forget_alternatives, mark_pause, pauses_after_word
from asr.decoding.beam.steps import (
    LARGE,
    SMALL,
    admit,
    foresee,
    history_with_unknown,
    history_with_word,
    key_of,
    leave_tree,
    record,
    record_end,
    record_symbol,
    say_word,
    spell_on,
    survivors,
    word_logp,
)
from asr.lm.compiling import inlined, search_kernel
from asr.lm.tables import LMArrays

_ONE = np.uint64(1)
_NONE = np.uint64(0)
_KNOWN, _OUTSIDE, _END_KNOWN, _END_UNKNOWN = 0, -1, -2, -3  # what a candidate is, where it is no node


@inlined
def _find(table: np.ndarray, key: int, stamp: int, mask: int) -> Any:
    """The hypothesis with this key, -1."""
    h = key & mask
    while table[h].stamp == stamp and table[h].key != key:
        h = (h + _ONE) & mask
    return np.int64(table[h].slot) if table[h].stamp == stamp else np.int64(-1)


@search_kernel
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
    keep, boost, pause_frames = weights.keep, weights.boost, weights.pause_frames
    unknown_least, begin, end_word = weights.unknown_least, weights.begin, weights.end_word
    has_hotwords, open_vocabulary = weights.has_hotwords, weights.open_vocabulary
    nodes, entries = tree.node, tree.entry
    arcs, lm_states, vocabulary = lm.arc, lm.state, lm.unigram.shape[0]
    hot_following, hot_credit, hot_reward = hot.following, hot.credit, hot.reward
    hyps, candidates, table, records = beam.hypothesis, beam.candidate, beam.table, beam.record
    histogram, probability = beam.histogram, beam.probability
    chosen, counts, scales = beam.chosen, beam.counts, beam.scale
    separator = weights.separator
    separator_bit = _ONE << uint64(separator)
    spoken = _NONE
    for k in range(1, log_probs.shape[1]):
        if labels.silent[k] == 0:
            spoken |= _ONE << uint64(k)
    table_mask = uint64(table.shape[0] - 1)
    size, side = counts[SIZE], counts[SIDE]
    pending, stamp, quiet = counts[PENDING], counts[STAMP], counts[QUIET]
    log_scale = scales[LOG_SCALE]
    trace_room = records.shape[0] - width * weights.most_records
    frames = log_probs.shape[0]
    t = start
    while t < frames:
        skipped = log_probs[t, 0] > weights.blank_skip
        if counts[TRACES] > trace_room and (not skipped or quiet + 1 == pause_frames):
            break
        active = _NONE
        if not skipped:
            active = read_bits(log_probs, t, weights.least_label, weights.most_labels, spoken, probability)
        quiet += 1
        if active != _NONE and probability[0] + probability[separator] <= QUIET_SHARE:
            if quiet > pause_frames:  # the pause is over
                counts[STAMP] = stamp
                size = forget_alternatives(beam, side * width, size, weights.nbest)
                stamp = counts[STAMP]
            quiet = 0
        elif quiet == pause_frames:
            mark_pause(hyps, side * width, size, False, separator, counts, records)
        if skipped:
            pending = 1
            log_scale += log_probs[t, 0]
            t += 1
            continue
        if active == _NONE:
            pending = 1
            log_scale += max(log_probs[t, 0], LEAST_PROBABILITY)
            t += 1
            continue
        active_bits = active & ~separator_bit
        p_blank = probability[0]
        p_separator = probability[separator]
        base = side * width
        frame = counts[FRAMES] + t
        stamp += 1
        for i in range(size):
            hyp = hyps[base + i]
            if pending:
                hyp.blank += hyp.label_mass
                hyp.label_mass = 0.0
            h = hyp.key & table_mask
            while table[h].stamp == stamp:
                h = (h + _ONE) & table_mask
            place = table[h]
            place.stamp, place.key, place.slot = stamp, hyp.key, i
            hyp.present = _NONE
        pending = 0

        # Prefixes that stay as they are, and what flows into them from their parents.
        best, limit = 0.0, 0.0
        lowest, floor, above = np.int64(histogram.shape[0]), np.int64(0), 0
        for i in range(size):
            hyp = hyps[base + i]
            c = np.int64(hyp.label)
            p = probability[c]
            total = hyp.blank + hyp.label_mass
            mass = 0.0
            if p > 0.0:
                # after a separator another one changes nothing
                mass = p * (total if hyp.node == 0 and hyp.spelled == _NONE else hyp.label_mass)
                if hyp.parent != _NONE:
                    q = _find(table, hyp.parent, stamp, table_mask)
                    if q >= 0:
                        parent = hyps[base + q]
                        flow = parent.blank + (parent.label_mass if parent.label != c else 0.0)
                        mass += flow * p * hyp.entered
                        parent.present |= _ONE << uint64(c)
            score = total * p_blank + mass
            stay = candidates[i]
            stay.blank, stay.label_mass, stay.score = total * p_blank, mass, score
            if score >= limit and score > 0.0:
                best, limit, lowest, floor, above = admit(
                    histogram, width, keep, score, best, limit, lowest, floor, above
                )
        count = size

        # Prefixes that grow by a label.
        for i in range(size):
            hyp = hyps[base + i]
            blank_mass = hyp.blank
            total = blank_mass + hyp.label_mass
            node = np.int64(hyp.node)
            outside = hyp.spelled != _NONE
            last = hyp.label
            state = hyp.hotword
            lent = 1.0
            if has_hotwords:
                lent = 1.0 / hot_credit[state]
            inside = _NONE
            if not outside:
                children = nodes[node].mask
                inside = children & active_bits
                todo = inside & ~hyp.present
                if todo != _NONE:
                    scaled = lent / nodes[node].lookahead
                    first = np.int64(nodes[node].child)
                    while todo != _NONE:
                        c = lowest_bit(todo)
                        bit = _ONE << uint64(c)
                        todo ^= bit
                        score = (total if c != last else blank_mass) * probability[c]
                        if score * boost < limit:
                            continue
                        to = first + np.int64(popcount(children & (bit - _ONE)))
                        factor = nodes[to].lookahead * scaled
                        to_hotword = np.int32(0)
                        if has_hotwords:
                            to_hotword = hot_following[state, c]
                            factor *= hot_credit[to_hotword] * hot_reward[to_hotword]
                        score *= factor
                        if score < limit or score <= 0.0:
                            continue
                        grown = candidates[count]
                        grown.score, grown.source, grown.label = score, i, c
                        grown.node, grown.factor = to, factor
                        grown.hotword, grown.ended = to_hotword, _KNOWN
                        count += 1
                        best, limit, lowest, floor, above = admit(
                            histogram, width, keep, score, best, limit, lowest, floor, above
                        )
            if open_vocabulary:
                symbol_score = weights.unknown_symbol
                if outside:
                    step_factor = np.exp(symbol_score) * lent
                else:
                    step_factor = (
                        np.exp(
                            weights.unknown_lookahead + weights.unknown_word + symbol_score * (nodes[node].depth + 1)
                        )
                        / nodes[node].lookahead
                        * lent
                    )
                todo = active_bits & ~inside & ~hyp.present
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
                    grown = candidates[count]
                    grown.score, grown.source, grown.label = score, i, c
                    grown.node, grown.factor = node, factor
                    grown.hotword, grown.ended = to_hotword, _OUTSIDE
                    count += 1
                    best, limit, lowest, floor, above = admit(
                        histogram, width, keep, score, best, limit, lowest, floor, above
                    )
            if p_separator > 0.0 and (outside or node != 0):
                # no word is likelier than 1: spares most looks into the LM
                said = weights.unknown_lookahead_factor if outside else nodes[node].lookahead
                if total * p_separator * boost * weights.word_factor < limit * said:
                    continue
                entry = np.int64(-1) if outside else np.int64(nodes[node].entry)
                if entry < 0 and not open_vocabulary:
                    continue
                while True:
                    following = entry if entry < 0 else np.int64(entries[entry].next)
                    only = entry < 0 or (following < 0 and nodes[node].entry == entry)
                    factor, to_state = hyp.ending, np.int64(hyp.ending_state)
                    if not only or factor < 0.0:
                        word = np.int64(0) if entry < 0 else np.int64(entries[entry].word)
                        if hyp.paused:
                            logp, to_state = word_logp(lm, hyp.state, word, 1, unknown_least, begin, end_word)
                            factor = np.exp(weights.alpha * logp + weights.beta)
                        else:
                            factor, to_state = say_word(lm, hyp.state, word, weights.alpha, weights.beta, unknown_least)
                        if outside:
                            factor /= weights.unknown_lookahead_factor
                        else:
                            factor /= nodes[node].lookahead
                            if entry < 0:
                                factor *= np.exp(weights.unknown_word + weights.unknown_symbol * nodes[node].depth)
                        if only:
                            hyp.ending, hyp.ending_state = factor, to_state
                    to_hotword = np.int32(0)
                    if has_hotwords:
                        to_hotword = hot_following[state, 0]
                        factor *= hot_credit[to_hotword] * hot_reward[to_hotword] * lent
                    score = total * p_separator * factor
                    if score >= limit and score > 0.0:
                        if entry >= 0:
                            history = history_with_word(hyp.history, entries[entry].text)
                        else:
                            spelled = hyp.spelled if outside else leave_tree(node)
                            history = history_with_unknown(hyp.history, spelled)
                        pauses = hyp.pauses
                        if hyp.rested != _NONE:
                            pauses = pauses_after_word(pauses, hyp.rested, history)
                        if _find(table, key_of(history + pauses, 0, _NONE), stamp, table_mask) < 0:
                            grown = candidates[count]
                            grown.score, grown.source, grown.label = score, i, separator
                            grown.node, grown.factor = entry, factor
                            grown.state, grown.hotword = to_state, to_hotword
                            grown.ended = _END_KNOWN if entry >= 0 else _END_UNKNOWN
                            count += 1
                            best, limit, lowest, floor, above = admit(
                                histogram, width, keep, score, best, limit, lowest, floor, above
                            )
                    entry = following
                    if entry < 0:
                        break

        # The best of them become the next generation.
        limit = max(limit, best * keep)
        scale = 1.0
        if best < SMALL or best > LARGE:
            scale = 1.0 / best
            log_scale += np.log(best)
        next_base = (1 - side) * width
        kept = survivors(candidates, count, histogram, width, best, limit, lowest, floor, above, chosen)
        for d in range(kept):
            k = int(chosen[d])
            hyp, candidate = hyps[next_base + d], candidates[k]
            if k < size:
                hyps[next_base + d] = hyps[base + k]
                hyp.blank, hyp.label_mass = candidate.blank * scale, candidate.label_mass * scale
                continue
            source = hyps[base + candidate.source]
            kind = candidate.ended
            to, c = np.int64(candidate.node), np.int64(candidate.label)
            history, spelled, trace = source.history, source.spelled, source.trace
            state, pauses, paused = source.state, source.pauses, np.int64(source.paused)
            if kind == _OUTSIDE:
                trace = record_symbol(counts, records, trace, to, spelled, c, frame)
                spelled = spell_on(spelled if spelled != _NONE else leave_tree(to), c)
            elif kind != _KNOWN:
                trace = record_end(
                    counts,
                    records,
                    trace,
                    to if kind == _END_KNOWN else -1,
                    source.node,
                    spelled,
                    frame,
                )
                if kind == _END_KNOWN:
                    history = history_with_word(history, entries[to].text)
                else:
                    history = history_with_unknown(history, spelled if spelled != _NONE else leave_tree(source.node))
                spelled, to = _NONE, np.int64(0)
                state = candidate.state
            if paused or source.rested != _NONE:
                ends_word = kind not in (_KNOWN, _OUTSIDE)
                pauses, paused = carry_pauses(pauses, source.rested, paused, source.key, ends_word, history)
                if ends_word and paused:
                    trace = record(counts, records, trace, PAUSE, frame)
            hyp.key, hyp.parent, hyp.history = key_of(history + pauses, to, spelled), source.key, history
            hyp.pauses, hyp.rested, hyp.paused = pauses, _NONE, paused
            if kind == _KNOWN:
                foresee(nodes, entries, arcs, lm_states, vocabulary, to, state)
            elif kind != _OUTSIDE:
                prefetch(lm_states, np.int64(state))
            hyp.spelled, hyp.node, hyp.label = spelled, to, c
            hyp.state, hyp.hotword, hyp.trace = state, candidate.hotword, trace
            hyp.entered, hyp.ending = candidate.factor, -1.0
            hyp.blank, hyp.label_mass = 0.0, candidate.score * scale
        while active != _NONE:
            probability[lowest_bit(active)] = 0.0
            active &= active - _ONE
        size, side = kept, 1 - side
        t += 1
    counts[SIZE], counts[SIDE] = size, side
    counts[PENDING], counts[STAMP], counts[QUIET] = pending, stamp, quiet
    scales[LOG_SCALE] = log_scale
    return t
