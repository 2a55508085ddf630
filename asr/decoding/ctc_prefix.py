"""CTC prefix scores: the probability that the text begins with given tokens, for every possible next token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class PrefixScores:
    """Exact scores (natural logarithm) of a set of prefixes under emissions (time, vocab), with blank 0.

    The score of a prefix is the log of the summed probabilities of all alignments whose labels begin with it. The score
    of its end sums those whose labels are exactly the prefix (Hori et al., 2017, "Joint CTC/attention decoding",
    algorithm 2). The recurrences over time are linear, so each is one cumulative sum. The set starts with the empty
    prefix.
    """

    def __init__(self, log_probs: np.ndarray) -> None:
        self._log_probs = log_probs.astype(np.float64)
        self._probs = np.exp(self._log_probs)
        self._blanks = np.concatenate(([0.0], np.cumsum(self._log_probs[:, 0])))  # ln P of only blanks so far
        # ln P (prefixes, time + 1) of each prefix after so many frames that end in its last token, or in a blank
        self._in_token = np.full((1, len(self._blanks)), -np.inf)
        self._in_blank = self._blanks[None]
        self._last = np.zeros(1, np.int64)

    def next(self) -> np.ndarray:
        """(prefixes, vocab): the score of each prefix extended by each token; column 0 holds the score of its end."""
        total = np.logaddexp(self._in_token, self._in_blank)
        before = total[:, :-1]
        peak = np.maximum(before.max(axis=1, keepdims=True), -1e300)
        with np.errstate(divide="ignore"):
            scores = np.log(np.exp(before - peak) @ self._probs) + peak
        repeats = np.flatnonzero(self._last)  # a token can follow itself only after a blank
        last = self._last[repeats]
        after_blank = self._in_blank[repeats, :-1] + self._log_probs[:, last].T
        scores[repeats, last] = np.logaddexp.reduce(after_blank, axis=1)
        scores[:, 0] = total[:, -1]
        return scores

    def extend(self, parents: Sequence[int] | np.ndarray, tokens: Sequence[int] | np.ndarray) -> None:
        """Replace the set by the prefixes at indices `parents`, each extended by a token (from 1)."""
        parents, tokens = np.asarray(parents, np.int64), np.asarray(tokens, np.int64)
        before = np.logaddexp(self._in_token[parents], self._in_blank[parents])
        same = self._last[parents] == tokens
        before[same] = self._in_blank[parents[same]]
        emitted = np.cumsum(self._log_probs[:, tokens], axis=0).T
        never = np.full((len(parents), 1), -np.inf)
        earlier = np.concatenate([np.zeros_like(never), emitted[:, :-1]], axis=1)
        self._in_token = np.concatenate(
            [never, emitted + np.logaddexp.accumulate(before[:, :-1] - earlier, axis=1)], axis=1
        )
        ended = np.logaddexp.accumulate(self._in_token[:, :-1] - self._blanks[:-1], axis=1)
        self._in_blank = np.concatenate([never, self._blanks[1:] + ended], axis=1)
        self._last = tokens
