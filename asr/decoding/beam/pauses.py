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

from asr.decoding.beam.arrays import PAUSE, PAUSES, STAMP, Beam
from asr.decoding.beam.steps import key_of, key_of_label, mix, record
from asr.lm.compiling import inlined, kernel

_A = np.uint64(0x8CB92BA72F3D8DD7)
_B = np.uint64(0xABC98388FB8FAC03)
_ONE = np.uint64(1)
_NONE = np.uint64(0)


@inlined
def pauses_after_word(pauses: int, rested: int, history: int) -> Any:
    """The hash of where pauses lie if the word has ended, the finished words now being `history`."""
    return pauses + rested * (mix(history) | _ONE)


@inlined
def carry_pauses(pauses: int, rested: int, paused: int, key: int, ends_word: bool, history: int) -> Any:
    """`pauses` and `paused` of what grows from a hypothesis with this key, its finished words then being `history`."""
    if ends_word:
        return pauses_after_word(pauses, rested, history), np.int64(rested != _NONE)
    # Inside a word a pause does not matter, but this is another hypothesis than what grew before it.
    return (key if rested != _NONE else pauses), np.int64(paused)


@kernel
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
        if hyp.node != 0 or hyp.spelled != _NONE:
            hyp.rested += pause
            hyp.key = mix(hyp.key + pause)
            hyp.parent = _NONE  # what the parent grows from now on has its pause one label earlier
            continue
        hyp.pauses = pauses_after_word(hyp.pauses, pause, hyp.history)
        hyp.key = key_of(hyp.history + hyp.pauses, 0, _NONE)
        if pieces:
            hyp.key = key_of_label(hyp.key, separator)
        if hyp.parent != _NONE:
            hyp.parent = mix(hyp.parent + pause)
        if not hyp.paused:
            hyp.paused = 1
            hyp.trace = record(counts, records, hyp.trace, PAUSE, 0)


@kernel
def forget_alternatives(beam: Beam, base: int, size: int, most: int) -> Any:
    """After a long pause: keep the `most` best of the hypotheses that nothing to come can tell apart; their number.

    Otherwise all that was ambiguous before would fill the beam, in all its combinations, for the rest of a recording.
    """
    hyps, table = beam.hypothesis, beam.table
    mask = uint64(table.shape[0] - 1)
    beam.counts[STAMP] += 1
    stamp = beam.counts[STAMP]
    masses = np.empty(size)
    for i in range(size):
        masses[i] = hyps[base + i].blank + hyps[base + i].label_mass
    dropped = np.zeros(size, np.bool_)
    for i in np.argsort(-masses, kind="mergesort"):
        hyp = hyps[base + i]
        key = key_of(uint64(hyp.state) * _A + uint64(hyp.hotword) * _B, hyp.node, hyp.spelled)
        key = key_of_label(key, (np.int64(hyp.label) << 2) + (np.int64(hyp.paused) << 1) + (hyp.rested != _NONE))
        h = key & mask
        while table[h].stamp == stamp and table[h].key != key:
            h = (h + _ONE) & mask
        if table[h].stamp != stamp:
            table[h].stamp, table[h].key, table[h].slot = stamp, key, 0
        table[h].slot += 1
        dropped[i] = table[h].slot > most
    kept = 0
    for i in range(size):
        if not dropped[i]:
            if kept < i:
                hyps[base + kept] = hyps[base + i]
            kept += 1
    return kept
