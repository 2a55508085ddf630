"""Training on several corpora: weights, repetitions that differ, two alphabets, exact resume, WER by manifest."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.corpus.manifest import Manifest
from asr.text.tokenizer import train_char
from asr.training.callbacks import SaveOnInterrupt
from asr.training.config import TrainingSet, manifests, parse_config
from asr.training.dataset import SpeechDataset
from asr.training.process import Interrupted
from asr.training.run import train
from asr.types import ConfigError

Settings = Callable[..., dict[str, Any]]
CYRILLIC = str.maketrans("abcd", "абвг")


@pytest.fixture
def two(settings: Settings, tones: Path, tmp_path: Path) -> Settings:
    """Settings of a run on two alphabets: the tones twice, once written in Cyrillic letters, a third of it."""
    for name, count in (("train", 16), ("dev", 5)):
        rows = [json.loads(line) for line in (tones / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        changed = [
            row
            | {
                "audio_filepath": str(tones / row["audio_filepath"]),
                "text": row["text"].translate(CYRILLIC),
                "id": f"c{i}",
            }
            for i, row in enumerate(rows[:count])
        ]
        text = "".join(json.dumps(row) + "\n" for row in changed)
        (tmp_path / f"{name}-cyrillic.jsonl").write_text(text, encoding="utf-8")
    data = {
        "train": [str(tones / "train.jsonl"), {"path": str(tmp_path / "train-cyrillic.jsonl"), "weight": 2.5}],
        "dev": [str(tones / "dev.jsonl"), str(tmp_path / "dev-cyrillic.jsonl")],
        "sorted_first_epoch": True,
    }
    return lambda output, **sections: settings(output, data=data, **sections)


def test_a_run_on_a_mixture_resumes_exactly_and_scores_each_manifest(
    two: Settings,
    tmp_path: Path,
    step_losses: Callable[[Path], dict[int, float]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = train(parse_config(two("unbroken", trainer={"max_epochs": 2})))
    said = capsys.readouterr().err
    assert "an epoch holds 1 x " in said and f" 2.5 x 0.00 h of {tmp_path / 'train-cyrillic.jsonl'} (4" in said
    assert "(dev " in said and ", dev-cyrillic " in said
    labels = json.loads((tmp_path / "unbroken" / "tokenizer.json").read_text(encoding="utf-8"))
    assert set("abcdабвг") < set(json.dumps(labels, ensure_ascii=False))
    with (tmp_path / "unbroken/logs/csv/version_0/metrics.csv").open(encoding="utf-8") as file:
        last = [row for row in csv.DictReader(file) if row.get("dev/wer")][-1]
    parts = [float(last["dev/dev/wer"]), float(last["dev/dev-cyrillic/wer"])]
    assert min(parts) <= float(last["dev/wer"]) <= max(parts) and result.dev.keys() == {"dev/wer", "dev/cer"}
    assert float(last["dev/utterances"]) == 18

    losses = step_losses(tmp_path / "unbroken")
    stop = len(losses) // 2 + 2  # in the second epoch
    original = SaveOnInterrupt.on_train_batch_end

    def interrupt(self: SaveOnInterrupt, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == stop:
            self.signals.received = signal.SIGTERM
        original(self, trainer, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(SaveOnInterrupt, "on_train_batch_end", interrupt)
        train(parse_config(two("broken", trainer={"max_epochs": 2})))
    train(parse_config(two("broken", trainer={"max_epochs": 2})))
    del losses[stop - 1]  # its step was taken and saved, but the interruption came before the log
    assert step_losses(tmp_path / "broken") == losses


def test_repetitions_of_an_utterance_are_augmented_differently(settings: Settings, tones: Path) -> None:
    config = parse_config(settings(augment={"gain_db": 6.0}))
    manifest = Manifest.read(tones / "train.jsonl")
    dataset = SpeechDataset(config, manifest, train_char(u.text for u in manifest), training=True)
    first, again, repetition = dataset[0, 3], dataset[0, 3], dataset[0, 3 + len(manifest)]
    assert torch.equal(first.waveform, again.waveform) and torch.equal(first.tokens, repetition.tokens)
    assert repetition.index == 3 + len(manifest)
    assert first.waveform.shape != repetition.waveform.shape or not torch.equal(first.waveform, repetition.waveform)


def test_training_sets_are_read_with_their_weights_and_mistakes_are_named() -> None:
    data = parse_config({"data": {"train": {"path": "a.jsonl", "weight": "2"}}}).data
    assert data.train == TrainingSet("a.jsonl", 2.0) and manifests(data.train) == ["a.jsonl"]
    assert manifests(parse_config({"data": {"train": ["a", {"path": "b"}]}}).data.train) == ["a", "b"]
    for values, message in (
        ({"train": {"path": "a", "wieght": 2}}, r"'data\.train\.wieght' \(did you mean 'weight'\?\)"),
        ({"train": ["a", {"path": "b", "weight": 0}]}, r"data\.train\[1\]: weight must be above 0, found 0"),
        ({"train": {"weight": 2}}, r"data\.train: path must name a manifest"),
        ({"train": 3}, r"data\.train: expected text, found 3"),
        ({"mix_temperature": 0.3}, r"data: mix_temperature must be at least 1, found 0\.3"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_config({"data": values})
