"""A tiny language of tones: each letter is a sine of its own pitch, which a small model learns in seconds."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent))  # processes.py: pytest imports test files without touching the path

Settings = Callable[..., dict[str, Any]]

LETTERS = "abcd "
RATE = 16000


def _speak(text: str, rng: np.random.Generator) -> np.ndarray:
    parts = []
    for letter in text:
        seconds = rng.uniform(0.10, 0.16)
        t = np.arange(int(seconds * RATE)) / RATE
        pitch = 300.0 * 1.6 ** LETTERS.index(letter)
        parts.append(0.3 * np.sin(2 * np.pi * pitch * t) * np.hanning(len(t)))
    samples = np.concatenate(parts) + 0.003 * rng.standard_normal(sum(map(len, parts)))
    return samples.astype(np.float32)


def _write_set(folder: Path, name: str, count: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words = ["".join(rng.choice(list("abcd"), rng.integers(1, 4))) for _ in range(rng.integers(1, 4))]
        text = " ".join(words)
        samples = _speak(text, rng)
        path = folder / f"{name}{number:03d}.wav"
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        rows.append({"audio_filepath": path.name, "duration": len(samples) / RATE, "text": text})
    manifest = folder / f"{name}.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (48 utterances) and dev.jsonl (13) in the language of tones."""
    folder = tmp_path_factory.mktemp("tones")
    _write_set(folder, "train", 48, 1)
    _write_set(folder, "dev", 13, 2)
    return folder


@pytest.fixture(scope="session")
def settings_in(tones: Path) -> Callable[[Path], Settings]:
    """`settings_in(folder)(...)`: nested settings of a small run on the tones, with sections updated by keyword."""
    return lambda folder: _settings(tones, folder)


@pytest.fixture
def settings(
    settings_in: Callable[[Path], Callable[..., dict[str, Any]]], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """`settings_in` the test's own folder."""
    return settings_in(tmp_path)


@pytest.fixture(scope="session")
def step_losses() -> Callable[[Path], dict[int, float]]:
    """Training loss by optimizer step over all parts of a run; a repeated step must repeat its loss."""

    def read(output: Path) -> dict[int, float]:
        losses: dict[int, float] = {}
        for path in sorted((output / "logs" / "csv").glob("version_*/metrics.csv")):
            for row in csv.DictReader(path.open(encoding="utf-8")):
                if row.get("train/loss_step"):
                    step, loss = int(row["step"]), float(row["train/loss_step"])
                    assert losses.setdefault(step, loss) == loss
        return losses

    return read


def _settings(tones: Path, folder: Path) -> Settings:
    def make(output: str = "run", **sections: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            "name": "tones",
            "output": str(folder / output),
            "data": {
                "train": str(tones / "train.jsonl"),
                "dev": str(tones / "dev.jsonl"),
                "batch_seconds": 8.0,
                "workers": 0,
            },
            "features": {"n_mels": 24},
            "model": {"hidden_size": 24, "layers": 1, "subsampling_channels": 4, "dropout": 0.1},
            "optimizer": {"lr": 0.02, "warmup_steps": 5},
            "augment": {"time_masks": 1, "frequency_masks": 1, "frequency_mask_width": 3, "speed": [0.9, 1.0, 1.1]},
            "averaging": {"ema_decay": 0.9},
            "trainer": {"max_epochs": 3, "log_every_n_steps": 1, "accelerator": "cpu"},
        }
        for name, section in sections.items():
            values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
        return values

    return make
