"""How robust a model is: its error rates on a test set with degraded audio, compared with the clean audio."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asr.audio.degrade import Degradation, Degrader
from asr.audio.noise import OtherSpeech
from asr.audio.read import read
from asr.corpus.manifest import Manifest, Utterance
from asr.files import replacing
from asr.recognition.evaluation import Change, Evaluation
from asr.scoring.breakdown import RATE_HEADER, GroupScore, rate_cells, rates, task_rates, text_table
from asr.scoring.comparison import Comparison, compare, p_text
from asr.types import AudioError

LONGEST_TALK = 30.0  # seconds to read of each utterance in babble
CLEAN = "clean"


@dataclass(frozen=True)
class Robustness:
    """A model's evaluation on `clean` utterances and on the same utterances in each condition, by name.

    `label` names the leading error rate of the model's task; `comparisons` compare it with the clean one, their A.
    """

    clean: Evaluation
    conditions: dict[str, Evaluation]
    label: str
    comparisons: dict[str, Comparison]

    @cached_property
    def groups(self) -> tuple[GroupScore, ...]:
        """The scores of the clean utterances and of every condition, with their names."""
        clean = self.clean.scored.scores[self._rate]
        scores = {CLEAN: clean, **{name: e.scored.scores[self._rate] for name, e in self.conditions.items()}}
        return tuple(GroupScore(s.unit, s.utterances, s.speakers, name=name) for name, s in scores.items())

    @property
    def _rate(self) -> str:
        return "CER" if task_rates(self.clean.task)[0][1] == "char" else "WER"

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table."""
        rows = []
        for group in self.groups:
            row = [group.name, *rate_cells(rates(group))]
            if (comparison := self.comparisons.get(group.name)) is not None:
                low, high = comparison.interval
                row += [f"{comparison.difference:+.2%}", f"{low:+.2%} to {high:+.2%}"]
                row += [p_text(comparison.p, comparison.bounded).removeprefix("p = ").removeprefix("p ")]
            rows.append([*row, *[""] * (10 - len(row))])
        return ["condition", self.label, *RATE_HEADER, "to clean", "95 % interval", "p"], rows

    def text(self) -> str:
        """The table as text."""
        return text_table(*self.rows())

    def summary(self) -> list[dict[str, Any]]:
        """The conditions as JSON-able values; rates are fractions, differences are from the clean rate."""
        rows = []
        for group in self.groups[1:]:
            comparison = self.comparisons[group.name].summary()
            kept = ("difference", "interval_95", "p", "significant", "relative")
            rows.append(
                {
                    "condition": group.name,
                    "rate_of": self.label,
                    **rates(group),
                    "unreadable": len(self.conditions[group.name].failures),
                    "to_clean": {key: comparison[key] for key in kept},
                }
            )
        return rows

    def write(self, folder: str | Path, extra: dict[str, Any]) -> None:
        """Write the plot degraded.png and, to degraded/CONDITION/, the files of Evaluation.write."""
        for name, evaluation in self.conditions.items():
            evaluation.write(Path(folder) / "degraded" / name.replace(":", "-"), {**extra, "condition": name})
        draw_rates(self.groups, Path(folder) / "degraded.png", self.label)


def measure(
    clean: Evaluation,
    manifest: Manifest,
    degradations: Sequence[Degradation],
    degrader: Degrader,
    evaluate: Callable[[str, Change], Evaluation],
) -> Robustness:
    """Evaluate every condition and compare it with `clean`.

    `evaluate` takes the name of a condition and the function that changes the samples of an utterance.
    """
    places = {utterance.id: i for i, utterance in enumerate(manifest)}
    label, unit = task_rates(clean.task)[0]
    conditions, comparisons = {}, {}
    for degradation in degradations:

        def change(utterance: Utterance, samples: np.ndarray, how: Degradation = degradation) -> np.ndarray:
            other = _other_speech(manifest, places[utterance.id], degrader.rate)
            return degrader(how, samples, utterance.id, other)

        evaluation = evaluate(degradation.name, change)
        speakers = [line.speaker for line in clean.scored.lines]
        texts = (clean.scored.references, clean.scored.hypotheses, evaluation.scored.hypotheses)
        conditions[degradation.name] = evaluation
        comparisons[degradation.name] = compare(*texts, unit, speakers=speakers if any(speakers) else ())
    return Robustness(clean, conditions, label, comparisons)


def _other_speech(manifest: Manifest, index: int, rate: int) -> OtherSpeech:
    def read_another(draw: random.Random) -> np.ndarray:
        utterance = manifest[manifest.another(index, draw)]
        offset, duration = utterance.window
        channel: str | int = "mix" if utterance.channel is None else utterance.channel
        seconds = LONGEST_TALK if duration is None else min(duration, LONGEST_TALK)
        try:
            return read(utterance.audio_filepath, rate=rate, channel=channel, offset=offset, duration=seconds).samples
        except AudioError:  # reported as the failure of that utterance
            return np.zeros(0, dtype=np.float32)

    return read_another


def draw_rates(groups: Sequence[GroupScore], path: Path, label: str) -> None:
    """Plot the rates of the groups with their intervals, and a line at the first one, to a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.2 + 0.28 * len(groups)), layout="constrained")
    axes = figure.subplots()
    places = range(len(groups))
    values = np.array([100 * group.rate for group in groups])
    intervals = 100 * np.array([group.interval for group in groups])
    axes.hlines(places, intervals[:, 0], intervals[:, 1], color="#1f6feb", alpha=0.4, linewidth=3)
    axes.plot(values, places, "o", color="#1f6feb")
    axes.axvline(values[0], color="#888888", linestyle=":")
    for place, value, (_, high) in zip(places, values, intervals, strict=True):
        space: Any = {"xytext": (7, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{value:.1f}", (max(value, high), place), **space, fontsize=8, color="#555555")
    axes.set(
        xlabel=f"{label} (%), 95 % intervals", yticks=places, xlim=(0, 1.12 * max(intervals.max(), values.max(), 1))
    )
    axes.set_yticklabels([group.name for group in groups])
    axes.invert_yaxis()
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
