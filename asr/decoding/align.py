"""Forced alignment: the best path of a known text through the emissions (exact CTC Viterbi), and times from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from asr.decoding.interface import check_emissions
from asr.lm.compiling import kernel
from asr.types import AsrError

BEAM = 200.0  # nats: the first, quick pass keeps states that are at most this much below the best of their frame
LONGEST_EXTENSION = 0.12  # seconds by which a word may be extended beyond its own frames
_NEVER = -np.inf


class AlignmentError(AsrError):
    """A text cannot be aligned to a recording. The message says why, without the name of the recording."""


@dataclass(frozen=True)
class Alignment:
    """The best path: token `i` has frames `starts[i]` to `ends[i]` (exclusive); frames between tokens are blank.

    `posteriors[i]` is the token's highest posterior in its frames, `score` the natural log-probability of the path.
    """

    tokens: tuple[int, ...]
    starts: np.ndarray
    ends: np.ndarray
    posteriors: np.ndarray
    score: float
    frames: int


def needed_frames(tokens: Sequence[int]) -> int:
    """The fewest frames in which CTC can emit `tokens`: one for each, and a blank between equal neighbors."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def forced_align(log_probs: Any, tokens: Sequence[int], beam: float = BEAM) -> Alignment:
    """The most probable CTC path of (time, vocab) natural log-probabilities that collapses to `tokens` (no blanks).

    Exact (Graves et al. 2006, with the maximum instead of the sum): a state is pruned only if a bound proves that the
    best path avoids it. A first pass keeps the states within `beam` nats of the best one of each frame and finds a
    path. Unless the bound proves that this path is the best, a second pass keeps every state that could still beat it.
    Time is at worst O(time * tokens), usually far less; memory O(sqrt(time) * tokens). Raises AlignmentError for no
    tokens, for labels outside the vocabulary and for a text too long for the frames; EmissionError for arrays that are
    not emissions.
    """
    array = check_emissions(log_probs)
    labels = np.asarray(tokens, dtype=np.int64)
    if not len(labels):
        raise AlignmentError("the text is empty: there is nothing to align")
    if labels.min() < 1 or labels.max() >= array.shape[1]:
        raise AlignmentError(f"tokens must lie in 1 to {array.shape[1] - 1} (0 is the blank)")
    needed = needed_frames(tokens)
    if len(array) < needed:
        raise AlignmentError(f"the text needs at least {needed} frames, the recording has {len(array)}")
    rest = _best_rest(array, np.unique(labels))
    states, score = _best_path(array, labels, rest, beam)
    starts, ends, peaks = _spans(array, labels, states)
    return Alignment(tuple(int(t) for t in labels), starts, ends, np.exp(peaks), score, len(array))


def _best_path(array: np.ndarray, labels: np.ndarray, rest: np.ndarray, beam: float) -> tuple[np.ndarray, float]:
    """The state of each frame on the best path (2 i + 1: token i; even: blank), and the path's log-probability."""
    block = max(32, math.isqrt(len(array)))
    lost, score, saved = _forward(array, labels, rest, beam, _NEVER, block)
    if lost > score:  # a pruned path might have been better: keep all states that can beat this score
        slack = 1e-9 * max(1.0, abs(score)) if score > _NEVER else 0.0
        _, score, saved = _forward(array, labels, rest, np.inf, score - slack, block)
    return _backward(array, labels, block, *saved), score


