"""What a model's labels spell: characters with a space, or SentencePiece pieces with their word mark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from asr.text.tokenizer import WORD_MARK
from asr.types import AsrError

SPACE = " "
_NEVER = frozenset({"<unk>", "<s>", "</s>", "<pad>"})  # labels in other tools' vocabularies that no text contains
_CODE_OFFSET = 32  # symbol id + offset is a character, above the line feed; characters sort like ids
_MOST_BITS = 63  # of 64: one is for the separator if no label is one


class LabelError(AsrError, ValueError):
    """A word decoder cannot spell with these labels; the message names the label."""


class Alphabet:
    """Labels as sequences of symbols (characters); label 0 is the blank, symbol 0 the boundary between words.

    `pieces` is true for SentencePiece pieces, false for characters. `separator` is the label that only ends words (" "
    or a lone "▁"), `len(labels)` if there is none. `starts_word[label]` is 1 for pieces with the word mark,
    `silent[label]` is 1 for labels that are never output. Label `i` spells `spelling[first[i]:first[i + 1]]`. For
    characters, symbol ids equal label ids.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        if len(self.labels) < 2:
            raise LabelError(f"a decoder needs a blank and at least one label, found {len(self.labels)}")
        if len(set(self.labels)) != len(self.labels):
            twice = next(label for i, label in enumerate(self.labels) if label in self.labels[:i])
            raise LabelError(f"label {twice!r} occurs twice in the vocabulary")
        spoken = self.labels[1:]
        self.pieces = any(label.startswith(WORD_MARK) for label in spoken)
        texts = [self._text(label) for label in spoken]
        separator = WORD_MARK if self.pieces else SPACE
        self.separator = self.labels.index(separator) if separator in self.labels else len(self.labels)
        self.silent = np.array([0, *(label in _NEVER for label in spoken)], np.uint8)
        self.starts_word = np.array([0, *(self.pieces and label.startswith(WORD_MARK) for label in spoken)], np.uint8)
        if self.pieces:
            self.symbols = ["", *sorted(set("".join(texts)))]
        else:
            self.symbols = ["", *(label if len(label) == 1 else "" for label in spoken)]
        self.index = {symbol: i for i, symbol in enumerate(self.symbols) if symbol and symbol != SPACE}
        if len(self.symbols) + _CODE_OFFSET > 0xD800:
            raise LabelError(f"{len(self.symbols)} different characters are too many for the decoder (at most 55,000)")
        spelled = [[], *([self.index[c] for c in text] for text in texts)]
        self.first = np.concatenate(([0], np.cumsum([len(s) for s in spelled]))).astype(np.int32)
        self.spelling = np.array([symbol for s in spelled for symbol in s] or [0], np.int32)

    @property
    def fits_bits(self) -> bool:
        """Whether each label is one character, and a set of labels fits in 64 bits."""
        return not self.pieces and len(self.labels) <= _MOST_BITS

    def _text(self, label: str) -> str:
        if label in _NEVER:
            return ""
        if self.pieces:
            text = label[1:] if label.startswith(WORD_MARK) else label
            if WORD_MARK in text or SPACE in text or not label:
                raise LabelError(f"label {label!r}: a piece may have a word mark only at the front, and no spaces")
            return text
        if len(label) != 1:
            raise LabelError(f"label {label!r}: one character expected, or pieces with the word mark '{WORD_MARK}'")
        return "" if label == SPACE else label

    def encode(self, words: Iterable[str]) -> list[str]:
        """Each word as a string of codes that sorts in symbol order; "" for a word that cannot be spelled.

        `codes` turns these strings into symbol ids.
        """
        table = defaultdict(lambda: "\x01", {ord(symbol): chr(i + _CODE_OFFSET) for symbol, i in self.index.items()})
        table[ord("\n")] = "\n"
        lines = "\n".join(word if "\n" not in word else "\x00" for word in words).translate(table).split("\n")
        return ["" if "\x01" in line else line for line in lines]

    @staticmethod
    def codes(encoded: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Concatenated symbol ids of all strings (int32), and the start of each, plus the end (int64)."""
        joined = "".join(encoded)
        flat = np.frombuffer(joined.encode("utf-32-le"), np.uint32).astype(np.int32) - _CODE_OFFSET
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(s) for s in encoded], out=starts[1:])
        return flat, starts


class LabelsBySymbol(NamedTuple):
    """What labels spell, indexed by their first symbol: labels `label[begin[s]:begin[s + 1]]` begin with symbol s.

    `plain`: each label is one character, with the same id as its symbol.
    """

    first: np.ndarray
    spelling: np.ndarray
    starts_word: np.ndarray
    silent: np.ndarray
    label: np.ndarray
    begin: np.ndarray
    separator: int
    plain: bool


def labels_by_symbol(alphabet: Alphabet) -> LabelsBySymbol:
    """The index of an alphabet's labels."""
    first = alphabet.first
    spoken = np.flatnonzero(first[1:] > first[:-1])
    leading = alphabet.spelling[first[spoken]]
    order = np.argsort(leading, kind="stable")
    begin = np.searchsorted(leading[order], np.arange(len(alphabet.symbols) + 1))
    return LabelsBySymbol(
        first,
        alphabet.spelling,
        alphabet.starts_word,
        alphabet.silent,
        spoken[order].astype(np.int32),
        begin.astype(np.int32),
        alphabet.separator,
        not alphabet.pieces,
    )
