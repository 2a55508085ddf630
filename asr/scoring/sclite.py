"""Scores as NIST's sclite counts and prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

SUBSTITUTION, INSERTION, DELETION = 4, 3, 3  # sclite's costs: it prefers a deletion and an insertion to two swaps


@dataclass(frozen=True)
class ScliteRow:
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

    def summary(self) -> dict[str, int]:
        """The counts under the names of sclite's columns."""
        edits = (self.substitutions, self.deletions, self.insertions, self.errors)
        counts = (self.sentences, self.words, self.correct, *edits, self.sentence_errors)
        return dict(zip(("snt", "wrd", "corr", "sub", "del", "ins", "err", "s_err"), counts, strict=True))

    def percentages(self) -> tuple[float, ...]:
        """Corr, Sub, Del, Ins, Err of the words and S.Err of the sentences, rounded to tenths with sclite's arithmetic.

        Halves go upwards where the quotient is exact: 86.25 becomes 86.3, but 102 of 160 stays 63.7.
        """
        counts = (self.correct, self.substitutions, self.deletions, self.insertions, self.errors)
        parts = [*((count, self.words) for count in counts), (self.sentence_errors, self.sentences)]
        return tuple(math.floor(count / max(of, 1) * 100 * 10 + 0.5) / 10 for count, of in parts)


