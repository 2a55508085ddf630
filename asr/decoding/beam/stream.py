"""From emissions to hypotheses: one utterance, at once or as its frames arrive, or several in one compiled call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asr.decoding.beam.alphabet import Alphabet, LabelsBySymbol
from asr.decoding.beam.arrays import (
    BUCKETS,
    CANDIDATE,
    FRAMES,
    HYPOTHESIS,
    LOG_SCALE,
    PLACE,
    RECORD,
    SIDE,
    SIZE,
    TRACES,
    Beam,
    Resources,
    WordArrays,
)
from asr.decoding.beam.candidates import NONE
from asr.decoding.beam.frame_labels import frames_at, sums_to_one
from asr.decoding.beam.kernel import advance_characters, advance_pieces
from asr.decoding.beam.lexicon import Lexicon
from asr.decoding.beam.trace import DROPPED, PARTIAL, common_trace, forget_dead_traces, spell_out
from asr.decoding.beam.word_end import final_texts, read_out
from asr.decoding.beam.words import align_characters, kept_frames, time_words
from asr.decoding.interface import TOLERANCE, check_emissions
from asr.lm.compiling import bare_kernel, search_kernel
from asr.types import AsrError, Hypothesis, Word

TRACE_RECORDS = 1 << 14  # initial size of the trace
MOST_UTTERANCES = 32  # in a compiled call; the cost of a call is then negligible
MOST_FRAMES = 2048  # of an utterance in a batch; the alignment of longer ones needs much memory, and is made in parts
_SHARED = -1  # in place of a hypothesis: the words that all hypotheses have in common


@dataclass(frozen=True)
class Setting:
    """Everything that a search reads but never writes."""

    alphabet: Alphabet
    lexicon: Lexicon
    resources: Resources
    frame_seconds: float
    by_symbol: LabelsBySymbol
    times: bool


class Workspace:
    """The arrays that a search writes, for one call at a time."""

    def __init__(self, setting: Setting) -> None:
        weights, lexicon, labels = setting.resources.weights, setting.lexicon, len(setting.alphabet.labels)
        width, homographs = weights.beam_width, lexicon.homographs
        # Candidates from a hypothesis: itself, each label in the open word, and the end of each word of its spelling:
        # only by the separator for characters, else by each label.
        grown = 1 + weights.most_labels + homographs * (1 if lexicon.one_way else 1 + weights.most_labels)
        candidates = width * grown + 1
        self.beam = Beam(
            hypothesis=np.zeros(2 * width, HYPOTHESIS),
            candidate=np.zeros(candidates, CANDIDATE),
            table=np.zeros(1 << int(2 * max(candidates, 2 * width * homographs)).bit_length(), PLACE),
            record=np.zeros(max(TRACE_RECORDS, 4 * width * weights.most_records), RECORD),
            chosen=np.zeros(width, np.int32),
            histogram=np.zeros(BUCKETS, np.int32),
            probability=np.zeros(labels + 1),
            active=np.zeros(labels + 1, np.int32),
            active_score=np.zeros(labels + 1, np.float32),
            counts=np.zeros(8, np.int64),
            scale=np.zeros(1),
        )
        most = width * homographs + 1
        self.slots, self.ends, self.masses = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
        self.make_room_for_text(1 << 13, 1 << 11)

    def make_room_for_text(self, symbols: int, words: int) -> None:
        """Allocate room for texts of this many symbols and words."""
        numbers = [np.zeros(words + 3, np.int64) for _ in range(6)]
        self.texts = WordArrays._make([np.zeros(symbols + 1, np.int32), *numbers, np.zeros(words + 3)])


# Entry points for streams: each unpacks the arrays and calls one of the functions that make up the search of a batch.


@search_kernel
def _advance_characters(log_probs: np.ndarray, start: int, resources: Resources, beam: Beam) -> Any:
    return advance_characters(log_probs, start, resources, beam)


@bare_kernel
def _final_texts(resources: Resources, beam: Beam, slots: np.ndarray, ends: np.ndarray, masses: np.ndarray) -> Any:
    return final_texts(resources, beam, slots, ends, masses)


@bare_kernel
def _read_out(resources: Resources, beam: Beam, slot: int, end: int, texts: WordArrays) -> Any:
    if slot == _SHARED:
        at = common_trace(resources.weights, beam)
        symbols, words = spell_out(resources.tree, beam, at, np.int64(0), NONE, np.int64(DROPPED), texts)
        return symbols, words, 0.0
    return read_out(resources, beam, slot, end, texts)


class BeamStream:
    """A search that is fed frames as they arrive. `feed` it any number of times, then `finish`."""

    def __init__(self, setting: Setting, workspace: Workspace) -> None:
        self.setting = setting
        self._work = workspace
        self._rows: list[np.ndarray] = []  # the rows of the emissions that an alignment needs
        self._frames: list[np.ndarray] = []  # and their frames
        self._whole: np.ndarray | None = None  # the emissions, if they were fed all at once
        self._in_blanks = False
        self._finished = False
        workspace.beam.counts[SIZE] = 0
        self._advance(np.empty((0, len(setting.alphabet.labels)), np.float32))

    def feed(self, log_probs: Any) -> None:
        """Continue with frames (time, vocab), natural log-probabilities. Raises EmissionError."""
        self._feed(log_probs, keep=True)

    def _feed(self, log_probs: Any, keep: bool) -> None:
        if self._finished:
            raise AsrError("this stream is finished: start a new one")
        array = check_emissions(log_probs, len(self.setting.alphabet.labels))
        if not array.flags.writeable:  # another type to numba, which would compile everything again
            array = array.copy()
        start = int(self._work.beam.counts[FRAMES])
        kept = np.empty(len(array), np.int64)
        count, self._in_blanks = kept_frames(array, self.setting.resources.weights.blank_skip, self._in_blanks, kept)
        if keep:
            self._rows.append(array[kept[:count]])
        else:
            self._whole = array
        self._frames.append(kept[:count] + start)
        self._advance(array)
        self._work.beam.counts[FRAMES] += len(array)

    def best(self) -> Hypothesis:
        """The best hypothesis so far, including the open word, without </s>, so that more may follow."""
        counts, width = self._work.beam.counts, self.setting.resources.weights.beam_width
        first = int(counts[SIDE]) * width
        hypotheses = self._work.beam.hypothesis[first : first + int(counts[SIZE])]
        masses = hypotheses["blank"] + hypotheses["label_mass"]
        best = int(masses.argmax())
        return self._hypothesis(first + best, PARTIAL, float(masses[best]))

    def stable(self) -> str:
        """The words with which all hypotheses begin: they will not change any more."""
        return " ".join(self._spell(_SHARED, DROPPED)[0])

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        """The hypotheses after the last frame, best first; the stream accepts no frames afterwards."""
        self._finished = True
        setting, work = self.setting, self._work
        count = _final_texts(setting.resources, work.beam, work.slots, work.ends, work.masses)
        hypotheses: dict[str, Hypothesis] = {}  # by text: an entry of the lexicon may be written as another is spelled
        for i in np.argsort(-work.masses[:count], kind="stable").tolist():
            hypothesis = self._hypothesis(int(work.slots[i]), int(work.ends[i]), float(work.masses[i]))
            hypotheses.setdefault(hypothesis.text, hypothesis)
            if len(hypotheses) == nbest:
                break
        return list(hypotheses.values())

    def decode(self, log_probs: Any, nbest: int) -> list[Hypothesis]:
        """`feed` and `finish` at once, without storing the emissions again."""
        self._feed(log_probs, keep=False)
        return self.finish(nbest)

    def _advance(self, array: np.ndarray) -> None:
        setting, work = self.setting, self._work
        advance = _advance_characters if setting.lexicon.one_way else advance_pieces
        t = 0
        while (t := advance(array, t, setting.resources, work.beam)) < len(array):
            self._make_room()

    def _make_room(self) -> None:
        """The trace is full: drop records that no hypothesis leads back to and, if these are few, enlarge it."""
        beam, weights = self._work.beam, self.setting.resources.weights
        first = int(beam.counts[SIDE]) * weights.beam_width
        forget_dead_traces(beam, first, int(beam.counts[SIZE]), np.empty(int(beam.counts[TRACES]), np.int64))
        if beam.counts[TRACES] > len(beam.record) // 2:
            self._work.beam = beam._replace(record=np.concatenate((beam.record, np.zeros_like(beam.record))))

    def _hypothesis(self, slot: int, end: int, mass: float) -> Hypothesis:
        setting, work = self.setting, self._work
        spelled, lm_score = self._spell(slot, end)
        score = math.log(mass) + float(work.beam.scale[LOG_SCALE]) if mass > 0.0 else -math.inf
        timed: tuple[Word, ...] = ()
        if spelled and setting.times:
            texts = work.texts
            begins, ends, confidences = time_words(
                *self._kept(), texts.symbols, texts.starts, texts.ends_at, len(spelled), setting.by_symbol
            )
            seconds = setting.frame_seconds
            times = (begins * seconds).tolist(), (ends * seconds).tolist()
            timed = tuple(map(Word, spelled, *times, confidences.tolist()))
        return Hypothesis(" ".join(spelled), score, score - lm_score, lm_score, timed)

    def _spell(self, slot: int, end: int) -> tuple[list[str], float]:
        """The words of a hypothesis with this end, and its language score; makes room for the text if necessary."""
        work = self._work
        while True:
            symbols, words, score = _read_out(self.setting.resources, work.beam, slot, end, work.texts)
            texts = work.texts
            if symbols < len(texts.symbols) and words < len(texts.starts) - 2:
                starts, entries = texts.starts[: words + 1].tolist(), texts.entries[:words].tolist()
                return _word_texts(self.setting, texts.symbols, starts, entries), score
            work.make_room_for_text(2 * symbols, 2 * words)

    def _kept(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Emissions, the indices of the rows that an alignment needs, and the frames of these rows."""
        if self._whole is not None:
            return self._whole, self._frames[0], self._frames[0]
        if len(self._rows) > 1:
            self._rows, self._frames = [np.concatenate(self._rows)], [np.concatenate(self._frames)]
        return self._rows[0], np.arange(len(self._rows[0])), self._frames[0]


