"""The data of a beam search as tuples of flat arrays that compiled code reads (`Resources`) and writes (`Beam`).

A hypothesis in the beam is a text prefix: finished words and possibly the beginning of one more, the open word. `Beam`
has two generations of hypotheses, for the current frame and the next one.

Compiled functions unpack the arrays that they use once, before their loops: each use of `beam.hypothesis` copies the
whole tuple, and the compiler would have to prove every time that this is unnecessary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.lm.tables import LMArrays

NEVER = 1 << 40  # frames
QUIET_SHARE = 0.5  # a frame is quiet if its blank and separator together are more probable than this

# Kinds of records in the trace, in the lowest bits; above them is a word (entry), a node of the tree, or a symbol.
WORD, NODE, SYMBOL, END, PAUSE = 0, 1, 2, 3, 4
KIND_BITS = 3

# Indices of Beam.counts.
SIZE, SIDE, PENDING, TRACES, STAMP, FRAMES, QUIET, PAUSES = 0, 1, 2, 3, 4, 5, 6, 7
# Indices of Beam.scale.
LOG_SCALE = 0


# Values read together are adjacent in memory, because large trees do not fit in the processor's caches.
TREE_NODE = np.dtype(
    [
        ("lookahead", "f8"),  # e^(alpha * best unigram score of the words below)
        ("mask", "u8"),  # bit s is set for a child by symbol s; 0 if symbols do not fit in 64 bits
        ("child", "i4"),  # the first child; the children end where those of the next node begin
        ("entry", "i4"),  # the first word spelled by the path to this node, or -1
        ("word", "i4"),  # its id in the language model
        ("depth", "i4"),
    ],
    align=True,
)
ENTRY = np.dtype(
    [
        ("end", "i4"),  # the node where the word ends
        ("next", "i4"),  # another word of the same spelling, or -1
        ("word", "i4"),  # its id in the language model
        ("text", "i4"),  # entries of the same text with different spellings have the same number
    ],
    align=True,
)


class Tree(NamedTuple):
    """A lexicon as a tree for compiled code. Node 0 is the root; the children of a node are adjacent, by symbol.

    N nodes, E words (entries), A label arcs.
    """

    node: np.ndarray  # (N + 1,) TREE_NODE
    symbol: np.ndarray  # (N,) int32: the symbol that leads to the node
    parent: np.ndarray  # (N,) int32
    entry: np.ndarray  # (E,) ENTRY
    arc: np.ndarray  # (N + 1,) int32: the first label arc of each node
    arc_label: np.ndarray  # (A,) int32, increasing within a node: labels that continue a word
    arc_child: np.ndarray  # (A,) int32: the node to which an arc leads
    root_child: np.ndarray  # (labels,) int32: the node to which a label leads from the root, or -1


class Weights(NamedTuple):
    """The settings of a search. Scores are natural logarithms."""

    alpha: float
    beta: float
    begin: int  # the LM's state at the beginning of a sentence
    end_word: int  # the LM's </s>, -1 without an LM
    pause_frames: int  # number of consecutive quiet frames that make a long pause
    unknown_least: float  # the least log p that an unknown word gets from the LM
    unknown_lookahead: float  # alpha * unigram log p of an unknown word
    unknown_lookahead_factor: float  # e^unknown_lookahead
    word_factor: float  # e^beta
    unknown_word: float  # penalty of an unknown word
    unknown_symbol: float  # penalty of each of its symbols
    symbol_factor: float  # e^unknown_symbol
    open_vocabulary: bool
    beam_width: int
    nbest: int  # alternatives of the text before a long pause to keep
    most_labels: int  # of a frame
    least_label: float  # labels of a frame below this are left out
    keep: float  # hypotheses below this share of the best one's probability are dropped
    blank_skip: float  # frames with a blank above this count as blanks
    separator: int
    most_records: int  # that a hypothesis can add to the trace in a frame
    boost: float  # the largest factor by which a step through the hotwords can raise a score; 1 without hotwords
    has_hotwords: bool


class Labels(NamedTuple):
    """The arrays of an Alphabet."""

    first: np.ndarray
    spelling: np.ndarray
    starts_word: np.ndarray
    silent: np.ndarray


class HotwordArrays(NamedTuple):
    """The automaton of asr.decoding.beam.hotwords; in state 0 no phrase has begun."""

    following: np.ndarray  # (states, symbols) int32: the next state
    credit: np.ndarray  # (states,) float64: e^(the credit of the phrase that has begun)
    reward: np.ndarray  # (states,) float64: e^(the weights of the phrases completed on entering the state)


class Resources(NamedTuple):
    """Everything that compiled code reads but never writes."""

    tree: Tree  # of the lexicon, weighted
    lm: LMArrays
    hotwords: HotwordArrays
    labels: Labels
    weights: Weights


HYPOTHESIS = np.dtype(
    [
        ("key", "u8"),  # hash of the text prefix (for pieces, with its last label)
        ("parent", "u8"),  # key of the prefix one label shorter, 0 for none
        ("history", "u8"),  # hash of the finished words
        ("spelled", "u8"),  # hash of the open word once it has left the tree, else 0
        ("blank", "f8"),  # probability of the paths that end in a blank, times the LM's factors
        ("label_mass", "f8"),  # the same for the paths that end in `label`
        ("entered", "f8"),  # the LM's factor in the step from the parent
        ("ending", "f8"),  # the LM's factor if the open word ends here, -1 before it is known
        ("present", "u8"),  # bits of the labels by which its children are already in the beam
        ("ending_state", "i4"),  # the LM's state if the open word ends here
        ("state", "i4"),  # the LM's state after the finished words
        ("node", "i4"),  # the node of the open word in the tree, or where it left the tree
        ("label", "i4"),  # the last label
        ("hotword", "i4"),  # state of the hotword automaton
        ("trace", "i4"),  # last record of what was spelled
        ("pauses", "u8"),  # hash of the positions of long pauses in the text, 0 for none
        ("rested", "u8"),  # hash of the long pauses after the last label of the open word, 0 for none
        ("paused", "i4"),  # whether there was a long pause before the open word, or the next one
    ],
    align=True,
)
CANDIDATE = np.dtype(
    [
        ("score", "f8"),  # blank + label_mass
        ("blank", "f8"),
        ("label_mass", "f8"),
        ("factor", "f8"),  # of the language model and the hotwords
        ("key", "u8"),  # only for pieces
        ("history", "u8"),
        ("spelled", "u8"),
        ("source", "i4"),  # the hypothesis that it extends
        ("label", "i4"),
        ("node", "i4"),
        ("state", "i4"),
        ("hotword", "i4"),
        ("ended", "i4"),  # the word that ends in this step: its entry, or see asr.decoding.beam.extend
    ],
    align=True,
)
PLACE = np.dtype([("key", "u8"), ("stamp", "i4"), ("slot", "i4")], align=True)  # free unless it has the frame's stamp
RECORD = np.dtype([("parent", "i4"), ("symbol", "i4"), ("frame", "i4")], align=True)
MOST_STAMPS = 1 << 30


class Beam(NamedTuple):
    """The hypotheses, twice `beam_width` of them, and the work space of a frame."""

    hypothesis: np.ndarray  # HYPOTHESIS
    candidate: np.ndarray  # CANDIDATE: possible hypotheses of the next frame
    table: np.ndarray  # PLACE: a hash table with open addressing
    record: np.ndarray  # RECORD: the trace
    chosen: np.ndarray  # int32: the candidates that become hypotheses
    histogram: np.ndarray  # int32: number of candidates by the leading bits of their score
    probability: np.ndarray  # float64: of each label in the frame, 0 for those left out
    active: np.ndarray  # int32: the labels not left out
    active_score: np.ndarray  # float32: their log-probabilities
    counts: np.ndarray  # int64
    scale: np.ndarray  # float64


class WordArrays(NamedTuple):
    """The words of texts that compiled code has read out."""

    symbols: np.ndarray  # int32: what the words spell, with 0 after each
    starts: np.ndarray  # int64: where each word begins in `symbols`, and where the next one would
    entries: np.ndarray  # int64: its entry in the lexicon, -1 if it is spelled out
    ends_at: np.ndarray  # int64: the frame in which the search ended it, -1 at the end of the text
    pauses: np.ndarray  # int64: 1 if there was a long pause before it
    begins: np.ndarray  # int64: its first frame
    finals: np.ndarray  # int64: one past its last frame
    confidences: np.ndarray  # float64


BUCKET_SHIFT = 49  # of a float64: 11 bits of exponent and 3 of fraction, so 8 buckets between powers of two
BUCKETS = 1 << (64 - BUCKET_SHIFT - 1)
