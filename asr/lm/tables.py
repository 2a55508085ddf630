"""An n-gram language model as plain tables, an order each: what ARPA files hold and what estimation makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np

from asr.types import AsrError

UNK, BOS, EOS = 0, 1, 2  # ids of <unk>, <s> and </s> in every model, whatever their place in its file
SPECIAL_WORDS = ("<unk>", "<s>", "</s>")
OOV_LOG10 = -100.0  # what a word outside a model without <unk> costs, as in KenLM


class LMError(AsrError):
    """A language model is missing, damaged or not one. The message names the file, and the line where there is one."""


class NGramTable(NamedTuple):
    """The n-grams of one order: `words` (n, order) int32 ids, `logp` and `backoff` (n,) float32, log10.

    A NaN in `logp` stands for a context that the file leaves out: its probability follows from the shorter ones.
    """

    words: np.ndarray
    logp: np.ndarray
    backoff: np.ndarray


@dataclass(frozen=True)
class NGramTables:
    """A whole model: `words` by id, with <unk>, <s> and </s> at 0, 1, 2; `tables[k - 1]` holds the k-grams.

    `tables[0]` has a row for every word, in the order of the ids.
    """

    words: Sequence[str]
    tables: list[NGramTable]

    @property
    def order(self) -> int:
        """Words of the longest n-grams."""
        return len(self.tables)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of n-grams of every order."""
        return tuple(len(table.logp) for table in self.tables)


def with_missing_contexts(tables: list[NGramTable]) -> list[NGramTable]:
    """The same tables, in which the first k - 1 words of every k-gram are an n-gram too (NaN where they were not).

    Models pruned by other tools may lack them; the automaton needs them to be on its way.
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


class WordList(Sequence[str]):
    """The words block[offsets[i]:offsets[i + 1]]: `block` (bytes,) uint8, `offsets` (words + 1,) int64."""

    def __init__(self, block: np.ndarray, offsets: np.ndarray) -> None:
        self.block, self.offsets = block, offsets

    @classmethod
    def of(cls, words: Sequence[str]) -> WordList:
        """The same words in this form."""
        if isinstance(words, cls):
            return words
        encoded = [word.encode("utf-8") for word in words]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(word) for word in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return self.block[self.offsets[i] : self.offsets[i + 1]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        data = self.block.tobytes()
        for start, end in pairwise(self.offsets.tolist()):
            yield data[start:end].decode("utf-8")
