"""The record of a run: revision, versions and machine, and its losses and rates with their picture."""

from __future__ import annotations

import csv
import datetime
import itertools
import math
import os
import platform
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.files import replacing

if TYPE_CHECKING:
    from asr.training.tasks import Task

_LIBRARIES = ("asr-ctc", "torch", "torchaudio", "pytorch-lightning", "numpy", "sentencepiece", "jiwer")


def provenance() -> dict[str, Any]:
    """Date (UTC), git revision of this code, versions of important libraries, processor or GPU."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": _revision(),
        "versions": {name: _version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
        "machine": machine(),
    }


def _revision() -> str:
    """Revision of the checkout that this code runs from, with "+changes" if any are uncommitted; "" outside of one."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        return revision + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def machine() -> str:
    """One line about the machine that a result was measured on."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} x {torch.cuda.device_count()}"
    return f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@dataclass
class MetricHistory:
    """The training loss of each epoch and the metrics of each validation (`dev/...`), by optimizer step."""

    train_loss: dict[int, float] = field(default_factory=dict)
    dev: dict[int, dict[str, float]] = field(default_factory=dict)


def read_metrics(folder: Path) -> MetricHistory:
    """Merge the `version_N/metrics.csv` files below `folder`; later files win where they overlap after a resume."""
    history = MetricHistory()
    versions = sorted(folder.glob("version_*/metrics.csv"), key=lambda p: int(p.parent.name.rpartition("_")[2]))
    for path in versions:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get("train/loss_epoch"):
                    history.train_loss[int(row["step"])] = float(row["train/loss_epoch"])
                dev = {name: float(value) for name, value in row.items() if value and name.startswith("dev/")}
                if dev:
                    history.dev[int(row["step"])] = dev
    return history


def draw_learning_curve(history: MetricHistory, task: Task, path: Path, title: str) -> None:
    """Draw loss and rates over optimizer steps as a PNG, with the best validation marked."""
    dev = {step: metrics for step, metrics in sorted(history.dev.items()) if task.monitor in metrics}
    if not dev:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss, rates = figure.subplots(1, 2)
    if history.train_loss:
        loss.plot(*zip(*sorted(history.train_loss.items()), strict=True), label="train", color="#888888")
    losses = {step: metrics["dev/loss"] for step, metrics in dev.items() if "dev/loss" in metrics}
    if losses:
        loss.plot(list(losses), list(losses.values()), label="dev", color="#1f6feb")
    loss.set(xlabel="optimizer steps", ylabel="loss (nats per symbol)", yscale="log")
    colors = itertools.cycle(("#1f6feb", "#2da44e", "#bf8700"))
    for (name, label), color in zip(task.rates.items(), colors, strict=False):
        rates.plot(list(dev), [100 * metrics[name] for metrics in dev.values()], label=f"dev {label}", color=color)
    best = (min if task.mode == "min" else max)(dev, key=lambda step: dev[step][task.monitor])
    value = 100 * dev[best][task.monitor]
    rates.plot(best, value, "o", color="#d1242f")
    rates.annotate(f"{value:.1f} %", (best, value), textcoords="offset points", xytext=(0, 8), ha="center")
    top = max(100 * metrics[task.monitor] for metrics in dev.values())
    rates.set(xlabel="optimizer steps", ylabel="rate (%)", ylim=(0, min(105.0, math.ceil(top / 5) * 5 + 5)))
    for axes in (loss, rates):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
