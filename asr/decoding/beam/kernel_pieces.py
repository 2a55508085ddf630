"""The beam search over labels that spell several characters, compiled: a text may be reached in several ways.

A hypothesis is a text prefix with its last label, and candidates with the same ones are found by a hash table and
added up. Otherwise it is the search of kernel.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
from asr.decoding.beam.frame_labels import LEAST_PROBABILITY, read_frame
from asr.decoding.beam.lexicon import Tree
from asr.decoding.beam.pauses import carry_pauses, forget_alternatives, mark_pause, pauses_after_word
from asr.decoding.beam.piece_steps import arc_from, leave_by, listen, offer, piece_key, record_label
from asr.decoding.beam.steps import (
    LARGE,
    SMALL,
    history_with_unknown,
    history_with_word,
    leave_tree,
    record,
    record_end,
    say_word,
    survivors,
    word_logp,
)
from asr.lm.compiling import search_kernel
from asr.lm.tables import LMArrays

_ONE = np.uint64(1)
_NONE = np.uint64(0)
_NO_WORD, _UNKNOWN = -1, -2  # the word that ended in a step, where it is none of the tree


@search_kernel
def advance_pieces(
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
    silent, starts_word, first, spelling = labels.silent, labels.starts_word, labels.first, labels.spelling
    nodes, entries, symbol_to, root_child = tree.node, tree.entry, tree.symbol, tree.root_child
    arc, arc_label, arc_child = tree.arc, tree.arc_label, tree.arc_child
    hot_following, hot_credit, hot_reward = hot.following, hot.credit, hot.reward
    hyps, candidates, table, records = beam.hypothesis, beam.candidate, beam.table, beam.record
    histogram, probability = beam.histogram, beam.probability
    active_labels, active_score = beam.active, beam.active_score
    chosen, counts, scales = beam.chosen, beam.counts, beam.scale
    separator = weights.separator
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
        active = 0
        if not skipped:
            active = read_frame(
                log_probs, t, weights.least_label, weights.most_labels, silent, active_labels, active_score, probability
            )
        quiet += 1
        if active > 0 and probability[0] + probability[separator] <= QUIET_SHARE:
            if quiet > pause_frames:  # the pause is over
                counts[STAMP] = stamp
                size = forget_alternatives(beam, side * width, size, weights.nbest)
                stamp = counts[STAMP]
            quiet = 0
        elif quiet == pause_frames:
            mark_pause(hyps, side * width, size, True, separator, counts, records)
        if skipped:
            pending = 1
            log_scale += log_probs[t, 0]
            t += 1
            continue
        if active == 0:
            pending = 1
            log_scale += max(log_probs[t, 0], LEAST_PROBABILITY)
            t += 1
            continue
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
            hyp = hyps[base + i]
            if pending:
                hyp.blank += hyp.label_mass
                hyp.label_mass = 0.0
            p = probability[hyp.label]
            total = hyp.blank + hyp.label_mass
            # after a separator another one changes nothing
            mass = p * (total if hyp.node == 0 and hyp.spelled == _NONE else hyp.label_mass)
            k, best, limit, lowest, floor, above = offer(
                table,
                candidates,
                histogram,
                width,
                keep,
                hyp.key,
                total * p_blank + mass,
                stamp,
                count,
                best,
                limit,
                lowest,
                floor,
                above,
            )
            candidates[k].blank, candidates[k].label_mass = total * p_blank, mass
            count += 1
        pending = 0

        # Prefixes that grow by a label.
        for i in range(size):
            hyp = hyps[base + i]
            blank_mass = hyp.blank
            total = blank_mass + hyp.label_mass
            node, spelled = np.int64(hyp.node), hyp.spelled
            between = node == 0 and spelled == _NONE
            last = hyp.label
            heard = np.int64(hyp.hotword)
            lent = 1.0
            if has_hotwords:
                lent = 1.0 / hot_credit[heard]
            outside_factor = 1.0  # of a step outside the tree, but for the number of symbols
            if open_vocabulary and spelled == _NONE:
                said = weights.unknown_lookahead + weights.unknown_word + weights.unknown_symbol * nodes[node].depth
                outside_factor = np.exp(said) / nodes[node].lookahead
            ends_word = False
            for a in range(active):
                c = np.int64(active_labels[a])
                if c == separator or (starts_word[c] != 0 and not between):
                    ends_word = ends_word or not between
                    continue
                flow = total if c != last else blank_mass
                if flow * probability[c] * boost < limit and spelled == _NONE:
                    continue  # inside a word the LM's factors are at most 1
                to, outside = np.int64(-1), _NONE
                if spelled == _NONE:
                    to = arc_from(arc, arc_label, arc_child, root_child, node, c)
                if to >= 0:
                    factor = nodes[to].lookahead / nodes[node].lookahead
                elif not open_vocabulary:
                    continue
                else:
                    to, outside = leave_by(nodes, symbol_to, first, spelling, node, spelled, c)
                    factor = outside_factor * np.exp(weights.unknown_symbol * (first[c + 1] - first[c]))
                to_heard = heard
                if has_hotwords:
                    to_heard, reward = listen(hot_following, hot_reward, first, spelling, heard, c)
                    factor *= reward * hot_credit[to_heard] * lent
                score = flow * probability[c] * factor
                if score < limit or score <= 0.0:
                    continue
                history = hyp.history
                pauses = hyp.key if hyp.rested != _NONE else hyp.pauses
                k, best, limit, lowest, floor, above = offer(
                    table,
                    candidates,
                    histogram,
                    width,
                    keep,
                    piece_key(history + pauses, to, outside, c),
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
                    grown = candidates[k]
                    grown.source, grown.label, grown.node, grown.hotword = i, c, to, to_heard
                    grown.history, grown.spelled = history, outside
                    grown.state, grown.ended = hyp.state, _NO_WORD
                    count += 1
            if not ends_word:
                continue
            said = weights.unknown_lookahead_factor if spelled != _NONE else nodes[node].lookahead
            if total * most * boost * weights.word_factor < limit * said:
                continue
            entry = np.int64(-1) if spelled != _NONE else np.int64(nodes[node].entry)
            if entry < 0 and not open_vocabulary:
                continue
            while True:
                following = entry if entry < 0 else np.int64(entries[entry].next)
                only = entry < 0 or (following < 0 and nodes[node].entry == entry)
                ending, to_state = hyp.ending, np.int64(hyp.ending_state)
                if not only or ending < 0.0:
                    word = np.int64(0) if entry < 0 else np.int64(entries[entry].word)
                    if hyp.paused:
                        logp, to_state = word_logp(lm, hyp.state, word, 1, unknown_least, begin, end_word)
                        ending = np.exp(weights.alpha * logp + weights.beta)
                    else:
                        ending, to_state = say_word(lm, hyp.state, word, weights.alpha, weights.beta, unknown_least)
                    if spelled != _NONE:
                        ending /= weights.unknown_lookahead_factor
                    else:
                        ending /= nodes[node].lookahead
                        if entry < 0:
                            ending *= np.exp(weights.unknown_word + weights.unknown_symbol * nodes[node].depth)
                    if only:
                        hyp.ending, hyp.ending_state = ending, to_state
                if entry >= 0:
                    history = history_with_word(hyp.history, entries[entry].text)
                else:
                    history = history_with_unknown(hyp.history, spelled if spelled != _NONE else leave_tree(node))
                pauses = hyp.pauses
                if hyp.rested != _NONE:
                    pauses = pauses_after_word(pauses, hyp.rested, history)
                ended_heard, ended_reward = np.int64(0), 1.0
                if has_hotwords:
                    ended_heard = np.int64(hot_following[heard, 0])
                    ended_reward = hot_reward[ended_heard]
                for a in range(active):
                    c = np.int64(active_labels[a])
                    if c != separator and starts_word[c] == 0:
                        continue
                    flow = (total if c != last else blank_mass) * probability[c] * ending
                    if flow * boost < limit:
                        continue
                    to, outside, factor, to_heard = np.int64(0), _NONE, 1.0, ended_heard
                    if c != separator:
                        to = np.int64(root_child[c])
                        if to >= 0:
                            factor = nodes[to].lookahead
                        elif not open_vocabulary:
                            continue
                        else:
                            to, outside = leave_by(nodes, symbol_to, first, spelling, 0, _NONE, c)
                            size_of = first[c + 1] - first[c]
                            said = weights.unknown_lookahead + weights.unknown_word + weights.unknown_symbol * size_of
                            factor = np.exp(said)
                    if has_hotwords:
                        reward = 1.0
                        if c != separator:
                            to_heard, reward = listen(hot_following, hot_reward, first, spelling, ended_heard, c)
                        factor *= ended_reward * reward * hot_credit[to_heard] * lent
                    score = flow * factor
                    if score < limit or score <= 0.0:
                        continue
                    k, best, limit, lowest, floor, above = offer(
                        table,
                        candidates,
                        histogram,
                        width,
                        keep,
                        piece_key(history + pauses, to, outside, c),
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
                        grown = candidates[k]
                        grown.source, grown.label, grown.node, grown.hotword = i, c, to, to_heard
                        grown.history, grown.spelled = history, outside
                        grown.state, grown.ended = to_state, entry if entry >= 0 else _UNKNOWN
                        count += 1
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
            source = hyps[base + (k if k < size else np.int64(candidate.source))]
            if k < size:
                hyps[next_base + d] = source
            hyp.blank, hyp.label_mass = candidate.blank * scale, candidate.label_mass * scale
            if k < size:
                continue
            c, ended = np.int64(candidate.label), np.int64(candidate.ended)
            trace, node, spelled = np.int64(source.trace), np.int64(source.node), source.spelled
            pauses, paused = source.pauses, np.int64(source.paused)
            if ended != _NO_WORD:
                trace = record_end(
                    counts,
                    records,
                    trace,
                    ended if ended >= 0 else -1,
                    node,
                    spelled,
                    frame,
                )
                node, spelled = np.int64(0), _NONE
            pauses, paused = carry_pauses(
                pauses, source.rested, paused, source.key, ended != _NO_WORD, candidate.history
            )
            if ended != _NO_WORD and paused:
                trace = record(counts, records, trace, PAUSE, frame)
            if candidate.spelled != _NONE:
                trace = record_label(
                    nodes,
                    symbol_to,
                    first,
                    spelling,
                    counts,
                    records,
                    trace,
                    node,
                    spelled,
                    c,
                    frame,
                )
            hyp.key, hyp.history, hyp.spelled = candidate.key, candidate.history, candidate.spelled
            hyp.node, hyp.label, hyp.state = candidate.node, c, candidate.state
            hyp.hotword, hyp.trace = candidate.hotword, trace
            hyp.pauses, hyp.rested, hyp.paused = pauses, _NONE, paused
            hyp.ending = -1.0
        for k in range(active):
            probability[active_labels[k]] = 0.0
        size, side = kept, 1 - side
        t += 1
    counts[SIZE], counts[SIDE] = size, side
    counts[PENDING], counts[STAMP], counts[QUIET] = pending, stamp, quiet
    scales[LOG_SCALE] = log_scale
    return t
