"""From the hypotheses of a beam to texts: what each comes to if the utterance ends here, and what it spells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam.arrays import (
    END,
    KIND_BITS,
    NODE,
    PAUSE,
    SIDE,
    SIZE,
    STAMP,
    SYMBOL,
    WORD,
    Beam,
    HotwordArrays,
    Labels,
    Weights,
)
from asr.decoding.beam.lexicon import Tree
from asr.decoding.beam.steps import (
    history_with_unknown,
    history_with_word,
    leave_tree,
    word_logp,
)
from asr.lm.automaton import lm_step
from asr.lm.compiling import kernel
from asr.lm.tables import LMArrays

_NONE = np.uint64(0)
_ONE = np.uint64(1)
SPELLED, NOTHING, DROPPED, PARTIAL = -1, -2, -3, -4  # how a hypothesis ends, where not in a word of the tree


@kernel
def final_texts(
    tree: Tree,
    lm: LMArrays,
    hot: HotwordArrays,
    labels: Labels,
    weights: Weights,
    beam: Beam,
    slots: np.ndarray,
    ends: np.ndarray,
    masses: np.ndarray,
) -> Any:
    """The different texts if the utterance ends here, with </s>: hypothesis, its end and mass of each; their number.

    The end is a word of the tree, SPELLED, or NOTHING between words. Without the open vocabulary, beginnings of words
    are no texts; where nothing else is left, the best one without its beginning is returned (DROPPED).
    """
    mask = uint64(beam.table.shape[0] - 1)
    size, base = beam.counts[SIZE], beam.counts[SIDE] * weights.beam_width
    beam.counts[STAMP] += 1
    stamp = beam.counts[STAMP]
    alpha, beta, least = weights.alpha, weights.beta, weights.unknown_least
    begin, end_word = weights.begin, weights.end_word
    count = 0
    for s in range(base, base + size):
        hyp = beam.hypothesis[s]
        node, spelled = np.int64(hyp.node), hyp.spelled
        between = node == 0 and spelled == _NONE
        entry = np.int64(-1) if between or spelled != _NONE else np.int64(tree.node[node].entry)
        if entry < 0 and not between and not weights.open_vocabulary:
            continue
        while True:
            factor, state, history, end = 1.0, np.int64(hyp.state), hyp.history, entry
            if between:
                end = np.int64(NOTHING)
            elif entry >= 0:
                word = np.int64(tree.entry[entry].word)
                logp, state = word_logp(lm, state, word, hyp.paused, least, begin, end_word)
                factor = np.exp(alpha * logp + beta)
                factor /= tree.node[node].lookahead
                history = history_with_word(history, tree.entry[entry].text)
            else:
                end = np.int64(SPELLED)
                logp, state = word_logp(lm, state, np.int64(0), hyp.paused, least, begin, end_word)
                factor = np.exp(alpha * logp + beta)
                if spelled != _NONE:
                    factor /= weights.unknown_lookahead_factor
                else:
                    factor *= np.exp(weights.unknown_word + weights.unknown_symbol * tree.node[node].depth)
                    factor /= tree.node[node].lookahead
                history = history_with_unknown(history, spelled if spelled != _NONE else leave_tree(node))
            if end_word >= 0:
                factor *= np.exp(alpha * lm_step(lm, state, end_word)[0])
            if weights.has_hotwords:
                at = hyp.hotword
                factor *= (hot.reward[hot.following[at, 0]] if not between else 1.0) / hot.credit[at]
            mass = (hyp.blank + hyp.label_mass) * factor
            h = history & mask
            while beam.table[h].stamp == stamp and beam.table[h].key != history:
                h = (h + _ONE) & mask
            if beam.table[h].stamp == stamp:
                text = beam.table[h].slot
                masses[text] += mass
                # Of hypotheses with pauses in other places, the greatest is shown.
                if hyp.pauses != beam.hypothesis[slots[text]].pauses and mass > beam.candidate[text].score:
                    slots[text], ends[text], beam.candidate[text].score = s, end, mass
            else:
                beam.table[h].stamp, beam.table[h].key, beam.table[h].slot = stamp, history, count
                slots[count], ends[count], masses[count] = s, end, mass
                beam.candidate[count].score = mass
                count += 1
            entry = np.int64(-1) if entry < 0 else np.int64(tree.entry[entry].next)
            if entry < 0:
                break
    if count == 0:
        slots[0], masses[0] = best_prefix(weights, beam)
        ends[0] = DROPPED
        count = 1
    return count


@kernel
def best_prefix(weights: Weights, beam: Beam) -> Any:
    """The hypothesis of the greatest mass, and the mass."""
    size, base = beam.counts[SIZE], beam.counts[SIDE] * weights.beam_width
    best, most = base, -1.0
    for s in range(base, base + size):
        mass = beam.hypothesis[s].blank + beam.hypothesis[s].label_mass
        if mass > most:
            best, most = s, mass
    return best, most


@kernel
def common_trace(weights: Weights, beam: Beam) -> Any:
    """The last record that all hypotheses lead back to, -1; records are younger than those before them."""
    size, base = beam.counts[SIZE], beam.counts[SIDE] * weights.beam_width
    common = np.int64(beam.hypothesis[base].trace)
    for s in range(base + 1, base + size):
        at = np.int64(beam.hypothesis[s].trace)
        while at != common:
            if at > common:
                at = np.int64(beam.record[at].parent)
            else:
                common = np.int64(beam.record[common].parent)
    return common


@kernel
def _append_path(tree: Tree, node: int, symbols: np.ndarray, count: int) -> Any:
    depth = tree.node[node].depth
    at = node
    for i in range(depth - 1, -1, -1):
        if count + i < symbols.shape[0]:
            symbols[count + i] = tree.symbol[at]
        at = tree.parent[at]
    return count + depth


@kernel
def spell_out(
    tree: Tree,
    beam: Beam,
    trace: int,
    node: int,
    spelled: int,
    end: int,
    symbols: np.ndarray,
    starts: np.ndarray,
    entries: np.ndarray,
    ends_at: np.ndarray,
    pauses: np.ndarray,
) -> Any:
    """The words up to a record of the trace: their symbols one after the other with 0 between, and where each begins.

    The word begun, at `node` or `spelled` out, is treated as `end` says (see `final_texts`; PARTIAL as SPELLED).

    Returns the numbers of symbols and of words; where they are more than the arrays hold these are not filled and the
    caller tries again with larger ones. `entries` has each word's entry (-1 where it is spelled out), `ends_at` the
    frame in which the search first took it as ended, `pauses` 1 where there was a long pause before it.
    """
    length, at = 0, np.int64(trace)
    while at >= 0:
        length += 1
        at = beam.record[at].parent
    order = np.empty(length, np.int64)
    at = np.int64(trace)
    for i in range(length - 1, -1, -1):
        order[i] = at
        at = beam.record[at].parent
    count, words, fresh, rested = 0, 0, True, 0
    room = starts.shape[0] - 2
    for i in range(length + 1):
        if i < length:
            kind, value, frame = (
                beam.record[order[i]].symbol & ((1 << KIND_BITS) - 1),
                np.int64(beam.record[order[i]].symbol >> KIND_BITS),
                beam.record[order[i]].frame,
            )
            if kind == PAUSE:
                rested = 1
                continue
        elif end >= 0:
            kind, value, frame = WORD, np.int64(end), np.int32(-1)
        elif end in (DROPPED, NOTHING):
            break
        elif spelled != _NONE:
            kind, value, frame = END, np.int64(0), np.int32(-1)
        elif node != 0:
            kind, value, frame = NODE, np.int64(node), np.int32(-1)
        else:
            break
        if fresh:
            if words > 0:
                if count < symbols.shape[0]:
                    symbols[count] = 0
                count += 1
            if words < room:
                starts[words], entries[words], pauses[words] = count, -1, rested
            words += 1
            fresh, rested = False, 0
        if kind == WORD:
            count = _append_path(tree, tree.entry[value].end, symbols, count)
            if words <= room:
                entries[words - 1] = value
        elif kind == NODE:
            count = _append_path(tree, value, symbols, count)
        elif kind == SYMBOL:
            if count < symbols.shape[0]:
                symbols[count] = value
            count += 1
        if kind in (WORD, END):
            if words <= room:
                ends_at[words - 1] = frame
            fresh = True
    if not fresh:
        if end == DROPPED:  # only the finished words
            words -= 1
            count = starts[words] - (1 if words > 0 else 0) if words <= room else count
        elif words <= room:
            ends_at[words - 1] = -1
    if words <= room:
        starts[words] = count + 1
    return count, words


@kernel
def language_score(
    tree: Tree,
    lm: LMArrays,
    hot: HotwordArrays,
    weights: Weights,
    symbols: np.ndarray,
    starts: np.ndarray,
    entries: np.ndarray,
    pauses: np.ndarray,
    words: int,
    ended: bool,
) -> Any:
    """What language model, word penalties and hotwords add to a text's score: natural log, weighted."""
    total = 0.0
    state: Any = np.int64(weights.begin)
    for w in range(words):
        word = np.int64(0) if entries[w] < 0 else np.int64(tree.entry[entries[w]].word)
        logp, state = word_logp(lm, state, word, pauses[w], weights.unknown_least, weights.begin, weights.end_word)
        total += weights.alpha * logp + weights.beta
        if entries[w] < 0:
            total += weights.unknown_word + weights.unknown_symbol * (starts[w + 1] - 1 - starts[w])
    if ended and weights.end_word >= 0:
        total += weights.alpha * lm_step(lm, state, weights.end_word)[0]
    if weights.has_hotwords and words > 0:
        at = hot.following[0, 0]
        for i in range(starts[words]):
            at = hot.following[at, symbols[i] if i < starts[words] - 1 else 0]
            total += np.log(hot.reward[at])
    return total


