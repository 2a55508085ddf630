"""One utterance in a beam search: frames in, hypotheses out, at once or while they come."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from asr.decoding.beam.arrays import FRAMES, LOG_SCALE, SIDE, SIZE, TRACES
from asr.decoding.beam.finish import best_prefix, final_texts, read_out
from asr.decoding.beam.kernel import advance_characters, advance_pieces, begin_beam
from asr.decoding.beam.prefixes import NONE
from asr.decoding.beam.setting import Setting, Workspace, word_texts
from asr.decoding.beam.times import time_words
from asr.decoding.beam.trace import DROPPED, PARTIAL, common_trace, forget_dead_traces, spell_out
from asr.decoding.beam.words import kept_frames
from asr.decoding.interface import check_emissions
from asr.types import AsrError, Hypothesis, Word


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
        begin_beam(setting.resources, workspace.beam, setting.root)

    def feed(self, log_probs: Any) -> None:
        """Go on with frames (time, vocab), natural log-probabilities. Raises EmissionError."""
        self._feed(log_probs, keep=True)

    def _feed(self, log_probs: Any, keep: bool) -> None:
        if self._finished:
            raise AsrError("this stream is finished: begin another one")
        array = check_emissions(log_probs, len(self.setting.alphabet.labels))
        if not array.flags.writeable:  # code is compiled anew for such
            array = array.copy()
        frames = len(array)
        begun = int(self._work.beam.counts[FRAMES])
        kept = np.empty(frames, np.int64)
        count, self._in_blanks = kept_frames(array, self.setting.resources.weights.blank_skip, self._in_blanks, kept)
        if keep:
            self._rows.append(array[kept[:count]])
        else:
            self._whole = array
        self._frames.append(kept[:count] + begun)
        self._advance(array)
        self._work.beam.counts[FRAMES] += frames

    def best(self) -> Hypothesis:
        """What is best now, with the word that has begun; without </s>, so that more may follow."""
        slot, mass = best_prefix(self.setting.resources.weights, self._work.beam)
        return self._hypothesis(int(slot), PARTIAL, mass)

    def stable(self) -> str:
        """The words that every hypothesis begins with: whatever follows, they will not change."""
        tree, work = self.setting.resources.tree, self._work
        at = int(common_trace(self.setting.resources.weights, work.beam))
        words, _ = self._with_room(lambda: (*spell_out(tree, work.beam, at, 0, NONE, DROPPED, work.texts), 0.0))
        return " ".join(self._texts(words))

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        """The hypotheses, best first, if there are no more frames; the stream takes none afterwards."""
        self._finished = True
        setting, work = self.setting, self._work
        count = final_texts(setting.resources, work.beam, work.slots, work.ends, work.masses)
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

    def decode(self, log_probs: Any, nbest: int) -> list[Hypothesis]:
        """All at once; the same as `feed` and `finish`."""
        self._feed(log_probs, keep=False)
        return self.finish(nbest)

    def _advance(self, array: np.ndarray) -> None:
        setting, work = self.setting, self._work
        advance = advance_characters if setting.lexicon.one_way else advance_pieces
        t = 0
        while (t := advance(array, t, setting.resources, work.beam)) < len(array):
            self._make_room()

    def _make_room(self) -> None:
        """The trace is full: forget what no hypothesis leads back to, and where that is little, make it larger."""
        beam, weights = self._work.beam, self.setting.resources.weights
        first = int(beam.counts[SIDE]) * weights.beam_width
        forget_dead_traces(beam, first, int(beam.counts[SIZE]), np.empty(int(beam.counts[TRACES]), np.int64))
        if beam.counts[TRACES] > len(beam.record) // 2:
            self._work.beam = beam._replace(record=np.concatenate((beam.record, np.zeros_like(beam.record))))

    def _hypothesis(self, slot: int, end: int, mass: float) -> Hypothesis:
        setting, work = self.setting, self._work
        words, lm_score = self._with_room(lambda: read_out(setting.resources, work.beam, slot, end, work.texts))
        score = math.log(mass) + float(work.beam.scale[LOG_SCALE]) if mass > 0.0 else -math.inf
        spelled = self._texts(words)
        timed: tuple[Word, ...] = ()
        if words and setting.times:
            texts = work.texts
            begins, ends, confidences = time_words(
                *self._kept(), texts.symbols, texts.starts, texts.ends_at, words, setting.by_symbol
            )
            seconds = setting.frame_seconds
            timed = tuple(
                map(Word, spelled, (begins * seconds).tolist(), (ends * seconds).tolist(), confidences.tolist())
            )
        return Hypothesis(" ".join(spelled), score, score - lm_score, lm_score, timed)

    def _with_room(self, read: Callable[[], tuple[int, int, float]]) -> tuple[int, float]:
        """Words and score that `read` returns with the number of symbols, once the workspace has room for the text."""
        work = self._work
        while True:
            symbols, words, score = read()
            if symbols < len(work.texts.symbols) and words < len(work.texts.starts) - 2:
                return words, score
            work.make_room_for_text(2 * symbols, 2 * words)

    def _texts(self, words: int) -> list[str]:
        """The texts of the words that were read out."""
        texts = self._work.texts
        return word_texts(
            self.setting, texts.symbols, texts.starts[: words + 1].tolist(), texts.entries[:words].tolist()
        )

    def _kept(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Emissions, the rows of them that an alignment needs, and their frames."""
        if self._whole is not None:
            return self._whole, self._frames[0], self._frames[0]
        if len(self._rows) > 1:
            self._rows, self._frames = [np.concatenate(self._rows)], [np.concatenate(self._frames)]
        return self._rows[0], np.arange(len(self._rows[0])), self._frames[0]
