"""From tables of n-grams to the automaton: contexts become states, n-grams arcs, suffixes back-off links."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from asr.lm.compiling import inlined, kernel
from asr.lm.tables import LMError, NGramTable, NGramTables, with_missing_contexts

LN10 = float(np.log(10.0))
_CHUNK = 1 << 20  # rows between two chances to be interrupted by Ctrl-C
_DONE, _MISSING, _DUPLICATE = 0, 1, 2


class DuplicateNGram(LMError):
    """An n-gram stands twice in its table: `order`, and `row` of the second."""

    def __init__(self, tables: list[NGramTable], order: int, row: int) -> None:
        super().__init__(f"row {row + 1} of the {order}-grams stands there twice")
        self.ids = tables[order - 1].words[row]
        self.order, self.row = order, row


def build_automaton(model: NGramTables) -> tuple[LMArrays, np.ndarray]:
    """The arrays of a model and (S,) int8, the number of words of each state's history.

    Nodes are the n-grams below the highest order, numbered by order and row behind node 0, the empty one; those that
    an n-gram extends or that have a back-off weight become states. A node's suffix link leads to its longest proper
    suffix that is a node (Aho and Corasick 1975). Raises DuplicateNGram, and LMError for more n-grams than int32 holds.
    """
    if sum(model.counts) >= 2**31 - 1:
        raise LMError(f"{sum(model.counts):,} n-grams are too many: at most {2**31 - 2:,}")
    nodes = _Nodes(model.tables)
    if not nodes.linked:
        nodes = _Nodes(with_missing_contexts(model.tables))
    tables, vocabulary = nodes.tables, len(model.words)

    is_state = nodes.backoff != 0
    is_state[0] = True
    for parent in nodes.parents:
        is_state[parent] = True
    state_of = np.cumsum(is_state, dtype=np.int32) - np.int32(1)
    _inherit_states(state_of, is_state, nodes.suffix)
    chosen = np.flatnonzero(is_state)

    slots = table_size(sum(len(table.logp) for table in tables[1:]))
    # np.empty, since numpy asks for huge pages for it, and not for np.zeros: fewer misses of addresses, too
    arrays = LMArrays(np.empty(vocabulary, UNIGRAM), np.empty(slots, ARC), np.empty(len(chosen), STATE))
    arrays.unigram["logp"], arrays.unigram["next"] = (
        _natural(nodes.logp[1 : vocabulary + 1]),
        state_of[1 : vocabulary + 1],
    )
    arrays.arc[:] = np.array((-1, 0.0, 0), ARC)
    arrays.state["backoff"], arrays.state["next"] = _natural(nodes.backoff[chosen]), state_of[nodes.suffix[chosen]]
    for k in range(2, len(tables) + 1):
        sources, words = state_of[nodes.parents[k - 2]], np.ascontiguousarray(tables[k - 1].words[:, -1])
        if k < len(tables):
            first, last = nodes.bounds[k - 1], nodes.bounds[k]
            natural, following = _natural(nodes.logp[first:last]), state_of[first:last]
        else:
            natural, following = _natural(tables[-1].logp), _following(arrays, sources, words)
        row = _add_arcs(arrays, sources, words, natural, following)
        if row >= 0:
            raise DuplicateNGram(tables, k, row)
    lengths = np.searchsorted(nodes.bounds, chosen, side="right").astype(np.int8)
    return arrays, lengths


def table_size(entries: int) -> int:
    """Slots of an open-addressing table for that many entries: a power of two, at most two thirds of it full."""
    return 1 << max(4, (entries * 3 // 2).bit_length())


class _Nodes:
    """The n-grams below the highest order as a trie with suffix links.

    `parents[k - 2]`: the node of the context of every k-gram; `bounds[k - 1]`: the first node of order k. `linked` is
    False when a context is no n-gram; then the rest is not to be used.
    """

    def __init__(self, tables: list[NGramTable]) -> None:
        self.tables = tables
        inner = tables[: max(1, len(tables) - 1)]
        self.bounds = np.cumsum([1, *(len(table.logp) for table in inner)])
        self.suffix = np.zeros(self.bounds[-1], np.int32)
        self.logp = np.concatenate([np.zeros(1, np.float32), *(table.logp for table in inner)])
        self.backoff = np.concatenate([np.zeros(1, np.float32), *(table.backoff for table in inner)])
        self.parents: list[np.ndarray] = []
        slots = table_size(int(self.bounds[-1] - self.bounds[1]))
        keys, values = np.full(slots, -1, np.int64), np.zeros(slots, np.int32)
        self.linked = all(self._link(k, keys, values) for k in range(2, len(tables) + 1))

    def _link(self, k: int, keys: np.ndarray, values: np.ndarray) -> bool:
        words = self.tables[k - 1].words
        parent = np.empty(len(words), np.int32)
        vocabulary = int(self.bounds[1]) - 1
        for start in range(0, len(words), _CHUNK):
            chunk, found = words[start : start + _CHUNK], parent[start : start + _CHUNK]
            if k == len(self.tables):
                status, row = _find_parents(chunk, vocabulary, keys, values, found)
            else:
                first = int(self.bounds[k - 1]) + start
                status, row = _link_nodes(
                    chunk, vocabulary, first, keys, values, found, self.suffix, self.logp, self.backoff
                )
            if status == _DUPLICATE:
                raise DuplicateNGram(self.tables, k, start + row)
            if status == _MISSING:
                return False
        self.parents.append(parent)
        return True


def _natural(log10: np.ndarray) -> np.ndarray:
    return (log10 * LN10).astype(np.float32)


def _following(arrays: LMArrays, sources: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The states after the longest n-grams: those after their suffixes, whose arcs are in place."""
    following = np.empty(len(words), np.int32)
    _fill_following(arrays, sources, words, following)
    return following


