"""What a beam search reads, what it writes, and the words that come of it: shared by streams and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.decoding.beam.alphabet import Alphabet
from asr.decoding.beam.arrays import BUCKETS, CANDIDATE, HYPOTHESIS, PLACE, RECORD, Beam, Resources, WordArrays
from asr.decoding.beam.lexicon import Lexicon
from asr.decoding.beam.words import LabelsBySymbol

TRACE_RECORDS = 1 << 14  # room in the trace at first


@dataclass(frozen=True)
class Setting:
    """All that a search reads and never writes."""

    alphabet: Alphabet
    lexicon: Lexicon
    resources: Resources
    root: np.uint64  # the key of the empty text
    frame_seconds: float
    by_symbol: LabelsBySymbol
    times: bool


class Workspace:
    """The arrays that a search writes, for one call at a time."""

    def __init__(self, setting: Setting) -> None:
        weights, lexicon, labels = setting.resources.weights, setting.lexicon, len(setting.alphabet.labels)
        width, homographs = weights.beam_width, lexicon.homographs
        # What grows from a hypothesis: itself, each label inside the word, and the ends of words of its spelling: by
        # the separator alone among characters, else by each label.
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
        most = weights.beam_width * lexicon.homographs + 1
        self.slots, self.ends, self.masses = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
        self.make_room_for_text(1 << 13, 1 << 11)

    def make_room_for_text(self, symbols: int, words: int) -> None:
        """Room for as many symbols and words, and what goes between them."""
        numbers = [np.zeros(words + 3, np.int64) for _ in range(6)]
        starts, entries, ends_at, pauses, begins, finals = numbers
        self.texts = WordArrays(
            np.zeros(symbols + 1, np.int32), starts, entries, ends_at, pauses, begins, finals, np.zeros(words + 3)
        )


def word_texts(setting: Setting, symbols: np.ndarray, starts: Sequence[int], entries: Sequence[int]) -> list[str]:
    """The texts of words that were read out, as in `WordArrays`."""
    known, of_symbol = setting.lexicon.words, setting.alphabet.symbols
    return [
        known[entry] if entry >= 0 else "".join([of_symbol[s] for s in symbols[starts[i] : starts[i + 1] - 1].tolist()])
        for i, entry in enumerate(entries)
    ]
