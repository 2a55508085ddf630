"""Errors by speaker, duration, noise level, word, and confidence of the recognized words, and tables of them."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any, TypeVar

import numpy as np

from asr.decoding.confidence import BINS, expected_calibration_error, normalized_cross_entropy
from asr.scoring.edits import Edit, EditCounts, Score, Unit
from asr.scoring.pairing import Line
from asr.text.normalize import normalize

_Key = TypeVar("_Key", str, tuple[str, str])

DURATION_EDGES = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0)  # seconds
LENGTH_EDGES = (1, 3, 6, 11, 21, 41)  # words of the reference
FEW_WORDS = 100
WORST = 3  # speakers listed by name
UNKNOWN = "(unknown)"
SNR_EDGES = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0)  # decibels
_TASK_RATES: Mapping[str, tuple[tuple[str, Unit], ...]] = {
    "ctc": (("WER", "word"), ("CER", "char")),
    "ctc-characters": (("CER", "char"), ("WER", "word")),
    "ctc-spaced": (("CER", "word"),),
    "ctc-phones": (("PER", "word"),),
}
RATE_HEADER = ("95 % interval", "sub", "del", "ins", "words")  # columns of `rate_cells` after the rate itself


@dataclass(frozen=True)
class GroupScore(Score):
    """The score of a named group of utterances; `seconds` of audio is None unless all durations are known.

    Groups made by the functions below have intervals over utterances, from 1,000 resamples.
    """

    name: str = ""
    seconds: float | None = None

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        seconds = self.seconds if self.seconds is None else round(self.seconds, 3)
        own = {"name": self.name, "utterances": len(self.utterances), "sentence_errors": self.sentence_errors}
        return {**own, "seconds": seconds, **rates(self)}


@dataclass(frozen=True)
class Spread:
    """How the word error rate differs between `groups` of utterances, such as speakers, the worst first.

    `deviation` is the unweighted standard deviation of their rates. `chance` is about what it would be if all groups
    were equally hard and differed only because they have few words: the variance of the errors within groups, per
    word, divided by the words of each group. It is None if every group is a single utterance.
    """

    groups: tuple[GroupScore, ...]
    deviation: float
    chance: float | None

    @property
    def few(self) -> int:
        """How many groups have fewer than FEW_WORDS words, so that their rates are rough."""
        return sum(group.reference_length < FEW_WORDS for group in self.groups)

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values; rates are fractions."""
        return {
            "speakers": len(self.groups),
            "lowest": self.groups[-1].rate,
            "highest": self.groups[0].rate,
            "standard_deviation": self.deviation,
            "standard_deviation_by_chance": self.chance,
            "worst": [group.name for group in self.groups[:WORST]],
            f"below_{FEW_WORDS}_words": self.few,
        }

    def text(self) -> str:
        """The figures for people."""
        chance = "" if self.chance is None else f" (about {self.chance:.2%} by chance)"
        worst = ", ".join(f"{group.name} {group.rate:.2%}" for group in self.groups[:WORST])
        some = "all" if self.few == len(self.groups) else f"{self.few} of them"
        few = f"; {some} have fewer than {FEW_WORDS} words" if self.few else ""
        return (
            f"{len(self.groups)} speakers: WER {self.groups[-1].rate:.2%} to {self.groups[0].rate:.2%}, "
            f"standard deviation {self.deviation:.2%}{chance}, worst {worst}{few}"
        )


@dataclass(frozen=True)
class Confusions:
    """How often each word was confused with another, deleted and inserted."""

    substituted: Counter[tuple[str, str]]  # (reference word, hypothesis word)
    deleted: Counter[str]
    inserted: Counter[str]


def by_name(
    counts: Sequence[EditCounts], names: Sequence[str], durations: Sequence[float | None] = ()
) -> tuple[GroupScore, ...]:
    """A group per name (of a speaker, say), sorted by name; utterances without one are "(unknown)" and come last."""
    return _groups([(not name, name or UNKNOWN) for name in names], counts, durations)


def spread(groups: Sequence[GroupScore]) -> Spread | None:
    """The spread of the rates of named groups; None unless at least two of them have words."""
    known = [group for group in groups if group.reference_length and group.name != UNKNOWN]
    if len(known) < 2:
        return None
    squares, freedom = 0.0, 0  # squared deviations from the errors that the group's rate predicts; degrees of freedom
    for group in known:
        errors, words = group.errors_and_lengths.T
        squares += float(np.square(errors - group.rate * words).sum())
        freedom += len(errors) - 1
    lengths = np.array([group.reference_length for group in known])
    chance = None
    if freedom:
        per_word = squares / int(lengths.sum()) * sum(len(group.utterances) for group in known) / freedom
        chance = float(np.sqrt(np.mean(per_word / lengths)))
    worst_first = sorted(known, key=lambda group: (-group.rate, group.name))
    return Spread(tuple(worst_first), float(np.std([group.rate for group in known], ddof=1)), chance)


