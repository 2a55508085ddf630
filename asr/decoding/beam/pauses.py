"""Long pauses in the beam search, compiled: after one a sentence may have ended, and alternatives are forgotten.

A pause is a run of frames that are quiet: the blank and the separator are likelier than all else. When a run is long
enough, every hypothesis notes the pause where its text has come to. Alignments of a text that have the pause in other
places are other hypotheses, as the language model may differ; they are added up in the end. If a word follows, the
language model takes </s> and a new sentence in between where that is likelier (`word_logp`); inside a word a pause
changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.decoding.beam.arrays import PAUSE, PAUSES, Beam
from asr.decoding.beam.candidates import find_slot
from asr.decoding.beam.prefixes import NONE, mix, pauses_after, prefix_and_label_key, prefix_key
from asr.decoding.beam.trace import record
from asr.lm.compiling import bare_kernel

_A = np.uint64(0x8CB92BA72F3D8DD7)
_B = np.uint64(0xABC98388FB8FAC03)


@bare_kernel
def mark_pause(
    hyps: np.ndarray, base: int, size: int, pieces: bool, separator: int, counts: np.ndarray, records: np.ndarray
) -> None:
    """A long pause after what `size` hypotheses from `base` on have said.

    From here on the same text with the pause elsewhere is another hypothesis, as the language model may differ. Between
    words, the pause is where it would be had the word ended in it: both ways lead to one hypothesis.
    """
    counts[PAUSES] += 1
    pause = mix(uint64(counts[PAUSES]) * _A)
    for i in range(base, base + size):
        hyp = hyps[i]
        if hyp.node != 0 or hyp.spelled != NONE:
            hyp.rested += pause
            hyp.key = mix(hyp.key + pause)
            hyp.parent = NONE  # what the parent grows from now on has its pause one label earlier
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


@bare_kernel
def forget_alternatives(beam: Beam, base: int, size: int, most: int, stamp: int) -> Any:
    """After a long pause: keep the `most` best of the hypotheses that nothing to come can tell apart; their number.

    Otherwise all that was ambiguous before would fill the beam, in all its combinations, for the rest of a recording.
    """
    hyps, table, candidates, order = beam.hypothesis, beam.table, beam.candidate, beam.chosen
    # An insertion sort, best first: the beam is small, this happens once a pause, and `argsort` takes 2 s to compile.
    for i in range(size):
        mass = hyps[base + i].blank + hyps[base + i].label_mass
        candidates[i].score = mass
        at = i
        while at > 0 and candidates[order[at - 1]].score < mass:
            order[at] = order[at - 1]
            at -= 1
        order[at] = i
    for i in order[:size]:
        hyp = hyps[base + i]
        key = prefix_key(uint64(hyp.state) * _A + uint64(hyp.hotword) * _B, np.int64(hyp.node), hyp.spelled)
        key = prefix_and_label_key(key, (np.int64(hyp.label) << 2) + (np.int64(hyp.paused) << 1) + (hyp.rested != NONE))
        place = table[find_slot(table, key, stamp)]
        if place.stamp != stamp:
            place.stamp, place.key, place.slot = stamp, key, 0
        place.slot += 1  # so many with this key so far
        candidates[i].ended = place.slot > most
    kept = 0
    for i in range(size):
        if candidates[i].ended == 0:
            if kept < i:
                hyps[base + kept] = hyps[base + i]
            kept += 1
    return kept
