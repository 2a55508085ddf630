"""The plan of a training run: hours of audio, steps, memory and time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from asr.model.config import CLASSIFICATION
from asr.text.tokenizer import load_tokenizer
from asr.training.config import TrainConfig, manifests, trainer_settings
from asr.training.data import read_manifest, training_symbols, weights_of
from asr.training.measure import Shape, batch_shapes, estimated_memory, measure, stand_in
from asr.training.record import machine
from asr.types import ConfigError

ENGLISH_LETTERS = 29  # a to z, apostrophe, space and blank


@dataclass(frozen=True)
class Plan:
    """The size and cost of a training run. Times do not include validation or waiting for slow disks.

    `hours` of audio in the training set; `steps` of the optimizer in total; `largest_batch` on one device, and its
    `memory` in bytes, `memory_from` "measured" or "estimated"; `throughput` in seconds of training audio per second on
    all devices, 0 if unknown, and its source `throughput_from`.
    """

    name: str
    hours: float
    utterances: int
    vocab_size: int
    parameters: int
    devices: int
    epochs: int
    steps_per_epoch: int
    steps: int
    largest_batch: Shape
    memory: float
    memory_from: str
    throughput: float
    throughput_from: str

    @property
    def days(self) -> float:
        """Days of training; NaN if the throughput is unknown."""
        seconds = self.hours * 3600 * self.steps / max(1, self.steps_per_epoch)
        return seconds / self.throughput / 86400 if self.throughput else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return dataclasses.asdict(self) | {"days": None if math.isnan(self.days) else round(self.days, 6)}

    def lines(self) -> list[str]:
        """The plan for people."""
        batch, devices = self.largest_batch, f" on each of {self.devices} devices" if self.devices > 1 else ""
        speed = f"{self.throughput:,.0f} seconds of audio a second ({self.throughput_from})"
        return [
            f"{self.name}: {self.hours:,.2f} hours of audio in {self.utterances:,} utterances, "
            f"{self.vocab_size} symbols, {self.parameters / 1e6:.2f} M parameters",
            f"steps   {self.epochs} epochs of {self.steps_per_epoch:,}: {self.steps:,} in all",
            f"memory  {self.memory / 2**30:.1f} GiB{devices} ({self.memory_from}) for the largest batch, "
            f"{batch.rows} x {batch.seconds:.1f} s",
            f"time    {in_words(self.days)}, without validation, at {speed}" if self.throughput else "time    unknown",
        ]


def plan(
    config: TrainConfig,
    durations: np.ndarray,
    vocab_size: int,
    *,
    throughput: float = 0.0,
    source: str = "as given",
    run: bool = False,
) -> Plan:
    """Plan a training on utterances of these `durations` (seconds).

    With `run`, a few training steps on the largest and on a middle batch are measured here, on one device. Otherwise
    time follows from `throughput`, seconds of audio per second on all devices, whose `source` the plan names, and
    memory is estimated. Nothing is written. Raises torch.OutOfMemoryError if the largest batch does not fit.
    """
    durations = durations[(durations >= config.data.min_duration) & (durations <= config.data.max_duration)]
    settings = trainer_settings(config)
    devices = _devices(settings)
    shapes = batch_shapes(config, durations, devices)
    steps_per_epoch = math.ceil(len(shapes) / settings.get("accumulate_grad_batches", 1))
    epochs, most = settings["max_epochs"], settings.get("max_steps", -1)
    if epochs is None:  # as Lightning reads it
        epochs = 1000 if most < 0 else -1
    if epochs < 0 and most < 0:
        raise ConfigError("the training has no end to plan for: set trainer.max_epochs or trainer.max_steps")
    steps = steps_per_epoch * epochs
    if most >= 0 and (epochs < 0 or most < steps):
        epochs, steps = math.ceil(most / steps_per_epoch), most
    memory, memory_from = 0.0, "measured"
    module = stand_in(config, vocab_size)
    if run:
        largest, middle = (measure(config, module, shape) for shape in (shapes[0], shapes[len(shapes) // 2]))
        memory = largest.memory
        if not throughput:
            throughput = durations.sum() / len(shapes) / middle.seconds
            source = f"measured on {machine()}, without reading audio"
    if not memory:
        memory, memory_from = estimated_memory(config, vocab_size, shapes[0]), "estimated"
    return Plan(
        name=config.name,
        hours=float(durations.sum(dtype=np.float64)) / 3600,
        utterances=len(durations),
        vocab_size=vocab_size,
        parameters=sum(p.numel() for p in module.model.parameters()),
        devices=devices,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        largest_batch=shapes[0],
        memory=float(memory),
        memory_from=memory_from,
        throughput=float(throughput),
        throughput_from=source,
    )


def corpus(config: TrainConfig) -> tuple[np.ndarray, int]:
    """Durations in seconds of the utterances of an epoch, including repetitions, and the size of the vocabulary."""
    if not manifests(config.data.train):
        raise ConfigError("data.train must name a manifest")
    train_set = read_manifest(config, manifests(config.data.train))
    weights = np.asarray(weights_of(config.data, train_set))[train_set.files]
    durations = np.repeat(train_set.durations, np.diff(np.floor(np.cumsum(weights) + 1e-6), prepend=0).astype(int))
    if config.task == CLASSIFICATION or (config.text.tokenizer == "char" and not config.text.tokenizer_file):
        return durations, training_symbols(config, train_set).vocab_size
    return durations, expected_vocabulary(config)


def expected_vocabulary(config: TrainConfig) -> int:
    """The size of the vocabulary without any text: characters are assumed to be English."""
    if config.text.tokenizer_file:
        return load_tokenizer(config.text.tokenizer_file).vocab_size
    return ENGLISH_LETTERS if config.text.tokenizer == "char" else config.text.vocab_size


def spread_durations(hours: float, utterances: int, longest: float) -> np.ndarray:
    """Plausible durations in seconds, from 0 to `longest`, for a corpus of which only the totals are known.

    They are the quantiles of longest * u^k, with u uniform in (0, 1) and k chosen to give the hours.
    """
    mean = 3600 * hours / utterances
    if not 0 < mean <= longest:
        raise ConfigError(f"{hours:g} hours in {utterances} utterances do not agree with {longest:g} s as the longest")
    quantiles = (np.arange(utterances) + 0.5) / utterances
    durations = longest * quantiles ** (longest / mean - 1.0)
    return (durations * (3600 * hours / durations.sum())).astype(np.float32)


def in_words(days: float) -> str:
    """A length of time in minutes, hours or days."""
    if days >= 2:
        return f"{days:.1f} days"
    if days * 24 >= 2:
        return f"{days * 24:.1f} hours"
    minutes = max(1, round(days * 24 * 60))
    return f"{minutes} minute{'s' * (minutes != 1)}"


def _devices(settings: dict[str, Any]) -> int:
    devices = settings["devices"]
    if devices in ("auto", -1, "-1"):
        count = max(1, torch.cuda.device_count())
    elif isinstance(devices, str):
        count = int(devices) if devices.isdecimal() else len([part for part in devices.split(",") if part.strip()])
    else:
        count = devices if isinstance(devices, int) else len(devices)
    return count * int(settings.get("num_nodes", 1))
