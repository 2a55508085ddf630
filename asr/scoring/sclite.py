"""Scores as NIST's sclite counts and prints them, and the files it reads: trn, ctm and stm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.scoring.edits import Unit, tokens
from asr.scoring.nist import nist_id

if TYPE_CHECKING:
    from asr.scoring.texts import Line

SUBSTITUTION, INSERTION, DELETION = 4, 3, 3  # sclite's costs: it prefers a deletion and an insertion to two swaps
MARKUP = frozenset(["{", "}", "@"])  # words that sclite reads as something else


@dataclass(frozen=True)
class Row:
    """A row of sclite's summary; all but `name` are counts."""

    name: str
    sentences: int
    words: int
    correct: int
    substitutions: int
    deletions: int
    insertions: int
    sentence_errors: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    def percentages(self) -> tuple[float, ...]:
        """Corr, Sub, Del, Ins, Err of the words and S.Err of the sentences, rounded to tenths with sclite's arithmetic.

        Halves go upwards where the quotient is exact: 86.25 becomes 86.3, but 102 of 160 stays 63.7.
        """
        counts = (self.correct, self.substitutions, self.deletions, self.insertions, self.errors)
        parts = [*((count, self.words) for count in counts), (self.sentence_errors, self.sentences)]
        return tuple(math.floor(count / max(of, 1) * 100 * 10 + 0.5) / 10 for count, of in parts)


def sclite_counts(references: Sequence[str], hypotheses: Sequence[str], unit: Unit = "word") -> np.ndarray:
    """Correct, substituted, deleted and inserted tokens of each utterance as sclite counts them, (utterances, 4) int64.

    sclite aligns at costs of 4 for a substitution and 3 for a deletion or insertion, and breaks ties in favour of
    substitutions, then insertions. Its number of errors is therefore sometimes above the smallest, which WER is
    elsewhere taken from (here too).
    """
    numbers: dict[str, int] = {}

    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [[numbers.setdefault(token, len(numbers)) for token in tokens(text, unit)] for text in texts]
        ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return np.fromiter((number for row in rows for number in row), dtype=np.int32, count=int(ends[-1])), ends

    counts = np.zeros((len(references), 4), dtype=np.int64)
    _kernel()(*encode(references), *encode(hypotheses), counts)
    return counts


def sclite_row(name: str, counts: np.ndarray) -> Row:
    """The row of utterances whose `sclite_counts` are given."""
    correct, substituted, deleted, inserted = (int(total) for total in counts.sum(axis=0))
    wrong = int((counts[:, 1:].sum(axis=1) > 0).sum())
    words = correct + substituted + deleted
    return Row(name, len(counts), words, correct, substituted, deleted, inserted, wrong)


def sclite_rows(counts: np.ndarray, speakers: Sequence[str]) -> list[Row]:
    """A row per speaker, by name, where speakers are known; the last row is `Sum/Avg`."""
    rows = []
    if speakers and any(speakers):
        members: dict[str, list[int]] = {}
        for i, name in enumerate(speakers):
            members.setdefault(name, []).append(i)
        rows = [sclite_row(name or "(unknown)", counts[members[name]]) for name in sorted(members)]
    return [*rows, sclite_row("Sum/Avg", counts)]


def sclite_table(rows: Sequence[Row]) -> str:
    """The summary of percentages in sclite's form, as `-o sum` prints it."""
    width = max(7, *(len(row.name) for row in rows))
    head = f"| {'SPKR':<{width}}| # Snt  # Wrd | Corr    Sub    Del    Ins    Err  S.Err |"
    lines = [head, "|" + "-" * (width + 1) + "+" + "-" * 14 + "+" + "-" * 41 + "|"]
    for row in rows:
        if row is rows[-1] and len(rows) > 1:
            lines.append("|" + "=" * (len(head) - 2) + "|")
        figures = "".join(f"{value:7.1f}" for value in row.percentages())
        lines.append(f"| {row.name:<{width}}|{row.sentences:6d} {row.words:6d} |{figures[1:]} |")
    return "\n".join(lines)


def stm_line(line: Line, text: str) -> str:
    """A line of a segment time mark file, sclite's reference for a ctm: the utterance as a recording of its own."""
    name = nist_id(line.id)
    return f"{name} 1 {nist_id(line.speaker) if line.speaker else name} 0.000 {line.duration or 0.0:.3f} {text}\n"


def ctm_lines(line: Line, words: Iterable[str]) -> str:
    """The words of a hypothesis with their times in the form of a ctm file; `words` are normalized, one per time."""
    name = nist_id(line.id)
    return "".join(
        f"{name} 1 {start:.3f} {max(end - start, 0.001):.3f} {word} {confidence:.3f}\n"
        for word, (_, start, end, confidence) in zip(words, line.words, strict=True)
    )


def misread_by_sclite(text: str) -> bool:
    """Whether a text holds words that sclite takes for markup, or begins like a comment."""
    return text.startswith(";;") or not MARKUP.isdisjoint(text.split())


@cache
def _kernel() -> Any:
    from numba import njit

    return njit(cache=True)(_count_all)


def _count_all(
    reference: np.ndarray,
    reference_ends: np.ndarray,
    hypothesis: np.ndarray,
    hypothesis_ends: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Fill `counts`; ids of tokens lie one utterance after another, `*_ends` (utterances + 1,) says where."""
    # A cell's counts follow from those of the cell it came from, so that two rows are enough: no path is kept.
    longest = 0
    for u in range(len(hypothesis_ends) - 1):
        longest = max(longest, hypothesis_ends[u + 1] - hypothesis_ends[u])
    cost = np.zeros((2, longest + 1), np.int64)
    path = np.zeros((2, longest + 1, 4), np.int64)
    for u in range(len(counts)):
        r0, h0 = reference_ends[u], hypothesis_ends[u]
        n, m = reference_ends[u + 1] - r0, hypothesis_ends[u + 1] - h0
        path[0, : m + 1] = 0
        for j in range(m + 1):
            cost[0, j] = INSERTION * j
            path[0, j, 3] = j
        for i in range(1, n + 1):
            above, here = (i - 1) % 2, i % 2
            cost[here, 0] = DELETION * i
            path[here, 0] = 0
            path[here, 0, 2] = i
            token = reference[r0 + i - 1]
            for j in range(1, m + 1):
                same = token == hypothesis[h0 + j - 1]
                swap = cost[above, j - 1] + (0 if same else SUBSTITUTION)
                delete = cost[above, j] + DELETION
                insert = cost[here, j - 1] + INSERTION
                if swap <= delete and swap <= insert:
                    best, kind = swap, 0 if same else 1
                    for k in range(4):
                        path[here, j, k] = path[above, j - 1, k]
                elif delete < insert:
                    best, kind = delete, 2
                    for k in range(4):
                        path[here, j, k] = path[above, j, k]
                else:
                    best, kind = insert, 3
                    for k in range(4):
                        path[here, j, k] = path[here, j - 1, k]
                path[here, j, kind] += 1
                cost[here, j] = best
        for k in range(4):
            counts[u, k] = path[n % 2, m, k]
