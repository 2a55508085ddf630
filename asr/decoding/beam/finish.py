"""From the hypotheses of a beam to texts: what each comes to if the utterance ends here, and what it spells."""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.beam.arrays import SIDE, SIZE, STAMP, Beam, Resources, Weights, WordArrays
from asr.decoding.beam.candidates import find_slot
from asr.decoding.beam.prefixes import NONE, history_after
from asr.decoding.beam.trace import DROPPED, NOTHING, PARTIAL, SPELLED, spell_out
from asr.decoding.beam.word_end import language_score, word_factor
from asr.lm.automaton import lm_step
from asr.lm.compiling import bare_kernel


@bare_kernel
def final_texts(resources: Resources, beam: Beam, slots: np.ndarray, ends: np.ndarray, masses: np.ndarray) -> Any:
    """The different texts if the utterance ends here, with </s>: hypothesis, its end and mass of each; their number.

    The end is a word of the tree, SPELLED, or NOTHING between words. Without the open vocabulary, beginnings of words
    are no texts; where nothing else is left, the best one without its beginning is returned (DROPPED).
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
                # Of hypotheses with pauses in other places, the greatest is shown.
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
        slots[0], masses[0] = best_prefix(weights, beam)
        ends[0] = DROPPED
        count = 1
    return count


@bare_kernel
def best_prefix(weights: Weights, beam: Beam) -> Any:
    """The hypothesis of the greatest mass, and the mass."""
    size, base = beam.counts[SIZE], beam.counts[SIDE] * weights.beam_width
    best, most = base, -1.0
    for s in range(base, base + size):
        mass = beam.hypothesis[s].blank + beam.hypothesis[s].label_mass
        if mass > most:
            best, most = s, mass
    return best, most


@bare_kernel
def read_out(resources: Resources, beam: Beam, slot: int, end: int, texts: WordArrays) -> Any:
    """`spell_out` and `language_score` of a hypothesis: numbers of symbols and words, score."""
    hyp = beam.hypothesis[slot]
    count, words = spell_out(resources.tree, beam, np.int64(hyp.trace), np.int64(hyp.node), hyp.spelled, end, texts)
    score = 0.0
    if count < texts.symbols.shape[0] and words < texts.starts.shape[0] - 2:
        score = language_score(resources, texts, words, end not in (PARTIAL, DROPPED))
    return count, words, score
