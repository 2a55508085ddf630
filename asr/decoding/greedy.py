"""Greedy CTC decoding: the best label of every frame, with repeats merged and blanks dropped (Graves et al. 2006)."""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.interface import check_emissions
from asr.text.tokenizer import Tokenizer
from asr.types import AsrError, Hypothesis, Word


class GreedyDecoder:
    """Decodes without search or language model. `frame_seconds` is the time between frames."""

    def __init__(self, tokenizer: Tokenizer, frame_seconds: float) -> None:
        self.tokenizer = tokenizer
        self.frame_seconds = frame_seconds

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """The text of the best path through (time, vocab) natural log-probabilities, as a list of one.

        Word times are those of the CTC peaks, in seconds from the first frame: approximate, strictly increasing. The
        confidence of a word is the lowest posterior of its tokens, each at its peak: one doubtful letter makes the word
        doubtful. The score is the log-probability of the best path. Raises EmissionError.
        """
        stream = self.stream()
        stream.feed(log_probs)
        return stream.finish()

    def stream(self) -> GreedyStream:
        """A stream for frames that arrive in pieces; it ends with the same hypothesis as `decode` of all of them."""
        return GreedyStream(self.tokenizer, self.frame_seconds)


class GreedyStream:
    """`feed` it any number of times, then `finish`. It stores the runs of equal labels, not the frames."""

    def __init__(self, tokenizer: Tokenizer, frame_seconds: float) -> None:
        self.tokenizer = tokenizer
        self.frame_seconds = frame_seconds
        self._frames = 0
        self._score = 0.0
        self._last = 0  # label of the last frame
        self._ids: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._peaks: list[float] = []  # natural log
        self._finished = False

    def feed(self, log_probs: Any) -> None:
        """Continue with frames (time, vocab), natural log-probabilities. Raises EmissionError."""
        if self._finished:
            raise AsrError("this stream is finished: start a new one")
        log_probs = check_emissions(log_probs, self.tokenizer.vocab_size)
        best = log_probs.argmax(axis=1)
        path = log_probs[np.arange(len(best)), best]
        starts, ends = _runs(best)
        peaks = np.maximum.reduceat(path, starts)
        labels = best[starts]
        if labels[0] != 0 and labels[0] == self._last:  # the last run of the previous frames continues
            self._ends[-1] = self._frames + int(ends[0])
            self._peaks[-1] = max(self._peaks[-1], float(peaks[0]))
            labels = labels.copy()
            labels[0] = 0
        emitted = labels != 0
        self._ids += labels[emitted].tolist()
        self._starts += (starts[emitted] + self._frames).tolist()
        self._ends += (ends[emitted] + self._frames).tolist()
        self._peaks += peaks[emitted].tolist()
        self._last = int(best[-1])
        self._frames += len(best)
        self._score += float(path.sum(dtype=np.float64))

    def stable(self) -> str:
        """The words so far except the last one, which the next frames may continue."""
        return " ".join(word for word, _, _ in self.tokenizer.words(self._ids)[:-1])

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        """The only hypothesis, in a list; the stream accepts no frames afterwards."""
        self._finished = True
        peaks = np.exp(np.asarray(self._peaks, dtype=np.float32))
        words = tuple(
            Word(
                word=word,
                start=float(self._starts[first] * self.frame_seconds),
                end=float(self._ends[last - 1] * self.frame_seconds),
                confidence=float(min(1.0, peaks[first:last].min())),
            )
            for word, first, last in self.tokenizer.words(self._ids)
        )
        text = self.tokenizer.decode(self._ids)
        return [Hypothesis(text=text, score=self._score, acoustic_score=self._score, words=words)]


def _runs(best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First frame and one past the last frame of every run of equal labels, including blanks."""
    changes = np.flatnonzero(best[1:] != best[:-1]) + 1
    return np.concatenate(([0], changes)), np.concatenate((changes, [len(best)]))
