"""`asr train` from end to end, in a process of its own: throughput, waiting for data, and how busy the GPU was."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

WORDS = ["and", "the", "of", "to", "a", "in", "he", "was", "that", "his", "it", "had", "with", "as", "for", "you", "at"]
EPOCHS = 3  # one that fills caches and starts workers, one that is measured, one that ends with a validation
FILES, REPEATS = 1000, 4


def train_throughput(
    folder: Path, device: str, model: dict[str, Any], batch_seconds: float, small: bool
) -> dict[str, Any]:
    """Train `EPOCHS` epochs and report on the second; flac files are made in `folder` at the first call."""
    manifest, seconds = _corpus(folder, small)
    output = folder / f"{model['layers']}x{model['hidden_size']}-{batch_seconds:g}"
    recipe = folder / "recipe.yaml"
    settings = {
        "name": "benchmark",
        "output": str(output),
        "data": {
            "train": str(manifest),
            "dev": str(folder / "dev.jsonl"),
            "batch_seconds": batch_seconds,
            "max_batch_size": 256,
        },
        "augment": {"speed": [0.9, 1.0, 1.1], "time_masks": 10, "frequency_masks": 2, "frequency_mask_width": 27},
        "model": model,
        "trainer": {
            "accelerator": "gpu" if device == "cuda" else "cpu",
            "max_epochs": EPOCHS,
            "check_val_every_n_epoch": EPOCHS,
            "precision": "bf16-mixed" if device == "cuda" else "32-true",
        },
    }
    recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
    busy = Utilization() if device == "cuda" else None
    command = [sys.executable, "-m", "asr", "train", str(recipe), "--resume", "never"]
    lines, ends = [], []
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if line.startswith("epoch"):
                ends.append((time.monotonic(), float(line.split()[-2])))
    if process.returncode:
        raise RuntimeError("".join(lines[-5:]))
    end, epoch_seconds = ends[1]
    path = next((output / "logs" / "csv").glob("version_*/metrics.csv"))
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    waits = [float(row["train/data_wait_share"]) for row in rows if row.get("train/data_wait_share")]
    return {
        "audio_seconds": round(seconds),
        "epoch_seconds": epoch_seconds,
        "seconds_per_second": round(seconds / max(epoch_seconds, 0.1)),
        "data_wait_share": round(waits[-1], 4),
        "gpu_busy_share": busy.share(end - epoch_seconds, end) if busy else None,
    }


class Utilization:
    """Asks the driver for the share of time in which a kernel ran; `nvidia-smi` comes with the driver."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-i", "0", "-lms", "200"]
        try:
            self.process = subprocess.Popen(["nvidia-smi", *query], stdout=subprocess.PIPE, text=True)
        except OSError:
            return
        threading.Thread(target=self._watch, daemon=True).start()

    def share(self, begin: float, end: float) -> float | None:
        """The mean between two moments of `time.monotonic`, None where the driver does not say; ends the asking."""
        if hasattr(self, "process"):
            self.process.terminate()
        within = [value for moment, value in self.samples if begin <= moment <= end]
        return round(float(np.mean(within)) / 100, 3) if within else None

    def _watch(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().isdecimal():
                self.samples.append((time.monotonic(), float(line)))


def _corpus(folder: Path, small: bool) -> tuple[Path, float]:
    """Noise with the durations of LibriSpeech (2 to 17 s, most above 12) and texts of as many words; its seconds.

    Each file stands in the manifest several times, or writing them would take longer than training.
    """
    manifest = folder / "train.jsonl"
    draw = np.random.default_rng(0)
    files, repeats = (8, 2) if small else (FILES, REPEATS)
    durations = draw.uniform(0.5, 1.0, files) if small else 2.0 + 15.0 * draw.beta(4, 1.5, files)
    seconds = float(durations.sum()) * repeats
    if manifest.exists():
        return manifest, seconds
    noise = (0.1 * draw.standard_normal(18 * 16000)).astype(np.float32)
    rows = []
    for number, duration in enumerate(durations):
        begin, size = int(draw.integers(16000)), round(duration * 16000)
        soundfile.write(folder / f"{number}.flac", noise[begin : begin + size], 16000)
        for repeat in range(repeats):
            text = " ".join(draw.choice(WORDS, max(1, int(2.5 * duration))))
            row = {
                "id": f"{number}-{repeat}",
                "audio_filepath": f"{number}.flac",
                "duration": size / 16000,
                "text": text,
            }
            rows.append(row)
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]), encoding="utf-8")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest, seconds
