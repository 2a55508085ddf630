"""From the frames in which CTC emits tokens to the times at which words begin and end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_EXTENSION = 0.12  # seconds that a word reaches beyond its own frames where nothing follows at once


def boundaries(
    first: Sequence[int] | np.ndarray, last: Sequence[int] | np.ndarray, frame_seconds: float, duration: float
) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end, in seconds, of stretches of sound that CTC emits in frames `first` to `last` (exclusive).

    CTC emits a token in a frame or two somewhere inside its sound and blanks around it, so a stretch reaches beyond its
    frames: to the middle of the gap to its neighbour, but at most LONGEST_EXTENSION. Frame `i` is centred on
    `i * frame_seconds`. Stretches must be in order and disjoint; so are the results, within 0 to `duration`.
    """
    begins = (np.asarray(first, dtype=np.float64) - 0.5) * frame_seconds
    ends = (np.asarray(last, dtype=np.float64) - 0.5) * frame_seconds
    if not len(begins):
        return begins, ends
    half_gaps = (begins[1:] - ends[:-1]) / 2
    before = np.minimum(np.concatenate(([LONGEST_EXTENSION], half_gaps)), LONGEST_EXTENSION)
    after = np.minimum(np.concatenate((half_gaps, [LONGEST_EXTENSION])), LONGEST_EXTENSION)
    return np.clip(begins - before, 0.0, duration), np.clip(ends + after, 0.0, duration)
