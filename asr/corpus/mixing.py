"""Several corpora in one epoch: how often each utterance occurs, by weights and temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.types import ConfigError


def mixed_weights(weights: Sequence[float], hours: Sequence[float], temperature: float = 1.0) -> list[float]:
    """How often an epoch has each utterance of each corpus, on average.

    The share of a corpus of `hours` with weight w is proportional to (w * hours) ^ (1 / temperature), as in
    multilingual training (Conneau et al., 2020, "Unsupervised cross-lingual representation learning at scale", with a
    temperature of 1 / 0.3). Temperature 1 keeps the weights; higher ones make the shares more equal. The hours of an
    epoch stay the same. Raises ConfigError for numbers out of range.
    """
    if not (temperature >= 1 and math.isfinite(temperature)):
        raise ConfigError(f"mix_temperature: {temperature:g} is below 1 (1 mixes by the weights alone)")
    for weight in weights:
        if not (weight > 0 and math.isfinite(weight)):
            raise ConfigError(f"weight: {weight:g} is not a positive number (to train without a set, leave it out)")
    if temperature == 1:
        return list(weights)
    amounts = np.asarray(weights, dtype=np.float64) * hours
    shares = amounts ** (1 / temperature)
    kept = amounts.sum() * shares / shares.sum()
    return [float(amount / own) if own else 1.0 for amount, own in zip(kept, hours, strict=True)]


@dataclass(frozen=True)
class _Corpus:
    longest_first: np.ndarray  # (utterances,) indices
    count: int  # utterances of an epoch

    def bounds(self) -> np.ndarray:
        """For each place in an epoch, sorted by length, the longest utterance that any epoch puts there."""
        return self.longest_first[np.arange(self.count) * len(self.longest_first) // self.count]

    def epoch(self, number: int) -> np.ndarray:
        """The utterances of an epoch, longest first; repetitions follow each other."""
        size = len(self.longest_first)
        places = (number % size + np.arange(size + 1)) * self.count // size
        return np.repeat(self.longest_first, np.diff(places))


class Mix:
    """The utterances of every epoch, which occur as often as the `weights` of their corpora demand.

    From a corpus of n utterances, every epoch takes m = round(weight * n), at least one. The utterance at place s by
    length, longest first, occurs floor((s + epoch + 1) * m / n) - floor((s + epoch) * m / n) times. So in any E
    consecutive epochs each utterance occurs E * m / n times, give or take one, and every epoch has the same mixture of
    lengths, so that one plan of batches serves them all.

    Args:
        seconds: (utterances,) duration of each.
        corpora: (utterances,) number of the corpus of each.
        weights: of the corpora, by number.
    """

    def __init__(self, seconds: np.ndarray, corpora: np.ndarray, weights: Sequence[float]) -> None:
        self.utterances = len(seconds)
        self._corpora = []
        for number, weight in enumerate(weights):
            members = np.flatnonzero(corpora == number)
            if len(members):
                longest_first = members[np.argsort(-seconds[members], kind="stable")]
                self._corpora.append(_Corpus(longest_first, max(1, round(weight * len(members)))))
        self.even = all(corpus.count == len(corpus.longest_first) for corpus in self._corpora)

    def bounds(self) -> np.ndarray:
        """(places,) for each place in an epoch, an utterance at least as long as any that an epoch puts there."""
        if self.even:
            return np.arange(self.utterances)
        return np.concatenate([corpus.bounds() for corpus in self._corpora])

    def epoch(self, number: int) -> np.ndarray:
        """(places,) the utterance at each place in epoch `number`; its k-th repetition is index + k * utterances."""
        if self.even:
            return np.arange(self.utterances)
        indices = np.concatenate([corpus.epoch(number) for corpus in self._corpora])
        starts = np.flatnonzero(np.concatenate([[True], indices[1:] != indices[:-1]]))
        repetition = np.arange(len(indices)) - np.repeat(starts, np.diff([*starts, len(indices)]))
        return indices + repetition * self.utterances
