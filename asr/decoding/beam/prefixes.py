"""Hashes of text prefixes: equal texts, reached over different labels, have equal keys.

A prefix is its finished words (`history`), the places of long pauses in it (`pauses`), and the word begun: a `node` of
the lexicon's tree or, once it has left the tree, the hash of its symbols (`spelled`, NONE inside the tree). Hashes have
64 bits and are taken to be equal only for equal texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from asr.lm.compiling import embedded

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xBF58476D1CE4E5B9)
_C = np.uint64(0x94D049BB133111EB)
_LABEL = np.uint64(0xD6E8FEB86659FD93)
_S32, _S29, _S30 = np.uint64(32), np.uint64(29), np.uint64(30)
ONE = np.uint64(1)
NONE = np.uint64(0)
EMPTY_HISTORY = np.uint64(0x632BE59BD9B4E019)


@embedded
def mix(x: int) -> Any:
    """A hash of 64 bits (the finalizer of Steele et al. 2014, SplitMix)."""
    x = (x ^ (x >> _S30)) * _B
    x = (x ^ (x >> _S29)) * _C
    return x ^ (x >> _S32)


@embedded
def prefix_key(history: int, node: int, spelled: int) -> Any:
    """The key of a prefix; `history` with its pauses added to it."""
    # One multiplication chain for both cases: this is inlined in many places.
    return mix(history + (spelled * _A if spelled != NONE else (uint64(node) + ONE) * _C))


@embedded
def prefix_and_label_key(key: int, label: int) -> Any:
    """The key of a prefix together with its last label."""
    return mix(key + (uint64(label) + ONE) * _LABEL)


@embedded
def leave_tree(node: int) -> Any:
    """The hash of a word begun that leaves the tree at `node`, before its first symbol outside."""
    return mix((uint64(node) + ONE) * _B + _A)


@embedded
def spell_on(spelled: int, symbol: int) -> Any:
    """The hash of a word begun outside the tree, with one more symbol."""
    return mix(spelled + (uint64(symbol) + ONE) * _A)


@embedded
def history_after(history: int, entries: np.ndarray, entry: int, node: int, spelled: int) -> Any:
    """The hash of the finished words with one more: `entry` of the lexicon or, below 0, the word begun as spelled."""
    if entry >= 0:
        word = (uint64(entries[entry].text) + ONE) * _B
    else:
        word = (spelled if spelled != NONE else leave_tree(node)) * _C
    return mix(history ^ word)


@embedded
def pauses_after(pauses: int, rested: int, history: int) -> Any:
    """The hash of where pauses lie if a word with pauses `rested` in or after it has ended in these finished words."""
    return pauses + rested * (mix(history) | ONE)