def _word_texts(setting: Setting, symbols: np.ndarray, starts: Sequence[int], entries: Sequence[int]) -> list[str]:
    """The texts of words in the form of `WordArrays`."""
    words, names = setting.lexicon.words, setting.alphabet.symbols
    return [
        words[entry] if entry >= 0 else "".join([names[s] for s in symbols[starts[i] : starts[i + 1] - 1].tolist()])
        for i, entry in enumerate(entries)
    ]


@search_kernel
def _decode(
    addresses: np.ndarray, lengths: np.ndarray, first: int, tolerance: float, resources: Resources, beam: Beam,
    times: bool, slots: np.ndarray, ends: np.ndarray, masses: np.ndarray, texts: WordArrays, kept: np.ndarray,
    words_of: np.ndarray, scores: np.ndarray,
) -> Any:  # fmt: skip
    """Check, search and read out utterances from `first` on. Returns the utterance for which `texts` has no more room.

    The words of all utterances are consecutive in `texts`. `words_of` has the number of words of each, -1 if a stream
    has to decode the utterance, because its emissions are invalid or the trace is full. `scores` (utterances, 2) are
    the total and the part of the language model.
    """
    weights = resources.weights
    width = resources.labels.silent.shape[0]
    word, symbol = 0, 0
    for u in range(first, lengths.shape[0]):
        words_of[u] = -1
        log_probs = frames_at(addresses[u], lengths[u], width)
        if not sums_to_one(log_probs, tolerance):
            continue
        beam.counts[SIZE] = 0
        # An int64, as in streams: the search would be compiled once more for the literal 0.
        if advance_characters(log_probs, np.int64(0), resources, beam) < lengths[u]:
            continue
        beam.counts[FRAMES] += lengths[u]
        own = WordArrays(
            texts.symbols[symbol:], texts.starts[word:], texts.entries[word:], texts.ends_at[word:],
            texts.pauses[word:], texts.begins[word:], texts.finals[word:], texts.confidences[word:],
        )  # fmt: skip
        best = 0
        for i in range(1, final_texts(resources, beam, slots, ends, masses)):
            if masses[i] > masses[best]:
                best = i
        count, words, score = read_out(resources, beam, slots[best], ends[best], own)
        if count >= own.symbols.shape[0] or words >= own.starts.shape[0] - 2:
            return u
        words_of[u] = words
        scores[u, 0] = np.log(masses[best]) + beam.scale[LOG_SCALE] if masses[best] > 0.0 else -np.inf
        scores[u, 1] = score
        if times and words > 0:
            own.begins[:words], own.finals[:words] = -1, -1  # kept if the words do not fit in the frames
            rows, _ = kept_frames(log_probs, weights.blank_skip, False, kept)
            symbols = own.symbols[: own.starts[words] - 1]
            align_characters(
                log_probs, kept[:rows], kept[:rows], symbols, own.starts, words, weights.separator,
                own.begins, own.finals, own.confidences,
            )  # fmt: skip
        word, symbol = word + words + 1, symbol + own.starts[words]
    return lengths.shape[0]


