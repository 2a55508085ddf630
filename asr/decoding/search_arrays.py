"""The memory of a beam search as flat arrays: what compiled code is given, and how it is allocated once.

A hypothesis of the beam is a text prefix: finished words and the beginning of one more. Its fields lie in the same
place of the arrays of `Beam`, which hold two generations: the present frame's and the next one's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Kinds of records in the trace, in the two lowest bits; above them a word (entry), a node of the tree or a symbol.
WORD, NODE, SYMBOL, END = 0, 1, 2, 3

# Places in Beam.counts.
SIZE, SIDE, PENDING, TRACES, STAMP, FRAMES = 0, 1, 2, 3, 4, 5
# Places in Beam.scale.
LOG_SCALE = 0


class Weights(NamedTuple):
    """What a search is set to. Scores are natural logarithms; `lookahead` is e to them, per node of the tree."""

    alpha: float
    beta: float
    end_word: int  # the LM's </s>, -1 without an LM
    unknown_least: float  # the least log p that an unknown word gets from the LM
    unknown_lookahead: float  # alpha * its unigram log p
    unknown_lookahead_factor: float  # e to it
    word_factor: float  # e^beta
    unknown_word: float
    unknown_symbol: float
    open_vocabulary: bool
    beam_width: int
    most_labels: int
    least_label: float  # labels of a frame below it are left out
    keep: float  # hypotheses below this part of the best one's probability are left out
    blank_skip: float  # frames whose blank is above it are taken as blanks
    separator: int
    most_records: int  # that a hypothesis can add to the trace in a frame
    boost: float  # the most that a step through the hotwords can raise a score, as a factor; 1 without them
    has_hotwords: bool


class Labels(NamedTuple):
    """Alphabet's arrays."""

    first: np.ndarray
    spelling: np.ndarray
    starts_word: np.ndarray
    silent: np.ndarray
    lookahead: np.ndarray  # (N,) float64: e^(alpha * best unigram score below a node of the tree)


class HotwordArrays(NamedTuple):
    """The automaton of asr.decoding.hotwords; state 0 knows nothing, symbols are columns."""

    following: np.ndarray  # (states, symbols) int32
    credit: np.ndarray  # (states,) float64: e^(what is lent to a phrase that has begun)
    reward: np.ndarray  # (states,) float64: e^(the weights of the phrases completed on arriving here)


class Beam(NamedTuple):
    """The hypotheses, twice `beam_width` each, and the work space of a frame."""

    key: np.ndarray  # uint64: hash of the text prefix (with its last label where segmentations differ)
    parent: np.ndarray  # uint64: key of the prefix one label shorter, 0 for none
    history: np.ndarray  # uint64: hash of the finished words
    spelled: np.ndarray  # uint64: hash of the word begun once it has left the tree, else 0
    node: np.ndarray  # int32: where in the tree the word begun is, or left it
    label: np.ndarray  # int32: the last label
    state: np.ndarray  # int32: of the LM, after the finished words
    hotword: np.ndarray  # int32: state of the hotword automaton
    trace: np.ndarray  # int32: last record of what was spelled
    blank: np.ndarray  # float64: probability of the paths that end in a blank, times the LM's factors
    label_mass: np.ndarray  # float64: the same of those that end in `label`
    entered: np.ndarray  # float64: the LM's factor in the step from the parent
    ending: np.ndarray  # float64: its factor if the word ends here, -1 before it is known
    ending_state: np.ndarray  # int32: and the LM's state then
    present: np.ndarray  # (beam_width,) uint64: labels by which a hypothesis's child is in the beam already
    new_blank: np.ndarray  # (candidates,) float64
    new_label_mass: np.ndarray  # float64
    score: np.ndarray  # float64: their sum
    source: np.ndarray  # int32: which hypothesis it comes from
    by_label: np.ndarray  # int32
    to_node: np.ndarray  # int32
    factor: np.ndarray  # float64
    to_state: np.ndarray  # int32
    new_key: np.ndarray  # uint64; used where segmentations differ
    new_history: np.ndarray  # uint64
    new_spelled: np.ndarray  # uint64
    to_hotword: np.ndarray  # int32
    ended: np.ndarray  # int32: the word that ends in this step, as a record of the trace, -1
    table_key: np.ndarray  # uint64: open addressing, valid where `table_stamp` is the frame's
    table_slot: np.ndarray  # int32
    table_stamp: np.ndarray  # int64
    histogram: np.ndarray  # int32: candidates by the leading bits of their score
    probability: np.ndarray  # float64: of each label in the frame, 0 for those left out
    active: np.ndarray  # int32: the labels not left out
    active_score: np.ndarray  # float32
    trace_parent: np.ndarray  # int32
    trace_symbol: np.ndarray  # int32
    trace_frame: np.ndarray  # int32
    counts: np.ndarray  # int64
    scale: np.ndarray  # float64


BUCKET_SHIFT = 49  # of a float64: 11 bits of exponent and 3 of fraction, so 8 buckets between powers of two
BUCKETS = 1 << (64 - BUCKET_SHIFT - 1)
TRACE_RECORDS = 1 << 14


def allocate(
    beam_width: int, most_labels: int, homographs: int, labels: int, most_records: int, segmentations: bool
) -> Beam:
    """Arrays for a search of this width; `homographs` is the largest number of words with one spelling.

    `segmentations` where a text prefix can be reached in several ways, so that candidates have to be looked up, too.
    """
    twice = 2 * beam_width
    candidates = beam_width * ((most_labels + 1) * (homographs if segmentations else 1) + homographs + 1) + 1
    table = 1 << int(2 * (candidates if segmentations else twice * homographs)).bit_length()
    trace = max(TRACE_RECORDS, 4 * beam_width * most_records)

    def integers(size: int) -> np.ndarray:
        return np.zeros(size, np.int32)

    def hashes(size: int) -> np.ndarray:
        return np.zeros(size, np.uint64)

    per_segmentation = candidates if segmentations else 1
    return Beam(
        key=hashes(twice),
        parent=hashes(twice),
        history=hashes(twice),
        spelled=hashes(twice),
        node=integers(twice),
        label=integers(twice),
        state=integers(twice),
        hotword=integers(twice),
        trace=integers(twice),
        blank=np.zeros(twice),
        label_mass=np.zeros(twice),
        entered=np.zeros(twice),
        ending=np.zeros(twice),
        ending_state=integers(twice),
        present=hashes(beam_width),
        new_blank=np.empty(candidates),
        new_label_mass=np.empty(candidates),
        score=np.empty(candidates),
        source=np.empty(candidates, np.int32),
        by_label=np.empty(candidates, np.int32),
        to_node=np.empty(candidates, np.int32),
        factor=np.empty(candidates),
        to_state=np.empty(candidates, np.int32),
        new_key=np.empty(per_segmentation, np.uint64),
        new_history=np.empty(per_segmentation, np.uint64),
        new_spelled=np.empty(per_segmentation, np.uint64),
        to_hotword=np.empty(candidates, np.int32),
        ended=np.empty(candidates, np.int32),
        table_key=hashes(table),
        table_slot=integers(table),
        table_stamp=np.zeros(table, np.int64),
        histogram=integers(BUCKETS),
        probability=np.zeros(labels + 1),
        active=integers(labels + 1),
        active_score=np.zeros(labels + 1, np.float32),
        trace_parent=integers(trace),
        trace_symbol=integers(trace),
        trace_frame=integers(trace),
        counts=np.zeros(8, np.int64),
        scale=np.zeros(2),
    )
