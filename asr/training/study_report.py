"""The results of a study: its trials as a table and CSV, the best configuration as YAML, and pictures."""

from __future__ import annotations

import csv
import io
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from asr.files import replacing, write_text
from asr.scoring.breakdown import text_table
from asr.training.space import Dimension, shown, with_parameters
from asr.training.study import current, study_space

TRIALS, BEST = "trials.csv", "best.yaml"
PICTURES = ("history.png", "importance.png", "parallel_coordinates.png")
_BLUE, _GRAY, _RED = "#1f6feb", "#888888", "#d1242f"


@dataclass(frozen=True)
class Row:
    """A trial. `value` is the metric: the mean over folds, or the last report of a pruned trial, else None."""

    trial: int
    state: str  # complete, pruned, failed, running or waiting
    value: float | None
    folds: Sequence[float]
    parameters: Mapping[str, Any]  # the values of the settings, by key
    seconds: float | None
    error: str

    @property
    def standard_error(self) -> float | None:
        """Of the mean over the folds."""
        return statistics.stdev(self.folds) / math.sqrt(len(self.folds)) if len(self.folds) > 1 else None


def rows(study: optuna.Study) -> list[Row]:
    """All trials, complete ones first, and best first."""
    space = study_space(study)
    sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0

    def row(trial: FrozenTrial) -> Row:
        fixed = trial.system_attrs.get("fixed_params", {}) | trial.params
        value = trial.value if trial.state == TrialState.COMPLETE else None
        if trial.state == TrialState.PRUNED and trial.intermediate_values:
            value = trial.intermediate_values[max(trial.intermediate_values)]
        return Row(
            trial.number,
            "failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
            value,
            trial.user_attrs.get("folds", []),
            {d.key: d.value(fixed[d.key]) for d in space if d.key in fixed},
            trial.user_attrs.get("seconds"),
            trial.user_attrs.get("error", "") if trial.state == TrialState.FAIL else "",
        )

    order = ("complete", "pruned", "failed", "running", "waiting")
    found = [row(trial) for trial in current(study)]
    return sorted(found, key=lambda r: (order.index(r.state), sign * r.value if r.value is not None else 0.0, r.trial))


def write_report(study: optuna.Study, output: Path) -> list[Row]:
    """Write the CSV, the pictures and the best configuration to `output`; returns the rows. Raises OutputError."""
    found = rows(study)
    write_text(output / TRIALS, _csv(study, found))
    complete = [row for row in found if row.state == "complete"]
    if complete:
        best, recipe = complete[0], study.user_attrs["recipe"]
        frozen = study.trials[best.trial]
        values = with_parameters(recipe, study_space(study), frozen.params) | {"output": str(output / "best")}
        reached = f"{label(study)} {_rate(study, best)}"
        head = f"# Trial {best.trial} of {study.study_name}, the best of {len(complete)}: {reached}\n"
        write_text(output / BEST, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        _draw(study, found, output)
    return found


def table(study: optuna.Study, found: Sequence[Row]) -> str:
    """The rows as a text table."""
    keys = [d.key for d in study_space(study)]
    lines = []
    for row in found:
        cells = [str(row.trial), row.state, _rate(study, row), *(shown(row.parameters.get(key, "")) for key in keys)]
        lines.append([*cells, f"{row.seconds:.0f}" if row.seconds is not None else ""])
    return text_table(["trial", "state", label(study), *keys, "seconds"], lines, left=2)


def as_json(study: optuna.Study, found: Sequence[Row]) -> dict[str, Any]:
    """The rows as JSON values, with metrics as fractions."""
    trials = [{**vars(row), "folds": list(row.folds), "standard_error": row.standard_error} for row in found]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    metric, direction = study.user_attrs["monitor"], study.direction.name.lower()
    best = complete[0] if complete else None
    return {"study": study.study_name, "metric": metric, "direction": direction, "best": best, "trials": trials}


def label(study: optuna.Study) -> str:
    return f"dev {study.user_attrs['label']}"


def _rate(study: optuna.Study, row: Row) -> str:
    if row.value is None:
        return ""
    return f"{row.value:.2%}" + (f" ± {row.standard_error:.2%}" if row.standard_error is not None else "")


def _csv(study: optuna.Study, found: Sequence[Row]) -> str:
    keys = [d.key for d in study_space(study)]
    folds = max((len(row.folds) for row in found), default=0)
    metric = study.user_attrs["monitor"].replace("/", "_")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"fold_{i + 1}" for i in range(folds)] if folds > 1 else []
    writer.writerow(["trial", "state", metric, "standard_error", *names, *keys, "seconds", "error"])
    for row in sorted(found, key=lambda row: row.trial):
        padded = [*row.folds, *[""] * folds][: len(names)]
        parameters = [row.parameters.get(key, "") for key in keys]
        error = "" if row.standard_error is None else row.standard_error
        writer.writerow([row.trial, row.state, row.value, error, *padded, *parameters, row.seconds, row.error])
    return text.getvalue()


