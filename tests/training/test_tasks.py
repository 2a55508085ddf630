"""The seam for tasks and objectives: one's own are trained with, logged and reported without a change in `asr/`."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from asr.model.acoustic import AcousticModel, Outputs
from asr.model.checkpoint import load_model, read_metadata, save_model
from asr.training import objectives, tasks
from asr.training.callbacks import best_checkpoints
from asr.training.config import parse_config
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss
from asr.training.run import train
from asr.training.tasks import TASKS, CTCTask, format_parts, format_rates, short_names
from asr.types import ConfigError

Settings = Callable[..., dict[str, Any]]


class StatesPenalty(nn.Module):
    """The mean square of the encoder's states (and how many there are)."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        return ObjectiveLoss(outputs.states.square().mean(), sums={"states": torch.tensor(outputs.states.numel())})


class CountTask:
    """Whether the model emits about as many symbols as the text has: more is better, and there is no loss."""

    monitor = "dev/accuracy"
    mode: Literal["min", "max"] = "max"
    rates: Mapping[str, str] = {"dev/accuracy": "accuracy", "dev/gap": "gap"}

    def __init__(self, model: AcousticModel, tokenizer: Any, normalizer: str, dev: Any) -> None:
        self.example = ("", "")
        self.start()

    def start(self) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64)

    def add(self, outputs: Outputs | None, batch: Batch) -> None:
        if outputs is not None:
            gaps = (outputs.log_probs.argmax(-1) > 0).sum(-1) - batch.token_lengths
            self.sums += torch.stack([(gaps.abs() <= 5).sum(), gaps.abs().sum(), torch.tensor(len(batch))])

    def totals(self) -> Tensor:
        return self.sums

    def metrics(self, totals: Tensor) -> dict[str, float]:
        right, gap, utterances = totals.tolist()
        return {"dev/accuracy": right / utterances, "dev/gap": gap / utterances}

    def choose_example(self, number: int) -> None:
        pass


def logged(output: Path) -> dict[str, list[float]]:
    """The values of each metric in the order of steps."""
    values: dict[str, list[float]] = {}
    for row in csv.DictReader((output / "logs/csv/version_0/metrics.csv").open(encoding="utf-8")):
        for name, value in row.items():
            if value:
                values.setdefault(name, []).append(float(value))
    return values


def test_an_objective_of_ones_own_is_summed_with_its_weight_and_logged_by_its_name(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(objectives.OBJECTIVES, "l2", StatesPenalty)
    train(parse_config(settings(objectives={"ctc": 1.0, "l2": 0.25}, trainer={"max_epochs": 2})))
    values = logged(tmp_path / "run")
    assert len(values["train/l2"]) == 2 and min(values["train/l2"]) > 0 < min(values["train/states"])
    for loss, ctc, penalty in zip(values["train/loss_epoch"], values["train/ctc"], values["train/l2"], strict=True):
        assert loss == pytest.approx(ctc + 0.25 * penalty, rel=1e-5)


def test_consistency_needs_no_more_than_its_weight(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(parse_config(settings(objectives={"ctc": 1.0, "consistency": 0.2}, trainer={"max_epochs": 1})))
    values = logged(tmp_path / "run")
    [loss], [ctc], [apart] = (values[f"train/{name}"] for name in ("loss_epoch", "ctc", "consistency"))
    assert loss == pytest.approx(ctc + 0.2 * apart, rel=1e-5) and apart > 0
    assert "2 views of each utterance, each with 2 time masks (view_time_masks=2.5 x" in capsys.readouterr().err


def test_without_ctc_nothing_of_it_is_logged(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(objectives.OBJECTIVES, "l2", StatesPenalty)
    train(parse_config(settings(trainer={"max_epochs": 1}) | {"objectives": {"l2": 1.0}}))
    assert not {"train/ctc", "train/blank_share", "train/infeasible"} & set(logged(tmp_path / "run"))
    assert "blank" not in capsys.readouterr().err


def test_a_task_of_ones_own_names_what_is_reported(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(tasks.TASKS, "count", CountTask)
    values = settings(task="count", averaging={"kind": "last_k", "last_k": 2}, early_stopping=3)
    result = train(parse_config(values))
    accuracies = logged(tmp_path / "run")["dev/accuracy"]
    assert result.dev["dev/accuracy"] == pytest.approx(max(accuracies)) and set(result.dev) == set(CountTask.rates)
    assert result.scores.startswith("dev accuracy ") and "  gap " in result.scores
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 3 and all("  accuracy " in line and "WER" not in line for line in lines)
    assert (tmp_path / "run" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    best = best_checkpoints(tmp_path / "run", CountTask)
    assert len(best) == 2 and f"-accuracy{max(accuracies):.4f}" in best[0].name
    description = read_metadata(result.model_path)
    assert description["task"] == "count" and description["training"]["dev_accuracy"] == result.dev["dev/accuracy"]
    assert description["training"]["checkpoints"] == [path.name for path in best]
    file = load_model(result.model_path)
    assert file.task == "count" and save_model(tmp_path / "m.asr", file.model, file.tokenizer, file.normalizer).exists()
    assert load_model(tmp_path / "m.asr").task == "ctc"


def test_names_that_are_in_no_registry_are_one_line(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"task: unknown 'ctcc' \(did you mean 'ctc'\?\)"):
        train(parse_config(settings(task="ctcc")))
    with pytest.raises(ConfigError, match=r"objectives: unknown 'ctcc'"):
        train(parse_config(settings() | {"objectives": {"ctcc": 1.0}}))


def test_rates_are_percentages_under_their_labels() -> None:
    assert format_rates(CTCTask, {"dev/wer": 0.1234, "dev/cer": 0.05, "dev/loss": 3.0}) == "WER 12.34%  CER 5.00%"
    assert format_rates(CTCTask, {"dev/wer": 0.1234, "dev/cer": 0.05}, width=7) == "WER  12.34%  CER   5.00%"
    parts = {"dev/a/wer": 0.5, "dev/b/wer": 0.25, "dev/wer": 0.3, "dev/loss": 1.0, "train/a/wer": 1.0}
    assert format_parts(CTCTask, parts) == "(a 50.00%, b 25.00%)"
    assert format_parts(CTCTask, {"dev/wer": 0.3}) == ""


def test_manifests_are_called_by_as_little_as_tells_them_apart() -> None:
    assert short_names(["x/dev.jsonl", "x/dev-other.jsonl.gz"]) == ["dev", "dev-other"]
    assert short_names(["x/dev.jsonl", "y/dev.jsonl", "y/b"]) == ["x-dev", "y-dev", "b"]
    assert short_names(["x/dev.jsonl", "z/x/dev.jsonl"]) == ["x-dev-1", "x-dev-2"]


def test_tasks_differ_in_the_rate_that_leads() -> None:
    metrics = {"dev/wer": 0.1234, "dev/cer": 0.05, "dev/loss": 3.0}
    assert format_rates(TASKS["ctc-characters"], metrics) == "CER 5.00%  WER 12.34%"
    assert format_rates(TASKS["ctc-phones"], metrics) == "PER 12.34%"
    assert format_rates(TASKS["ctc-spaced"], metrics) == "CER 12.34%"
    assert {name: TASKS[name].monitor for name in ("ctc", "ctc-characters", "ctc-phones")} == {
        "ctc": "dev/wer",
        "ctc-characters": "dev/cer",
        "ctc-phones": "dev/wer",
    }
