"""Greedy CTC decoding: the best label of every frame, repeats merged, blanks dropped (Graves et al. 2006)."""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.decoder import Tokenizer
from asr.decoding.emissions import check_emissions
from asr.transcript import Hypothesis, Word


class GreedyDecoder:
    """Decodes without search or language model. `frame_seconds` is the time from one frame to the next."""

    def __init__(self, tokenizer: Tokenizer, frame_seconds: float) -> None:
        self.tokenizer = tokenizer
        self.frame_seconds = frame_seconds

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """The best path of (time, vocab) natural log-probabilities as the only element of a list.

        Word times are those of the CTC peaks, in seconds from the first frame: approximate, strictly
        increasing. A word's confidence is the lowest of its tokens' posteriors, each taken at its peak: one
        doubtful letter makes the word doubtful. The score is the log-probability of the best path. Raises
        EmissionError.
        """
        log_probs = check_emissions(log_probs, self.tokenizer.vocab_size)
        best = log_probs.argmax(axis=1)
        path = log_probs[np.arange(len(best)), best]
        starts, ends = _runs(best)
        peaks = np.exp(np.maximum.reduceat(path, starts))
        spoken = best[starts] != 0
        starts, ends, peaks = starts[spoken], ends[spoken], peaks[spoken]
        ids = best[starts].tolist()
        words = tuple(
            Word(
                word=word,
                start=float(starts[first] * self.frame_seconds),
                end=float(ends[last - 1] * self.frame_seconds),
                confidence=float(min(1.0, peaks[first:last].min())),
            )
            for word, first, last in self.tokenizer.words(ids)
        )
        score = float(path.sum(dtype=np.float64))
        return [Hypothesis(text=self.tokenizer.decode(ids), score=score, acoustic_score=score, words=words)]

    def decode_ids(self, log_probs: Any) -> tuple[list[int], list[int]]:
        """The token ids of the best path and the frame at which each begins."""
        best = check_emissions(log_probs, self.tokenizer.vocab_size).argmax(axis=1)
        starts, _ = _runs(best)
        starts = starts[best[starts] != 0]
        return best[starts].tolist(), starts.tolist()


def _runs(best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First frame and one past the last frame of every stretch of equal labels, those of the blank among
    them.
    """
    changes = np.flatnonzero(best[1:] != best[:-1]) + 1
    return np.concatenate(([0], changes)), np.concatenate((changes, [len(best)]))
