"""From the automaton back to tables of n-grams: for writing a binary as ARPA, and for changing the words of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from asr.files import opened
from asr.lm.arpa import read_arpa
from asr.lm.automaton import LN10
from asr.lm.binary import Binary, is_binary, read_binary
from asr.lm.ngram import NGramLM
from asr.lm.tables import SPECIAL_WORDS, LMError, NGramTable, NGramTables


def read_ngrams(path: str | Path) -> NGramTables:
    """The n-grams of a language model, ARPA (plain or gzip) or a binary of ours. Raises LMError."""
    with opened(path, LMError) as file:
        return list_ngrams(read_binary(path, file, verify=True)) if is_binary(file) else read_arpa(path, file)[0]


def list_ngrams(lm: Binary | NGramLM) -> NGramTables:
    """The n-grams of a model, sorted by their last word, then the one before, and so on.

    Numbers are as exact as float32 is after a change of the logarithm's base (1e-7 of the value).
    """
    arrays, lengths = lm.arrays, lm.state_length
    vocabulary = len(arrays.unigram)
    used = np.flatnonzero(arrays.arc["key"] >= 0)
    source, word = np.divmod(arrays.arc["key"][used], vocabulary)
    order = lengths[source].astype(np.int64) + 1
    after = arrays.arc["next"][used]

    ids = np.arange(vocabulary, dtype=np.int32)
    backoff = np.where(arrays.unigram["next"] > 0, arrays.state["backoff"][arrays.unigram["next"]], np.float32(0))
    tables = [NGramTable(ids[:, None], _log10(arrays.unigram["logp"]), _log10(backoff))]
    history = np.zeros((len(lengths), max(1, len(lm.counts) - 1)), np.int32)  # the words of every state
    histories = np.flatnonzero(arrays.unigram["next"])
    history[arrays.unigram["next"][histories], 0] = histories
    for k in range(2, len(lm.counts) + 1):
        arcs = np.flatnonzero(order == k)
        words = np.concatenate([history[source[arcs], : k - 1], word[arcs, None].astype(np.int32)], axis=1)
        arcs, words = _sorted(arcs, words)
        is_state = lengths[after[arcs]] == k
        if k < len(lm.counts):
            history[after[arcs][is_state], :k] = words[is_state]
        backoff = np.where(is_state, arrays.state["backoff"][after[arcs]], np.float32(0))
        tables.append(NGramTable(words, _log10(arrays.arc["logp"][used[arcs]]), _log10(backoff)))
    return NGramTables(lm.words, tables)


def with_case(model: NGramTables, change: Callable[[str], str]) -> NGramTables:
    """The model with its words changed by `change` (str.lower, str.upper); <unk>, <s> and </s> stay.

    Raises LMError when two words become one: their probabilities cannot be told from the tables.
    """
    words: list[str] = []
    seen: dict[str, str] = {}
    for word in model.words:
        changed = word if word in SPECIAL_WORDS else change(word)
        if changed in seen:
            raise LMError(
                f"'{seen[changed]}' and '{word}' both become '{changed}': train the language model again on text of "
                "that case"
            )
        seen[changed] = word
        words.append(changed)
    return NGramTables(words, model.tables)


def _sorted(arcs: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places = np.lexsort(words.T)
    return arcs[places], words[places]


def _log10(natural: np.ndarray) -> np.ndarray:
    return (natural.astype(np.float64) / LN10).astype(np.float32)
