"""The compiled beam search, for characters and for pieces.

CTC prefix beam search (Hannun et al. 2014, arXiv 1408.2873): a hypothesis is a text prefix with the sum over its
alignments, separately for those that end in a blank and those that end in its last label. Scores are probabilities
times weighted factors of the language model, in the linear domain, and are rescaled together before they get too small
or too large.

With characters, every prefix has one parent, the prefix one character shorter. A prefix that grows from a hypothesis is
therefore either in the beam already or reached from nowhere else, and sets of labels fit in the bits of an integer.
Pieces can spell a text in several ways: a hypothesis is a prefix with its last label, and candidates with equal keys
are found in a hash table and added up. Both searches are compiled from this source: `pieces` is a constant to the
compiler, which removes the branches of the other search before type inference.

A frame has three stages, each compiled into the loop over frames: `carry_over`, `extend` and `prune`.

A long pause is a run of frames in which the blank and the separator are more probable than everything else. Every
hypothesis then notes the pause at the current position of its text (`mark_pause`). Alignments of the same text with
the pause at another position are different hypotheses, because the language model may score them differently; they are
added up at the end. If a word follows, the language model inserts </s> and starts a new sentence if that is more
probable (`word_logp`); inside a word, a pause has no effect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam.arrays import (
    FRAMES,
    LOG_SCALE,
    MOST_STAMPS,
    NEVER,
    PAUSE,
    PAUSES,
    PENDING,
    QUIET,
    QUIET_SHARE,
    SIDE,
    SIZE,
    STAMP,
    TRACES,
    Beam,
    Resources,
    Tree,
    Weights,
)
from asr.decoding.beam.candidates import (
    EMPTY_HISTORY,
    NONE,
    ONE,
    Bound,
    choose_best,
    count_score,
    find_slot,
    forget_alternatives,
    mix,
    pauses_after,
    prefix_and_label_key,
    prefix_key,
)
from asr.decoding.beam.extend import NO_WORD, extend
from asr.decoding.beam.frame_labels import LEAST_PROBABILITY, lowest_bit, prefetch, read_bits, read_frame
from asr.decoding.beam.trace import record, record_end, record_label
from asr.lm.automaton import hash_slot
from asr.lm.compiling import embedded, inlined, internal, kept_internal, search_kernel
from asr.lm.tables import LMArrays

_SMALL, _LARGE = 1e-90, 1e90  # if the best score leaves this range, all scores are divided by it


@internal
def _begin(pieces: bool, resources: Resources, beam: Beam) -> None:
    """Start with the empty text as the only hypothesis."""
    weights = resources.weights
    beam.counts[QUIET], beam.counts[PAUSES] = -NEVER, 0  # silence before the first word does not end a sentence
    beam.counts[SIZE], beam.counts[SIDE], beam.counts[PENDING] = 1, 0, 0
    beam.counts[TRACES], beam.counts[FRAMES] = 0, 0
    beam.scale[LOG_SCALE] = 0.0
    if beam.counts[STAMP] > MOST_STAMPS:
        beam.counts[STAMP] = 0
        for h in range(beam.table.shape[0]):
            beam.table[h].stamp = 0
    hyp = beam.hypothesis[0]
    hyp.key, hyp.history = prefix_key(EMPTY_HISTORY, np.int64(0), NONE), EMPTY_HISTORY
    if pieces:
        hyp.key = prefix_and_label_key(hyp.key, weights.separator)
    hyp.parent, hyp.spelled = NONE, NONE
    hyp.pauses, hyp.rested, hyp.paused = NONE, NONE, 0
    hyp.node, hyp.label, hyp.state, hyp.trace = 0, weights.separator, weights.begin, -1
    hyp.hotword = resources.hotwords.following[0, 0]  # a text begins like a word: after a boundary
    hyp.blank, hyp.label_mass, hyp.entered, hyp.ending = 1.0, 0.0, 1.0, -1.0


@inlined
def carry_over(pieces: bool, weights: Weights, beam: Beam, base: int, size: int, pending: int, stamp: int) -> Any:
    """Stage 1: every prefix stays the same, by a blank or by its last label again; candidate i is hypothesis i.

    Keys are entered into the hash table. For characters, a prefix also gets the mass that its parent passes to it by
    growing by its last label, since that is the same text; the parent marks that label as `present`.
    """
    hyps, candidates, table = beam.hypothesis, beam.candidate, beam.table
    histogram, probability = beam.histogram, beam.probability
    for i in range(size):
        hyp = hyps[base + i]
        if pending:  # frames with only a blank were skipped before this one
            hyp.blank += hyp.label_mass
            hyp.label_mass = 0.0
        place = table[find_slot(table, hyp.key, stamp)]
        place.stamp, place.key, place.slot = stamp, hyp.key, i
        hyp.present = NONE
    p_blank = probability[0]
    bound = Bound(0.0, 0.0, np.int64(histogram.shape[0]), np.int64(0), np.int64(0))
    for i in range(size):
        hyp = hyps[base + i]
        c = np.int64(hyp.label)
        p = probability[c]
        total = hyp.blank + hyp.label_mass
        mass = 0.0
        if p > 0.0:
            # After a separator, another one changes nothing, even with a blank in between.
            mass = p * (total if hyp.node == 0 and hyp.spelled == NONE else hyp.label_mass)
            if not pieces and hyp.parent != NONE:
                place = table[find_slot(table, hyp.parent, stamp)]
                if place.stamp == stamp:
                    parent = hyps[base + place.slot]
                    # A repeated label is one label unless there is a blank in between.
                    flow = parent.blank + (parent.label_mass if parent.label != c else 0.0)
                    mass += flow * p * hyp.entered
                    parent.present |= ONE << uint64(c)
        score = total * p_blank + mass
        stay = candidates[i]
        stay.blank, stay.label_mass, stay.score = total * p_blank, mass, score
        if pieces or (score >= bound.limit and score > 0.0):  # pieces below the limit may still gain mass in stage 2
            bound = count_score(histogram, weights.beam_width, weights.keep, score, bound)
    return bound


@embedded
def prefetch_step(tree: Tree, lm: LMArrays, node: int, state: int) -> None:
    """Prefetch what a hypothesis at `node` will need: the children and, if a word may end, the arcs of the LM."""
    prefetch(tree.node, np.int64(tree.node[node].child))
    entry = np.int64(tree.node[node].entry)
    if entry >= 0:
        prefetch(tree.entry, entry)
        word, vocabulary, mask = np.int64(tree.node[node].word), lm.unigram.shape[0], lm.arc.shape[0] - 1
        prefetch(lm.arc, hash_slot(state * vocabulary + word, mask))
        prefetch(lm.arc, hash_slot(np.int64(lm.state[state].next) * vocabulary + word, mask))


@inlined
def prune(
    pieces: bool, resources: Resources, beam: Beam, base: int, next_base: int, size: int, count: int, bound: Bound,
    scale: float, frame: int,
) -> Any:  # fmt: skip
    """Stage 3: the best candidates become the next generation, and the trace records what they spell. Returns how many.

    Hypotheses of this frame are at `base`, those of the next one at `next_base`.
    """
    hyps, candidates, chosen, counts, records = beam.hypothesis, beam.candidate, beam.chosen, beam.counts, beam.record
    tree, lm, labels = resources.tree, resources.lm, resources.labels
    kept = choose_best(candidates, count, beam.histogram, resources.weights.beam_width, bound, chosen)
    for d in range(kept):
        k = int(chosen[d])
        hyp, candidate = hyps[next_base + d], candidates[k]
        if k < size:  # the same text as before, with another mass
            hyps[next_base + d] = hyps[base + k]
            hyp.blank, hyp.label_mass = candidate.blank * scale, candidate.label_mass * scale
            continue
        source = hyps[base + candidate.source]
        c, ended, to, outside = np.int64(candidate.label), candidate.ended, np.int64(candidate.node), candidate.spelled
        state, history = candidate.state, candidate.history
        trace, node, spelled = np.int64(source.trace), np.int64(source.node), source.spelled
        pauses, rested, paused = source.pauses, source.rested, np.int64(source.paused)
        if ended != NO_WORD:
            trace = record_end(counts, records, trace, np.int64(ended), node, spelled, frame)
            node, spelled = np.int64(0), NONE
            pauses, paused = pauses_after(pauses, rested, history), np.int64(rested != NONE)
            if paused:
                trace = record(counts, records, trace, np.int64(PAUSE), frame)
            prefetch(lm.state, np.int64(state))
        elif rested != NONE:
            pauses = source.key  # a pause inside a word has no effect, but keeps this apart from what grew before it
        # Inside the tree, the node tells what was spelled; outside, each symbol is recorded.
        if outside != NONE:
            trace = record_label(tree, labels.first, labels.spelling, counts, records, trace, node, spelled, c, frame)
        elif to != 0:
            prefetch_step(tree, lm, to, np.int64(state))
        if pieces:
            hyp.key = candidate.key
        else:
            hyp.key = prefix_key(history + pauses, to, outside)
            hyp.parent, hyp.entered = source.key, candidate.factor
        hyp.history, hyp.node, hyp.spelled, hyp.label = history, to, outside, c
        hyp.pauses, hyp.rested, hyp.paused = pauses, NONE, paused
        hyp.state, hyp.hotword, hyp.trace, hyp.ending = state, candidate.hotword, trace, -1.0
        hyp.blank, hyp.label_mass = 0.0, candidate.score * scale
    return kept


_PAUSE = np.uint64(0x8CB92BA72F3D8DD7)


@internal
def mark_pause(
    hyps: np.ndarray, base: int, size: int, pieces: bool, separator: int, counts: np.ndarray, records: np.ndarray
) -> None:
    """Mark a long pause at the current end of the texts of `size` hypotheses from `base` on.

    From here on, the same text with the pause at another position is a different hypothesis, because the language model
    may score it differently. A pause after a word and one in which the word ends lead to the same hypothesis.
    """
    counts[PAUSES] += 1
    pause = mix(uint64(counts[PAUSES]) * _PAUSE)
    for i in range(base, base + size):
        hyp = hyps[i]
        if hyp.node != 0 or hyp.spelled != NONE:
            hyp.rested += pause
            hyp.key = mix(hyp.key + pause)
            hyp.parent = NONE  # texts that the parent grows into from now on have the pause one label earlier
            continue
        hyp.pauses = pauses_after(hyp.pauses, pause, hyp.history)
        hyp.key = prefix_key(hyp.history + hyp.pauses, np.int64(0), NONE)
        if pieces:
            hyp.key = prefix_and_label_key(hyp.key, separator)
        if hyp.parent != NONE:
            hyp.parent = mix(hyp.parent + pause)
        if not hyp.paused:
            hyp.paused = 1
            hyp.trace = record(counts, records, np.int64(hyp.trace), np.int64(PAUSE), np.int64(0))


def _search(pieces: bool, decorate: Any) -> Any:
    """The compiled search for pieces or for characters; `pieces` is a constant in it, and part of its cache key."""

    @decorate
    def advance(log_probs: np.ndarray, start: int, resources: Resources, beam: Beam) -> Any:
        """Search frames from `start` on. Returns the frame at which the trace is full, else the number of frames.

        A beam without hypotheses starts with the empty text.
        """
        if beam.counts[SIZE] == 0:
            _begin(pieces, resources, beam)
        weights, silent = resources.weights, resources.labels.silent
        width, pause_frames, separator = weights.beam_width, weights.pause_frames, weights.separator
        hyps, probability, active_labels = beam.hypothesis, beam.probability, beam.active
        counts, scales, records = beam.counts, beam.scale, beam.record
        size, side = counts[SIZE], counts[SIDE]
        pending, stamp, quiet = counts[PENDING], counts[STAMP], counts[QUIET]
        log_scale = scales[LOG_SCALE]
        trace_room = records.shape[0] - width * weights.most_records
        spoken = NONE
        if not pieces:
            for k in range(1, log_probs.shape[1]):
                if silent[k] == 0:
                    spoken |= ONE << uint64(k)
        frames = log_probs.shape[0]
        t = np.int64(start)
        while t < frames:
            skipped = log_probs[t, 0] > weights.blank_skip
            # The caller makes room in the trace. A skipped frame adds nothing to it, except to mark a long pause.
            if counts[TRACES] > trace_room and (not skipped or quiet + 1 == pause_frames):
                break
            active, bits = np.int64(0), NONE  # the frame's labels: the number of pieces, or the bits of characters
            if not skipped:
                if pieces:
                    active = read_frame(log_probs, t, weights, silent, beam)
                else:
                    bits = read_bits(log_probs, t, weights.least_label, weights.most_labels, spoken, probability)
            only_blank = active == 0 and bits == NONE
            # A pause is marked once it is long; when it ends, alternatives before it are forgotten.
            quiet += 1
            if not only_blank and probability[0] + probability[separator] <= QUIET_SHARE:
                if quiet > pause_frames:
                    stamp += 1
                    size = forget_alternatives(beam, side * width, size, weights.nbest, stamp)
                quiet = 0
            elif quiet == pause_frames:
                mark_pause(hyps, side * width, size, pieces, separator, counts, records)
            # A frame that can only be a blank moves all mass to the paths that end in a blank. The next other frame
            # does this once for the whole run (`pending`). The probability of the run is the same for all hypotheses.
            if only_blank:
                pending = 1
                log_scale += max(np.float64(log_probs[t, 0]), LEAST_PROBABILITY)
                t += 1
                continue
            # The three stages. The halves of the hypothesis array alternate between this frame and the next one.
            base, next_base = side * width, (1 - side) * width
            stamp += 1  # empties the hash table
            bound = carry_over(pieces, weights, beam, base, size, pending, stamp)
            pending = 0
            characters = NONE if pieces else bits & ~(ONE << uint64(separator))
            count, bound = extend(pieces, resources, beam, base, size, active, characters, stamp, bound)
            # In the linear domain, scores would leave the range of float64 after some hundred frames.
            scale = 1.0
            if bound.best < _SMALL or bound.best > _LARGE:
                scale = 1.0 / bound.best
                log_scale += np.log(bound.best)
            size = prune(pieces, resources, beam, base, next_base, size, count, bound, scale, counts[FRAMES] + t)
            side = 1 - side
            # Labels left out of a frame must have probability 0: clear what this frame has set.
            if pieces:
                for k in range(active):
                    probability[active_labels[k]] = 0.0
            else:
                while bits != NONE:
                    probability[lowest_bit(bits)] = 0.0
                    bits &= bits - ONE
            t += 1
        counts[SIZE], counts[SIDE] = size, side
        counts[PENDING], counts[STAMP], counts[QUIET] = pending, stamp, quiet
        scales[LOG_SCALE] = log_scale
        return t

    return advance


# The search for characters is linked into those of batches and streams; the one for pieces is called only from Python.
advance_characters = _search(False, kept_internal)
advance_pieces = _search(True, search_kernel)
