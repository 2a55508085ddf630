"""Hotwords: phrases that raise the score of texts with them, matched by an Aho-Corasick automaton over characters.

The weight of a phrase is added for each of its occurrences as whole words. While a phrase is incomplete, part of its
weight is credited in advance, in proportion to its characters, so that the beam does not lose it; the credit is taken
back if the text continues differently.

Aho and Corasick 1975, doi:10.1145/360825.360855.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from asr.decoding.beam.alphabet import Alphabet
from asr.decoding.beam.arrays import HotwordArrays
from asr.files import is_input, read_lines
from asr.types import UsageError

BOUNDARY = 0  # the symbol before, between and after words


@dataclass(frozen=True)
class Hotwords:
    """Compiled hotwords: `count` phrases, the `words` in them, and the `unspellable` phrases that are left out.

    `boost` is the largest factor by which one step can raise a score.
    """

    arrays: HotwordArrays
    count: int
    words: tuple[str, ...]
    unspellable: tuple[str, ...]
    boost: float


def read_hotwords(source: str | Iterable[str], weight: float) -> dict[str, float]:
    """Phrases and weights from a file (a phrase per line, optionally with a tab and its own weight) or "w1,w2 w3".

    Also takes a list of phrases. Raises UsageError.
    """
    if not isinstance(source, str):
        return dict.fromkeys(source, weight)
    if not is_input(source):
        if source.endswith((".txt", ".tsv", ".list")) or "/" in source:
            raise UsageError(f"{source}: no such file of hotwords")
        return {phrase.strip(): weight for phrase in source.split(",") if phrase.strip()}
    phrases: dict[str, float] = {}
    for number, line in enumerate(read_lines(source, UsageError), 1):
        phrase, _, own = line.partition("\t")
        if not phrase.strip():
            continue
        try:
            phrases[phrase.strip()] = float(own) if own.strip() else weight
        except ValueError:
            raise UsageError(f"{source}:{number}: '{own}' is not a weight (expected phrase, tab, number)") from None
    return phrases


def compile_hotwords(alphabet: Alphabet, phrases: Iterable[str] | Mapping[str, float], weight: float) -> Hotwords:
    """The automaton for these phrases; those without their own weight get `weight` (nats)."""
    if isinstance(phrases, str):
        raise UsageError("hotwords must be a list of phrases, or a mapping of phrases to weights, not a string")
    given = dict(phrases) if isinstance(phrases, Mapping) else dict.fromkeys(phrases, weight)
    spelled: dict[tuple[int, ...], float] = {}
    words: dict[str, None] = {}
    unspellable = []
    for phrase, value in given.items():
        if not math.isfinite(value) or abs(value) > 200:
            raise UsageError(f"hotword '{phrase}': expected a weight between -200 and 200, found {value}")
        parts = phrase.split()
        if not parts or any(symbol not in alphabet.index for part in parts for symbol in part):
            unspellable.append(phrase)
            continue
        symbols = [BOUNDARY]
        for part in parts:
            words[part] = None
            symbols += [*(alphabet.index[symbol] for symbol in part), BOUNDARY]
        spelled[tuple(symbols)] = value
    arrays, boost = _automaton(spelled, len(alphabet.symbols))
    return Hotwords(arrays, len(spelled), tuple(words), tuple(unspellable), boost)


def _automaton(phrases: Mapping[tuple[int, ...], float], symbols: int) -> tuple[HotwordArrays, float]:
    """States are beginnings of phrases. A symbol leads to the longest one with which the text ends after it."""
    children: list[dict[int, int]] = [{}]
    reward, credit = [0.0], [0.0]
    for phrase, weight in phrases.items():
        state = 0
        for depth, symbol in enumerate(phrase):
            if depth:  # the credit after `depth` symbols, not counting the first boundary
                credit[state] = max(credit[state], weight * (depth - 1) / (len(phrase) - 1))
            following = children[state].get(symbol)
            if following is None:
                following = children[state][symbol] = len(children)
                children.append({})
                reward.append(0.0)
                credit.append(0.0)
            state = following
        reward[state] += weight
    table = np.zeros((len(children), symbols), np.int32)
    fallback = [0] * len(children)
    queue: deque[int] = deque()
    for symbol, state in children[0].items():
        table[0, symbol] = state
        queue.append(state)
    while queue:
        state = queue.popleft()
        back = fallback[state]
        reward[state] += reward[back]
        credit[state] = max(credit[state], credit[back])
        table[state] = table[back]
        for symbol, child in children[state].items():
            fallback[child] = int(table[back, symbol])
            table[state, symbol] = child
            queue.append(child)
    credits = np.array(credit)
    gains = np.array(reward)[table] + credits[table] - credits[:, None]
    arrays = HotwordArrays(table, np.exp(credits), np.exp(np.array(reward)))
    return arrays, float(np.exp(max(gains.max(), 0.0)))
