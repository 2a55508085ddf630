"""Texts with alternative wordings, `i've { um / uh / @ } done`: reading them, and choosing a wording as sclite does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np

NULL = "@"  # stands for no word
# sclite's costs, in its single precision: the small cost of a null word decides between wordings of equal cost
_SUBSTITUTION, _GAP, _NULL_GAP, _NULL_PAIR = np.float32(4), np.float32(3), np.float32(0.001), np.float32(1)
_SPECIAL = re.compile(r"[{@\\;*]")
_WORD, _WORD_IN_CHOICE = re.compile(r"[^\s{]\S*"), re.compile(r"[^\s{/}][^\s/}]*")


@dataclass(frozen=True)
class Wordings:
    """A text with alternatives: in order, stretches of words and null words, and choices between such texts."""

    parts: tuple[str | tuple[Wordings, ...], ...]

    def normalized(self, normalize: Callable[[str], str]) -> Wordings:
        """The same choices with every stretch of words normalized."""
        parts = (normalize(x) if isinstance(x, str) else tuple(y.normalized(normalize) for y in x) for x in self.parts)
        return Wordings(tuple(parts))


def read_markup(text: str) -> str | Wordings:
    """The text of a trn or stm line with sclite's markup interpreted.

    `{ a b / c / @ }` is a choice, which may be nested, with or without spaces inside; `@` stands for no word; a `;` in
    a word begins a tag, which is dropped, and `\\;` is a semicolon; other backslashes, and a `*` at the end of a longer
    word, are dropped. Words in parentheses and fragments (`wor-`) are words, as in sclite without its options -D and
    -F. Raises ValueError for braces that sclite cannot read.
    """
    if not _SPECIAL.search(text):
        return text
    try:
        parts, _ = _parse(text, 0, in_choice=False)
    except RecursionError as error:
        raise ValueError("choices of wordings are nested too deeply") from error
    if any(not isinstance(part, str) for part in parts):
        return Wordings(parts)
    return " ".join(word for part in parts for word in str(part).split() if word != NULL)


def choose_wordings(
    references: Sequence[str | Wordings], hypotheses: Sequence[str | Wordings]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Plain texts: for each pair the wordings that sclite would score, those of the cheapest alignment at its costs."""
    pairs = [
        (ours, theirs) if isinstance(ours, str) and isinstance(theirs, str) else _cheapest(ours, theirs)
        for ours, theirs in zip(references, hypotheses, strict=True)
    ]
    return tuple(ours for ours, _ in pairs), tuple(theirs for _, theirs in pairs)


def _parse(text: str, at: int, *, in_choice: bool) -> tuple[tuple[str | tuple[Wordings, ...], ...], int]:
    """The parts of a text from `at` to its end, or to the / or } that ends a wording of a choice; and that position."""
    parts: list[str | tuple[Wordings, ...]] = []
    words: list[str] = []
    pattern = _WORD_IN_CHOICE if in_choice else _WORD
    while at < len(text) and not (in_choice and text[at] in "/}"):
        if match := pattern.match(text, at):
            words.append(_unescaped(match.group()))
            at = match.end()
        elif text[at] == "{":
            parts += [" ".join(words)] if words else []
            words = []
            choice, at = _parse_choice(text, at)
            parts.append(choice)
        else:
            at += 1
    return (*parts, *([" ".join(words)] if words else [])), at


def _parse_choice(text: str, at: int) -> tuple[tuple[Wordings, ...], int]:
    """The wordings of the choice that begins at `at`, and the position after it."""
    wordings: list[Wordings] = []
    while text[at] != "}":
        parts, at = _parse(text, at + 1, in_choice=True)
        if at == len(text):
            raise ValueError("'{' begins a choice of wordings that no '}' ends")
        wordings += [Wordings(parts)] if parts else []
    if not wordings:
        raise ValueError("no wording between '{' and '}' ('@' stands for no word)")
    return tuple(wordings), at + 1


def _unescaped(token: str) -> str:
    if "{" in token:
        raise ValueError(f"'{{' inside the word '{token}': a choice of wordings begins after a space")
    word = re.split(r"(?<!\\);", token)[0].replace("\\", "") or token
    return word[:-1] if len(word) > 1 and word.endswith("*") else word


