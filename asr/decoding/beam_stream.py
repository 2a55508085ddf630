"""One utterance in a beam search: frames in, hypotheses out, at once or while they come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from asr.decoding.alphabet import Alphabet
from asr.decoding.beam_kernel import advance_characters
from asr.decoding.beam_kernel_pieces import advance_pieces
from asr.decoding.beam_steps import EMPTY_HISTORY, forget_dead_traces, key_of
from asr.decoding.compiling import announce
from asr.decoding.emissions import TOLERANCE, check_emissions
from asr.decoding.emissions_kernel import sums_to_one
from asr.decoding.finish import (
    DROPPED,
    PARTIAL,
    best_prefix,
    common_trace,
    final_texts,
    finish_best,
    read_out,
    spell_out,
)
from asr.decoding.lexicon import Lexicon
from asr.decoding.ngram_kernel import LMArrays
from asr.decoding.piece_steps import piece_key
from asr.decoding.search_arrays import (
    FRAMES,
    LOG_SCALE,
    PENDING,
    SIDE,
    SIZE,
    TRACES,
    HotwordArrays,
    Labels,
    Weights,
    allocate,
)
from asr.decoding.word_times import LabelsBySymbol, kept_frames, word_times
from asr.errors import AsrError
from asr.transcript import Hypothesis, Word


@dataclass(frozen=True)
class Setting:
    """All that a search reads and never writes."""

    alphabet: Alphabet
    lexicon: Lexicon
    lm: LMArrays
    begin: int  # the LM's state at the beginning of a sentence
    hotwords: HotwordArrays
    weights: Weights
    labels: Labels
    frame_seconds: float
    by_symbol: LabelsBySymbol
    times: bool


class Workspace:
    """The arrays that a search writes, for one utterance at a time."""

    def __init__(self, setting: Setting) -> None:
        weights, lexicon = setting.weights, setting.lexicon
        self.beam = allocate(
            weights.beam_width,
            weights.most_labels,
            lexicon.homographs,
            len(setting.alphabet.labels),
            weights.most_records,
            segmentations=not lexicon.one_way,
        )
        most = weights.beam_width * lexicon.homographs + 1
        self.slots, self.ends, self.masses = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
        self.resize_text(1024, 256)

    def resize_text(self, symbols: int, words: int) -> None:
        """Room for a text to be read out."""
        self.symbols = np.empty(symbols + 1, np.int32)
        self.starts, self.entries = np.zeros(words + 3, np.int64), np.empty(words + 3, np.int64)
        self.ends_at = np.empty(words + 3, np.int64)


class BeamStream:
    """A search that is given frames as they come. `feed` any number of times, then `finish`."""

    def __init__(self, setting: Setting, workspace: Workspace) -> None:
        self.setting = setting
        self._work = workspace
        self._rows: list[np.ndarray] = []  # of the emissions, those an alignment needs
        self._frames: list[np.ndarray] = []  # and which frames they are
        self._whole: np.ndarray | None = None  # the emissions, where they were fed at once
        self._in_blanks = False
        self._finished = False
        self._begin()

    def feed(self, log_probs: Any) -> None:
        """Go on with frames (time, vocab), natural log-probabilities. Raises EmissionError."""
        self._feed(log_probs, keep=True)

    def _feed(self, log_probs: Any, keep: bool) -> None:
        if self._finished:
            raise AsrError("this stream is finished: begin another one")
        array = self._checked(log_probs)
        frames = len(array)
        begun = int(self._work.beam.counts[FRAMES])
        kept = np.empty(frames, np.int64)
        count, self._in_blanks = kept_frames(array, self.setting.weights.blank_skip, self._in_blanks, kept)
        if keep:
            self._rows.append(array[kept[:count]])
        else:
            self._whole = array
        self._frames.append(kept[:count] + begun)
        self._advance(array)
        self._work.beam.counts[FRAMES] += frames

    def best(self) -> Hypothesis:
        """What is best now, with the word that has begun; without </s>, so that more may follow."""
        slot, mass = best_prefix(self.setting.weights, self._work.beam)
        return self._hypothesis(int(slot), PARTIAL, mass)

    def stable(self) -> str:
        """The words that every hypothesis begins with: whatever follows, they will not change."""
        at = common_trace(self.setting.weights, self._work.beam)
        return " ".join(self._texts(self._spell(int(at))))

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        """The hypotheses, best first, if there are no more frames; the stream takes none afterwards."""
        self._finished = True
        return self._hypotheses(nbest)

    def decode(self, log_probs: Any, nbest: int) -> list[Hypothesis]:
        """All at once; the same as `feed` and `finish`."""
        self._feed(log_probs, keep=False)
        return self.finish(nbest)

    def _begin(self) -> None:
        """The beam that holds the empty text."""
        beam, setting = self._work.beam, self.setting
        root: Any = np.uint64(0)
        beam.counts[SIZE], beam.counts[SIDE], beam.counts[PENDING] = 1, 0, 0
        beam.counts[TRACES], beam.counts[FRAMES] = 0, 0
        beam.scale[LOG_SCALE] = 0.0
        beam.history[0] = EMPTY_HISTORY
        if setting.lexicon.one_way:
            beam.key[0] = key_of(EMPTY_HISTORY, 0, root)
        else:
            beam.key[0] = piece_key(EMPTY_HISTORY, 0, root, setting.weights.separator)
        beam.parent[0], beam.spelled[0] = root, root
        beam.node[0], beam.label[0], beam.state[0] = 0, setting.weights.separator, setting.begin
        beam.hotword[0] = setting.hotwords.following[0, 0]
        beam.trace[0] = -1
        beam.blank[0], beam.label_mass[0], beam.entered[0], beam.ending[0] = 1.0, 0.0, 1.0, -1.0

    def _checked(self, log_probs: Any) -> np.ndarray:
        width = len(self.setting.alphabet.labels)
        if isinstance(log_probs, np.ndarray) and log_probs.dtype == np.float32 and log_probs.ndim == 2:
            # compiled code is made for plain arrays that may be written, and memory-mapped ones may not
            plain = type(log_probs) is np.ndarray and log_probs.flags.c_contiguous and log_probs.flags.writeable
            array = log_probs if plain else np.array(log_probs)
            announce()
            if array.shape[0] > 0 and array.shape[1] == width and sums_to_one(array, TOLERANCE):
                return array
        array = check_emissions(log_probs, width)
        return array if array.flags.writeable else array.copy()

    def _advance(self, array: np.ndarray) -> None:
        announce()
        setting, work = self.setting, self._work
        advance = advance_characters if setting.lexicon.one_way else advance_pieces
        t = 0
        while True:
            t = advance(
                array,
                t,
                setting.lexicon.tree,
                setting.lm,
                setting.hotwords,
                setting.labels,
                setting.weights,
                work.beam,
            )
            if t == len(array):
                return
            self._make_room()

    def _make_room(self) -> None:
        """The trace is full: forget what no hypothesis leads back to, and where that is little, make it larger."""
        beam, weights = self._work.beam, self.setting.weights
        first = int(beam.counts[SIDE]) * weights.beam_width
        forget_dead_traces(beam, first, int(beam.counts[SIZE]), np.empty(int(beam.counts[TRACES]), np.int64))
        size = len(beam.trace_parent)
        if beam.counts[TRACES] > size // 2:
            grown = [
                np.concatenate((a, np.zeros(size, np.int32)))
                for a in (beam.trace_parent, beam.trace_symbol, beam.trace_frame)
            ]
            self._work.beam = beam._replace(trace_parent=grown[0], trace_symbol=grown[1], trace_frame=grown[2])

    def _hypotheses(self, nbest: int) -> list[Hypothesis]:
        setting, work = self.setting, self._work
        arrays = setting.lexicon.tree, setting.lm, setting.hotwords, setting.labels, setting.weights, work.beam
        found_arrays = work.slots, work.ends, work.masses
        text_arrays = work.symbols, work.starts, work.entries, work.ends_at
        if nbest == 1:
            best, *read = finish_best(*arrays, setting.begin, *found_arrays, *text_arrays)
            return [self._hypothesis(int(work.slots[best]), int(work.ends[best]), float(work.masses[best]), read)]
        count = final_texts(*arrays, *found_arrays)
        found: list[Hypothesis] = []
        texts: set[str] = set()
        for i in np.argsort(-work.masses[:count], kind="stable").tolist():
            hypothesis = self._hypothesis(int(work.slots[i]), int(work.ends[i]), float(work.masses[i]))
            if hypothesis.text not in texts:  # a word of the lexicon may be written as another is spelled
                texts.add(hypothesis.text)
                found.append(hypothesis)
            if len(found) == nbest:
                break
        return found

    def _hypothesis(self, slot: int, end: int, mass: float, read: Any = None) -> Hypothesis:
        """`read`: what was read out of the hypothesis already."""
        setting, work = self.setting, self._work
        words, lm_score = self._read_out(slot, end, read)
        score = math.log(mass) + float(work.beam.scale[LOG_SCALE]) if mass > 0.0 else -math.inf
        texts = self._texts(words)
        timed: tuple[Word, ...] = ()
        if words and setting.times:
            begins, ends, confidences = word_times(
                *self._kept(), work.symbols, work.starts, work.ends_at, words, setting.by_symbol
            )
            seconds = setting.frame_seconds
            timed = tuple(
                map(Word, texts, (begins * seconds).tolist(), (ends * seconds).tolist(), confidences.tolist())
            )
        return Hypothesis(" ".join(texts), score, score - lm_score, lm_score, timed)

    def _read_out(self, slot: int, end: int, read: Any) -> tuple[int, float]:
        """The words of a hypothesis into the workspace: their number, and the score of the language model."""
        setting, work = self.setting, self._work
        while True:
            if read is None:
                read = read_out(
                    setting.lexicon.tree,
                    setting.lm,
                    setting.hotwords,
                    setting.weights,
                    work.beam,
                    setting.begin,
                    slot,
                    end,
                    work.symbols,
                    work.starts,
                    work.entries,
                    work.ends_at,
                )
            symbols, words, lm_score = read
            if symbols < len(work.symbols) and words < len(work.starts) - 2:
                return words, lm_score
            work.resize_text(2 * symbols, 2 * words)
            read = None

    def _spell(self, trace: int) -> int:
        """Read the finished words up to a record out into the workspace; their number."""
        work = self._work
        while True:
            symbols, words = spell_out(
                self.setting.lexicon.tree,
                work.beam,
                trace,
                0,
                np.uint64(0),
                DROPPED,
                work.symbols,
                work.starts,
                work.entries,
                work.ends_at,
            )
            if symbols < len(work.symbols) and words < len(work.starts) - 2:
                return words
            work.resize_text(2 * symbols, 2 * words)

    def _texts(self, words: int) -> list[str]:
        """The texts of the words that were read out."""
        work, known, symbols = self._work, self.setting.lexicon.words, self.setting.alphabet.symbols
        starts = work.starts[: words + 1].tolist()
        texts = []
        for i, entry in enumerate(work.entries[:words].tolist()):
            if entry >= 0:
                texts.append(known[entry])
            else:
                texts.append("".join(symbols[s] for s in work.symbols[starts[i] : starts[i + 1] - 1].tolist()))
        return texts

    def _kept(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Emissions, the rows of them that an alignment needs, and their frames."""
        if self._whole is not None:
            return self._whole, self._frames[0], self._frames[0]
        if len(self._rows) > 1:
            self._rows, self._frames = [np.concatenate(self._rows)], [np.concatenate(self._frames)]
        return self._rows[0], np.arange(len(self._rows[0])), self._frames[0]
