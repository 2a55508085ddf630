"""Training from shards: the losses of training from files in the same order, also after an interruption."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asr.corpus.manifest import Manifest, write_manifest
from asr.corpus.shards import write_shards
from asr.training import data as data_module
from asr.training.callbacks import SaveOnInterrupt
from asr.training.config import parse_config
from asr.training.data import ReadAhead
from asr.training.process import Interrupted
from asr.training.run import train


def test_an_interrupted_run_from_shards_equals_an_unbroken_one_from_files(
    settings: Callable[..., dict[str, Any]],
    tones: Path,
    tmp_path: Path,
    step_losses: Callable[[Path], dict[int, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = Manifest.read(tones / "train.jsonl")
    shards = write_shards(files, tmp_path / "shards", most=10)
    order = [utterance.id for utterance in Manifest.read(shards.index)]
    by_id = {utterance.id: utterance for utterance in files}
    write_manifest(tmp_path / "files.jsonl", [by_id[name] for name in order])

    read: list[range] = []
    real = ReadAhead._read
    monkeypatch.setattr(ReadAhead, "_read", lambda self, windows: (read.extend(windows), real(self, windows)))
    options = {"window_hours": 12 / 3600, "batch_seconds": 4.0}
    values = {
        name: settings(name, data={**options, "train": str(path)}, trainer={"max_epochs": 2})
        for name, path in (("files", tmp_path / "files.jsonl"), ("shards", shards.index))
    }
    with monkeypatch.context() as patch:
        patch.setattr(data_module, "holds_shards", lambda manifest: True)  # windows of files, to have the same batches
        train(parse_config(values["files"]))
    expected = step_losses(tmp_path / "files")
    read.clear()
    at = len(expected) // 2 + 3
    original = SaveOnInterrupt.on_train_batch_end

    def interrupt(self: SaveOnInterrupt, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == at:
            self.signals.received = signal.SIGTERM
        original(self, trainer, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(SaveOnInterrupt, "on_train_batch_end", interrupt)
        train(parse_config(values["shards"]))
    train(parse_config(values["shards"]))
    del expected[at - 1]  # its step was taken and saved, but the interruption came before the log
    assert step_losses(tmp_path / "shards") == expected
    assert len(set(read)) > 2 and sorted({i for window in read for i in window}) == list(range(len(files)))
