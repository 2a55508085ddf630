"""Whole training runs on the language of tones: learning, resume equality, interruption, distributed evaluation."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from asr.model import shapes
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model, read_metadata
from asr.training.callbacks import SaveOnInterrupt
from asr.training.checkpoints import average_checkpoints, check_resume, model_weights, read_checkpoint
from asr.training.config import parse_config
from asr.training.process import Interrupted
from asr.training.run import _memory_advice, train
from asr.types import AsrError, ConfigError, ManifestError, TextError

Settings = Callable[..., dict[str, Any]]
Losses = Callable[[Path], dict[int, float]]


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    original = SaveOnInterrupt.on_train_batch_end

    def stop(self: SaveOnInterrupt, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == steps:
            self.signals.received = signal.SIGTERM
        original(self, trainer, *arguments)

    monkeypatch.setattr(SaveOnInterrupt, "on_train_batch_end", stop)


def test_learns_the_language_and_writes_everything_a_run_should(settings: Settings, tmp_path: Path) -> None:
    values = settings(trainer={"max_epochs": 40, "check_val_every_n_epoch": 4}, augment={"speed": [], "time_masks": 0})
    result = train(parse_config(values))
    assert result.dev["dev/wer"] < 0.1
    output = tmp_path / "run"
    metadata = read_metadata(result.model_path)
    assert metadata["training"]["dev_wer"] == result.dev["dev/wer"] and metadata["normalizer"] == "basic@2"
    assert metadata["training"]["config"]["model"]["hidden_size"] == 24
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    assert record["seed"] == 1 and len(record["train_sha256"]) == 64 and record["versions"]["torch"]
    assert (output / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert list((output / "logs" / "tensorboard").glob("events*"))
    rows = list(csv.DictReader((output / "logs/csv/version_0/metrics.csv").open(encoding="utf-8")))
    logged = {key for row in rows for key, value in row.items() if value}
    assert {
        "train/loss_step", "train/loss_epoch", "train/lr", "train/gradient_norm", "train/blank_share",
        "train/data_wait_share", "train/infeasible", "dev/loss", "dev/wer", "dev/cer", "dev/utterances",
    } <= logged  # fmt: skip
    assert {float(row["dev/utterances"]) for row in rows if row.get("dev/utterances")} == {13.0}
    # The checkpoint is safe to load and its averaged weights are those of the model file.
    best = next((output / "checkpoints").glob("*.ckpt"))
    weights = model_weights(torch.load(best, weights_only=True))
    for name, tensor in load_model(result.model_path).model.state_dict().items():
        assert torch.equal(tensor, weights[name])


# In the second epoch of 8 steps; other moments: test_interruption.py.
@pytest.mark.parametrize(
    ("kind", "objectives", "rows"), [("ema", {}, 1), ("last_k", {"ctc": 1.0, "consistency": 0.2}, 8)]
)
def test_interrupted_and_resumed_equals_unbroken(
    settings: Settings,
    step_losses: Losses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    objectives: dict[str, float],
    rows: int,
) -> None:
    monkeypatch.setitem(shapes.ROWS, "cpu", rows)  # as on a GPU
    sections = {"averaging": {"kind": kind, "last_k": 2}, "augment": {"join": 0.5}}
    if objectives:
        sections["objectives"] = objectives
    unbroken = train(parse_config(settings("unbroken", **sections)))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_after(patch, 11)
        train(parse_config(settings("broken", **sections)))
    assert read_checkpoint(tmp_path / "broken" / "last.ckpt")["global_step"] == 11
    resumed = train(parse_config(settings("broken", **sections)))
    losses = step_losses(tmp_path / "unbroken")
    assert sorted(losses) == list(range(24))
    del losses[10]  # its step was taken and saved, but the interruption came before the log
    assert step_losses(tmp_path / "broken") == losses
    assert resumed.dev["dev/wer"] == unbroken.dev["dev/wer"]
    expected, found = (load_model(r.model_path).model.state_dict() for r in (unbroken, resumed))
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_a_finished_run_gives_the_same_model_again(settings: Settings) -> None:
    values = settings(trainer={"max_epochs": 1})
    first, again = train(parse_config(values)), train(parse_config(values))
    assert again.dev["dev/wer"] == first.dev["dev/wer"]


def test_resuming_with_another_model_is_refused_and_never_keeps_the_old_run(settings: Settings, tmp_path: Path) -> None:
    train(parse_config(settings(trainer={"max_epochs": 1})))
    checkpoint = tmp_path / "run" / "last.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    assert content["config"]["text"]["normalizer"] == "basic@2"
    content["config"]["text"]["normalizer"] = "basic"  # as it was written while there was one version
    torch.save(content, tmp_path / "old.ckpt")
    for path, rules in ((checkpoint, "basic@2"), (tmp_path / "old.ckpt", "basic@1")):
        assert check_resume(path, read_checkpoint(path), parse_config(settings())) == rules
    with pytest.raises(ConfigError, match=r"model.hidden_size=24, this configuration says 32"):
        train(parse_config(settings(model={"hidden_size": 32}, trainer={"max_epochs": 2})))
    with pytest.raises(ConfigError, match=r"task=ctc, this configuration says another"):
        train(parse_config(settings(task="another")))
    with pytest.raises(ConfigError, match="no such checkpoint"):
        train(parse_config(settings()), resume=str(tmp_path / "nothing.ckpt"))
    train(parse_config(settings(model={"hidden_size": 32}, trainer={"max_epochs": 1})), resume="never")
    assert read_metadata(tmp_path / "run.1" / "model.asr")["model"]["hidden_size"] == 24
    assert read_metadata(tmp_path / "run" / "model.asr")["model"]["hidden_size"] == 32


def test_averaging_is_the_mean_of_the_checkpoints(settings: Settings, tmp_path: Path) -> None:
    result = train(parse_config(settings(averaging={"kind": "last_k", "last_k": 3})))
    paths = sorted((tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    assert len(paths) == 3
    states = [model_weights(read_checkpoint(path)) for path in paths]
    mean = {name: sum(state[name].double() for state in states) / 3 for name in states[0]}
    averaged = average_checkpoints(paths)
    for name, tensor in load_model(result.model_path).model.state_dict().items():
        assert torch.allclose(tensor.double(), mean[name], atol=1e-7)
        assert torch.equal(tensor, averaged[name])


def test_utterances_that_cannot_be_learned_are_named_and_tags_too(
    settings: Settings, tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (tones / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["audio_filepath"] = str(tones / row["audio_filepath"])
    rows[3] |= {"id": "too-short", "text": "abcdabcd " * 30}
    rows[4] |= {"id": "tagged", "text": "[noise] " + rows[4]["text"]}
    manifest = tmp_path / "bad.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = settings(data={"train": str(manifest)}, trainer={"max_epochs": 1})
    with pytest.raises(ManifestError, match="1 of 48 training utterances"):
        train(parse_config(values))
    assert "too-short" in (tmp_path / "run" / "skipped.tsv").read_text(encoding="utf-8")
    assert "(tagged) have annotators' tags: [noise] x 1: basic@2 drops them" in capsys.readouterr().err
    values["data"]["allow_skips"] = True
    metadata = read_metadata(train(parse_config(values)).model_path)
    assert metadata["training"]["train_utterances"] == 47 and metadata["vocab_size"] == 6  # nothing of "noise"


def test_symbols_unknown_to_a_given_tokenizer_stop_the_run(settings: Settings, tmp_path: Path) -> None:
    from asr.text.tokenizer import train_char

    train_char(["abc "]).save(tmp_path / "abc.json")
    with pytest.raises(TextError, match="'d' x"):
        train(parse_config(settings(text={"tokenizer_file": str(tmp_path / "abc.json")})))


def asr(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "asr", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def test_ctrl_c_saves_says_how_to_go_on_and_the_run_can_be_finished(settings: Settings, tmp_path: Path) -> None:
    recipe = tmp_path / "tones.yaml"
    recipe.write_text(yaml.safe_dump(settings(trainer={"max_epochs": 500})), encoding="utf-8")
    process = asr("train", str(recipe))
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch   1"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Continue with: asr train" in err and "Traceback" not in err and out == ""
    saved = read_checkpoint(tmp_path / "run" / "last.ckpt")
    epochs = saved["epoch"] + 2
    process = asr("train", str(recipe), f"trainer.max_epochs={epochs}")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "resuming from" in err and "dev WER" in out and "epoch   1 " not in err
    assert all(float(seconds) < 120 for seconds in re.findall(r"^epoch .* (\S+) s$", err, re.MULTILINE)), err
    assert "waits for data" not in err


def test_two_processes_evaluate_each_utterance_once_with_the_same_result(settings: Settings, tmp_path: Path) -> None:
    """A model validated by one process and by two gives the same counts: nothing dropped, nothing repeated."""
    results = []
    for devices in (1, 2):
        values = settings(
            f"ranks{devices}",
            optimizer={"lr": 0.0, "weight_decay": 0.0},
            trainer={"max_epochs": 1, "devices": devices, "strategy": "ddp" if devices == 2 else "auto"},
        )
        recipe = tmp_path / f"{devices}.yaml"
        recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
        process = asr("train", str(recipe))
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        assert out.count("dev WER") == 1
        rows = list(
            csv.DictReader((tmp_path / f"ranks{devices}/logs/csv/version_0/metrics.csv").open(encoding="utf-8"))
        )
        dev = next(row for row in rows if row.get("dev/wer"))
        results.append([float(dev[f"dev/{name}"]) for name in ("utterances", "wer", "cer", "loss")])
    assert results[0][0] == 13
    assert results[1] == pytest.approx(results[0], rel=1e-6)


def test_half_precision_keeps_the_loss_in_float32(
    settings: Settings, step_losses: Losses, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = {}
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        train(parse_config(settings(precision, trainer={"max_epochs": 1, "precision": precision})))
        losses[precision] = list(step_losses(Path(settings(precision)["output"])).values())
    assert "float16 does not run on the CPU" in capsys.readouterr().err
    assert losses["16-mixed"] == losses["32-true"] != losses["bf16-mixed"]
    assert losses["bf16-mixed"][0] == pytest.approx(losses["32-true"][0], rel=0.02)


def test_out_of_memory_names_the_setting_to_lower(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def outputs(self: AcousticModel, waveforms: torch.Tensor, *arguments: Any) -> Any:
        if self.training:
            seen.append(waveforms.numel() / 16000)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nmany more lines")
        return original(self, waveforms, *arguments)

    original = AcousticModel.outputs
    monkeypatch.setattr(AcousticModel, "outputs", outputs)
    with pytest.raises(AsrError, match=r"data.batch_seconds=8: try data.batch_seconds=4 ") as error:
        train(parse_config(settings()))
    assert "\n" not in str(error.value)
    assert len(seen) == 1 and 6.0 < seen[0] <= 8.0  # the very first batch is among the largest
    # On a GPU a value is found that fits.
    assert "data.batch_seconds=5 fits (" in _memory_advice(8.0, lambda most: 0.7 * most)
    assert "even with the longest utterance alone: lower data.max_duration" in _memory_advice(8.0, lambda most: 0.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"accelerator": "tpuu"}, "accelerator"),
        ({"devices": 0}, "devices"),
        ({"devices": "many"}, "devices"),
        ({"strategy": "no such one"}, "no such one"),
        ({"max_time": "soon"}, "soon"),
        ({"limit_train_batches": 1.5}, "limit_train_batches"),
        ({"val_check_interval": 1000}, "val_check_interval"),  # refused only in the midst of the training
        ({"profiler": "none such"}, "profiler"),
    ],
)
def test_whatever_lightning_refuses_is_one_line(settings: Settings, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        train(parse_config(settings(trainer=setting)))
    assert str(error.value).startswith("trainer: ") and message in str(error.value) and "\n" not in str(error.value)


def test_early_stopping_ends_a_run_that_no_longer_improves(settings: Settings) -> None:
    values = settings(optimizer={"lr": 0.0}, trainer={"max_epochs": 30})
    assert train(parse_config(values | {"early_stopping": 2})).epochs == 3
