"""A word n-gram language model, ready to score: read from ARPA or from our binary, and stepped through by the beam."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from asr.files import opened
from asr.lm.arpa import read_arpa
from asr.lm.automaton import LN10, DuplicateNGram, LMArrays, build_automaton, lm_step, score_words
from asr.lm.binary import Binary, is_binary, read_binary, write_binary
from asr.lm.tables import BOS, EOS, UNK, LMError, NGramTables, WordList
from asr.lm.tuned import Tuned, read_tuned

__all__ = ["LMArrays", "LMError", "NGramLM", "lm_step"]


class NGramLM:
    """A back-off n-gram model of words; its scores are KenLM's.

    `order`; `counts` of n-grams per order; `arrays` for compiled code; `words` by id (0 <unk>, 1 <s>, 2 </s>);
    `begin_state`, the state after <s>; `tuned`, the decoding weights found for it, None before `asr lm tune`;
    `binary`, whether it was read from our binary form.
    """

    def __init__(
        self,
        words: WordList | Sequence[str],
        arrays: LMArrays,
        state_length: np.ndarray,
        counts: Sequence[int],
        *,
        name: str = "language model",
        tuned: Tuned | None = None,
        binary: bool = False,
    ) -> None:
        self.arrays = arrays
        self.state_length = state_length
        self.counts = tuple(int(n) for n in counts)
        self.order = len(self.counts)
        self.name = name
        self.tuned = tuned
        self.binary = binary
        self._words = words
        self.begin_state = int(arrays.unigram["next"][BOS])

    @classmethod
    def from_tables(cls, tables: NGramTables, name: str = "language model") -> NGramLM:
        """The model of these n-grams; raises DuplicateNGram when one stands there twice."""
        arrays, state_length = build_automaton(tables)
        return cls(tables.words, arrays, state_length, tables.counts, name=name)

    @classmethod
    def read(cls, path: str | Path, verify: bool = False) -> NGramLM:
        """An ARPA file (plain or gzip) or a binary of ours, told apart by content; with its tuned weights.

        With `verify`, as in all commands, a binary is read whole and its checksums compared; without, it opens at once.
        Raises LMError with file and line.
        """
        with opened(path, LMError) as file:
            if is_binary(file):
                found = read_binary(path, file, verify)
                model = cls(found.words, *found[1:], name=str(path), binary=True)
            else:
                model = cls._of_arpa(path, *read_arpa(path, file))
        model.tuned = read_tuned(path)
        return model

    @classmethod
    def _of_arpa(cls, path: str | Path, tables: NGramTables, first_line: Mapping[int, int]) -> NGramLM:
        try:
            return cls.from_tables(tables, name=str(path))
        except DuplicateNGram as error:
            words = " ".join(tables.words[i] for i in error.ids)
            line = first_line[error.order] + error.row
            raise LMError(f"{path}:{line}: the {error.order}-gram '{words}' stands there twice") from None

    def write_binary(self, path: str | Path) -> None:
        """Write the binary that `read` opens by mapping it into memory; atomic. Raises LMError."""
        write_binary(path, Binary(WordList.of(self.words), self.arrays, self.state_length, self.counts))

    @property
    def vocab_size(self) -> int:
        """Number of words, <unk>, <s> and </s> among them."""
        return len(self.arrays.unigram)

    @cached_property
    def words(self) -> list[str]:
        """The words by id."""
        return list(self._words)

    @cached_property
    def index(self) -> dict[str, int]:
        """The id of every word; `ids` for words that may be unknown."""
        return {word: i for i, word in enumerate(self.words)}

    def __contains__(self, word: str) -> bool:
        return self.index.get(word, UNK) != UNK

    def ids(self, words: Iterable[str]) -> list[int]:
        """The ids of words, 0 for those the model does not know."""
        index = self.index
        return [index.get(word, UNK) for word in words]

    def step(self, state: int, word_id: int) -> tuple[float, int]:
        """Natural log p of a word after `state`, and the next state."""
        logp, following = lm_step(self.arrays, state, word_id)
        return float(logp), int(following)

    def score(self, sentence: str, bos: bool = True, eos: bool = True) -> float:
        """log10 p of a sentence of words separated by spaces, as KenLM's `Model.score`."""
        logp, _, _ = self._scores(sentence.split(), bos, eos)
        return float(logp.sum() / LN10)

    def full_scores(self, sentence: str, bos: bool = True, eos: bool = True) -> Iterator[tuple[float, int, bool]]:
        """Per word (and </s>): log10 p, length of the n-gram that gave it, whether the word is unknown."""
        logp, length, ids = self._scores(sentence.split(), bos, eos)
        for value, n, word in zip(logp, length, ids, strict=True):
            yield float(value / LN10), int(n), bool(word == UNK)

    def perplexity(self, sentence: str) -> float:
        """Per word, </s> counted, as KenLM's `Model.perplexity`."""
        words = len(sentence.split()) + 1
        return float(10.0 ** (-self.score(sentence) / words))

    def _scores(self, words: list[str], bos: bool, eos: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = np.array([*self.ids(words), *([EOS] if eos else [])], np.int64)
        logp, length = np.empty(len(ids)), np.empty(len(ids), np.int64)
        score_words(self.arrays, self.state_length, self.begin_state if bos else 0, ids, logp, length)
        return logp, length, ids


@dataclass(frozen=True)
class Perplexity:
    """Sums over a text: `tokens` are words and </s>; log10 probabilities of all of them, and of the unknown words."""

    sentences: int
    tokens: int
    unknown: int
    log10: float
    log10_unknown: float

    @property
    def with_unknown(self) -> float:
        """Per token, the unknown words at the cost the model gives them (KenLM: "including OOVs")."""
        return _perplexity(self.log10, self.tokens)

    @property
    def without_unknown(self) -> float:
        """Per known token, the unknown words left out of sum and count (KenLM: "excluding OOVs")."""
        return _perplexity(self.log10 - self.log10_unknown, self.tokens - self.unknown)

    @property
    def unknown_rate(self) -> float:
        """The share of words, </s> not counted, that the model does not know."""
        words = self.tokens - self.sentences
        return self.unknown / words if words else 0.0


def perplexity(lm: NGramLM, sentences: Iterable[str]) -> Perplexity:
    """Score sentences, each between <s> and </s>."""
    count = tokens = unknown = 0
    total = of_unknown = 0.0
    for sentence in sentences:
        count += 1
        for log10, _, oov in lm.full_scores(sentence):
            tokens += 1
            total += log10
            if oov:
                unknown += 1
                of_unknown += log10
    return Perplexity(count, tokens, unknown, total, of_unknown)


def _perplexity(log10: float, tokens: int) -> float:
    if not tokens:
        return math.nan
    exponent = -log10 / tokens
    return 10.0**exponent if exponent < 308 else math.inf
