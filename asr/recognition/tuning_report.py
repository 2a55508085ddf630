"""What a tuning found: the table, every trial as CSV, and the response surface as a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from asr.files import replacing, write_text
from asr.recognition.tuning import Tuning


def table(tuning: Tuning, most: int = 10) -> str:
    """The best settings for people, best first."""
    rows = sorted(tuning.trials, key=lambda trial: (trial.errors, trial is not tuning.best, trial.alpha, trial.beta))
    lines = ["alpha    beta  beam     WER  errors"]
    for trial in rows[:most]:
        setting = f"{trial.alpha:5.3f}  {trial.beta:6.3f}  {trial.beam_width:4d}"
        mark = "  chosen" if trial == tuning.best else ""
        lines.append(f"{setting}  {tuning.wer(trial):6.2%}  {trial.errors:6d}{mark}")
    return "\n".join(lines)


def write_trials(tuning: Tuning, path: Path) -> None:
    """Every trial as a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["alpha", "beta", "beam_width", "errors", "wer"])
    for trial in tuning.trials:
        writer.writerow([trial.alpha, trial.beta, trial.beam_width, trial.errors, f"{tuning.wer(trial):.5f}"])
    write_text(path, text.getvalue())


def draw_surface(tuning: Tuning, path: Path, title: str) -> None:
    """Word error rate over alpha and beta as a PNG: the response surface, its trials and the choice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = tuning.trials[0].beam_width
    trials = [trial for trial in tuning.trials if trial.beam_width == width]
    alpha, beta = (np.array([getattr(trial, name) for trial in trials]) for name in ("alpha", "beta"))
    rates = 100 * np.array([tuning.wer(trial) for trial in trials])
    best = tuning.best
    shown = np.minimum(rates, max(2 * rates.min(), rates.min() + 5.0))  # the far corners would hide the valley
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if np.ptp(shown) > 0:
        filled: Any = axes.tricontourf(alpha, beta, shown, levels=14, cmap="viridis_r")
        figure.colorbar(filled, ax=axes, label="WER on the development set (%)")
    axes.plot(alpha, beta, ".", color="black", markersize=3, alpha=0.5)
    axes.plot(best.alpha, best.beta, "o", color="#d1242f")
    axes.annotate(
        f"{100 * tuning.wer(best):.2f} %",
        (best.alpha, best.beta),
        textcoords="offset points",
        xytext=(0, 8),
        ha="center",
        color="black",
        fontweight="bold",
    )
    axes.set(xlabel="alpha (weight of the language model)", ylabel="beta (bonus per word)", title=title)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