def by_duration(counts: Sequence[EditCounts], durations: Sequence[float | None]) -> tuple[GroupScore, ...]:
    """A group per range of durations in seconds; empty ranges are left out, unknown durations come last."""
    return _by_range(counts, durations, DURATION_EDGES, _ranges(DURATION_EDGES, "s"), durations)


def by_snr(counts: Sequence[EditCounts], decibels: Sequence[float | None]) -> tuple[GroupScore, ...]:
    """A group per range of signal-to-noise ratios in decibels, as `by_duration`."""
    return _by_range(counts, decibels, SNR_EDGES, _ranges(SNR_EDGES, "dB"))


def by_length(counts: Sequence[EditCounts]) -> tuple[GroupScore, ...]:
    """A group per range of words in the reference, for use when durations are not known."""
    spans = [f"{low}-{high - 1}" if high - low > 1 else f"{low}" for low, high in pairwise((0, *LENGTH_EDGES))]
    names = [f"{span} word" + "s" * (span != "1") for span in (*spans, f"{LENGTH_EDGES[-1]}+")]
    return _by_range(counts, [c.reference_length for c in counts], LENGTH_EDGES, names)


def confusions(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]], alignments: Sequence[Sequence[Edit]]
) -> Confusions:
    """Count the edits of aligned token sequences by the words in them."""
    counts = Confusions(Counter(), Counter(), Counter())
    for reference, hypothesis, edits in zip(references, hypotheses, alignments, strict=True):
        for edit in edits:
            if edit.kind == "substitute":
                counts.substituted.update(edit.pairs(reference, hypothesis))
            elif edit.kind == "delete":
                counts.deleted.update(reference[edit.reference_start : edit.reference_end])
            elif edit.kind == "insert":
                counts.inserted.update(hypothesis[edit.hypothesis_start : edit.hypothesis_end])
    return counts