def sclite_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Correct, substituted, deleted and inserted words of each utterance as sclite counts them, (utterances, 4) int64.

    sclite aligns at costs of 4 for a substitution and 3 for a deletion or insertion, and breaks ties in favor of
    substitutions, then insertions. Its number of errors is therefore sometimes above the smallest, which WER is
    elsewhere taken from (here too).
    """
    numbers: dict[str, int] = {}

    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = [[numbers.setdefault(word, len(numbers)) for word in text.split()] for text in texts]
        flat = np.fromiter((number for row in rows for number in row), np.int32)
        return flat, np.cumsum([0, *map(len, rows)], dtype=np.int64)

    counts = np.zeros((len(references), 4), dtype=np.int64)
    _kernel()(*encode(references), *encode(hypotheses), counts)
    return counts


def sclite_row(name: str, counts: np.ndarray) -> ScliteRow:
    """The row of utterances whose `sclite_counts` are given."""
    correct, substituted, deleted, inserted = (int(total) for total in counts.sum(axis=0))
    wrong = int((counts[:, 1:].sum(axis=1) > 0).sum())
    words = correct + substituted + deleted
    return ScliteRow(name, len(counts), words, correct, substituted, deleted, inserted, wrong)


def sclite_rows(counts: np.ndarray, speakers: Sequence[str]) -> list[ScliteRow]:
    """A row per speaker, by name, where speakers are known; the last row is `Sum/Avg`."""
    rows = []
    if speakers and any(speakers):
        members: dict[str, list[int]] = {}
        for i, name in enumerate(speakers):
            members.setdefault(name, []).append(i)
        rows = [sclite_row(name or "(unknown)", counts[members[name]]) for name in sorted(members)]
    return [*rows, sclite_row("Sum/Avg", counts)]


def sclite_table(rows: Sequence[ScliteRow]) -> str:
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


@cache
def _kernel() -> Any:
    from asr.lm.compiling import kernel

    return kernel(_count_all)


def _count_all(
    reference: np.ndarray, reference_ends: np.ndarray, hypothesis: np.ndarray, hypothesis_ends: np.ndarray,
    counts: np.ndarray,
) -> None:  # fmt: skip
    """Fill `counts`; ids of tokens lie one utterance after another, `*_ends` (utterances + 1,) says where.

    The result is that of the full table, in a band of diagonals around its corners that is widened until every path
    outside it costs more than the best one inside (Ukkonen 1985, "Algorithms for approximate string matching"). Memory
    is linear in the length of the longest utterance; time is that of the full table only where two long texts with
    the same words in another order are so far apart that no narrower band proves anything.
    """
    # A cell is one number: the cost in the upper 32 bits, two bits that rank the last step, and 30 bits that count the
    # substitutions so far. The least of three such numbers is the cheapest step, with ties broken as by sclite; cost
    # and substitutions give the other counts. `cells[d % 3][i + 1]` is the cell of i reference and d - i hypothesis
    # tokens: those of one antidiagonal d do not depend on each other, so that the compiler can vectorize the loop.
    swap = (np.int64(SUBSTITUTION) << 32) + 1
    insert = (np.int64(INSERTION) << 32) + (np.int64(1) << 30)
    delete = (np.int64(DELETION) << 32) + (np.int64(2) << 30)
    unranked = ~(np.int64(3) << 30)
    outside = np.int64(1) << 60
    longest = tokens = 0
    for u in range(len(counts)):
        longest = max(longest, reference_ends[u + 1] - reference_ends[u], hypothesis_ends[u + 1] - hypothesis_ends[u])
    for side in (reference, hypothesis):
        for token in side:
            tokens = max(tokens, token + 1)
    cells = np.empty((3, longest + 3), np.int64)
    ours, theirs = np.empty(longest + 1, np.int32), np.empty(longest + 1, np.int32)
    unmatched = np.zeros(tokens, np.int64)
    for u in range(len(counts)):
        r0, h0 = reference_ends[u], hypothesis_ends[u]
        n, m = reference_ends[u + 1] - r0, hypothesis_ends[u + 1] - h0
        ours[0], theirs[m] = -1, -2  # beside the first row and column, where nothing is equal
        ours[1 : n + 1] = reference[r0 : r0 + n]
        for j in range(m):
            theirs[m - 1 - j] = hypothesis[h0 + j]
        # The words that both have, in any order, bound the number of hits: at least `fewest_swaps` pairs differ.
        for i in range(n):
            unmatched[reference[r0 + i]] += 1
        most_hits = 0
        for j in range(m):
            if unmatched[hypothesis[h0 + j]] > 0:
                unmatched[hypothesis[h0 + j]] -= 1
                most_hits += 1
        for i in range(n):
            unmatched[reference[r0 + i]] = 0
        unavoidable = DELETION * max(0, n - m) + INSERTION * max(0, m - n)
        fewest_swaps = min(n, m) - most_hits
        band = 16
        while True:
            low, high = min(0, m - n) - band, max(0, m - n) + band
            cells[:, : n + 3] = outside
            cells[0, 1] = 0
            for d in range(1, n + m + 1):
                # the i of this antidiagonal that lie in the table and, by their diagonal d - 2i, in the band
                first, last = max(0, d - m, (d - high + 1) // 2), min(n, d, (d - low) // 2)
                before, above, here = cells[(d - 2) % 3], cells[(d - 1) % 3], cells[d % 3]
                diagonal, up = before[first : last + 1], above[first : last + 1]
                left, out = above[first + 1 : last + 2], here[first + 1 : last + 2]
                ref, hyp = ours[first : last + 1], theirs[m - d + first : m - d + last + 1]
                for x in range(last + 1 - first):
                    swapped = diagonal[x] + (0 if ref[x] == hyp[x] else swap)
                    out[x] = min(swapped, left[x] + insert, up[x] + delete) & unranked
                here[first] = here[last + 2] = outside
            best = cells[(n + m) % 3, n + 1]
            cost, swaps = best >> 32, best & ((np.int64(1) << 30) - 1)
            # A path that leaves the band has at least `band + 1` deletions and as many insertions more than are
            # unavoidable, and substitutes the words of the reference that are then left without a match.
            spare = cost - unavoidable
            needed = min(spare // (DELETION + INSERTION), (spare - SUBSTITUTION * fewest_swaps) // 2)
            if band >= needed or band >= min(n, m):
                break
            band = min(needed, 8 * band)
        gaps = (cost - SUBSTITUTION * swaps) // DELETION
        deleted = (gaps + n - m) // 2
        counts[u, 0], counts[u, 1] = n - deleted - swaps, swaps
        counts[u, 2], counts[u, 3] = deleted, gaps - deleted
