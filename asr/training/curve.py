"""The learning curve: what the CSV logs of a run (and of its resumed parts) say, as numbers and as a picture."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

from asr.files import replacing


@dataclass(frozen=True)
class DevPoint:
    """One validation."""

    step: int
    epoch: int
    loss: float
    wer: float
    cer: float


@dataclass
class Metrics:
    """Training loss per epoch as (step, nats per token), validations in order of steps."""

    train: list[tuple[int, float]] = field(default_factory=list)
    dev: list[DevPoint] = field(default_factory=list)


def read_metrics(folder: Path) -> Metrics:
    """Merge the `version_N/metrics.csv` files below `folder`; where they overlap (after a resume) the later counts."""
    train: dict[int, float] = {}
    dev: dict[int, DevPoint] = {}
    versions = sorted(folder.glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name.rpartition("_")[2]))
    for path in versions:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                step = int(row["step"])
                if row.get("train/loss_epoch"):
                    train[step] = float(row["train/loss_epoch"])
                if row.get("dev/wer"):
                    values = (float(row[f"dev/{name}"]) for name in ("loss", "wer", "cer"))
                    dev[step] = DevPoint(step, int(float(row["epoch"])), *values)
    return Metrics(sorted(train.items()), [dev[step] for step in sorted(dev)])


def draw_learning_curve(metrics: Metrics, path: Path, title: str) -> None:
    """Loss and error rates over optimizer steps as a PNG."""
    if not metrics.dev:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, rates = figure.subplots(1, 2)
    steps = [point.step for point in metrics.dev]
    if metrics.train:
        loss.plot(*zip(*metrics.train, strict=True), label="train", color="#888888")
    loss.plot(steps, [point.loss for point in metrics.dev], label="dev", color="#1f6feb")
    loss.set(xlabel="optimizer steps", ylabel="CTC loss (nats per symbol)", yscale="log")
    best = min(metrics.dev, key=lambda point: point.wer)
    rates.plot(steps, [100 * point.wer for point in metrics.dev], label="dev WER", color="#1f6feb")
    rates.plot(steps, [100 * point.cer for point in metrics.dev], label="dev CER", color="#2da44e")
    rates.plot(best.step, 100 * best.wer, "o", color="#d1242f")
    rates.annotate(
        f"{100 * best.wer:.1f} %",
        (best.step, 100 * best.wer),
        textcoords="offset points",
        xytext=(0, 8),
        ha="center",
    )
    top = max(100 * point.wer for point in metrics.dev)
    rates.set(xlabel="optimizer steps", ylabel="error rate (%)", ylim=(0, min(105.0, math.ceil(top / 5) * 5 + 5)))
    for axes in (loss, rates):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
