"""Where the errors are: by speaker, length, noise; the words that are confused, lost and made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from asr.scoring.edits import Edit, EditCounts
from asr.scoring.significance import bootstrap_interval

DURATION_EDGES = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0)  # seconds
LENGTH_EDGES = (1.0, 3.0, 6.0, 11.0, 21.0, 41.0)  # words of the reference
SNR_EDGES = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0)  # decibels


@dataclass(frozen=True)
class Group:
    """Some of the utterances and their errors; `interval` is over utterances, `seconds` None where not all have one."""

    name: str
    utterances: int
    sentence_errors: int
    counts: EditCounts
    interval: tuple[float, float]
    seconds: float | None

    @property
    def rate(self) -> float:
        return self.counts.rate


@dataclass(frozen=True)
class Confusions:
    """How often words were confused, lost and made up; `reference` counts the words that were there to recognize."""

    substituted: Counter[tuple[str, str]]  # (reference word, hypothesis word)
    deleted: Counter[str]
    inserted: Counter[str]
    reference: Counter[str]


def by_name(
    counts: Sequence[EditCounts], names: Sequence[str], durations: Sequence[float | None] = ()
) -> tuple[Group, ...]:
    """A group per name (of a speaker, say), by name; utterances without one are "(unknown)" and come last."""
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        members.setdefault(name, []).append(i)
    order = sorted(members, key=lambda name: (not name, name))
    return tuple(_group(name or "(unknown)", members[name], counts, durations) for name in order)


def by_value(
    counts: Sequence[EditCounts],
    values: Sequence[float | None],
    edges: Sequence[float],
    label: Callable[[float | None, float | None], str],
    durations: Sequence[float | None] = (),
) -> tuple[Group, ...]:
    """A group per range [edge, next edge), those without utterances left out; utterances without a value come last.

    `label(low, high)` names a range, whose `low` or `high` is None at the ends.
    """
    members: dict[int, list[int]] = {}
    for i, value in enumerate(values):
        place = len(edges) + 1 if value is None else int(np.searchsorted(edges, value, side="right"))
        members.setdefault(place, []).append(i)
    limits = [None, *edges, None]

    def name(place: int) -> str:
        return "(unknown)" if place > len(edges) else label(limits[place], limits[place + 1])

    return tuple(_group(name(place), members[place], counts, durations) for place in sorted(members))


def by_duration(counts: Sequence[EditCounts], durations: Sequence[float | None]) -> tuple[Group, ...]:
    """Groups by seconds of audio."""
    return by_value(counts, durations, DURATION_EDGES, lambda low, high: _range(low, high, "s"), durations)


def by_snr(counts: Sequence[EditCounts], decibels: Sequence[float | None]) -> tuple[Group, ...]:
    """Groups by signal-to-noise ratio in decibels."""
    return by_value(counts, decibels, SNR_EDGES, lambda low, high: _range(low, high, "dB"))


def by_length(counts: Sequence[EditCounts]) -> tuple[Group, ...]:
    """Groups by words of the reference, for where durations are not known."""

    def label(low: float | None, high: float | None) -> str:
        first, last = int(low or 0), None if high is None else int(high) - 1
        words = f"{first}+" if last is None else f"{first}" if first == last else f"{first}-{last}"
        return f"{words} word" + "s" * (words != "1")

    return by_value(counts, [float(c.reference_length) for c in counts], LENGTH_EDGES, label)


def confusions(
    references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]], alignments: Sequence[Sequence[Edit]]
) -> Confusions:
    """Count the edits of aligned token sequences by the words in them."""
    found = Confusions(Counter(), Counter(), Counter(), Counter())
    for reference, hypothesis, edits in zip(references, hypotheses, alignments, strict=True):
        found.reference.update(reference)
        for edit in edits:
            if edit.kind == "equal":
                continue
            ours = reference[edit.reference_start : edit.reference_end]
            theirs = hypothesis[edit.hypothesis_start : edit.hypothesis_end]
            if edit.kind == "substitute":
                found.substituted.update(zip(ours, theirs, strict=True))
            elif edit.kind == "delete":
                found.deleted.update(ours)
            else:
                found.inserted.update(theirs)
    return found


def ranked(counter: Counter[str] | Counter[tuple[str, str]], limit: int | None = None) -> list[tuple[str, int]]:
    """The most frequent first, ties by the alphabet; a pair as "reference -> hypothesis"."""
    items = sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:limit]
    return [(key if isinstance(key, str) else f"{key[0]} -> {key[1]}", number) for key, number in items]


def group_table(title: str, groups: Sequence[Group], limit: int | None = None) -> str:
    """A table for people; with a `limit` the groups with the most errors, and how many others there are."""
    shown = groups
    if limit is not None and len(groups) > limit:
        worst = sorted(groups, key=lambda group: (-group.counts.errors, group.name))[:limit]
        shown = [group for group in groups if group in worst]
    width = max(len(title), *(len(group.name) for group in shown))
    lines = [f"{title:<{width}}  utterances   words      WER   95 % interval      sub   del   ins"]
    for group in shown:
        low, high = group.interval
        c = group.counts
        lines.append(
            f"{group.name:<{width}}  {group.utterances:10d} {c.reference_length:7d} {group.rate:8.2%}  "
            f"{f'{low:.2%} to {high:.2%}':<17} {c.substitutions:5d} {c.deletions:5d} {c.insertions:5d}"
        )
    if len(shown) < len(groups):
        lines.append(f"... and {len(groups) - len(shown)} more with fewer errors (--limit)")
    return "\n".join(lines)


def confusion_table(found: Confusions, limit: int | None = None) -> str:
    """The top confusions, deletions and insertions side by side; "" where there is none."""
    columns = [
        ("confused", ranked(found.substituted, limit)),
        ("deleted", ranked(found.deleted, limit)),
        ("inserted", ranked(found.inserted, limit)),
    ]
    columns = [(title, rows) for title, rows in columns if rows]
    cells = [[title, *(f"{number:5d}  {words}" for words, number in rows)] for title, rows in columns]
    height = max(map(len, cells), default=0)
    widths = [max(map(len, column)) + 3 for column in cells]
    lines = []
    for i in range(height):
        line = "".join(
            f"{column[i] if i < len(column) else '':<{width}}" for column, width in zip(cells, widths, strict=True)
        )
        lines.append(line.rstrip())
    return "\n".join(lines)


def _group(name: str, members: Sequence[int], counts: Sequence[EditCounts], durations: Sequence[float | None]) -> Group:
    chosen = [counts[i] for i in members]
    seconds = [durations[i] for i in members] if durations else [None]
    known = [s for s in seconds if s is not None]
    errors = np.array([c.errors for c in chosen], dtype=np.int64)
    lengths = np.array([c.reference_length for c in chosen], dtype=np.int64)
    return Group(
        name,
        len(chosen),
        int((errors > 0).sum()),
        _sum(chosen),
        bootstrap_interval(errors, lengths, resamples=1000),
        sum(known) if len(known) == len(seconds) else None,
    )


def _sum(counts: Iterable[EditCounts]) -> EditCounts:
    return sum(counts, EditCounts())


def _range(low: float | None, high: float | None, unit: str) -> str:
    if low is None:
        return f"below {high:g} {unit}"
    return f"{low:g} {unit} and more" if high is None else f"{low:g}-{high:g} {unit}"