def decode_batch(setting: Setting, work: Workspace, arrays: Sequence[np.ndarray]) -> list[Hypothesis | None]:
    """The best hypothesis of each array (time, vocab) of contiguous float32; None for those left to a stream.

    Only for characters. All are decoded in one call, since passing the arrays of a search takes as long as many frames.
    """
    count, times, resources = len(arrays), setting.times, setting.resources
    addresses = np.array([a.ctypes.data for a in arrays], np.int64)
    lengths = np.array([len(a) for a in arrays], np.int64)
    kept = np.empty(int(lengths.max(initial=0)), np.int64)
    words_of, scores = np.empty(count, np.int64), np.empty((count, 2))
    results: list[Hypothesis | None] = []
    while len(results) < count:
        done = len(results)
        reached = _decode(
            addresses, lengths, done, TOLERANCE, resources, work.beam, times, work.slots, work.ends, work.masses,
            work.texts, kept, words_of, scores,
        )  # fmt: skip
        results += _hypotheses(setting, work.texts, words_of[done:reached].tolist(), scores[done:reached].tolist())
        if reached == done:  # the room is too small for a single text
            work.make_room_for_text(2 * len(work.texts.symbols), 2 * len(work.texts.starts))
    return results


def _hypotheses(
    setting: Setting, texts: WordArrays, words_of: list[int], scores: list[list[float]]
) -> list[Hypothesis | None]:
    """The hypotheses from the arrays that `_decode` filled; converting whole arrays to lists is faster than by word."""
    total = sum(words + 1 for words in words_of if words >= 0)
    entries, starts = texts.entries[:total].tolist(), texts.starts[:total].tolist()
    columns: list[list[float]] = []
    if setting.times:
        columns = [(frames[:total] * setting.frame_seconds).tolist() for frames in (texts.begins, texts.finals)]
        columns.append(texts.confidences[:total].tolist())
    results: list[Hypothesis | None] = []
    word, symbol = 0, 0
    for words, (score, lm_score) in zip(words_of, scores, strict=True):
        if words < 0:
            results.append(None)
            continue
        last = word + words
        spelled = _word_texts(setting, texts.symbols[symbol:], starts[word : last + 1], entries[word:last])
        timed = tuple(map(Word, spelled, *(column[word:last] for column in columns))) if columns else ()
        results.append(Hypothesis(" ".join(spelled), score, score - lm_score, lm_score, timed))
        symbol += starts[last]
        word = last + 1
    return results
