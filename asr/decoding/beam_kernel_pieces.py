"""The beam search over labels that spell several characters, compiled: a text may be reached in several ways.

A hypothesis is a text prefix with its last label, and candidates with the same ones are found by a hash table and
added up. Otherwise it is the search of beam_kernel.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.beam_steps import (
    LARGE,
    SMALL,
    bucket_of,
    history_with_unknown,
    history_with_word,
    leave_tree,
    read_frame,
    record_end,
    say_word,
)
from asr.decoding.kernels import kernel
from asr.decoding.lexicon import Tree
from asr.decoding.ngram_kernel import LMArrays
from asr.decoding.piece_steps import arc_from, leave_by, listen, offer, piece_key, record_label
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
_NO_WORD, _UNKNOWN = -1, -2  # the word that ended in a step, where it is none of the tree


@kernel
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
    keep, boost, unknown_least = weights.keep, weights.boost, weights.unknown_least
    has_hotwords, open_vocabulary = weights.has_hotwords, weights.open_vocabulary
    lookahead, silent, starts_word = labels.lookahead, labels.silent, labels.starts_word
    first, spelling = labels.first, labels.spelling
    arc, arc_label, arc_child, root_child = tree.arc, tree.arc_label, tree.arc_child, tree.root_child
    children_from, symbol_to = tree.child, tree.symbol
    depths, entries, next_entry, text_of = tree.depth, tree.entry, tree.next_entry, tree.text
    lm_word, hot_following, hot_credit, hot_reward = tree.lm_word, hot.following, hot.credit, hot.reward
    keys, histories, spellings, nodes, last_labels = beam.key, beam.history, beam.spelled, beam.node, beam.label
    states, hotword_states, traces, blanks = beam.state, beam.hotword, beam.trace, beam.blank
    label_masses, endings, ending_states = beam.label_mass, beam.ending, beam.ending_state
    new_blank, new_label_mass, scores = beam.new_blank, beam.new_label_mass, beam.score
    table_key, table_slot, table_stamp = beam.table_key, beam.table_slot, beam.table_stamp
    sources, by_label, to_node, to_state_of = beam.source, beam.by_label, beam.to_node, beam.to_state
    new_keys, new_histories, new_spellings = beam.new_key, beam.new_history, beam.new_spelled
    to_hotwords, ended_words, histogram = beam.to_hotword, beam.ended, beam.histogram
    probability, active_labels, active_score = beam.probability, beam.active, beam.active_score
    trace_parent, trace_symbol, trace_frame = beam.trace_parent, beam.trace_symbol, beam.trace_frame
    counts, scales = beam.counts, beam.scale
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
            k, best, limit, lowest, floor, above = offer(
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
                    to = arc_from(arc, arc_label, arc_child, root_child, node, c)
                if to >= 0:
                    factor = lookahead[to] / lookahead[node]
                elif not open_vocabulary:
                    continue
                else:
                    to, outside = leave_by(children_from, symbol_to, first, spelling, node, spelled, c)
                    factor = outside_factor * np.exp(weights.unknown_symbol * (first[c + 1] - first[c]))
                to_heard = heard
                if has_hotwords:
                    to_heard, reward = listen(hot_following, hot_reward, first, spelling, heard, c)
                    factor *= reward * hot_credit[to_heard] * lent
                score = source * probability[c] * factor
                if score < limit or score <= 0.0:
                    continue
                history = histories[s]
                k, best, limit, lowest, floor, above = offer(
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
                            to, outside = leave_by(children_from, symbol_to, first, spelling, 0, _NONE, c)
                            size_of = first[c + 1] - first[c]
                            said = weights.unknown_lookahead + weights.unknown_word + weights.unknown_symbol * size_of
                            factor = np.exp(said)
                    if has_hotwords:
                        reward = 1.0
                        if c != separator:
                            to_heard, reward = listen(hot_following, hot_reward, first, spelling, ended_heard, c)
                        factor *= ended_reward * reward * hot_credit[to_heard] * lent
                    score = source * factor
                    if score < limit or score <= 0.0:
                        continue
                    k, best, limit, lowest, floor, above = offer(
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
                trace = record_label(
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
