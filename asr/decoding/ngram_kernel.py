"""The n-gram automaton's arrays, and the compiled steps through them that the beam search and the scorer take."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

Integer = int | np.integer[Any]  # in compiled code they are one


class LMArrays(NamedTuple):
    """A back-off model as an automaton; a state is a history that some n-gram extends, state 0 the empty one.

    Probabilities and back-off weights are natural logarithms. V words, S states, H slots (a power of two).
    """

    unigram_logp: np.ndarray  # (V,) float32: log p of a word in state 0, <unk> included
    unigram_next: np.ndarray  # (V,) int32: the state after it
    arc_hash: np.ndarray  # (H,) int64: open addressing; state * V + word for the arcs of states > 0, -1 where free
    arc_logp: np.ndarray  # (H,) float32
    arc_next: np.ndarray  # (H,) int32
    backoff: np.ndarray  # (S,) float32: added when a state has no arc for the word
    backoff_state: np.ndarray  # (S,) int32: the state to look in then; 0 for state 0


_SPREAD = np.int64(-7046029254386353131)  # 2^64 / golden ratio (Knuth's multiplicative hashing)


@njit(nogil=True, cache=True, inline="always")
def hash_slot(key: Integer, mask: Integer) -> Integer:
    """Where the search for `key` begins in a table of `mask` + 1 slots."""
    mixed = key * _SPREAD
    return (mixed ^ (mixed >> 29)) & mask


@njit(nogil=True, cache=True)
def lm_step(lm: LMArrays, state: Integer, word: Integer) -> tuple[float, Integer]:
    """Natural log p of `word` (an id) after `state`, and the next state."""
    vocabulary = lm.unigram_logp.shape[0]
    mask = lm.arc_hash.shape[0] - 1
    logp = 0.0
    at = np.int64(state)
    while at != 0:
        key = at * vocabulary + word
        slot = hash_slot(key, mask)
        found = lm.arc_hash[slot]
        while found != key and found != -1:
            slot = (slot + 1) & mask
            found = lm.arc_hash[slot]
        if found == key:
            return logp + lm.arc_logp[slot], np.int64(lm.arc_next[slot])
        logp += lm.backoff[at]
        at = np.int64(lm.backoff_state[at])
    return logp + lm.unigram_logp[word], np.int64(lm.unigram_next[word])


@njit(nogil=True, cache=True)
def score_words(
    lm: LMArrays, state_length: np.ndarray, state: Integer, words: np.ndarray, logp: np.ndarray, length: np.ndarray
) -> Integer:
    """Walk over `words` from `state`: natural log p and matched n-gram length of each; returns the last state."""
    vocabulary = lm.unigram_logp.shape[0]
    mask = lm.arc_hash.shape[0] - 1
    at = np.int64(state)
    for i in range(words.shape[0]):
        logp[i], following = lm_step(lm, at, words[i])
        while at != 0:  # the length is for people only, so that lm_step does without it
            key = at * vocabulary + words[i]
            slot = hash_slot(key, mask)
            while lm.arc_hash[slot] != key and lm.arc_hash[slot] != -1:
                slot = (slot + 1) & mask
            if lm.arc_hash[slot] == key:
                break
            at = np.int64(lm.backoff_state[at])
        length[i] = state_length[at] + 1
        at = np.int64(following)
    return at