def _best_rest(array: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """An upper bound, (time + 1,): from frame t on, no path of these labels and blanks scores more than rest[t]."""
    best = np.maximum(array[:, labels].max(axis=1), array[:, 0]).astype(np.float64)
    return np.concatenate((np.cumsum(best[::-1])[::-1], [0.0]))


@kernel
def _step(
    row: np.ndarray, labels: np.ndarray, before: np.ndarray, low: int, high: int, after: np.ndarray, to: int, end: int
) -> None:
    """One frame: from the scores `before` of states low..high (low at index 0) to `after` of states to..end.

    CTC allows staying, advancing by one state, and skipping the blank between two different tokens.
    """
    for state in range(to, end + 1):
        best = -np.inf
        if low <= state <= high:
            best = before[state - low]
        if low <= state - 1 <= high and before[state - 1 - low] > best:
            best = before[state - 1 - low]
        label = 0
        if state % 2:
            i = state // 2
            label = labels[i]
            if low <= state - 2 <= high and label != labels[i - 1] and before[state - 2 - low] > best:
                best = before[state - 2 - low]
        after[state - to] = best + row[label]


@kernel
def _forward(array: np.ndarray, labels: np.ndarray, rest: np.ndarray, beam: float, floor: float, block: int) -> Any:
    """Returns a bound on the score of all pruned paths, the score of the best path found, and the saved rows.

    Each frame keeps a range of states. A state at an edge of the range is pruned if it is more than `beam` below the
    best one, or if even the best rest of a path could not raise it to `floor`. To save memory, only every `block`-th
    row is stored, plus the range of every frame: `_backward` computes the rows in between again.
    """
    frames, count = array.shape[0], labels.shape[0]
    states = 2 * count + 1
    lows, highs = np.zeros(frames, np.int64), np.zeros(frames, np.int64)
    offsets = np.zeros((frames - 1) // block + 2, np.int64)
    store = np.empty(min(states, 4096) * 2, np.float64)
    before, after = np.empty(states, np.float64), np.empty(states, np.float64)
    lost = -np.inf
    low, high = 0, 1
    for t in range(frames):
        if t == 0:
            to, end = 0, 1
            after[0], after[1] = array[0, 0], array[0, labels[0]]
        else:
            to, end = low, min(high + 2, states - 1)
            _step(array[t], labels, before, low, high, after, to, end)
        best = -np.inf
        for s in range(end - to + 1):
            best = max(best, after[s])
        # States that cannot reach the last token in the remaining frames are impossible: no path is lost with them.
        first = max(to, states - 2 - 2 * (frames - 1 - t))
        last = end
        limit = max(best - beam, floor - rest[t + 1])
        while first < last and after[first - to] < limit:
            lost = max(lost, after[first - to] + rest[t + 1])
            first += 1
        while last > first and after[last - to] < limit:
            lost = max(lost, after[last - to] + rest[t + 1])
            last -= 1
        if first > last:  # the beam kept only states that cannot reach the end in time
            return np.inf, -np.inf, (lows, highs, offsets, store)
        lows[t], highs[t] = first, last
        width = last - first + 1
        for s in range(width):
            before[s] = after[s + first - to]
        low, high = first, last
        if t % block == 0:
            at = offsets[t // block]
            if at + width > store.shape[0]:  # double the room, so that growing takes little time in total
                grown = np.empty(2 * (at + width), np.float64)
                grown[:at] = store[:at]
                store = grown
            store[at : at + width] = before[:width]
            offsets[t // block + 1] = at + width
    score = -np.inf
    for state in (states - 2, states - 1):
        if low <= state <= high:
            score = max(score, before[state - low])
    return lost, score, (lows, highs, offsets, store)


@kernel
def _backward(
    array: np.ndarray, labels: np.ndarray, block: int, lows: np.ndarray, highs: np.ndarray, offsets: np.ndarray,
    store: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The state of the best path in every frame, found block by block, from the last frame to the first."""
    frames, states = array.shape[0], 2 * labels.shape[0] + 1
    path = np.empty(frames, np.int64)
    state = -1
    for b in range((frames - 1) // block, -1, -1):
        first, stop = b * block, min((b + 1) * block, frames)
        begins = np.zeros(stop - first + 1, np.int64)
        for t in range(first, stop):
            begins[t - first + 1] = begins[t - first] + highs[t] - lows[t] + 1
        rows = np.empty(begins[-1], np.float64)
        rows[: begins[1]] = store[offsets[b] : offsets[b] + begins[1]]
        for t in range(first + 1, stop):
            i = t - first
            _step(
                array[t], labels, rows[begins[i - 1] : begins[i]], lows[t - 1], highs[t - 1],
                rows[begins[i] : begins[i + 1]], lows[t], highs[t],
            )  # fmt: skip
        if state < 0:
            final = rows[begins[-2] :]
            low, high = lows[frames - 1], highs[frames - 1]
            state = states - 2 if low <= states - 2 else states - 1
            if low <= states - 2 and high == states - 1 and final[states - 1 - low] > final[states - 2 - low]:
                state = states - 1
        else:  # the step from the last frame of this block to the first one of the next
            state = _came_from(labels, rows[begins[-2] :], lows[stop - 1], highs[stop - 1], state)
        path[stop - 1] = state
        for t in range(stop - 2, first - 1, -1):
            i = t - first
            state = _came_from(labels, rows[begins[i] : begins[i + 1]], lows[t], highs[t], state)
            path[t] = state
    return path


@kernel
def _came_from(labels: np.ndarray, row: np.ndarray, low: int, high: int, state: int) -> int:
    """The state in the previous frame, by the scores of that frame; on ties, staying wins."""
    best, source = -np.inf, state
    if low <= state <= high:
        best = row[state - low]
    if low <= state - 1 <= high and row[state - 1 - low] > best:
        best, source = row[state - 1 - low], state - 1
    skips = state % 2 and state > 1 and labels[state // 2] != labels[state // 2 - 1]
    if skips and low <= state - 2 <= high and row[state - 2 - low] > best:
        source = state - 2
    return source


@kernel
def _spans(array: np.ndarray, labels: np.ndarray, path: np.ndarray) -> Any:
    """First frame, one past the last frame, and highest log-posterior of each token."""
    count = labels.shape[0]
    starts, ends, peaks = np.full(count, -1, np.int64), np.zeros(count, np.int64), np.full(count, -np.inf)
    for t in range(path.shape[0]):
        if path[t] % 2:
            i = path[t] // 2
            if starts[i] < 0:
                starts[i] = t
            ends[i] = t + 1
            peaks[i] = max(peaks[i], array[t, labels[i]])
    return starts, ends, peaks


def boundaries(
    first: Sequence[int] | np.ndarray, last: Sequence[int] | np.ndarray, frame_seconds: float, duration: float
) -> tuple[np.ndarray, np.ndarray]:
    """Start and end, in seconds, of words or tokens that CTC emits in frames `first` to `last` (exclusive).

    CTC emits a token in a frame or two somewhere inside its sound, with blanks around. Each is therefore extended
    beyond its frames up to the middle of the gap to its neighbor, but by at most LONGEST_EXTENSION. Frame `i` is
    centered on `i * frame_seconds`. Frames must be in order and disjoint; so are the results, within 0 to `duration`.
    """
    begins = (np.asarray(first, dtype=np.float64) - 0.5) * frame_seconds
    ends = (np.asarray(last, dtype=np.float64) - 0.5) * frame_seconds
    if not len(begins):
        return begins, ends
    half_gaps = (begins[1:] - ends[:-1]) / 2
    before = np.minimum(np.concatenate(([LONGEST_EXTENSION], half_gaps)), LONGEST_EXTENSION)
    after = np.minimum(np.concatenate((half_gaps, [LONGEST_EXTENSION])), LONGEST_EXTENSION)
    return np.clip(begins - before, 0.0, duration), np.clip(ends + after, 0.0, duration)