def _draw(study: optuna.Study, found: Sequence[Row], output: Path) -> None:
    complete = [row for row in found if row.state == "complete"]
    space = study_space(study)
    drawings = dict(zip(PICTURES, (_history, _importance, _parallel), strict=True))
    for name, draw in drawings.items():
        if name != PICTURES[0] and len(complete) < 2:
            continue
        figure = Figure(figsize=(max(7.0, 2.0 * len(space)), 3.8), layout="constrained")
        axes = figure.add_subplot()
        draw(study, found, space, axes)
        axes.set_title(study.study_name)
        with replacing(output / name) as partial:
            figure.savefig(partial, dpi=120, format="png")


def _history(study: optuna.Study, found: Sequence[Row], space: Sequence[Dimension], axes: Axes) -> None:
    """Every trial's metric in the order of the trials, and the best so far."""
    for state, color, marker in (("pruned", _GRAY, "x"), ("complete", _BLUE, "o")):
        chosen = [row for row in found if row.state == state]
        bars = [100 * (row.standard_error or 0.0) for row in chosen]
        points = [row.trial for row in chosen], [100 * (row.value or 0.0) for row in chosen]
        if chosen:
            axes.errorbar(*points, yerr=bars if any(bars) else None, fmt=marker, color=color, label=state, capsize=2)
    better = max if study.direction == optuna.study.StudyDirection.MAXIMIZE else min
    complete = sorted((row for row in found if row.state == "complete"), key=lambda row: row.trial)
    numbers = [row.trial for row in complete]
    best = [100 * better(row.value or 0.0 for row in complete[: i + 1]) for i in range(len(complete))]
    axes.step(numbers, best, where="post", color=_RED, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial", ylabel=f"{label(study)} (%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _importance(study: optuna.Study, found: Sequence[Row], space: Sequence[Dimension], axes: Axes) -> None:
    """How much of the metric's variation each setting explains, by PED-ANOVA (Watanabe et al., 2023)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of equal shares with few trials, which the picture shows
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    names = list(shares)[::-1]
    bars = axes.barh(names, [100 * shares[name] for name in names], color=_BLUE)
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.set(xlabel="importance (%)", xlim=(0, 110))
    axes.spines[["top", "right"]].set_visible(False)


def _parallel(study: optuna.Study, found: Sequence[Row], space: Sequence[Dimension], axes: Axes) -> None:
    """A line for each complete trial through its settings to its metric; good ones are dark and on top."""
    complete = [row for row in found if row.state == "complete"]
    metrics = [100 * (row.value or 0.0) for row in complete]
    low, high = min(metrics), max(metrics)
    columns: list[tuple[str, list[float], list[tuple[float, str]]]] = []
    for d in space:
        if d.kind == "list":
            top = max(len(d.choices) - 1, 1)
            heights = [d.choices.index(row.parameters[d.key]) / top for row in complete]
            ticks = [(i / top, shown(choice)) for i, choice in enumerate(d.choices)]
        else:
            scale = math.log if d.kind == "loguniform" else float
            a, b = scale(d.low), scale(d.high)
            heights = [(scale(row.parameters[d.key]) - a) / (b - a) for row in complete]
            back = math.exp if d.kind == "loguniform" else float
            ticks = [(i / 4, f"{back(a + i / 4 * (b - a)):.3g}") for i in range(5)]
        columns.append((d.key, heights, ticks))
    span = high - low or 1.0
    ticks = [(i / 4, f"{low + i / 4 * span:.1f}") for i in range(5)]
    columns.append((f"{label(study)} (%)", [(m - low) / span for m in metrics], ticks))
    for number in range(len(complete) - 1, -1, -1):  # the best last, on top
        rank = number / max(len(complete) - 1, 1)
        line = [heights[number] for _, heights, _ in columns]
        axes.plot(
            range(len(columns)), line, color=_RED if not number else _BLUE, alpha=1.0 - 0.85 * rank, linewidth=2 - rank
        )
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
    for x, (_, _, marks) in enumerate(columns):
        axes.axvline(x, color="black", linewidth=0.8)
        for y, text in marks:
            axes.annotate(text, (x, y), textcoords="offset points", xytext=(4, 0), va="center", fontsize=8, bbox=box)
    axes.set_xticks(range(len(columns)), [name for name, _, _ in columns])
    axes.set(xlim=(-0.1, len(columns) - 0.6), yticks=[])
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
