"""Stage 2 of a frame in the beam search: prefixes grow by a label, in a word, out of the lexicon, or ending a word.

`propose` and `end_words` exist once for characters and once for pieces: `pieces` is a constant to the compiler (see
asr.decoding.beam.kernel).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam.arrays import Beam, Resources, Weights
from asr.decoding.beam.candidates import (
    NONE,
    ONE,
    Bound,
    add_mass,
    count_score,
    find_slot,
    history_after,
    leave_tree,
    pauses_after,
    prefix_and_label_key,
    prefix_key,
    spell_on,
)
from asr.decoding.beam.frame_labels import lowest_bit, popcount
from asr.decoding.beam.lexicon import label_child
from asr.decoding.beam.trace import spell_outside
from asr.decoding.beam.word_end import word_factor
from asr.lm.compiling import embedded, inlined, internal

NO_WORD, UNKNOWN = -1, -2  # no word ends in a step, or one that is not in the tree


@inlined
def propose(
    pieces: bool, weights: Weights, table: np.ndarray, candidates: np.ndarray, histogram: np.ndarray, stamp: int,
    source: int, label: int, score: float, factor: float, history: int, pauses: int, node: int, spelled: int,
    state: int, hotword: int, ended: int, count: int, bound: Bound,
) -> Any:  # fmt: skip
    """Add hypothesis `source` extended by `label` to the candidates. Returns their number and the bound."""
    k = count
    if pieces:  # several segmentations may lead to this prefix: add to its mass
        key = prefix_and_label_key(prefix_key(history + pauses, node, spelled), label)
        k, bound = add_mass(
            table, candidates, histogram, weights.beam_width, weights.keep, key, score, stamp, count, bound
        )
    else:
        candidates[k].score = score
        bound = count_score(histogram, weights.beam_width, weights.keep, score, bound)
    if k == count:
        grown = candidates[k]
        grown.source, grown.label, grown.factor, grown.history = source, label, factor, history
        grown.node, grown.spelled, grown.state = node, spelled, state
        grown.hotword, grown.ended = hotword, ended
        count += 1
    return count, bound


@embedded
def leaving_factor(nodes: np.ndarray, weights: Weights, node: int, spelled: int) -> Any:
    """The factor for leaving the tree, except for the symbols of the step: the open word becomes an unknown one."""
    factor = 1.0
    if weights.open_vocabulary and spelled == NONE:
        score = weights.unknown_lookahead + weights.unknown_word + weights.unknown_symbol * nodes[node].depth
        factor = np.exp(score) / nodes[node].lookahead
    return factor


@embedded
def grow_by_characters(
    resources: Resources, beam: Beam, hyp: Any, i: int, characters: int, credited: float, stamp: int, count: int,
    bound: Bound,
) -> Any:  # fmt: skip
    """Extend hypothesis i by each of `characters` (bits), unless that prefix is already in the beam (`hyp.present`).

    `credited` takes back the hotword credit in the score of the hypothesis: the new state brings its own.
    """
    tree, hot, weights = resources.tree, resources.hotwords, resources.weights
    nodes, candidates, histogram, table = tree.node, beam.candidate, beam.histogram, beam.table
    probability, following, credit, reward = beam.probability, hot.following, hot.credit, hot.reward
    has_hotwords, boost = weights.has_hotwords, weights.boost
    blank_mass = hyp.blank
    total = blank_mass + hyp.label_mass
    node, last, hotword = np.int64(hyp.node), hyp.label, np.int64(hyp.hotword)
    inside = NONE
    if hyp.spelled == NONE:
        children = nodes[node].mask
        inside = children & characters
        todo = inside & ~hyp.present
        if todo != NONE:
            base_factor = credited / nodes[node].lookahead
            first = np.int64(nodes[node].child)
            while todo != NONE:
                c = lowest_bit(todo)
                bit = ONE << uint64(c)
                todo ^= bit
                score = (total if c != last else blank_mass) * probability[c]
                if score * boost < bound.limit:
                    continue
                # Children are sorted by label: the number of set bits below this one is its index among them.
                to = first + np.int64(popcount(children & (bit - ONE)))
                factor = nodes[to].lookahead * base_factor
                to_hotword = np.int64(0)
                if has_hotwords:
                    to_hotword = np.int64(following[hotword, c])
                    factor *= credit[to_hotword] * reward[to_hotword]
                score *= factor
                if score < bound.limit or score <= 0.0:
                    continue
                count, bound = propose(
                    False, weights, table, candidates, histogram, stamp, i, c, score, factor,
                    hyp.history, NONE, to, NONE, np.int64(hyp.state), to_hotword, NO_WORD, count, bound,
                )  # fmt: skip
    if weights.open_vocabulary:
        step_factor = leaving_factor(nodes, weights, node, hyp.spelled) * weights.symbol_factor * credited
        outside = hyp.spelled if hyp.spelled != NONE else leave_tree(node)
        todo = characters & ~inside & ~hyp.present
        while todo != NONE:
            c = lowest_bit(todo)
            todo &= todo - ONE
            factor = step_factor
            to_hotword = np.int64(0)
            if has_hotwords:
                to_hotword = np.int64(following[hotword, c])
                factor *= credit[to_hotword] * reward[to_hotword]
            score = (total if c != last else blank_mass) * probability[c] * factor
            if score < bound.limit or score <= 0.0:
                continue
            count, bound = propose(
                False, weights, table, candidates, histogram, stamp, i, c, score, factor,
                hyp.history, NONE, node, spell_on(outside, c), hyp.state, to_hotword, NO_WORD, count, bound,
            )  # fmt: skip
    return count, bound


@internal
def advance_hotwords(
    following: np.ndarray, rewards: np.ndarray, first: np.ndarray, spelling: np.ndarray, state: int, label: int
) -> Any:
    """The state of the hotword automaton after a label's symbols, and the factor for the phrases completed by them."""
    reward = 1.0
    at = np.int64(state)
    for k in range(first[label], first[label + 1]):
        at = np.int64(following[at, spelling[k]])
        reward *= rewards[at]
    return at, reward


