"""Several utterances of a character model in one compiled call: handing over arrays takes as long as many frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asr.decoding.beam.arrays import FRAMES, LOG_SCALE, Beam, Resources, WordArrays
from asr.decoding.beam.finish import final_texts, read_out
from asr.decoding.beam.frame_labels import frames_at, sums_to_one
from asr.decoding.beam.kernel import advance_characters, begin_beam
from asr.decoding.beam.setting import Setting, Workspace, word_texts
from asr.decoding.beam.words import align_characters, kept_frames
from asr.decoding.interface import TOLERANCE
from asr.lm.compiling import search_kernel
from asr.types import Hypothesis, Word

MOST_UTTERANCES = 32  # of a call; from there on it costs nothing
MOST_FRAMES = 2048  # of an utterance; the alignment of longer ones takes much memory, and is made in parts


@search_kernel
def _decode(
    addresses: np.ndarray,
    lengths: np.ndarray,
    first: int,
    tolerance: float,
    resources: Resources,
    beam: Beam,
    root: int,
    times: bool,
    slots: np.ndarray,
    ends: np.ndarray,
    masses: np.ndarray,
    texts: WordArrays,
    kept: np.ndarray,
    words_of: np.ndarray,
    scores: np.ndarray,
) -> Any:
    """Check, search and read out utterances from `first` on; where the texts have no more room, the utterance reached.

    The words of all utterances lie one after the other in `texts`; `words_of` has their numbers, -1 for an utterance
    that a stream has to decode: its emissions are invalid, or the trace is full. `scores` (utterances, 2) are that of
    the search and the language model's part.
    """
    weights = resources.weights
    width = resources.labels.silent.shape[0]
    word, symbol = 0, 0
    for u in range(first, lengths.shape[0]):
        words_of[u] = -1
        log_probs = frames_at(addresses[u], lengths[u], width)
        if not sums_to_one(log_probs, tolerance):
            continue
        begin_beam(resources, beam, root)
        # An int64, as in streams: for the literal 0 the search would be compiled once more.
        if advance_characters(log_probs, np.int64(0), resources, beam) < lengths[u]:
            continue
        beam.counts[FRAMES] += lengths[u]
        own = WordArrays(
            texts.symbols[symbol:],
            texts.starts[word:],
            texts.entries[word:],
            texts.ends_at[word:],
            texts.pauses[word:],
            texts.begins[word:],
            texts.finals[word:],
            texts.confidences[word:],
        )
        found = final_texts(resources, beam, slots, ends, masses)
        best = np.argmax(masses[:found])
        count, words, score = read_out(resources, beam, slots[best], ends[best], own)
        if count >= own.symbols.shape[0] or words >= own.starts.shape[0] - 2:
            return u
        words_of[u] = words
        scores[u, 0] = np.log(masses[best]) + beam.scale[LOG_SCALE] if masses[best] > 0.0 else -np.inf
        scores[u, 1] = score
        if times and words > 0:
            own.begins[:words], own.finals[:words] = -1, -1  # as they stay where nothing fits
            rows, _ = kept_frames(log_probs, weights.blank_skip, False, kept)
            align_characters(
                log_probs,
                kept[:rows],
                kept[:rows],
                own.symbols[: own.starts[words] - 1],
                own.starts,
                words,
                weights.separator,
                own.begins,
                own.finals,
                own.confidences,
            )
        word, symbol = word + words + 1, symbol + own.starts[words]
    return lengths.shape[0]


def decode_batch(setting: Setting, work: Workspace, arrays: Sequence[np.ndarray]) -> list[Hypothesis | None]:
    """The best hypothesis of each of the arrays (time, vocab), contiguous float32; None for those left to a stream."""
    count = len(arrays)
    addresses = np.array([a.ctypes.data for a in arrays], np.int64)
    lengths = np.array([len(a) for a in arrays], np.int64)
    kept = np.empty(int(lengths.max(initial=0)), np.int64)
    words_of, scores = np.empty(count, np.int64), np.empty((count, 2))
    found: list[Hypothesis | None] = []
    while len(found) < count:
        begun = len(found)
        reached = _decode(
            addresses,
            lengths,
            begun,
            TOLERANCE,
            setting.resources,
            work.beam,
            setting.root,
            setting.times,
            work.slots,
            work.ends,
            work.masses,
            work.texts,
            kept,
            words_of,
            scores,
        )
        found += _hypotheses(setting, work.texts, words_of[begun:reached].tolist(), scores[begun:reached].tolist())
        if reached == begun:  # one text is longer than all the room
            work.make_room_for_text(2 * len(work.texts.symbols), 2 * len(work.texts.starts))
    return found


def _hypotheses(
    setting: Setting, texts: WordArrays, words_of: list[int], scores: list[list[float]]
) -> list[Hypothesis | None]:
    """What the compiled call left in its arrays."""
    total = sum(words + 1 for words in words_of if words >= 0)
    times = setting.times
    seconds = setting.frame_seconds
    begins = (texts.begins[:total] * seconds).tolist() if times else []
    finals = (texts.finals[:total] * seconds).tolist() if times else []
    confidences = texts.confidences[:total].tolist() if times else []
    entries, starts = texts.entries[:total].tolist(), texts.starts[:total].tolist()
    found: list[Hypothesis | None] = []
    word, symbol = 0, 0
    for words, (score, lm_score) in zip(words_of, scores, strict=True):
        if words < 0:
            found.append(None)
            continue
        last = word + words
        spelled = word_texts(setting, texts.symbols[symbol:], starts[word : last + 1], entries[word:last])
        timed: tuple[Word, ...] = ()
        if times:
            timed = tuple(map(Word, spelled, begins[word:last], finals[word:last], confidences[word:last]))
        found.append(Hypothesis(" ".join(spelled), score, score - lm_score, lm_score, timed))
        symbol += starts[last]
        word = last + 1
    return found
