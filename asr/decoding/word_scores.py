"""A word n-gram model for a search over tokens: a word is scored when the next one begins or the text ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from asr.decoding.beam.search import UNKNOWN_SYMBOL
from asr.lm.automaton import lm_step
from asr.lm.ngram import NGramLM
from asr.lm.tables import EOS, UNK
from asr.text.tokenizer import Tokenizer


class Begun(NamedTuple):
    """A hypothesis: its tokens, its last word, and the state of the language model before that word."""

    tokens: tuple[int, ...]
    state: int
    word: str


class WordScores:
    """alpha ln P_lm + beta per word, as in the CTC beam search (shallow fusion, Gulcehre et al., 2015).

    Words that the language model does not know score as its <unk> (at least as its rarest word), plus UNKNOWN_SYMBOL
    per character.
    """

    def __init__(self, lm: NGramLM, tokenizer: Tokenizer, alpha: float, beta: float) -> None:
        self.lm, self.tokenizer, self.alpha, self.beta = lm, tokenizer, alpha, beta
        spelled = [bool(tokenizer.words([token])) for token in range(tokenizer.vocab_size)]
        self._spelled = np.array(spelled)  # a lone mark only separates
        letter = spelled.index(True)
        self._begins = np.array([len(tokenizer.words([letter, t])) == 2 for t in range(tokenizer.vocab_size)])

    def begin(self) -> list[Begun]:
        """Only the empty hypothesis."""
        return [Begun((), self.lm.begin_state, "")]

    def next(self, hypotheses: Sequence[Begun]) -> np.ndarray:
        """The score that each token adds to a hypothesis, (hypotheses, vocab); column 0 is for its end."""
        scores = np.zeros((len(hypotheses), len(self._begins)))
        for row, hypothesis in zip(scores, hypotheses, strict=True):
            score, state = self._completed(hypothesis)
            if hypothesis.word:
                row[self._begins if self._spelled[hypothesis.tokens[-1]] else self._spelled] = score
            row[0] = score + self.alpha * lm_step(self.lm.arrays, state, EOS)[0]
        return scores

    def extend(self, hypotheses: Sequence[Begun], chosen: Sequence[tuple[int, int]]) -> list[Begun]:
        """The hypotheses of each (number, token) in `chosen`: hypothesis `number` with `token` after it."""
        extended = []
        for parent, token in chosen:
            before = hypotheses[parent]
            after = (*before.tokens, token)
            words = self.tokenizer.words(after)
            first = words[-1][1] if words else 0
            started = bool(before.word) and first >= len(before.tokens)
            state = self._completed(before)[1] if started else before.state
            extended.append(Begun(after, state, words[-1][0] if words else ""))
        return extended

    def _completed(self, hypothesis: Begun) -> tuple[float, int]:
        """The score of the last word, and the state of the language model after it."""
        if not hypothesis.word:
            return 0.0, hypothesis.state
        word = self.lm.index.get(hypothesis.word, UNK)
        logp, state = lm_step(self.lm.arrays, hypothesis.state, word)
        score = self.alpha * (max(logp, self.lm.least_unigram) if word == UNK else logp) + self.beta
        return score + (UNKNOWN_SYMBOL * len(hypothesis.word) if word == UNK else 0.0), int(state)