def ranked(counter: Counter[_Key], limit: int | None = None) -> list[tuple[_Key, int]]:
    """The most frequent keys first, with their counts; ties in alphabetical order."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:limit]


@dataclass(frozen=True)
class WordConfidences:
    """The recognized words of one or more utterances: the confidence of each, and whether it was right."""

    confidences: tuple[float, ...] = ()
    correct: tuple[bool, ...] = ()

    def quality(self) -> dict[str, Any]:
        """JSON-able: words, share right, mean confidence, ECE, and normalized cross entropy (None if undefined)."""
        cross_entropy = normalized_cross_entropy(self.confidences, self.correct)
        count = max(len(self.confidences), 1)
        return {
            "words": len(self.confidences),
            "right": round(sum(self.correct) / count, 5),
            "mean_confidence": round(sum(self.confidences) / count, 5),
            "expected_calibration_error": round(expected_calibration_error(self.confidences, self.correct), 5),
            "normalized_cross_entropy": None if cross_entropy is None else round(cross_entropy, 5),
        }

    def bins(self) -> list[tuple[float, float, int]]:
        """Mean confidence, share of right words, and number of words of each non-empty bin of ECE."""
        members: dict[int, list[tuple[float, bool]]] = {}
        for confidence, right in zip(self.confidences, self.correct, strict=True):
            members.setdefault(min(int(confidence * BINS), BINS - 1), []).append((confidence, right))
        bins = [(*map(sum, zip(*chosen, strict=True)), len(chosen)) for _, chosen in sorted(members.items())]
        return [(confidence / count, right / count, count) for confidence, right, count in bins]

    def below(self, limit: float) -> tuple[int, int]:
        """How many words have a confidence below `limit`, and how many of these were wrong."""
        doubtful = [right for c, right in zip(self.confidences, self.correct, strict=True) if c < limit]
        return len(doubtful), doubtful.count(False)


def word_confidences(line: Line, hypothesis: str, normalizer: str, edits: Sequence[Edit]) -> WordConfidences | None:
    """The words of `hypothesis`, the normalized text of `line`, aligned by `edits`; None if confidences are unknown.

    When the normalizer splits a recognized word, each part gets its confidence. A word is right if it is aligned with
    an equal word of the reference, as in NIST's scoring of confidences.
    """
    known = [(part, w.confidence) for w in line.words for part in normalize(w.word, normalizer).split()]
    if [part for part, _ in known] != hypothesis.split():
        return None
    correct = [False] * len(known)
    for edit in edits:
        if edit.kind == "equal":
            first, last = edit.hypothesis_start, edit.hypothesis_end
            correct[first:last] = [True] * (last - first)
    return WordConfidences(tuple(c for _, c in known), tuple(correct))


def pooled(parts: Sequence[WordConfidences | None]) -> WordConfidences:
    """The words of all utterances that have confidences."""
    known = [part for part in parts if part is not None]
    return WordConfidences(
        tuple(c for part in known for c in part.confidences), tuple(right for part in known for right in part.correct)
    )


def _by_range(
    counts: Sequence[EditCounts],
    values: Sequence[float | None],
    edges: Sequence[float],
    names: Sequence[str],
    durations: Sequence[float | None] = (),
) -> tuple[GroupScore, ...]:
    """A group per range [edge, next edge), named by the entry of `names` at the same position."""
    places = [len(names) if value is None else bisect_right(edges, value) for value in values]
    return _groups([(place, (*names, UNKNOWN)[place]) for place in places], counts, durations)


def _ranges(edges: Sequence[float], unit: str) -> list[str]:
    """The names of the ranges between `edges`."""
    inner = [f"{low:g}-{high:g} {unit}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g} {unit}", *inner, f"{edges[-1]:g} {unit} and more"]


def _groups(
    keys: Sequence[tuple[int, str]], counts: Sequence[EditCounts], durations: Sequence[float | None]
) -> tuple[GroupScore, ...]:
    """A group for each distinct (rank, name), sorted."""
    members: dict[tuple[int, str], list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(key, []).append(i)
    groups = []
    for key, chosen in sorted(members.items()):
        known = [seconds for i in chosen if durations and (seconds := durations[i]) is not None]
        total = sum(known) if len(known) == len(chosen) else None
        utterances = tuple(counts[i] for i in chosen)
        groups.append(GroupScore("word", utterances, resamples=1000, name=key[1], seconds=total))
    return tuple(groups)


def task_rates(task: str) -> tuple[tuple[str, Unit], ...]:
    """The rates of a model's task as (label, unit), the main one first; an unknown task has those of `ctc`."""
    return _TASK_RATES.get(task, _TASK_RATES["ctc"])


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Rows of cells under a header, in columns two spaces apart; the first `left` columns are left-aligned."""
    columns = []
    for i, column in enumerate(zip(header, *rows, strict=True)):
        width = max(map(len, column))
        columns.append([cell.ljust(width) if i < left else cell.rjust(width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def rates(score: Score) -> dict[str, Any]:
    """A score as JSON-able values; the rate is a fraction."""
    counts = score.counts
    return {
        "rate": score.rate,
        "interval_95": list(score.interval),
        "interval_over": score.interval_units,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "reference_length": counts.reference_length,
    }


def rate_cells(figures: Mapping[str, Any]) -> list[str]:
    """Table cells for the result of `rates`: the rate itself, then the columns of RATE_HEADER."""
    low, high = figures["interval_95"]
    counts = (figures[key] for key in ("substitutions", "deletions", "insertions", "reference_length"))
    return [f"{figures['rate']:.2%}", f"{low:.2%} to {high:.2%}", *map(str, counts)]


def rate_line(label: str, score: Score) -> str:
    """A score as one readable line."""
    rate, interval, *counts = rate_cells(rates(score))
    named = ", ".join(f"{letter} {count}" for letter, count in zip("SDIN", counts, strict=True))
    return f"{label} {rate:>7}  95 % interval {interval}  ({named})"


def quality_line(figures: Mapping[str, Any]) -> str:
    """The result of `WordConfidences.quality` as one readable line."""
    entropy = figures["normalized_cross_entropy"]
    return (
        f"{figures['words']} words, {figures['right']:.1%} right, mean confidence {figures['mean_confidence']:.1%}, "
        f"ECE {figures['expected_calibration_error']:.4f}, "
        f"NCE {'undefined' if entropy is None else format(entropy, '.4f')}"
    )


def group_table(title: str, groups: Sequence[GroupScore], limit: int | None = None) -> str:
    """A row per group; with a `limit`, those with the most errors and the number of others."""
    worst = {group.name for group in sorted(groups, key=lambda group: (-group.counts.errors, group.name))[:limit]}
    shown = [group for group in groups if group.name in worst]
    rows = [[group.name, str(len(group.utterances)), *rate_cells(rates(group))] for group in shown]
    text = text_table([title, "utterances", "WER", *RATE_HEADER], rows)
    if len(shown) < len(groups):
        text += f"\n... and {len(groups) - len(shown)} more with fewer errors (--limit)"
    return text


def confusion_table(found: Confusions, limit: int | None = None) -> str:
    """The most frequent confusions, deletions and insertions side by side; "" if there are none."""
    ranks = {
        "confused": [(" -> ".join(pair), number) for pair, number in ranked(found.substituted, limit)],
        "deleted": ranked(found.deleted, limit),
        "inserted": ranked(found.inserted, limit),
    }
    columns = [[title, *(f"{n:5d}  {words}" for words, n in rows)] for title, rows in ranks.items() if rows]
    if not columns:
        return ""
    header, *rows = zip_longest(*columns, fillvalue="")
    return text_table(header, rows, left=len(header))