def _network(
    text: str | Wordings, numbers: dict[str, int]
) -> tuple[list[str | None], list[int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The lattice of a text: its words as arcs in topological order after an empty start arc, and its final arcs.

    Then the arrays for `_fill`: the words as `numbers` (-1 for a null word), and the predecessors of each arc in one
    flat array, with the ends of each arc's part of it.
    """
    marked = isinstance(text, Wordings)
    words: list[str | None] = [None]
    before: list[list[int]] = [[]]

    def add(word: str | None, after: list[int]) -> list[int]:
        words.append(word)
        before.append(after)
        return [len(words) - 1]

    def extend(wordings: Wordings, after: list[int]) -> list[int]:
        for part in wordings.parts:
            if isinstance(part, str):
                for word in part.split():
                    after = add(None if word == NULL and marked else word, after)
            else:
                ends = [extend(wording, after) for wording in part]
                after = [arc for end in ends for arc in (add(None, after) if end is after else end)]
        return after

    last = extend(text if isinstance(text, Wordings) else Wordings((text,)), [0])
    ids = np.array([-1 if word is None else numbers.setdefault(word, len(numbers)) for word in words], np.int64)
    ends = np.array([0, *accumulate(map(len, before))], np.int64)
    return words, last, (ids, ends, np.array([arc for arcs in before for arc in arcs], np.int64))


def _cheapest(reference: str | Wordings, hypothesis: str | Wordings) -> tuple[str, str]:
    numbers: dict[str, int] = {}
    words_a, last_a, arrays_a = _network(reference, numbers)
    words_b, last_b, arrays_b = _network(hypothesis, numbers)
    cost = np.zeros((len(words_a), len(words_b)), np.float32)
    back = np.zeros((*cost.shape, 2), np.int32)
    _kernel()(*arrays_a, *arrays_b, cost, back)
    a, b = min(((a, b) for a in last_a for b in last_b), key=lambda cell: cost[cell])  # on ties the first, as in sclite
    path_a, path_b = [], []
    while a or b:
        before_a, before_b = map(int, back[a, b])
        path_a += [words_a[a]] if before_a != a else []
        path_b += [words_b[b]] if before_b != b else []
        a, b = before_a, before_b
    return " ".join(filter(None, reversed(path_a))), " ".join(filter(None, reversed(path_b)))


@cache
def _kernel() -> Any:
    from asr.lm.compiling import kernel

    return kernel(_fill)


def _fill(  # type: ignore[no-untyped-def]
    words_a, ends_a, before_a, words_b, ends_b, before_b, cost, back
) -> None:
    """Fill `cost` (arcs_a, arcs_b) of the cheapest alignment up to each pair of arcs, and `back`, the pair before.

    Ties are broken in sclite's order, since the chosen wording depends on it: the first of several predecessors; a
    substitution before an insertion before a deletion. Arcs are in topological order, so the predecessors of a cell
    are filled before it.
    """
    infinity = np.float32(1e30)
    for a in range(len(words_a)):
        deletion = _NULL_GAP if words_a[a] < 0 else _GAP
        for b in range(len(words_b)):
            if a == 0 and b == 0:
                continue
            insertion = _NULL_GAP if words_b[b] < 0 else _GAP
            delete = insert = substitute = infinity
            delete_a = insert_b = substitute_a = substitute_b = 0
            for i in range(ends_a[a], ends_a[a + 1]):
                if cost[before_a[i], b] < delete:
                    delete, delete_a = cost[before_a[i], b], before_a[i]
                # A pair of words follows the cheapest pair of predecessors.
                for j in range(ends_b[b], ends_b[b + 1]):
                    if cost[before_a[i], before_b[j]] < substitute:
                        substitute = cost[before_a[i], before_b[j]]
                        substitute_a, substitute_b = before_a[i], before_b[j]
            for j in range(ends_b[b], ends_b[b + 1]):
                if cost[a, before_b[j]] < insert:
                    insert, insert_b = cost[a, before_b[j]], before_b[j]
            delete += deletion
            insert += insertion
            if words_a[a] != words_b[b]:
                substitute += _SUBSTITUTION
            elif words_a[a] < 0:
                substitute += _NULL_PAIR
            # The empty start (arc 0) pairs with no word.
            if a > 0 and b > 0 and substitute <= delete and substitute <= insert:
                cost[a, b], back[a, b, 0], back[a, b, 1] = substitute, substitute_a, substitute_b
            elif delete < insert:
                cost[a, b], back[a, b, 0], back[a, b, 1] = delete, delete_a, b
            else:
                cost[a, b], back[a, b, 0], back[a, b, 1] = insert, a, insert_b
