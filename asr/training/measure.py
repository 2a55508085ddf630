"""Training steps on batches of noise: time and memory on this machine, and the largest batch that fits."""

from __future__ import annotations

import gc
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from asr.corpus.manifest import Manifest
from asr.model.config import CLASSIFICATION
from asr.model.shapes import fast_rows
from asr.text.tokenizer import CharTokenizer, LabelSet
from asr.training.callbacks import MovingAverage
from asr.training.config import TrainConfig, trainer_settings
from asr.training.data import training_sampler
from asr.training.dataset import Batch, Sample, collate
from asr.training.module import SpeechModule
from asr.training.process import quiet_lightning
from asr.types import ConfigError

MARGIN = 0.9  # share of the memory that the largest batch may take, because other batches have other shapes
TOKENS_PER_SECOND = 15  # characters of read English; word pieces are fewer, but tokens cost next to nothing
_ENOUGH_SECONDS = 10.0  # of steps on one batch
# The trainer's settings that steps depend on; the others are about when a run ends and what it reports.
_STEP_SETTINGS = ("accelerator", "precision", "deterministic", "benchmark", "plugins")


@dataclass(frozen=True)
class Shape:
    """A batch: `rows` utterances, padded to `seconds` of audio each."""

    rows: int
    seconds: float

    @property
    def padded(self) -> float:
        """Seconds of audio with padding."""
        return self.rows * self.seconds


@dataclass(frozen=True)
class Step:
    """A measured training step: seconds, and the peak of bytes in use on the GPU (0 on the CPU)."""

    seconds: float
    memory: int


def batch_shapes(config: TrainConfig, durations: np.ndarray, devices: int = 1) -> list[Shape]:
    """The batches of one device's epoch 0, largest first, as long as augmentation can make them."""
    rows = fast_rows("cuda" if torch.cuda.is_available() else "cpu")
    sampler = training_sampler(config, durations, world_size=devices, row_multiple=rows)
    stretch, added = 1.0 / min((1.0, *config.augment.speed)), 2.0 * config.augment.silence
    shapes = [Shape(len(b), float(durations[[i for _, i in b]].max()) * stretch + added) for b in sampler]
    return sorted(shapes, key=lambda shape: shape.padded, reverse=True)


def stand_in(config: TrainConfig, vocab_size: int) -> SpeechModule:
    """The module of a run whose tokenizer has `vocab_size` entries, without its data and initial model."""
    symbols = ["", " ", *(chr(0x4E00 + i) for i in range(vocab_size - 2))]
    tokenizer = LabelSet(symbols) if config.task == CLASSIFICATION else CharTokenizer(symbols)
    nothing = Manifest.from_rows([{"audio_filepath": "noise.wav", "duration": 1.0, "text": ""}], "noise.jsonl")
    if config.task == CLASSIFICATION:  # labels, and so weights by label, are unknown here
        config = replace(config, objectives={CLASSIFICATION: 1.0})
    return SpeechModule(replace(config, freeze_epochs=0), tokenizer, nothing, nothing)


def noise_batch(config: TrainConfig, shape: Shape, vocab_size: int) -> Batch:
    """Utterances of noise of the same length, with as many tokens as speech has."""
    generator = torch.Generator().manual_seed(config.seed)
    samples = max(1, round(shape.seconds * config.features.rate))
    count = 1 if config.task == CLASSIFICATION else max(1, round(shape.seconds * TOKENS_PER_SECOND))
    tokens = 1 + torch.arange(count) % (vocab_size - 1)
    waveforms = 0.1 * torch.randn(shape.rows, samples, generator=generator)
    return collate([Sample(i, waveform, tokens, shape.seconds) for i, waveform in enumerate(waveforms)])