@kernel
def read_out(
    tree: Tree,
    lm: LMArrays,
    hot: HotwordArrays,
    weights: Weights,
    beam: Beam,
    slot: int,
    end: int,
    symbols: np.ndarray,
    starts: np.ndarray,
    entries: np.ndarray,
    ends_at: np.ndarray,
    pauses: np.ndarray,
) -> Any:
    """`spell_out` and `language_score` of a hypothesis: numbers of symbols and words, score."""
    count, words = spell_out(
        tree,
        beam,
        beam.hypothesis[slot].trace,
        np.int64(beam.hypothesis[slot].node),
        beam.hypothesis[slot].spelled,
        end,
        symbols,
        starts,
        entries,
        ends_at,
        pauses,
    )
    if count >= symbols.shape[0] or words >= starts.shape[0] - 2:
        return count, words, 0.0
    ended = end not in (PARTIAL, DROPPED)
    score = language_score(tree, lm, hot, weights, symbols, starts, entries, pauses, words, ended)
    return count, words, score


@kernel
def finish_best(
    tree: Tree,
    lm: LMArrays,
    hot: HotwordArrays,
    labels: Labels,
    weights: Weights,
    beam: Beam,
    slots: np.ndarray,
    ends: np.ndarray,
    masses: np.ndarray,
    symbols: np.ndarray,
    starts: np.ndarray,
    entries: np.ndarray,
    ends_at: np.ndarray,
    pauses: np.ndarray,
) -> Any:
    """`final_texts`, and `read_out` of the best of them, in one call: its place, and what `read_out` returns."""
    found = final_texts(tree, lm, hot, labels, weights, beam, slots, ends, masses)
    best = 0
    for i in range(1, found):
        if masses[i] > masses[best]:
            best = i
    count, words, score = read_out(
        tree, lm, hot, weights, beam, slots[best], ends[best], symbols, starts, entries, ends_at, pauses
    )
    return best, count, words, score
