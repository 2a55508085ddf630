"""Perplexity of a language model on a text, with and without the words it does not know."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from asr.lm.ngram import NGramLM


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
