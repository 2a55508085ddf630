"""The ends of words and utterances: the score of a finished word, and the final texts of hypotheses.

The search uses the language model and the word scores only here.

The score of a text is ln P(text | emissions) + the sum over its words of alpha ln P_lm(word) + beta + the scores of
unknown words + hotwords. The open word has the best unigram score of the words that it may become (`lookahead`), which
is replaced by its real score when it ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.beam.arrays import SIDE, SIZE, STAMP, Beam, Resources, Weights, WordArrays
from asr.decoding.beam.candidates import NONE, find_slot, history_after
from asr.decoding.beam.trace import DROPPED, NOTHING, PARTIAL, SPELLED, spell_out
from asr.lm.automaton import lm_step
from asr.lm.compiling import embedded, internal
from asr.lm.tables import LMArrays


@internal
def word_logp(lm: LMArrays, weights: Weights, state: int, word: int, paused: int) -> Any:
    """Natural log p of a word (0: unknown) after `state`, and the next state.

    After a long pause (`paused`) a sentence may have ended: p is then that of </s> times that of the word at the start
    of a sentence, if that is higher.
    """
    least = weights.unknown_least if word == 0 else -np.inf
    logp, following = lm_step(lm, state, word)
    logp = max(logp, least)
    if paused:
        first, other = lm_step(lm, weights.begin, word)
        first = max(first, least) + lm_step(lm, state, weights.end_word)[0]
        if first > logp:
            logp, following = first, other
    return logp, following


@embedded
def word_factor(resources: Resources, hyp: Any, entry: int) -> Any:
    """The factor for the score of a hypothesis when its open word ends, and the LM's state after it.

    The word is entry `entry` of the lexicon (words of the same spelling have different factors) or, if below 0, an
    unknown one: the beginning of known words, or spelled outside the tree.
    """
    nodes, weights = resources.tree.node, resources.weights
    word = np.int64(0) if entry < 0 else np.int64(resources.tree.entry[entry].word)
    logp, following = word_logp(resources.lm, weights, np.int64(hyp.state), word, np.int64(hyp.paused))
    score = weights.alpha * logp + weights.beta
    if hyp.spelled != NONE:  # the scores of its symbols have been added one by one
        return np.exp(score - weights.unknown_lookahead), following
    if entry < 0:
        score += weights.unknown_word + weights.unknown_symbol * nodes[hyp.node].depth
    return np.exp(score) / nodes[hyp.node].lookahead, following


@internal
def language_score(resources: Resources, texts: WordArrays, words: int, ended: bool) -> Any:
    """The part of a text's score from language model, word penalties and hotwords: natural log, weighted."""
    tree, lm, hot, weights = resources.tree, resources.lm, resources.hotwords, resources.weights
    symbols, starts, entries, pauses = texts.symbols, texts.starts, texts.entries, texts.pauses
    total = 0.0
    state: Any = np.int64(weights.begin)
    for w in range(words):
        word = np.int64(0) if entries[w] < 0 else np.int64(tree.entry[entries[w]].word)
        logp, state = word_logp(lm, weights, state, word, pauses[w])
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


@internal
def final_texts(resources: Resources, beam: Beam, slots: np.ndarray, ends: np.ndarray, masses: np.ndarray) -> Any:
    """Write hypothesis, end and mass of each different text if the utterance ends here, with </s>. Returns how many.

    The end is a word of the tree, SPELLED, or NOTHING if no word is open. Without an open vocabulary, hypotheses with
    an incomplete word are not texts; if there is nothing else, the best one is returned without that word (DROPPED).
    """
    tree, lm, hot, weights = resources.tree, resources.lm, resources.hotwords, resources.weights
    size, base = beam.counts[SIZE], beam.counts[SIDE] * weights.beam_width
    beam.counts[STAMP] += 1
    stamp = beam.counts[STAMP]
    nodes, entries, end_word = tree.node, tree.entry, weights.end_word
    count = 0
    for s in range(base, base + size):
        hyp = beam.hypothesis[s]
        node, spelled = np.int64(hyp.node), hyp.spelled
        between = node == 0 and spelled == NONE
        entry = np.int64(-1) if between or spelled != NONE else np.int64(nodes[node].entry)
        if entry < 0 and not between and not weights.open_vocabulary:
            continue
        while True:
            factor, state, history, end = 1.0, np.int64(hyp.state), hyp.history, np.int64(NOTHING)
            if not between:
                factor, state = word_factor(resources, hyp, entry)
                history = history_after(history, entries, entry, node, spelled)
                end = entry if entry >= 0 else np.int64(SPELLED)
            if end_word >= 0:
                factor *= np.exp(weights.alpha * lm_step(lm, state, end_word)[0])
            if weights.has_hotwords:
                at = hyp.hotword
                factor *= (hot.reward[hot.following[at, 0]] if not between else 1.0) / hot.credit[at]
            mass = (hyp.blank + hyp.label_mass) * factor
            place = beam.table[find_slot(beam.table, history, stamp)]
            if place.stamp == stamp:
                text = place.slot
                masses[text] += mass
                # Of hypotheses that differ in their pauses, the most probable one represents the text.
                if hyp.pauses != beam.hypothesis[slots[text]].pauses and mass > beam.candidate[text].score:
                    slots[text], ends[text], beam.candidate[text].score = s, end, mass
            else:
                place.stamp, place.key, place.slot = stamp, history, count
                slots[count], ends[count], masses[count] = s, end, mass
                beam.candidate[count].score = mass
                count += 1
            entry = np.int64(-1) if entry < 0 else np.int64(entries[entry].next)
            if entry < 0:
                break
    if count == 0:
        slots[0], ends[0], masses[0], count = base, DROPPED, -1.0, 1
        for s in range(base, base + size):
            mass = beam.hypothesis[s].blank + beam.hypothesis[s].label_mass
            if mass > masses[0]:
                slots[0], masses[0] = s, mass
    return count


@internal
def read_out(resources: Resources, beam: Beam, slot: int, end: int, texts: WordArrays) -> Any:
    """`spell_out` and `language_score` of a hypothesis. Returns the numbers of symbols and words, and the score."""
    hyp = beam.hypothesis[slot]
    count, words = spell_out(resources.tree, beam, np.int64(hyp.trace), np.int64(hyp.node), hyp.spelled, end, texts)
    score = 0.0
    if count < texts.symbols.shape[0] and words < texts.starts.shape[0] - 2:
        score = language_score(resources, texts, words, end not in (PARTIAL, DROPPED))
    return count, words, score
