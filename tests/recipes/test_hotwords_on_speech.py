"""Hotwords on speech: a model trained here on synthesized names, a language model, and a name it does not know."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """\
name: names
output: OUT/model
data: {train: OUT/train.jsonl, dev: OUT/dev.jsonl, batch_seconds: 20, workers: 0, cache_audio: true}
features: {n_mels: 40}
model: {cell: gru, hidden_size: 96, layers: 1, subsampling_channels: 8, dropout: 0.0}
optimizer: {lr: 0.01, schedule: onecycle}
averaging: {kind: none}
trainer: {max_epochs: 6, accelerator: cpu}
"""


def run(*command: object) -> str:
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, env=one_thread, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech, model/model.asr (some seconds of training) and words.lm, which does not know the name."""
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install -e '.[demo]'")
    folder = tmp_path_factory.mktemp("names")
    run(ROOT / "tests" / "recipes" / "speak_names.py", folder)
    (folder / "names.yaml").write_text(RECIPE.replace("OUT", str(folder)), encoding="utf-8")
    run("-m", "asr", "train", folder / "names.yaml")
    run("-m", "asr", "lm", "train", folder / "lm.txt", "-o", folder / "words.lm")
    return folder


def heard(folder: Path, split: str, *options: object) -> list[str]:
    model = ("-m", folder / "model" / "model.asr", "--lm", folder / "words.lm")
    lines = run("-m", "asr", "transcribe", folder / f"{split}.jsonl", *model, *options).splitlines()
    return [json.loads(line)["text"] for line in lines]


def spoken(folder: Path, split: str) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_name_the_language_model_does_not_know_is_recovered_and_nothing_else_changes(names: Path) -> None:
    vocabulary = set((names / "lm.txt").read_text(encoding="utf-8").split())
    said = spoken(names, "rare")
    assert all("dilo" in text.split() for text in said) and "dilo" not in vocabulary
    without = [text.split() for text in heard(names, "rare")]
    assert not any("dilo" in words for words in without)
    assert sum(vocabulary.issuperset(words) for words in without) >= len(said) - 1  # another name in its place
    assert heard(names, "rare", "--hotwords", "dilo") == said
    plain = heard(names, "known")
    assert sum(text == said for text, said in zip(plain, spoken(names, "known"), strict=True)) >= len(plain) - 1
    assert heard(names, "known", "--hotwords", "dilo") == plain
