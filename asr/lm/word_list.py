"""Words as one UTF-8 block with offsets: compact, quick to map from a file, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np


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
