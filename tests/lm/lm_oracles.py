"""Slow and plain n-gram models, written from the definitions, to hold ours against."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from asr.lm.tables import NGramTables

Gram = tuple[str, ...]
EXAMPLES = Path(__file__).parent / "lmplz"  # text.txt, and what lmplz of KenLM 0.3.0 made of it


def as_dict(model: NGramTables) -> dict[Gram, tuple[float, float]]:
    """log10 p and back-off weight of every n-gram."""
    return {
        tuple(model.words[i] for i in ids): (float(logp), float(backoff))
        for table in model.tables
        for ids, logp, backoff in zip(table.words.tolist(), table.logp, table.backoff, strict=True)
    }


def back_off_score(grams: dict[Gram, tuple[float, float]], history: Gram, word: str) -> tuple[float, int]:
    """log10 p of a word by the definition of an ARPA file, and the length of the n-gram found."""
    if (*history, word) in grams:
        return grams[(*history, word)][0], len(history) + 1
    if not history:
        return grams["<unk>",][0], 1
    weight = grams[history][1] if history in grams else 0.0
    shorter, length = back_off_score(grams, history[1:], word)
    return weight + shorter, length


def sentence_score(grams: dict[Gram, tuple[float, float]], order: int, sentence: str) -> float:
    """log10 p of a sentence between <s> and </s>."""
    known = [word if (word,) in grams else "<unk>" for word in sentence.split()]
    total, history = 0.0, ["<s>"]
    for word in [*known, "</s>"]:
        total += back_off_score(grams, tuple(history[-(order - 1) :]) if order > 1 else (), word)[0]
        history.append(word)
    return total


class KneserNey:
    """Chen and Goodman's interpolated modified Kneser-Ney, by recursion over dictionaries; no pruning.

    The text must end with a word of its own in a sentence of its own: there lmplz and the definition agree.
    """

    def __init__(self, sentences: Sequence[str], order: int, fallback: tuple[float, float, float]) -> None:
        self.order = order
        occurrences: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
        for sentence in sentences:
            words = ["<s>", *sentence.split(), "</s>"]
            for end in range(2, len(words) + 1):
                for k in range(1, min(order, end) + 1):
                    occurrences[k][tuple(words[end - k : end])] += 1
        self.counts: list[dict[Gram, int]] = [{}]
        for k in range(1, order + 1):
            if k == order:
                self.counts.append(dict(occurrences[k]))
                continue
            before: dict[Gram, set[str]] = {}
            for gram in occurrences[k + 1]:
                before.setdefault(gram[1:], set()).add(gram[0])
            self.counts.append(
                {gram: n if gram[0] == "<s>" else len(before[gram]) for gram, n in occurrences[k].items()}
            )
        self.discounts = [self._discounts(k, fallback) for k in range(1, order + 1)]
        self.vocabulary = {gram[0] for gram in self.counts[1]} | {"<unk>"}

    def _discounts(self, k: int, fallback: tuple[float, float, float]) -> tuple[float, ...]:
        n = Counter(self.counts[k].values())
        if not (n[1] and n[2] and n[3]):
            return (0.0, *fallback)
        y = n[1] / (n[1] + 2 * n[2])
        found = (1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
        return (0.0, *(found if all(0 <= d <= j for j, d in enumerate(found, 1)) else fallback))

    def p(self, history: Gram, word: str) -> float:
        """The probability of a word after at most order - 1 others."""
        k = len(history) + 1
        shorter = self.p(history[1:], word) if history else 1 / len(self.vocabulary)
        continuations = {g: n for g, n in self.counts[k].items() if g[:-1] == history}
        total = sum(continuations.values())
        if not total:
            return shorter
        d = self.discounts[k - 1]
        spared = sum(d[min(n, 3)] for n in continuations.values())
        n = continuations.get((*history, word), 0)
        return (n - d[min(n, 3)]) / total + spared / total * shorter

    def log10(self, history: Gram, word: str) -> float:
        return math.log10(self.p(history, word))
