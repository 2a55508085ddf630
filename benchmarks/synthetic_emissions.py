"""Emissions as a character CTC model makes them, from random text, for measuring decoders without a model.

The text comes from a random source with a Zipf vocabulary and word bigrams, so that a language model has something to
learn. Every character is a peak of a frame (or a few) in which similar characters compete with it; between peaks the
blank is all but certain ("peaky") or less so ("noisy").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LETTERS = "etaoinshrdlucmfwypvbgkjqxz'"
LABELS = ["", " ", *LETTERS]


@dataclass(frozen=True)
class Style:
    """How peaks look; logits. `rival` is how far similar characters are below the true one, on average."""

    frames_per_character: float
    truth: float
    spread: float
    rival: float
    blank_at_peak: float
    blank_between: float
    blank_spread: float
    floor: float
    widest: int


PEAKY = Style(5.5, 9.0, 2.0, 5.8, 1.5, 14.0, 1.5, 0.0, 1)
NOISY = Style(3.0, 8.0, 1.8, 5.0, 2.0, 8.0, 1.5, 0.0, 2)
STYLES = {"peaky": PEAKY, "noisy": NOISY}


class TextSource:
    """Random sentences: each word follows the one before it, or comes from a Zipf distribution."""

    def __init__(self, words: int, seed: int = 0, successors: int = 12, bound: float = 0.75) -> None:
        rng = np.random.default_rng(seed)
        weights = np.arange(len(LETTERS), 0, -1.0) ** 1.5
        made: dict[str, None] = {}
        while len(made) < words:
            size = int(np.clip(rng.normal(6.0, 2.5), 1, 14))
            made["".join(rng.choice(list(LETTERS), size=size, p=weights / weights.sum()))] = None
        self.words = sorted(made, key=lambda w: len(w) + 3.0 * rng.random())  # frequent words are short
        self.probability = 1.0 / (np.arange(words) + 3.0)
        self.probability /= self.probability.sum()
        self.successors = rng.choice(words, size=(words, successors), p=self.probability)
        self.bound = bound

    def sentences(self, count: int, seed: int) -> list[str]:
        """`count` sentences of 5 to 20 words."""
        rng = np.random.default_rng(seed)
        free = rng.choice(len(self.words), size=count * 21, p=self.probability)
        follow = rng.random(count * 21) < self.bound
        choice = np.minimum(rng.geometric(0.3, size=count * 21) - 1, self.successors.shape[1] - 1)
        lengths = rng.integers(5, 21, size=count)
        texts, k = [], 0
        for length in lengths.tolist():
            ids = [int(free[k])]
            k += 1
            for _ in range(length - 1):
                ids.append(int(self.successors[ids[-1], choice[k]] if follow[k] else free[k]))
                k += 1
            texts.append(" ".join(self.words[i] for i in ids))
        return texts


def emissions(text: str, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Log-probabilities (time, len(LABELS)) float32 of a model that heard `text`."""
    width = len(LABELS)
    ids = [LABELS.index(c) for c in text]
    gaps = rng.poisson(style.frames_per_character - 1.0, size=len(ids) + 1)
    rows: list[np.ndarray] = []
    before = 0

    def between(count: int) -> None:
        for _ in range(count):
            row = rng.normal(style.floor, 1.0, size=width)
            row[0] = rng.normal(style.blank_between, style.blank_spread)
            rows.append(row)

    for c, gap in zip(ids, gaps.tolist(), strict=False):
        between(max(gap, 1 if c == before else 0))
        for _ in range(int(rng.integers(1, style.widest + 1))):
            row = rng.normal(style.floor, 1.0, size=width)
            similar = [(c * 7 + shift) % (width - 1) + 1 for shift in (1, 3, 8, 11)]
            row[similar] = rng.normal(style.truth - style.rival, style.spread, size=4)
            row[c] = rng.normal(style.truth, style.spread)
            row[0] = rng.normal(style.blank_at_peak, style.blank_spread)
            rows.append(row)
        before = c
    between(int(gaps[-1]) + 1)
    scores = np.stack(rows)
    scores -= scores.max(axis=1, keepdims=True)
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)
