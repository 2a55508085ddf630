"""Who made this result: revision, versions, machine. A result that cannot be repeated is not a result."""

from __future__ import annotations

import csv
import datetime
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr.files import replacing
from asr.types import ModelFileError

_LIBRARIES = ("torch", "torchaudio", "pytorch-lightning", "numpy", "sentencepiece", "rapidfuzz")


def provenance() -> dict[str, Any]:
    """Date (UTC), git revision of this code, versions of the libraries that matter, processor or GPU."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": git_revision(),
        "versions": {name: _version(name) for name in ("asr-ctc", *_LIBRARIES)} | {"python": platform.python_version()},
        "machine": machine(),
    }


def git_revision() -> str:
    """Revision of the checkout this code runs from, "+changes" with uncommitted ones, "" outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        revision = _git(here, "rev-parse", "--short=12", "HEAD")
        return revision + ("+changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def machine() -> str:
    """A one-line description of what the numbers were measured on."""
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


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def average_checkpoints(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """The mean of the models' weights in training checkpoints, as a state dict for `AcousticModel`.

    Raises ModelFileError when a file is not a training checkpoint or the models differ in shape.
    """
    if not paths:
        raise ModelFileError("no checkpoints to average")
    total: dict[str, Tensor] = {}
    for path in paths:
        weights = model_weights(read_checkpoint(path))
        if total and {k: v.shape for k, v in total.items()} != {k: v.shape for k, v in weights.items()}:
            raise ModelFileError(f"{path}: holds a model of another shape than {paths[0]}")
        for name, tensor in weights.items():
            value = tensor.double() if tensor.is_floating_point() else tensor
            total[name] = total[name] + value if name in total and tensor.is_floating_point() else value
    return {k: (v / len(paths)).float() if v.is_floating_point() else v for k, v in total.items()}


def model_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The acoustic model's weights in a training checkpoint (the averaged ones where the run keeps an average)."""
    prefix = "model."
    return {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint safely (no pickled objects); ModelFileError, in one line, when it is not one."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch raises many kinds for foreign files
        reason = next(iter(str(error).splitlines()), "it is empty or cut off")
        raise ModelFileError(f"{path}: damaged, or not a training checkpoint of this program ({reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ModelFileError(f"{path}: not a training checkpoint of this program")
    return checkpoint


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
