"""The n-gram automaton's arrays, and the compiled steps through them that the beam search and the scorer take."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from asr.lm.compiling import inlined, kernel

Integer = int | np.integer[Any]  # in compiled code they are one


# What is read together lies together: most reads are from memory that no cache holds.
UNIGRAM = np.dtype([("logp", "<f4"), ("next", "<i4")], align=True)  # log p of a word in state 0; the state after it
ARC = np.dtype([("key", "<i8"), ("logp", "<f4"), ("next", "<i4")], align=True)  # key: state * V + word, -1 where free
STATE = np.dtype([("backoff", "<f4"), ("next", "<i4")], align=True)  # where it has no arc: added, the state to look in


class LMArrays(NamedTuple):
    """A back-off model as an automaton; a state is a history that some n-gram extends, state 0 the empty one.

    Probabilities and back-off weights are natural logarithms. V words, S states, H slots (a power of two).
    """

    unigram: np.ndarray  # (V,) UNIGRAM, <unk> included
    arc: np.ndarray  # (H,) ARC: open addressing, for the arcs of states > 0
    state: np.ndarray  # (S,) STATE


_SPREAD = np.int64(-7046029254386353131)  # 2^64 / golden ratio (Knuth's multiplicative hashing)


@inlined
def hash_slot(key: Integer, mask: Integer) -> Integer:
    """Where the search for `key` begins in a table of `mask` + 1 slots."""
    mixed = key * _SPREAD
    return (mixed ^ (mixed >> 29)) & mask


@kernel
def lm_step(lm: LMArrays, state: Integer, word: Integer) -> tuple[float, Integer]:
    """Natural log p of `word` (an id) after `state`, and the next state."""
    vocabulary = lm.unigram.shape[0]
    mask = lm.arc.shape[0] - 1
    logp = 0.0
    at = np.int64(state)
    while at != 0:
        key = at * vocabulary + word
        slot = hash_slot(key, mask)
        found = lm.arc[slot].key
        while found != key and found != -1:
            slot = (slot + 1) & mask
            found = lm.arc[slot].key
        if found == key:
            return logp + lm.arc[slot].logp, np.int64(lm.arc[slot].next)
        logp += lm.state[at].backoff
        at = np.int64(lm.state[at].next)
    return logp + lm.unigram[word].logp, np.int64(lm.unigram[word].next)


@kernel
def score_words(
    lm: LMArrays, state_length: np.ndarray, state: Integer, words: np.ndarray, logp: np.ndarray, length: np.ndarray
) -> Integer:
    """Walk over `words` from `state`: natural log p and matched n-gram length of each; returns the last state."""
    vocabulary = lm.unigram.shape[0]
    mask = lm.arc.shape[0] - 1
    at = np.int64(state)
    for i in range(words.shape[0]):
        logp[i], following = lm_step(lm, at, words[i])
        while at != 0:  # the length is for people only, so that lm_step does without it
            key = at * vocabulary + words[i]
            slot = hash_slot(key, mask)
            while lm.arc[slot].key != key and lm.arc[slot].key != -1:
                slot = (slot + 1) & mask
            if lm.arc[slot].key == key:
                break
            at = np.int64(lm.state[at].next)
        length[i] = state_length[at] + 1
        at = np.int64(following)
    return at
