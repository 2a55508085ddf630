"""A step is that of one large batch, however it is split; processes that learn apart; processes that die."""

from __future__ import annotations

import copy
import os
import signal
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
from asr.training.config import TrainConfig, parse_config
from asr.training.data import training_sampler
from asr.training.dataset import SpeechDataset, collate
from asr.training.distribution import PeriodicAverage, learned
from asr.training.losses.ctc import ctc_loss
from asr.training.module import SpeechModule, lr_factor
from asr.training.record import read_metrics
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
    return {"max_epochs": 2, "num_nodes": count, **settings}


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
            yield [key for batch in single[begin : begin + self.count] for key in batch]

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
    epochs = [read_metrics(output / "logs" / "csv").train_loss for output in outputs]
    assert epochs[0] == pytest.approx(epochs[1], rel=1e-5) and len(epochs[0]) == 2


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


def states(output: Path) -> dict[str, torch.Tensor]:
    """The moving average, the weights and the moments that a run ended with."""
    saved = read_checkpoint(output / "last.ckpt")
    found = {f"average.{name}": tensor for name, tensor in saved["state_dict"].items()}
    found |= {f"weight.{name}": tensor for name, tensor in saved["current_model_state"].items()}
    for number, state in saved["optimizer_states"][0]["state"].items():
        found |= {f"{name}.{number}": tensor for name, tensor in state.items() if tensor.dim()}
    return found


