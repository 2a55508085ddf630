"""The data of a beam search as tuples of flat arrays, which compiled code reads (`Resources`) and writes (`Beam`).

A hypothesis of the beam is a text prefix: finished words and the beginning of one more. `Beam` holds two generations of
hypotheses, the current frame's and the next one's.

Compiled functions unpack the arrays that they use once, before their loops: a use of `beam.hypothesis` copies the whole
tuple, which the compiler has to find out to be unnecessary each time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.lm.tables import LMArrays

NEVER = 1 << 40  # frames
QUIET_SHARE = 0.5  # frames whose blank and separator are likelier than this together are quiet

# Kinds of records in the trace, in the lowest bits; above them a word (entry), a node of the tree or a symbol.
WORD, NODE, SYMBOL, END, PAUSE = 0, 1, 2, 3, 4
KIND_BITS = 3

# Places in Beam.counts.
SIZE, SIDE, PENDING, TRACES, STAMP, FRAMES, QUIET, PAUSES = 0, 1, 2, 3, 4, 5, 6, 7
# Places in Beam.scale.
LOG_SCALE = 0


# What is read together lies together: large trees do not fit into the processor's caches.
TREE_NODE = np.dtype(
    [
        ("lookahead", "f8"),  # e^(alpha * best unigram score of the words below)
        ("mask", "u8"),  # bit s for a child by symbol s; all 0 where symbols do not fit
        ("child", "i4"),  # the first child; the children end where those of the next node begin
        ("entry", "i4"),  # the first word spelled by the path to here, -1
        ("word", "i4"),  # its id in the language model
        ("depth", "i4"),
    ],
    align=True,
)
ENTRY = np.dtype(
    [
        ("end", "i4"),  # the node where the word ends
        ("next", "i4"),  # another word of the same spelling, -1
        ("word", "i4"),  # its id in the language model
        ("text", "i4"),  # words of different spelling that are written the same have the same number
    ],
    align=True,
)


class Tree(NamedTuple):
    """The arrays that compiled code walks. Node 0 is the root; children follow one another, in order of symbol.

    N nodes, E words (entries), A label arcs.
    """

    node: np.ndarray  # (N + 1,) TREE_NODE
    symbol: np.ndarray  # (N,) int32: the symbol that leads here
    parent: np.ndarray  # (N,) int32
    entry: np.ndarray  # (E,) ENTRY
    arc: np.ndarray  # (N + 1,) int32: where a node's label arcs begin
    arc_label: np.ndarray  # (A,) int32, increasing within a node: labels that go on inside a word
    arc_child: np.ndarray  # (A,) int32
    root_child: np.ndarray  # (labels,) int32: where a label leads from the root, -1


class Weights(NamedTuple):
    """What a search is set to. Scores are natural logarithms."""

    alpha: float
    beta: float
    begin: int  # the LM's state at the beginning of a sentence
    end_word: int  # the LM's </s>, -1 without an LM
    pause_frames: int  # so many quiet frames in a row are a long pause
    unknown_least: float  # the least log p that an unknown word gets from the LM
    unknown_lookahead: float  # alpha * its unigram log p
    unknown_lookahead_factor: float  # e to it
    word_factor: float  # e^beta
    unknown_word: float
    unknown_symbol: float
    symbol_factor: float  # e to it
    open_vocabulary: bool
    beam_width: int
    nbest: int  # alternatives of what was said before a long pause that are kept
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


class HotwordArrays(NamedTuple):
    """The automaton of asr.decoding.beam.hotwords; state 0 knows nothing, symbols are columns."""

    following: np.ndarray  # (states, symbols) int32
    credit: np.ndarray  # (states,) float64: e^(the credit of a phrase that has begun)
    reward: np.ndarray  # (states,) float64: e^(the weights of the phrases completed on arriving here)


class Resources(NamedTuple):
    """All that compiled code reads and never writes."""

    tree: Tree  # the lexicon's, weighted
    lm: LMArrays
    hotwords: HotwordArrays
    labels: Labels
    weights: Weights


HYPOTHESIS = np.dtype(
    [
        ("key", "u8"),  # hash of the text prefix (with its last label where segmentations differ)
        ("parent", "u8"),  # key of the prefix one label shorter, 0 for none
        ("history", "u8"),  # hash of the finished words
        ("spelled", "u8"),  # hash of the word begun once it has left the tree, else 0
        ("blank", "f8"),  # probability of the paths that end in a blank, times the LM's factors
        ("label_mass", "f8"),  # the same of those that end in `label`
        ("entered", "f8"),  # the LM's factor in the step from the parent
        ("ending", "f8"),  # its factor if the word ends here, -1 before it is known
        ("present", "u8"),  # labels by which its child is in the beam already
        ("ending_state", "i4"),  # the LM's state if the word ends here
        ("state", "i4"),  # the LM's state after the finished words
        ("node", "i4"),  # where in the tree the word begun is, or left it
        ("label", "i4"),  # the last label
        ("hotword", "i4"),  # state of the hotword automaton
        ("trace", "i4"),  # last record of what was spelled
        ("pauses", "u8"),  # hash of where long pauses lie in the text, 0 for none
        ("rested", "u8"),  # hash of those after the last label of the word begun, 0 for none
        ("paused", "i4"),  # whether there was one before the word begun or to come
    ],
    align=True,
)
CANDIDATE = np.dtype(
    [
        ("score", "f8"),  # the sum of the next two
        ("blank", "f8"),
        ("label_mass", "f8"),
        ("factor", "f8"),  # of the language model and the hotwords
        ("key", "u8"),  # this and the next two where segmentations differ
        ("history", "u8"),
        ("spelled", "u8"),
        ("source", "i4"),  # which hypothesis it comes from
        ("label", "i4"),
        ("node", "i4"),
        ("state", "i4"),
        ("hotword", "i4"),
        ("ended", "i4"),  # what ends in this step
    ],
    align=True,
)
PLACE = np.dtype([("key", "u8"), ("stamp", "i4"), ("slot", "i4")], align=True)  # valid where `stamp` is the frame's
RECORD = np.dtype([("parent", "i4"), ("symbol", "i4"), ("frame", "i4")], align=True)
MOST_STAMPS = 1 << 30


class Beam(NamedTuple):
    """The hypotheses, twice `beam_width` of them, and the work space of a frame."""

    hypothesis: np.ndarray  # HYPOTHESIS
    candidate: np.ndarray  # CANDIDATE: what may be a hypothesis of the next frame
    table: np.ndarray  # PLACE: open addressing
    record: np.ndarray  # RECORD: the trace
    chosen: np.ndarray  # int32: which candidates become hypotheses
    histogram: np.ndarray  # int32: candidates by the leading bits of their score
    probability: np.ndarray  # float64: of each label in the frame, 0 for those left out
    active: np.ndarray  # int32: the labels not left out
    active_score: np.ndarray  # float32
    counts: np.ndarray  # int64
    scale: np.ndarray  # float64


class WordArrays(NamedTuple):
    """The words of texts, as compiled code reads them out."""

    symbols: np.ndarray  # int32: what the words spell, 0 after each
    starts: np.ndarray  # int64: where each word begins in them, and where one more would
    entries: np.ndarray  # int64: its place in the lexicon, -1 where it is spelled out
    ends_at: np.ndarray  # int64: the frame in which the search took it as ended, -1 for the end
    pauses: np.ndarray  # int64: 1 where there was a long pause before it
    begins: np.ndarray  # int64: its first frame
    finals: np.ndarray  # int64: one past its last frame
    confidences: np.ndarray  # float64


BUCKET_SHIFT = 49  # of a float64: 11 bits of exponent and 3 of fraction, so 8 buckets between powers of two
BUCKETS = 1 << (64 - BUCKET_SHIFT - 1)
