"""The price of a finished word: the only place where the language model and the word scores come in.

A text's score is ln P(text | emissions) + the sum over its words of alpha ln P_lm(word) + beta, + the scores of unknown
words + hotwords. While a word is only begun, the best unigram score of the words that it may become stands in for its
price (`lookahead`); when it ends, that is replaced by the real one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.beam.arrays import Resources, Weights, WordArrays
from asr.decoding.beam.prefixes import NONE
from asr.lm.automaton import lm_step
from asr.lm.compiling import bare_kernel, embedded
from asr.lm.tables import LMArrays


@bare_kernel
def word_logp(lm: LMArrays, weights: Weights, state: int, word: int, paused: int) -> Any:
    """Natural log p of a word (0: unknown) after `state`, and the next state.

    After a long pause (`paused`) a sentence may have ended: then it is that of </s> and of the word as the first of a
    sentence, if that is likelier.
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
    """What a hypothesis's score is multiplied by when the word begun ends, and the LM's state after it.

    The word is `entry` of the lexicon (words of one spelling have prices of their own) or, below 0, an unknown one: a
    beginning in the tree, or spelled outside of it.
    """
    nodes, weights = resources.tree.node, resources.weights
    word = np.int64(0) if entry < 0 else np.int64(resources.tree.entry[entry].word)
    logp, following = word_logp(resources.lm, weights, np.int64(hyp.state), word, np.int64(hyp.paused))
    score = weights.alpha * logp + weights.beta
    if hyp.spelled != NONE:  # the scores of its symbols were added one by one
        return np.exp(score - weights.unknown_lookahead), following
    if entry < 0:
        score += weights.unknown_word + weights.unknown_symbol * nodes[hyp.node].depth
    return np.exp(score) / nodes[hyp.node].lookahead, following


@bare_kernel
def language_score(resources: Resources, texts: WordArrays, words: int, ended: bool) -> Any:
    """What language model, word penalties and hotwords add to a text's score: natural log, weighted."""
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