def simulated(values: dict[str, Any], workers: int) -> dict[str, torch.Tensor]:
    """`states` of local SGD by hand: the workers take their steps one after another."""
    config = parse_config(values)
    manifest, every = Manifest.read([str(config.data.train)]), config.optimizer.sync_every
    tokenizer = load_tokenizer(Path(config.output) / "tokenizer.json")
    dataset = SpeechDataset(config, manifest, tokenizer, training=True)
    torch.manual_seed(config.seed)
    model = AcousticModel(config.model, config.features, tokenizer.vocab_size)
    model.encoder.initialize()
    models = [copy.deepcopy(model) for _ in range(workers)]
    averages = [[p.detach().clone() for p in model.parameters()] for _ in models]
    optimizers = []
    for mine in models:  # in the order of a run's: matrices and vectors
        groups = [{"params": [p for p in mine.parameters() if (p.dim() > 1) is wide]} for wide in (True, False)]
        optimizers.append(torch.optim.AdamW(groups, betas=config.optimizer.betas, eps=config.optimizer.eps))
    samplers = [training_sampler(config, manifest.durations, rank, workers) for rank in range(workers)]
    steps = len(samplers[0])
    tokens = [0] * workers
    for step in range(2 * steps):
        epoch, place = divmod(step, steps)
        for rank, (mine, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            samplers[rank].epoch = epoch
            batch = collate([dataset[key] for key in list(samplers[rank])[place]])
            outputs = mine.outputs(batch.waveforms, batch.lengths)
            optimizer.zero_grad()
            ctc_loss(outputs.log_probs, outputs.lengths, batch.tokens, batch.token_lengths).loss.backward()
            torch.nn.utils.clip_grad_norm_(mine.parameters(), config.optimizer.gradient_clip)
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.0
                group["lr"] = config.optimizer.lr * lr_factor(step, 2 * steps, config.optimizer)
            optimizer.step()
            tokens[rank] += int(batch.token_lengths.sum())
            decay = min(config.averaging.ema_decay, (1 + step) / (10 + step)) if step else 0.0
            for average, parameter in zip(averages[rank], mine.parameters(), strict=True):
                average.mul_(decay).add_((1 - decay) * parameter.detach())
        if (place + 1) % every and place + 1 < steps:
            continue
        kinds = [[list(m.parameters()) for m in models], averages]
        for name in ("exp_avg", "exp_avg_sq"):
            kinds.append([[o.state[p][name] for p in m.parameters()] for m, o in zip(models, optimizers, strict=True)])
        for kind in kinds:
            for copies in zip(*kind, strict=True):
                mean = sum(t.detach() * count for t, count in zip(copies, tokens, strict=True)) / sum(tokens)
                for tensor in copies:
                    tensor.detach().copy_(mean)
        tokens = [0] * workers
    found = {}
    for number, (name, parameter) in enumerate(models[0].named_parameters()):
        found |= {f"weight.model.{name}": parameter.detach(), f"average.model.{name}": averages[0][number]}
    for number, state in optimizers[0].state_dict()["state"].items():
        found |= {f"{name}.{number}": tensor for name, tensor in state.items() if tensor.dim()}
    return found


def test_processes_that_learn_apart_are_a_simulation_of_them(settings: Settings, tmp_path: Path) -> None:
    """Weights, moving average and moments; the last period of an epoch is cut short."""
    values = settings("apart", **PLAIN, trainer=on_nodes(2))
    values["optimizer"] |= {"sync_every": 3, "weight_decay": 0.0}
    for status, err in run_processes(train_rank, 2, tmp_path, values):
        assert status == 0, err
    found, expected = states(tmp_path / "apart"), simulated(values, 2)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


def test_the_statistics_of_batch_norm_are_averaged_too() -> None:
    norm = torch.nn.BatchNorm1d(3)
    found = [[id(tensor) for tensor in kind] for kind in learned(norm, {})]
    assert found == [[id(norm.weight), id(norm.bias)], [id(norm.running_mean), id(norm.running_var)]]


def plain_sgd(rank: int) -> None:
    torch.optim.AdamW = lambda groups, lr, **_: torch.optim.SGD(groups, lr=lr)  # type: ignore


def plain_sgd_averaged_each_step(rank: int) -> None:
    plain_sgd(rank)
    original = PeriodicAverage.__init__
    PeriodicAverage.__init__ = lambda self, every, *rest: original(self, 1, *rest)  # type: ignore[method-assign]


def test_an_average_after_each_step_of_plain_sgd_is_ddp(settings: Settings, tmp_path: Path) -> None:
    optimizer = {"gradient_clip": 0.0, "warmup_steps": 0, "schedule": "constant"}
    for name, every, patch in (("ddp", 1, plain_sgd), ("apart", 2, plain_sgd_averaged_each_step)):
        values = settings(name, **(PLAIN | {"optimizer": optimizer | {"sync_every": every}}), trainer=on_nodes(2))
        for status, err in run_processes(train_rank, 2, tmp_path, values, patch):
            assert status == 0, err
    found, expected = states(tmp_path / "apart"), states(tmp_path / "ddp")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize(("every", "victim"), [(1, 1), (3, 0)])
def test_a_process_that_dies_stops_the_others_and_the_run_goes_on_exactly(
    settings: Settings, tmp_path: Path, every: int, victim: int
) -> None:
    """Killed in the midst of the second epoch, after a step that is not a multiple of `every`."""

    def often(rank: int) -> None:
        asr.training.callbacks.AGREE_BATCHES = 1

    def kill(rank: int) -> None:
        often(rank)
        step = SpeechModule.training_step

        def dying(self: SpeechModule, batch: Any, batch_idx: int) -> torch.Tensor:
            if rank == victim and (self.current_epoch, batch_idx) == (1, 4):
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, batch, batch_idx)

        SpeechModule.training_step = dying  # type: ignore[method-assign]

    sections = {"checkpoint_minutes": 0, "data": {"batch_seconds": 5.0}, "optimizer": {"sync_every": every}}
    unbroken, broken = (settings(name, **sections, trainer=on_nodes(2)) for name in ("unbroken", "broken"))
    assert [status for status, _ in run_processes(train_rank, 2, tmp_path, unbroken, often)] == [0, 0]
    results = run_processes(train_rank, 2, tmp_path, broken, kill)
    assert (results[victim][0], results[1 - victim][0]) == (-signal.SIGKILL, 1)
    err = results[1 - victim][1]
    assert err.count("has lost another process") == 1 and "Traceback" not in err
    assert f"start all of them again to resume from {tmp_path}/broken/last.ckpt" in err
    checkpoint = read_checkpoint(tmp_path / "broken/last.ckpt")
    steps = checkpoint["global_step"] - read_checkpoint(tmp_path / "unbroken/last.ckpt")["global_step"] // 2
    assert (checkpoint["epoch"], steps) == (1, {1: 4, 3: 3}[every])
    for status, err in run_processes(train_rank, 2, tmp_path, broken, often):
        assert status == 0, err
    found, expected = states(tmp_path / "broken"), states(tmp_path / "unbroken")
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