def measure(config: TrainConfig, module: SpeechModule, shape: Shape, steps: int = 5) -> Step:
    """Run up to `steps` training steps on one batch of noise, fewer if they take long. Writes nothing.

    The first step, which also chooses kernels and allocates memory, is left out unless it is the only one. Raises
    torch.OutOfMemoryError, after freeing the memory, if the batch does not fit.
    """
    quiet_lightning()
    batch = noise_batch(config, shape, module.tokenizer.vocab_size)
    clock = _Clock()
    settings = {key: value for key, value in trainer_settings(config).items() if key in _STEP_SETTINGS}
    averaging: list[Callback] = [MovingAverage(config.averaging.ema_decay)] if config.averaging.kind == "ema" else []
    try:
        trainer = pl.Trainer(
            **settings,
            devices=1,
            max_epochs=1,
            limit_val_batches=0,
            callbacks=[clock, *averaging],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except Exception as error:  # only the settings can be wrong
        raise refused(error) from error
    batches: Any = [batch] * steps  # a list is a data set
    loader = DataLoader[Batch](batches, batch_size=None, collate_fn=lambda b: b, pin_memory=torch.cuda.is_available())
    message = ""
    try:
        trainer.fit(module, loader)
    except torch.OutOfMemoryError as error:
        message = str(error)
    # Outside the handler, whose traceback keeps the tensors of the failed step alive.
    module.cpu().zero_grad()
    del trainer, averaging
    _free()
    if message:
        raise torch.OutOfMemoryError(message)
    return Step(float(np.median(clock.seconds[1:] or clock.seconds)), clock.memory)


def find_batch(config: TrainConfig, durations: np.ndarray, vocab_size: int, most: float = math.inf) -> float:
    """The largest `data.batch_seconds`, up to `most`, whose largest batch fits into the memory of the GPU.

    Found by trial, with a margin of a tenth. 0 if not even the longest utterance fits.
    """
    module = stand_in(config, vocab_size)
    _free()
    available = torch.cuda.mem_get_info()[0]

    def largest(seconds: float) -> Shape:
        return batch_shapes(replace(config, data=replace(config.data, batch_seconds=seconds)), durations)[0]

    def fits(seconds: float) -> bool:
        try:
            return measure(config, module, largest(seconds), steps=2).memory <= MARGIN * available
        except torch.OutOfMemoryError:
            return False

    # More seconds than this do not make a larger batch: `max_batch_size` or the number of utterances limits it.
    rows = min(config.data.max_batch_size or len(durations), len(durations))
    bound = min(most, rows * largest(1.0).seconds)
    return largest_fitting(fits, min(config.data.batch_seconds, bound), bound)


def largest_fitting(fits: Callable[[float], bool], start: float, most: float) -> float:
    """The largest number up to `most` that `fits`, within 5 %, searched from `start`; 0 if none from 1 up does.

    `fits` must be true up to some number and false above it.
    """
    low, high, trial = 0.0, math.inf, start
    while trial >= 1.0 and low < most and (not low or high / low >= 1.05):
        low, high = (trial, high) if fits(trial) else (low, trial)
        if not low:
            trial /= 2
        else:
            trial = (low + high) / 2 if high < math.inf else min(2 * trial, most)
    return low


def estimated_memory(config: TrainConfig, vocab_size: int, shape: Shape) -> float:
    """An estimate, without a GPU, of the peak bytes of training on batches of this shape.

    It adds up weights, gradients, both moments of AdamW and the moving average, in float32, and what model and
    objectives keep for the backward pass, counted on short utterances and scaled up, halved for 16-bit precision.
    """
    module = stand_in(config, vocab_size)
    copies = 5 if config.averaging.kind == "ema" else 4
    weights = copies * sum(p.numel() * p.element_size() for p in module.parameters())
    small, large = (_kept_bytes(config, module, Shape(1, seconds)) for seconds in (0.5, 1.5))
    halved = 0.5 if "16" in str(config.trainer.get("precision", "32")) else 1.0
    return weights + (large - small) * shape.padded * halved


def _kept_bytes(config: TrainConfig, module: SpeechModule, shape: Shape) -> int:
    """Bytes that autograd keeps for a batch, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    batch = noise_batch(config, shape, module.tokenizer.vocab_size)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with warnings.catch_warnings(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        warnings.filterwarnings("ignore", message=".*self.log")  # there is no trainer to log to
        loss = module.training_step(batch, 0)
    del loss
    return sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in weights)


def refused(error: Exception) -> ConfigError:
    """An error of Lightning about a setting, in one line."""
    return ConfigError(f"trainer: {' '.join(str(error).split()) or type(error).__name__}")


class _Clock(Callback):
    """Times steps, and ends the run after `_ENOUGH_SECONDS` of them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.memory = 0
        self._started = 0.0

    def on_train_batch_start(self, *arguments: Any, **options: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any, **options: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.memory = max(self.memory, torch.cuda.max_memory_allocated())
        self.seconds.append(time.perf_counter() - self._started)
        trainer.should_stop = trainer.should_stop or sum(self.seconds) > _ENOUGH_SECONDS


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
