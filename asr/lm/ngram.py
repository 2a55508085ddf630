"""A word n-gram language model, ready to score: read from ARPA or from our binary, and stepped through by the beam."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from asr.files import opened
from asr.lm.automaton import LN10, build_automaton
from asr.lm.automaton_kernel import LMArrays, lm_step, score_words
from asr.lm.tables import BOS, EOS, UNK, LMError, NGramTables
from asr.lm.tuned import Tuned, read_tuned
from asr.lm.word_list import WordList

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
        from asr.lm.arpa import read_arpa_lm
        from asr.lm.binary import is_binary, read_binary

        with opened(path, LMError) as file:
            model = read_binary(path, file, verify) if is_binary(file) else read_arpa_lm(path, file)
        model.tuned = read_tuned(path)
        return model

    def write_binary(self, path: str | Path) -> None:
        """Write the binary that `read` opens by mapping it into memory; atomic. Raises LMError."""
        from asr.lm.binary import write_binary

        write_binary(self, path)

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