@embedded
def grow_by_pieces(
    resources: Resources, beam: Beam, hyp: Any, i: int, active: int, credited: float, stamp: int, count: int,
    bound: Bound,
) -> Any:  # fmt: skip
    """Extend the open word of hypothesis i, or begin a word, by each of the `active` labels of the frame."""
    tree, hot, labels, weights = resources.tree, resources.hotwords, resources.labels, resources.weights
    nodes, candidates, histogram, table = tree.node, beam.candidate, beam.histogram, beam.table
    probability, active_labels, credit = beam.probability, beam.active, hot.credit
    first, starts_word, separator = labels.first, labels.starts_word, weights.separator
    blank_mass = hyp.blank
    total = blank_mass + hyp.label_mass
    node, spelled, last, hotword = np.int64(hyp.node), hyp.spelled, hyp.label, np.int64(hyp.hotword)
    between = node == 0 and spelled == NONE
    pauses = hyp.key if hyp.rested != NONE else hyp.pauses  # as `prune` will set them
    leaving = leaving_factor(nodes, weights, node, spelled)
    for a in range(active):
        c = np.int64(active_labels[a])
        if c == separator or (starts_word[c] != 0 and not between):
            continue  # these end the open word
        flow = (total if c != last else blank_mass) * probability[c]
        if flow * weights.boost < bound.limit and spelled == NONE:
            continue  # within a word, the LM's factors are at most 1
        to, outside, factor = np.int64(-1), NONE, 1.0
        if spelled == NONE:
            to = label_child(tree, node, c)
        if to >= 0:
            factor = nodes[to].lookahead / nodes[node].lookahead
        elif not weights.open_vocabulary:
            continue
        else:
            to, outside = spell_outside(tree, first, labels.spelling, node, spelled, c)
            factor = leaving * np.exp(weights.unknown_symbol * (first[c + 1] - first[c]))
        to_hotword = hotword
        if weights.has_hotwords:
            to_hotword, reward = advance_hotwords(hot.following, hot.reward, first, labels.spelling, hotword, c)
            factor *= reward * credit[to_hotword] * credited
        score = flow * factor
        if score < bound.limit or score <= 0.0:
            continue
        count, bound = propose(
            True, weights, table, candidates, histogram, stamp, i, c, score, factor,
            hyp.history, pauses, to, outside, hyp.state, to_hotword, NO_WORD, count, bound,
        )  # fmt: skip
    return count, bound


