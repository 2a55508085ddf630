"""A step is that of one large batch, however it is split; processes that learn apart; processes that die."""

from __future__ import annotations

import copy
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from processes import run_processes

import asr.training.data
from asr.__main__ import main
from asr.corpus.batching import BatchSampler
from asr.corpus.manifest import Manifest
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model
from asr.text.tokenizer import load_tokenizer
from asr.training.checkpoints import read_checkpoint
from asr.training.config import OptimizerConfig, TrainConfig, parse_config
from asr.training.data import SpeechDataModule, training_sampler
from asr.training.dataset import SpeechDataset, collate
from asr.training.distribution import PeriodicAverage
from asr.training.losses.ctc import ctc_loss
from asr.training.module import SpeechModule, lr_factor
from asr.training.run import train

Settings = Callable[..., dict[str, Any]]
Losses = Callable[[Path], dict[int, float]]

# Nothing that is drawn for a batch, or that a gradient near zero could tip over.
PLAIN: dict[str, Any] = {
    "model": {"dropout": 0.0},
    "augment": {"time_masks": 0, "frequency_masks": 0},
    "optimizer": {"eps": 1e-3},
    "data": {"batch_seconds": 5.0},
}


def on_nodes(count: int, **settings: Any) -> dict[str, Any]:
    return {"max_epochs": 2, "num_nodes": count, "strategy": "ddp", **settings}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_model(output / "model.asr").model.state_dict()


class Recorder:
    """The gradients of each step of a run, before they are clipped."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[list[torch.Tensor]] = []
        self._clip = torch.nn.utils.clip_grad_norm_
        patch.setattr(torch.nn.utils, "clip_grad_norm_", self._record)

    def _record(self, parameters: Any, limit: float) -> torch.Tensor:
        parameters = list(parameters)
        self.steps.append([p.grad.clone() for p in parameters])
        return self._clip(parameters, limit)


class Joined(BatchSampler):
    """For one process: the batches of two, each `count` of them (of an epoch's last step, the rest) as one."""

    def __init__(self, config: TrainConfig, durations: np.ndarray, count: int) -> None:
        self.ranks = [training_sampler(config, durations, rank, 2) for rank in range(2)]
        self.count, self.passed = count, 0

    def __len__(self) -> int:
        return -(-2 * len(self.ranks[0]) // self.count)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        single = [batch for pair in zip(*self.ranks, strict=True) for batch in pair]
        for begin in range(0, len(single), self.count):
            yield sum(single[begin : begin + self.count], [])

    def advance(self, batches: int = 1) -> None:
        self.passed += batches
        if self.passed % len(self) == 0:
            for sampler in self.ranks:
                sampler.advance(len(sampler))

    def state_dict(self) -> dict[str, Any]:
        return {}


def recorded(values: dict[str, Any], join: int) -> tuple[list[list[torch.Tensor]], Path]:
    """The gradients of a run of one process on the batches of two."""
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch)
        sampler = lambda config, durations, *_, **__: Joined(config, durations, join)  # noqa: E731
        patch.setattr(asr.training.data, "training_sampler", sampler)
        train(parse_config(values))
    return recorder.steps, Path(values["output"])


def train_rank(rank: int, values: dict[str, Any], patch: Callable[[int], None] | None = None) -> int:
    """`asr train` on a rank, from which `patch` has changed something; the first one saves its gradients."""
    recorder = Recorder(pytest.MonkeyPatch())
    if patch:
        patch(rank)
    recipe = Path(values["output"]).with_suffix(f".{rank}.yaml")
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    status = main(["train", str(recipe)])
    if rank == 0:
        torch.save(recorder.steps, recipe.with_suffix(".gradients"))
    return status


def assert_same_steps(
    found: list[list[torch.Tensor]], expected: list[list[torch.Tensor]], outputs: list[Path], step_losses: Losses
) -> None:
    assert len(found) == len(expected) > 2
    for mine, theirs in zip(found, expected, strict=True):
        for gradient, other in zip(mine, theirs, strict=True):
            assert torch.allclose(gradient, other, rtol=1e-4, atol=1e-5)
    losses = [step_losses(output) for output in outputs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and len(losses[0]) == len(found)


def test_accumulated_batches_are_one_large_batch(settings: Settings, tmp_path: Path, step_losses: Losses) -> None:
    """Also in the last step of an epoch, for which fewer are left."""
    whole = settings("whole", **PLAIN, trainer={"max_epochs": 2})
    parts = settings("parts", **PLAIN, trainer={"max_epochs": 2, "accumulate_grad_batches": 3})
    expected, _ = recorded(whole, 3)
    found, _ = recorded(parts, 1)
    assert_same_steps(found, expected, [tmp_path / "parts", tmp_path / "whole"], step_losses)


@pytest.mark.parametrize(("accumulate", "hosts"), [(1, False), (3, False), (1, True)])
def test_two_processes_are_one_with_the_same_batches(
    settings: Settings, tmp_path: Path, step_losses: Losses, accumulate: int, hosts: bool
) -> None:
    expected, whole = recorded(settings("whole", **PLAIN, trainer={"max_epochs": 2}), 2 * accumulate)
    values = settings("two", **PLAIN, trainer=on_nodes(2, accumulate_grad_batches=accumulate))
    for status, err in run_processes(train_rank, 2, tmp_path, values, hosts=hosts):
        assert status == 0, err
    found = torch.load(tmp_path / "two.0.gradients")
    assert_same_steps(found, expected, [tmp_path / "two", whole], step_losses)
