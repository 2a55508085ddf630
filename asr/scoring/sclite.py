"""Word counts as NIST's sclite computes and prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

SUBSTITUTION, INSERTION, DELETION = 4, 3, 3  # sclite's costs: a deletion and an insertion beat two substitutions


@dataclass(frozen=True)
class ScliteRow:
    """A row of sclite's summary: counts under a name."""

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

        Halves are rounded up if the floating-point quotient is exact: 86.25 becomes 86.3, but 102 of 160 gives 63.7.
        """
        counts = (self.correct, self.substitutions, self.deletions, self.insertions, self.errors)
        parts = [*((count, self.words) for count in counts), (self.sentence_errors, self.sentences)]
        return tuple(math.floor(count / max(of, 1) * 100 * 10 + 0.5) / 10 for count, of in parts)


def sclite_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Correct, substituted, deleted and inserted words of each utterance as sclite counts them, (utterances, 4) int64.

    sclite aligns at costs of 4 for a substitution and 3 for a deletion or insertion, and breaks ties in favor of
    substitutions, then insertions. It therefore sometimes counts more errors than the minimum, from which WER is
    computed everywhere else.
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
    """The row of some utterances, given their `sclite_counts`."""
    correct, substituted, deleted, inserted = (int(total) for total in counts.sum(axis=0))
    wrong = int((counts[:, 1:].sum(axis=1) > 0).sum())
    words = correct + substituted + deleted
    return ScliteRow(name, len(counts), words, correct, substituted, deleted, inserted, wrong)


def sclite_rows(counts: np.ndarray, speakers: Sequence[str]) -> list[ScliteRow]:
    """A row per speaker, sorted by name, if speakers are known; the last row is `Sum/Avg`."""
    rows = []
    if speakers and any(speakers):
        members: dict[str, list[int]] = {}
        for i, name in enumerate(speakers):
            members.setdefault(name, []).append(i)
        rows = [sclite_row(name or "(unknown)", counts[members[name]]) for name in sorted(members)]
    return [*rows, sclite_row("Sum/Avg", counts)]


def sclite_table(rows: Sequence[ScliteRow]) -> str:
    """The summary of percentages in the format of sclite's `-o sum`."""
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
    """Fill `counts`; token ids of all utterances are concatenated, and `*_ends` (utterances + 1,) delimits them.

    The result is that of the full dynamic programming table, but only a band of diagonals around its corners is
    computed, which is widened until every path outside it must cost more than the best one inside (Ukkonen 1985,
    "Algorithms for approximate string matching"). Memory is linear in the length of the longest utterance. Time is
    that of the full table only if two long texts have the same words in a very different order, so that no narrower
    band is sure to hold the best path.
    """
    # A cell packs three fields into one integer: the cost in the upper 32 bits, the rank of the last step in 2 bits,
    # and the number of substitutions so far in 30 bits. The minimum of three such integers is the cheapest step, with
    # ties broken as in sclite; cost and substitutions determine the other counts. `cells[d % 3][i + 1]` is the cell
    # of i reference and d - i hypothesis tokens. Cells of one antidiagonal d do not depend on each other, so the
    # compiler can vectorize the loop over them.
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
        ours[0], theirs[m] = -1, -2  # next to the first row and column, where nothing may match
        ours[1 : n + 1] = reference[r0 : r0 + n]
        for j in range(m):
            theirs[m - 1 - j] = hypothesis[h0 + j]
        # The words that both sides share, in any order, bound the number of hits: at least `fewest_swaps` pairs differ.
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
                # the i of this antidiagonal that are in the table and whose diagonal d - 2i is in the band
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
            # A path that leaves the band has at least `band + 1` deletions and `band + 1` insertions beyond the
            # unavoidable ones, and must substitute the reference words that are then left without a match.
            spare = cost - unavoidable
            needed = min(spare // (DELETION + INSERTION), (spare - SUBSTITUTION * fewest_swaps) // 2)
            if band >= needed or band >= min(n, m):
                break
            band = min(needed, 8 * band)
        gaps = (cost - SUBSTITUTION * swaps) // DELETION
        deleted = (gaps + n - m) // 2
        counts[u, 0], counts[u, 1] = n - deleted - swaps, swaps
        counts[u, 2], counts[u, 3] = deleted, gaps - deleted
