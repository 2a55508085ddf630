"""The language model as an automaton: contexts become states, n-grams become arcs, suffixes become back-off links."""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.lm.compiling import inlined, kernel
from asr.lm.tables import ARC, STATE, UNIGRAM, LMArrays, LMError, NGramTable, NGramTables, with_missing_contexts

LN10 = float(np.log(10.0))
Integer = int | np.integer[Any]  # the same in compiled code
_CHUNK = 1 << 20  # rows per call of compiled code, which Ctrl-C cannot interrupt
_DONE, _MISSING, _DUPLICATE = range(3)
_SPREAD = np.int64(-7046029254386353131)  # 2^64 / golden ratio (Knuth's multiplicative hashing)


class DuplicateNGram(LMError):
    """An n-gram occurs twice in the table of `order`, again at `row`; `ids` are its words."""

    def __init__(self, tables: list[NGramTable], order: int, row: int) -> None:
        super().__init__(f"row {row + 1} of the {order}-grams occurs twice")
        self.ids = tables[order - 1].words[row]
        self.order, self.row = order, row


def build_automaton(model: NGramTables) -> tuple[LMArrays, np.ndarray]:
    """The arrays of a model, and the number of words in the history of each state, (S,) int8.

    Nodes are the n-grams below the highest order, numbered by order and row after node 0, the empty one. Nodes that
    are the context of an n-gram or have a back-off weight become states. A node's suffix link leads to its longest
    proper suffix that is a node (Aho and Corasick 1975). Raises DuplicateNGram, and LMError for more n-grams than int32
    can number.
    """
    if sum(model.counts) >= 2**31 - 1:
        raise LMError(f"{sum(model.counts):,} n-grams are too many: at most {2**31 - 2:,}")
    nodes = _Nodes(model.tables)
    if not nodes.complete:
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
    # numpy requests huge pages for np.empty but not for np.zeros; they mean fewer TLB misses here and in the search.
    arrays = LMArrays(np.empty(vocabulary, UNIGRAM), np.empty(slots, ARC), np.empty(len(chosen), STATE))
    arrays.unigram["logp"] = _natural(nodes.logp[1 : vocabulary + 1])
    arrays.unigram["next"] = state_of[1 : vocabulary + 1]
    arrays.arc[:] = np.array((-1, 0.0, 0), ARC)
    arrays.state["backoff"], arrays.state["next"] = _natural(nodes.backoff[chosen]), state_of[nodes.suffix[chosen]]
    for k in range(2, len(tables) + 1):
        sources, words = state_of[nodes.parents[k - 2]], np.ascontiguousarray(tables[k - 1].words[:, -1])
        if k < len(tables):
            after = state_of[nodes.bounds[k - 1] : nodes.bounds[k]]
            log10 = nodes.logp[nodes.bounds[k - 1] : nodes.bounds[k]]
        else:  # the longest n-grams are not nodes: they lead where their suffix leads, whose arc is already in place
            after, log10 = np.empty(len(words), np.int32), tables[-1].logp
            _fill_after(arrays, sources, words, after)
        row = _add_arcs(arrays, sources, words, _natural(log10), after)
        if row >= 0:
            raise DuplicateNGram(tables, k, row)
    lengths = np.searchsorted(nodes.bounds, chosen, side="right").astype(np.int8)
    return arrays, lengths


