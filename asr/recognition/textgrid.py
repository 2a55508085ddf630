"""Praat's TextGrid (long text format): what is said when, as interval tiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asr.types import Word


def textgrid(duration: float, tiers: Mapping[str, Sequence[Word]]) -> str:
    """The tiers by name, each covering 0 to `duration` seconds without gaps: what no word fills has an empty text."""
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {_seconds(duration)}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, words) in enumerate(tiers.items(), start=1):
        intervals = _without_gaps(words, duration)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f"        name = {_quoted(name)}",
            "        xmin = 0",
            f"        xmax = {_seconds(duration)}",
            f"        intervals: size = {len(intervals)}",
        ]
        for i, (start, end, text) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{i}]:",
                f"            xmin = {start}",
                f"            xmax = {end}",
                f"            text = {_quoted(text)}",
            ]
    return "\n".join(lines) + "\n"


def _without_gaps(words: Sequence[Word], duration: float) -> list[tuple[str, str, str]]:
    """Intervals (xmin, xmax, text) as they are printed: Praat compares the numbers it reads."""
    intervals: list[tuple[str, str, str]] = []
    at = _seconds(0.0)
    for word in words:
        start, end = _seconds(word.start), _seconds(word.end)
        if float(end) <= max(float(start), float(at)):  # of no width once rounded
            continue
        if float(start) > float(at):
            intervals.append((at, start, ""))
            at = start
        intervals.append((at, end, word.word))
        at = end
    if float(_seconds(duration)) > float(at) or not intervals:
        intervals.append((at, _seconds(duration), ""))
    return intervals


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
