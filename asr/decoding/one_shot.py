"""A whole utterance of a character model in one compiled call: handing over the arrays takes as long as many frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.decoding.beam_kernel import advance_characters
from asr.decoding.emissions_kernel import sums_to_one
from asr.decoding.finish import finish_best
from asr.decoding.kernels import kernel
from asr.decoding.lexicon import Tree
from asr.decoding.ngram_kernel import LMArrays
from asr.decoding.search_arrays import FRAMES, Beam, HotwordArrays, Labels, Weights
from asr.decoding.word_times import kept_frames


@kernel
def decode_characters(
    log_probs: np.ndarray,
    tolerance: float,
    tree: Tree,
    lm: LMArrays,
    hot: HotwordArrays,
    labels: Labels,
    weights: Weights,
    beam: Beam,
    begin: int,
    slots: np.ndarray,
    ends: np.ndarray,
    masses: np.ndarray,
    symbols: np.ndarray,
    starts: np.ndarray,
    entries: np.ndarray,
    ends_at: np.ndarray,
    kept: np.ndarray,
) -> Any:
    """Check, search, finish; the numbers that are kept for times, and what `finish_best` returns.

    The first number is where the search stopped, -1 for emissions that are none. Short of the last frame the trace is
    full: the caller makes room and goes on.
    """
    frames = log_probs.shape[0]
    if not sums_to_one(log_probs, tolerance):
        return np.int64(-1), 0, 0, 0, 0, 0.0
    reached = advance_characters(log_probs, 0, tree, lm, hot, labels, weights, beam)
    if reached < frames:
        return np.int64(reached), 0, 0, 0, 0, 0.0
    beam.counts[FRAMES] += frames
    count, _ = kept_frames(log_probs, weights.blank_skip, False, kept)
    best, spelled, words, score = finish_best(
        tree, lm, hot, labels, weights, beam, begin, slots, ends, masses, symbols, starts, entries, ends_at
    )
    return np.int64(reached), count, best, spelled, words, score
