"""Scores for people and for programs: the one formatter of tables, and figures as JSON-able values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from asr.scoring.breakdown import Confusions, GroupScore, ranked
from asr.scoring.edits import Score, Unit

_TASK_RATES: Mapping[str, tuple[tuple[str, Unit], ...]] = {
    "ctc": (("WER", "word"), ("CER", "char")),
    "ctc-characters": (("CER", "char"), ("WER", "word")),
    "ctc-phones": (("PER", "word"),),
}
RATE_HEADER = ("95 % interval", "sub", "del", "ins", "words")  # of `rate_cells`, after the name of the rate


def task_rates(task: str) -> tuple[tuple[str, Unit], ...]:
    """The rates of a model's task as (label, unit), the leading one first; an unknown task has those of `ctc`."""
    return _TASK_RATES.get(task, _TASK_RATES["ctc"])


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Rows of cells under a header, in columns two spaces apart; the first `left` columns are aligned to the left."""
    cells = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if i < left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


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
    """The cells of a table for what `rates` gives: the rate itself, then the columns of RATE_HEADER."""
    low, high = figures["interval_95"]
    counts = (figures[key] for key in ("substitutions", "deletions", "insertions", "reference_length"))
    return [f"{figures['rate']:.2%}", f"{low:.2%} to {high:.2%}", *map(str, counts)]


def rate_line(label: str, score: Score) -> str:
    """A score for people, one line."""
    rate, interval, *counts = rate_cells(rates(score))
    named = ", ".join(f"{letter} {count}" for letter, count in zip("SDIN", counts, strict=True))
    return f"{label} {rate:>7}  95 % interval {interval}  ({named})"


def quality_line(figures: Mapping[str, Any]) -> str:
    """What `WordConfidences.quality` found, for people."""
    entropy = figures["normalized_cross_entropy"]
    return (
        f"{figures['words']} words, {figures['right']:.1%} right, mean confidence {figures['mean_confidence']:.1%}, "
        f"ECE {figures['expected_calibration_error']:.4f}, "
        f"NCE {'undefined' if entropy is None else format(entropy, '.4f')}"
    )


def group_table(title: str, groups: Sequence[GroupScore], limit: int | None = None) -> str:
    """A row per group; with a `limit` the groups with the most errors, and how many others there are."""
    shown = groups
    if limit is not None and len(groups) > limit:
        worst = sorted(groups, key=lambda group: (-group.counts.errors, group.name))[:limit]
        shown = [group for group in groups if group in worst]
    rows = [[group.name, str(len(group.utterances)), *rate_cells(rates(group))] for group in shown]
    text = text_table([title, "utterances", "WER", *RATE_HEADER], rows)
    if len(shown) < len(groups):
        text += f"\n... and {len(groups) - len(shown)} more with fewer errors (--limit)"
    return text


def confusion_table(found: Confusions, limit: int | None = None) -> str:
    """The most frequent confusions, deletions and insertions side by side; "" where there is none."""
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