@inlined
def end_words(
    pieces: bool, resources: Resources, beam: Beam, hyp: Any, i: int, active: int, credited: float, stamp: int,
    count: int, bound: Bound,
) -> Any:  # fmt: skip
    """End the open word of hypothesis i by the separator or by pieces that begin another word.

    Words of the same spelling (the entries linked from the first one) become different candidates.
    """
    tree, hot, labels, weights = resources.tree, resources.hotwords, resources.labels, resources.weights
    nodes, entries, candidates, histogram, table = tree.node, tree.entry, beam.candidate, beam.histogram, beam.table
    probability, active_labels, credit = beam.probability, beam.active, hot.credit
    has_hotwords, separator = weights.has_hotwords, weights.separator
    blank_mass = hyp.blank
    total = blank_mass + hyp.label_mass
    node, spelled, last = np.int64(hyp.node), hyp.spelled, hyp.label
    entry = np.int64(-1) if spelled != NONE else np.int64(nodes[node].entry)
    more = entry >= 0 or weights.open_vocabulary
    while more:
        following = entry if entry < 0 else np.int64(entries[entry].next)
        only = entry < 0 or (following < 0 and nodes[node].entry == entry)
        # The factor does not change from frame to frame: if only one word ends here, the hypothesis stores it.
        ending, state = hyp.ending, np.int64(hyp.ending_state)
        if not only or ending < 0.0:
            ending, state = word_factor(resources, hyp, entry)
            if only:
                hyp.ending, hyp.ending_state = ending, state
        ended_hotword, ended_reward = np.int64(0), 1.0
        if has_hotwords:
            ended_hotword = np.int64(hot.following[hyp.hotword, 0])
            ended_reward = hot.reward[ended_hotword] * credited
        history, pauses = NONE, NONE
        for a in range(active if pieces else 1):
            c = np.int64(active_labels[a]) if pieces else np.int64(separator)
            to, outside, factor, hotword = np.int64(0), NONE, ending, ended_hotword
            flow = total * probability[c]
            if pieces:
                if c != separator and labels.starts_word[c] == 0:
                    continue
                flow = (total if c != last else blank_mass) * probability[c]
                if flow * ending * weights.boost < bound.limit:
                    continue
                if c != separator:
                    to = np.int64(tree.root_child[c])
                    if to >= 0:
                        factor *= nodes[to].lookahead
                    elif not weights.open_vocabulary:
                        continue
                    else:
                        to, outside = spell_outside(tree, labels.first, labels.spelling, 0, NONE, c)
                        size = labels.first[c + 1] - labels.first[c]
                        factor *= np.exp(
                            weights.unknown_lookahead + weights.unknown_word + weights.unknown_symbol * size
                        )
                    if has_hotwords:
                        hotword, reward = advance_hotwords(
                            hot.following, hot.reward, labels.first, labels.spelling, ended_hotword, c
                        )
                        factor *= reward
            if has_hotwords:
                factor *= ended_reward * credit[hotword]
            score = flow * factor
            if score < bound.limit or score <= 0.0:
                continue
            history = history_after(hyp.history, entries, entry, node, spelled)
            pauses = pauses_after(hyp.pauses, hyp.rested, history)
            if (
                not pieces
                and table[find_slot(table, prefix_key(history + pauses, np.int64(0), NONE), stamp)].stamp == stamp
            ):
                continue  # this text is in the beam already, and got this mass from its parent in stage 1
            count, bound = propose(
                pieces, weights, table, candidates, histogram, stamp, i, c, score, factor,
                history, pauses, to, outside, state, hotword, entry if entry >= 0 else UNKNOWN, count, bound,
            )  # fmt: skip
        entry = following
        more = entry >= 0
    return count, bound


@inlined
def extend(
    pieces: bool, resources: Resources, beam: Beam, base: int, size: int, active: int, characters: int, stamp: int,
    bound: Bound,
) -> Any:  # fmt: skip
    """Stage 2: extend all prefixes by a label, in a word or ending it. Returns how many candidates, and the bound."""
    nodes, credit, weights = resources.tree.node, resources.hotwords.credit, resources.weights
    hyps, probability, active_labels = beam.hypothesis, beam.probability, beam.active
    starts_word, separator = resources.labels.starts_word, weights.separator
    most = probability[separator]  # of the labels that end words
    if pieces:
        for a in range(active):
            if starts_word[active_labels[a]] != 0:
                most = max(most, probability[active_labels[a]])
    count = size
    for i in range(size):
        hyp = hyps[base + i]
        credited = 1.0
        if weights.has_hotwords:
            credited = 1.0 / credit[hyp.hotword]
        if pieces:
            count, bound = grow_by_pieces(resources, beam, hyp, i, active, credited, stamp, count, bound)
        else:
            count, bound = grow_by_characters(resources, beam, hyp, i, characters, credited, stamp, count, bound)
        if most <= 0.0 or (hyp.node == 0 and hyp.spelled == NONE):
            continue
        lookahead = weights.unknown_lookahead_factor if hyp.spelled != NONE else nodes[hyp.node].lookahead
        # A word has at most probability 1, which rules out most ends without a look-up in the language model.
        if (hyp.blank + hyp.label_mass) * most * weights.boost * weights.word_factor >= bound.limit * lookahead:
            count, bound = end_words(pieces, resources, beam, hyp, i, active, credited, stamp, count, bound)
    return count, bound