def table_size(entries: int) -> int:
    """Slots of an open-addressing table for `entries` entries: a power of two, so that at most 2/3 are used."""
    return 1 << max(4, (entries * 3 // 2).bit_length())


class _Nodes:
    """The n-grams below the highest order as a trie with suffix links.

    `parents[k - 2]`: the node of the context of every k-gram; `bounds[k - 1]`: the first node of order k. `complete` is
    False if a context is not an n-gram of the model; then nothing else must be used.
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
        self.complete = all(self._link(k, keys, values) for k in range(2, len(tables) + 1))

    def _link(self, k: int, keys: np.ndarray, values: np.ndarray) -> bool:
        """Find the contexts of the k-grams, and enter those below the highest order into the trie."""
        words = self.tables[k - 1].words
        parent = np.empty(len(words), np.int32)
        vocabulary = int(self.bounds[1]) - 1
        for start in range(0, len(words), _CHUNK):
            chunk, found = words[start : start + _CHUNK], parent[start : start + _CHUNK]
            status, row = _find_parents(chunk, vocabulary, keys, values, found)
            if status == _DONE and k < len(self.tables):
                first = int(self.bounds[k - 1]) + start
                status, row = _add_nodes(
                    chunk, vocabulary, first, found, keys, values, self.suffix, self.logp, self.backoff
                )
            if status == _DUPLICATE:
                raise DuplicateNGram(self.tables, k, start + row)
            if status == _MISSING:
                return False
        self.parents.append(parent)
        return True


def _natural(log10: np.ndarray) -> np.ndarray:
    return (log10 * LN10).astype(np.float32)


@inlined
def hash_slot(key: Integer, mask: Integer) -> Integer:
    """Where the search for `key` begins in a table of `mask` + 1 slots."""
    mixed = key * _SPREAD  # only the high bits of the product depend on all bits of the key: mix them into the low ones
    return (mixed ^ (mixed >> 29)) & mask


@inlined
def _slot(keys: np.ndarray, key: Integer) -> Integer:
    """The slot of `key`, or the free slot (-1) for it."""
    mask = keys.shape[0] - 1
    slot = hash_slot(key, mask)
    while keys[slot] != key and keys[slot] != -1:
        slot = (slot + 1) & mask
    return slot


@kernel
def _find(keys: np.ndarray, values: np.ndarray, key: Integer) -> Integer:
    slot = _slot(keys, key)
    return np.int64(values[slot]) if keys[slot] == key else np.int64(-1)


@kernel
def _find_parents(
    words: np.ndarray, vocabulary: int, keys: np.ndarray, values: np.ndarray, parent: np.ndarray
) -> tuple[int, int]:
    """Write the node of each row without its last word to `parent`. Returns what went wrong, and in which row."""
    for i in range(words.shape[0]):
        node = np.int64(1) + words[i, 0]  # the 1-grams are the nodes after the empty one, in the order of the ids
        for j in range(1, words.shape[1] - 1):
            node = _find(keys, values, node * vocabulary + words[i, j])
            if node < 0:
                return _MISSING, i
        parent[i] = node
    return _DONE, -1


@kernel
def _add_nodes(
    words: np.ndarray, vocabulary: int, first: int, parent: np.ndarray, keys: np.ndarray, values: np.ndarray,
    suffix: np.ndarray, logp: np.ndarray, backoff: np.ndarray,
) -> tuple[int, int]:  # fmt: skip
    """Add the rows as nodes from `first` on; shorter n-grams are nodes already. Fills in NaN probabilities.

    The suffix of a node is found by following the suffix links of its context until the last word has a node there.
    The back-off weights along this walk give the probability of a context that the file leaves out.
    """
    for i in range(words.shape[0]):
        node = np.int64(parent[i])
        word = np.int64(words[i, -1])
        slot = _slot(keys, node * vocabulary + word)
        if keys[slot] != -1:
            return _DUPLICATE, i
        keys[slot] = node * vocabulary + word
        values[slot] = first + i
        # Back off from each suffix of the context to the next shorter one, until the word follows it. Every word
        # follows the empty context (node 0), so the walk ends.
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
    """Give nodes that are not states the state of their longest suffix that is one."""
    for node in range(state_of.shape[0]):  # a suffix is shorter, so it has a lower number and its state is known
        if not is_state[node]:
            state_of[node] = state_of[suffix[node]]


@kernel
def _fill_after(lm: LMArrays, sources: np.ndarray, words: np.ndarray, after: np.ndarray) -> None:
    """Write the states after `words` in the contexts `sources`, found by their suffixes, to `after`."""
    for i in range(words.shape[0]):
        after[i] = lm_step(lm, lm.state[sources[i]].next, words[i])[1]


@kernel
def _add_arcs(lm: LMArrays, sources: np.ndarray, words: np.ndarray, logp: np.ndarray, after: np.ndarray) -> int:
    """Put arcs into the table. Returns the row of the first duplicate, or -1."""
    arc, vocabulary = lm.arc, lm.unigram.shape[0]
    for i in range(words.shape[0]):
        key = np.int64(sources[i]) * vocabulary + words[i]
        slot = _slot(arc["key"], key)
        if arc[slot].key != -1:
            return i
        arc[slot].key = key
        arc[slot].logp = logp[i]
        arc[slot].next = after[i]
    return -1


@kernel
def lm_step(lm: LMArrays, state: Integer, word: Integer) -> tuple[float, Integer]:
    """Natural log p of `word` (an id) after `state`, and the next state."""
    vocabulary = lm.unigram.shape[0]
    mask = lm.arc.shape[0] - 1
    logp = 0.0
    at = np.int64(state)
    while at != 0:  # the probabilities of state 0 are in an array of their own, without a search
        # This is `_slot` written out to read each key from memory only once: the search spends its time here.
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
) -> None:
    """Walk over `words` from `state`, and write the natural log p and the matched n-gram length of each."""
    arc, vocabulary = lm.arc, lm.unigram.shape[0]
    at = np.int64(state)
    for i in range(words.shape[0]):
        logp[i], following = lm_step(lm, at, words[i])
        # Only users need the length of the matched n-gram, so `lm_step` does not return it and the walk is repeated.
        while at != 0:
            key = at * vocabulary + words[i]
            if arc[_slot(arc["key"], key)].key == key:
                break
            at = np.int64(lm.state[at].next)
        length[i] = state_length[at] + 1
        at = np.int64(following)