@kernel
def _find(keys: np.ndarray, values: np.ndarray, key: Integer) -> Integer:
    mask = keys.shape[0] - 1
    slot = hash_slot(key, mask)
    while keys[slot] != -1:
        if keys[slot] == key:
            return np.int64(values[slot])
        slot = (slot + 1) & mask
    return np.int64(-1)


@kernel
def _context(words: np.ndarray, i: int, vocabulary: int, keys: np.ndarray, values: np.ndarray) -> Integer:
    """The node of all words of row i but the last, -1 where there is none."""
    node = np.int64(1) + words[i, 0]
    for j in range(1, words.shape[1] - 1):
        node = _find(keys, values, node * vocabulary + words[i, j])
        if node < 0:
            break
    return node


@kernel
def _find_parents(
    words: np.ndarray, vocabulary: int, keys: np.ndarray, values: np.ndarray, parent: np.ndarray
) -> tuple[int, int]:
    for i in range(words.shape[0]):
        node = _context(words, i, vocabulary, keys, values)
        if node < 0:
            return _MISSING, i
        parent[i] = node
    return _DONE, -1


@kernel
def _link_nodes(
    words: np.ndarray,
    vocabulary: int,
    first: int,
    keys: np.ndarray,
    values: np.ndarray,
    parent: np.ndarray,
    suffix: np.ndarray,
    logp: np.ndarray,
    backoff: np.ndarray,
) -> tuple[int, int]:
    """Add the rows as nodes from `first` on; their suffixes are there already. Fills NaN probabilities."""
    mask = keys.shape[0] - 1
    for i in range(words.shape[0]):
        node = _context(words, i, vocabulary, keys, values)
        if node < 0:
            return _MISSING, i
        parent[i] = node
        word = np.int64(words[i, -1])
        key = node * vocabulary + word
        slot = hash_slot(key, mask)
        while keys[slot] != -1:
            if keys[slot] == key:
                return _DUPLICATE, i
            slot = (slot + 1) & mask
        keys[slot] = key
        values[slot] = first + i
        probability = np.float64(backoff[node])
        shorter = np.int64(suffix[node])
        while True:
            found = _find(keys, values, shorter * vocabulary + word) if shorter > 0 else np.int64(1) + word
            if found >= 0:
                break
            probability += backoff[shorter]
            shorter = np.int64(suffix[shorter])
        suffix[first + i] = found
        if np.isnan(logp[first + i]):
            logp[first + i] = probability + logp[found]
    return _DONE, -1


@kernel
def _inherit_states(state_of: np.ndarray, is_state: np.ndarray, suffix: np.ndarray) -> None:
    """A node that is no state stands for the state of its longest suffix that is one."""
    for node in range(state_of.shape[0]):
        if not is_state[node]:
            state_of[node] = state_of[suffix[node]]


@kernel
def _fill_following(lm: LMArrays, sources: np.ndarray, words: np.ndarray, following: np.ndarray) -> None:
    for i in range(words.shape[0]):
        following[i] = lm_step(lm, lm.state[sources[i]].next, words[i])[1]


@kernel
def _add_arcs(lm: LMArrays, sources: np.ndarray, words: np.ndarray, logp: np.ndarray, following: np.ndarray) -> int:
    """Put arcs into the table; the row of one that is there already, or -1."""
    vocabulary = lm.unigram.shape[0]
    mask = lm.arc.shape[0] - 1
    for i in range(words.shape[0]):
        key = np.int64(sources[i]) * vocabulary + words[i]
        slot = hash_slot(key, mask)
        while lm.arc[slot].key != -1:
            if lm.arc[slot].key == key:
                return i
            slot = (slot + 1) & mask
        lm.arc[slot].key = key
        lm.arc[slot].logp = logp[i]
        lm.arc[slot].next = following[i]
    return -1


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
