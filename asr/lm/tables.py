"""The data of an n-gram language model: plain tables, one per order, and the arrays of the automaton made from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from asr.types import AsrError

UNK, BOS, EOS = 0, 1, 2  # ids of <unk>, <s> and </s> in every model, whatever their positions in its file
SPECIAL_WORDS = ("<unk>", "<s>", "</s>")
OOV_LOG10 = -100.0  # the cost of an unknown word in a model without <unk>, as in KenLM


class LMError(AsrError):
    """A file is missing, damaged, or not a language model. The message names the file and, if possible, the line."""


class NGramTable(NamedTuple):
    """The n-grams of one order: `words` (n, order) int32 ids, `logp` and `backoff` (n,) float32 log10.

    A NaN in `logp` marks a context that the file leaves out: its probability follows from the shorter n-grams.
    """

    words: np.ndarray
    logp: np.ndarray
    backoff: np.ndarray


@dataclass(frozen=True)
class NGramTables:
    """A whole model: `words` by id, with <unk>, <s> and </s> at 0, 1, 2; `tables[k - 1]` holds the k-grams.

    `tables[0]` has a row for every word, in the order of the ids.
    """

    words: list[str]
    tables: list[NGramTable]

    @property
    def order(self) -> int:
        """Number of words in the longest n-grams."""
        return len(self.tables)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of n-grams of every order."""
        return tuple(len(table.logp) for table in self.tables)


def with_missing_contexts(tables: list[NGramTable]) -> list[NGramTable]:
    """The tables with n-grams added, with NaN as `logp`, so that the first k - 1 words of every k-gram are an n-gram.

    Models pruned by other tools may lack these, but the automaton reaches a long n-gram through its contexts.
    """
    complete = list(tables)
    for k in range(len(tables) - 1, 1, -1):
        have, needed = complete[k - 1], complete[k].words[:, :k]
        rows, first = np.unique(np.concatenate([have.words, needed]), axis=0, return_index=True)
        missing = rows[first >= len(have.words)]
        if len(missing):
            complete[k - 1] = NGramTable(
                np.concatenate([have.words, missing]),
                np.concatenate([have.logp, np.full(len(missing), np.nan, np.float32)]),
                np.concatenate([have.backoff, np.zeros(len(missing), np.float32)]),
            )
    return complete


def with_case(model: NGramTables, change: Callable[[str], str]) -> NGramTables:
    """The model with its words changed by `change` (str.lower, str.upper), except <unk>, <s> and </s>.

    Raises LMError if two words become the same, since their joint probability does not follow from the tables.
    """
    originals: dict[str, str] = {}  # by changed word
    for word in model.words:
        changed = word if word in SPECIAL_WORDS else change(word)
        if changed in originals:
            raise LMError(
                f"'{originals[changed]}' and '{word}' both become '{changed}': train the language model again on text "
                "of that case"
            )
        originals[changed] = word
    return NGramTables(list(originals), model.tables)


class PackedWords(NamedTuple):
    """Words as UTF-8 bytes: `block` (bytes,) uint8; word i is block[offsets[i]:offsets[i + 1]], `offsets` int64."""

    block: np.ndarray
    offsets: np.ndarray

    def unpack(self) -> list[str]:
        """The words as strings."""
        data = self.block.tobytes()
        return [data[start:end].decode("utf-8") for start, end in pairwise(self.offsets.tolist())]


def pack_words(words: Sequence[str]) -> PackedWords:
    """The words as one block of bytes."""
    encoded = [word.encode("utf-8") for word in words]
    return PackedWords(np.frombuffer(b"".join(encoded), np.uint8), bounds([len(word) for word in encoded]))


def bounds(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """The boundaries of adjacent pieces of these lengths, (pieces + 1,) int64."""
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=edges[1:])
    return edges


# Entries are records, so that values read together are adjacent in memory: most reads miss all caches.
UNIGRAM = np.dtype([("logp", "<f4"), ("next", "<i4")], align=True)  # log p of a word in state 0; the state after it
ARC = np.dtype([("key", "<i8"), ("logp", "<f4"), ("next", "<i4")], align=True)  # key: state * V + word, -1 if free
STATE = np.dtype([("backoff", "<f4"), ("next", "<i4")], align=True)  # if there is no arc: weight, state to back off to


class LMArrays(NamedTuple):
    """A back-off model as an automaton; a state is a history that some n-gram extends, and state 0 is the empty one.

    Probabilities and back-off weights are natural logarithms. V words, S states, H slots (a power of two).
    """

    unigram: np.ndarray  # (V,) UNIGRAM, <unk> included
    arc: np.ndarray  # (H,) ARC: a hash table with open addressing for the arcs of states above 0
    state: np.ndarray  # (S,) STATE
