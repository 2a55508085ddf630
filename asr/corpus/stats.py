"""Totals of a manifest: hours, durations, speakers, words, characters."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from asr.corpus.manifest import Utterance
from asr.text.normalize import normalizer as normalizer_named

PERCENTILES = {0: "min", 1: "1 %", 5: "5 %", 25: "25 %", 50: "median", 75: "75 %", 95: "95 %", 99: "99 %", 100: "max"}
_BAR = 40


@dataclass(frozen=True)
class Stats:
    """Totals of a manifest. `seconds` is all audio, `percentiles` maps percentages to durations in seconds, `histogram`
    is (from, to, utterances) in seconds; rates are per second of audio, including silence."""

    utterances: int
    seconds: float
    hours: float
    percentiles: dict[int, float]
    histogram: tuple[tuple[float, float, int], ...]
    speakers: int
    without_speaker: int
    empty_texts: int
    words: int
    vocabulary: int
    words_per_second: float
    characters_per_second: float
    characters: dict[str, int]


def statistics(manifest: Iterable[Utterance], normalizer: str = "none") -> Stats:
    """Totals of `manifest`, with texts under the given normalizer; `characters` are ordered by frequency."""
    normalize = normalizer_named(normalizer)
    words, characters, speakers = Counter[str](), Counter[str](), Counter[str]()
    lengths, empty = array("d"), 0
    for utterance in manifest:
        text = normalize(utterance.text)
        words.update(text.split())
        characters.update(text)
        speakers[utterance.speaker] += 1
        lengths.append(utterance.duration)
        empty += not text
    without_speaker = speakers.pop("", 0)
    durations, seconds = np.array(lengths, dtype=np.float32), sum(lengths)
    levels = np.percentile(durations, list(PERCENTILES)) if len(durations) else [0.0] * len(PERCENTILES)
    return Stats(
        utterances=len(durations),
        seconds=seconds,
        hours=seconds / 3600,
        percentiles={p: round(float(value), 3) for p, value in zip(PERCENTILES, levels, strict=True)},
        histogram=_histogram(durations),
        speakers=len(speakers),
        without_speaker=without_speaker,
        empty_texts=empty,
        words=words.total(),
        vocabulary=len(words),
        words_per_second=words.total() / seconds if seconds else 0.0,
        characters_per_second=characters.total() / seconds if seconds else 0.0,
        characters=dict(sorted(characters.items(), key=lambda item: (-item[1], item[0]))),
    )


def render(stats: Stats) -> str:
    """The totals as text for a terminal."""
    levels = "  ".join(f"{name} {stats.percentiles[p]:.2f}" for p, name in PERCENTILES.items())
    without_speaker = f" ({stats.without_speaker:,} utterances without)" * bool(stats.without_speaker)
    lines = [
        f"utterances   {stats.utterances:,}" + f" ({stats.empty_texts:,} without text)" * bool(stats.empty_texts),
        f"audio        {stats.hours:.2f} h",
        f"duration     {levels} s",
        f"speakers     {stats.speakers:,}{without_speaker}",
        f"words        {stats.words:,}, {stats.vocabulary:,} different",
        f"pace         {stats.words_per_second:.2f} words/s, {stats.characters_per_second:.1f} characters/s",
        "",
        "duration histogram (s)",
        *_bars(stats.histogram),
        "",
        f"characters ({len(stats.characters)} different)",
        *_columns([f"{_character_name(c)} {n:,}" for c, n in stats.characters.items()]),
    ]
    return "\n".join(lines)


def _histogram(durations: np.ndarray, bins: int = 10) -> tuple[tuple[float, float, int], ...]:
    """Equal bins of a round width (1, 2 or 5 times a power of ten) that cover all durations."""
    if not len(durations):
        return ()
    longest = max(float(durations.max()), 1e-3)
    power = 10.0 ** np.floor(np.log10(longest / bins))
    width = next(power * factor for factor in (1, 2, 5, 10) if power * factor * bins >= longest)
    edges = np.arange(int(np.ceil(longest / width)) + 1) * width
    counts, _ = np.histogram(durations, bins=np.append(edges[:-1], max(edges[-1], longest)))
    bins_of = zip(edges[:-1].tolist(), counts.tolist(), strict=True)
    return tuple((round(low, 6), round(low + float(width), 6), count) for low, count in bins_of)


def _bars(histogram: tuple[tuple[float, float, int], ...]) -> list[str]:
    most = max((count for _, _, count in histogram), default=0) or 1
    return [
        f"{low:>8g} - {high:<8g} {count:>9,} {'#' * int(np.ceil(_BAR * count / most))}".rstrip()
        for low, high, count in histogram
    ]


def _columns(cells: list[str], width: int = 100) -> list[str]:
    cell = max(map(len, cells), default=0) + 3
    per_line = max(1, width // cell)
    rows = (cells[i : i + per_line] for i in range(0, len(cells), per_line))
    return ["  " + "".join(f"{text:<{cell}}" for text in row).rstrip() for row in rows]


def _character_name(character: str) -> str:
    return "space" if character == " " else character if character.isprintable() else f"U+{ord(character):04X}"
