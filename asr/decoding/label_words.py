"""Words with times from the labels of a best path and the frames of their peaks, for decoders that give those."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from asr.decoding.alphabet import Alphabet
from asr.transcript import Word


def words_of_labels(
    alphabet: Alphabet, peaks: Sequence[tuple[int, int]], log_probs: np.ndarray, frame_seconds: float
) -> tuple[Word, ...]:
    """The words that (label, frame) pairs spell, in the conventions of GreedyDecoder."""
    words: list[Word] = []
    begun: list[tuple[int, int]] = []

    def finish() -> None:
        text = "".join(
            alphabet.symbols[s] for c, _ in begun for s in alphabet.spelling[alphabet.first[c] : alphabet.first[c + 1]]
        )
        if text:
            confidence = min(1.0, math.exp(min(float(log_probs[t, c]) for c, t in begun)))
            words.append(Word(text, begun[0][1] * frame_seconds, (begun[-1][1] + 1) * frame_seconds, confidence))
        begun.clear()

    for c, t in peaks:
        if c == alphabet.separator:
            finish()
            continue
        if alphabet.starts_word[c]:
            finish()
        begun.append((c, t))
    finish()
    return tuple(words)
