"""The LightningModule: an acoustic model, its training objectives, and the task that it is validated on."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from asr.audio.augment import spec_augment
from asr.audio.features import frame_count
from asr.config import to_dict
from asr.corpus.manifest import Manifest
from asr.model.cells import MaskedBatchNorm
from asr.model.classifier import build_model
from asr.text.tokenizer import Tokenizer
from asr.training.config import OptimizerConfig, TrainConfig
from asr.training.data import UnreadableCount
from asr.training.dataset import Batch
from asr.training.distribution import GlobalBatch
from asr.training.losses.objective import ObjectiveLoss
from asr.training.objectives import build_objective, objective_weight
from asr.training.tasks import Task, task_of
from asr.types import ConfigError


class SpeechModule(pl.LightningModule):
    """Trains an `AcousticModel` on the objectives of the configuration.

    Random numbers of a step are seeded by (run seed, epoch, batch, rank), those of SpecAugment by (run seed, epoch,
    utterance, view), so that a resumed run draws the same numbers as an uninterrupted one.

    With an objective that compares `views` of each utterance, features are computed once and repeated, each view is
    masked independently, and all objectives get outputs and batch with the rows of all views, view after view.
    """

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer, train: Manifest, dev: Manifest) -> None:
        super().__init__()
        self.run_config = config
        self.tokenizer = tokenizer
        self.unreadable = UnreadableCount(len(train))
        self.model = build_model(config.model, config.features, tokenizer, config.classification.pooling)
        self.model.encoder.initialize()
        self.objectives = nn.ModuleDict(
            {name: build_objective(name, setting, self.model) for name, setting in config.objectives.items()}
        )
        self.model.keep_layers = any(getattr(o, "needs_layers", False) for o in self.objectives.values())
        for objective in self.objectives.values():
            getattr(objective, "prepare", lambda _: None)(tokenizer)
        self.task: Task = task_of(config)(self.model, tokenizer, config.text.normalizer, dev)
        self.plateau = Plateau(config.optimizer.plateau_patience)
        self.init: dict[str, Any] | None = None  # the record of the model that the run started from
        self.views = max(getattr(objective, "views", 1) for objective in self.objectives.values())
        self.augment = config.augment
        if self.views > 1:
            masks = int(round(config.view_time_masks * self.augment.time_masks, 6))  # 1.15 * 100 is below 115
            self.augment = replace(self.augment, time_masks=masks)
        self.step = GlobalBatch(apart=config.optimizer.sync_every > 1)
        self._learns = True  # the encoder
        self._augments = self.augment.time_masks > 0 or self.augment.frequency_masks > 0
        if self.views > 1 and not self._augments:
            names = ", ".join(n for n, objective in self.objectives.items() if getattr(objective, "views", 1) > 1)
            raise ConfigError(
                f"objectives: {names} compares views that SpecAugment masks differently, but there are no masks: "
                f"set augment.time_masks (view_time_masks={config.view_time_masks:g} times as many are used) or "
                "augment.frequency_masks"
            )

    @property
    def _frozen(self) -> bool:
        return self.current_epoch < self.run_config.freeze_epochs

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Copy on a separate stream while the previous step is computed (batches are pinned)."""
        if device.type != "cuda":
            return batch.to(device)
        copies, current = _copy_stream(device), torch.cuda.current_stream(device)
        with torch.cuda.stream(copies):
            moved = batch.to(device, non_blocking=True)
        current.wait_stream(copies)
        for tensor in (moved.waveforms, moved.tokens):
            tensor.record_stream(current)
        return moved

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Not under DDP, which waits for the gradients of all parameters that required them at the start.
        if self.trainer.world_size == 1 and self._learns is self._frozen:
            self._learns = not self._frozen
            for parameter in self.model.encoder.parameters():
                parameter.requires_grad_(self._learns)
        if self.run_config.freeze_epochs:  # running statistics are frozen too
            for part in self.model.modules():
                if isinstance(part, MaskedBatchNorm):
                    part.train(not self._frozen)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.unreadable.add(batch)
        if not len(batch):  # nothing could be read, but without a loss the other ranks would wait for this one
            return torch.stack([p.sum() for p in self.parameters()]).sum() * 0.0
        self._seed_step(batch_idx)
        try:
            return self._loss(batch)
        finally:
            for objective in self.objectives.values():  # after failures too, which may be for lack of memory
                getattr(objective, "forget", lambda: None)()

    def _loss(self, batch: Batch) -> Tensor:
        """The weighted sum of the objectives, each logged."""
        for objective in self.objectives.values():
            batch = getattr(objective, "mixed", lambda batch: batch)(batch)
        seeds: list[tuple[int, ...]] = [(self.run_config.seed, batch.epoch, index) for index in batch.indices]
        seeds += [(*seed, view) for view in range(1, self.views) for seed in seeds]
        frames = [frame_count(samples, self.run_config.features) for samples in batch.lengths.tolist()] * self.views

        def augment(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            if self.views > 1:
                features, lengths = features.repeat(self.views, 1, 1), lengths.repeat(self.views)
            normalized = self.run_config.features.normalize != "none"
            return spec_augment(features, frames, self.augment, seeds, normalized), lengths

        outputs = self.model.outputs(batch.waveforms, batch.lengths, augment if self._augments else None)
        tokens = max(1, sum(batch.token_lengths.tolist()))
        # Epoch means are over tokens too. Lightning divides the count of all ranks by their number, rounded down.
        counted = {"batch_size": tokens * self.step.processes, "sync_dist": True}
        batch = batch if self.views == 1 else batch.repeated(self.views)
        losses = []
        for name, setting in self.run_config.objectives.items():
            result: ObjectiveLoss = self.objectives[name](outputs, batch)
            losses.append(objective_weight(setting) * result.loss)
            self.log(f"train/{name}", result.loss.detach(), on_step=False, on_epoch=True, **counted)
            for key, value in result.sums.items():
                value = value.float() / self.views
                self.log(f"train/{key}", value, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True)
            for key, value in result.means.items():
                self.log(f"train/{key}", value, on_step=False, on_epoch=True, **counted)
        loss = torch.stack(losses).sum()
        self.log("train/loss_epoch", loss.detach(), on_step=False, on_epoch=True, **counted)
        self.step.add(loss, tokens)
        return loss

    def backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        super().backward(self.step.weighted(loss), *arguments, **options)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if self._frozen:
            for parameter in self.model.encoder.parameters():
                parameter.grad = None  # the optimizer skips it
        loss = self.step.finish(self.parameters())
        if loss is not None:
            self.log("train/loss_step", loss, on_step=True, on_epoch=False)
        limit = self.run_config.optimizer.gradient_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), limit)
        self.log("train/gradient_norm", norm, on_step=True, on_epoch=False)

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        rate = torch.tensor(optimizer.param_groups[0]["lr"])  # on the CPU; Lightning would move a number to the GPU
        self.log("train/lr", rate, on_step=True, on_epoch=False)

    def on_fit_start(self) -> None:
        self.unreadable.utterances //= self.trainer.world_size
        self.step.begin(self.trainer)

    def on_validation_epoch_start(self) -> None:
        self.task.start()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.task.add(self.model.outputs(batch.waveforms, batch.lengths) if len(batch) else None, batch)

    def on_validation_epoch_end(self) -> None:
        totals = self.trainer.strategy.reduce(self.task.totals().to(self.device), reduce_op="sum")
        metrics = self.task.metrics(totals)
        self.log_dict(metrics, on_step=False, on_epoch=True)
        if not self.trainer.sanity_checking:
            self.plateau.update(metrics[self.task.monitor] * (1 if self.task.mode == "min" else -1))
        self.task.choose_example(self.current_epoch * 7919)  # a prime, for a different utterance each time
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                reference, hypothesis = self.task.example
                text = f"reference: {reference}  \nhypothesis: {hypothesis}"
                logger.experiment.add_text("dev/example", text, self.global_step)

    def configure_optimizers(self) -> Any:
        settings = self.run_config.optimizer
        slowed = set(self.model.encoder.parameters()) if self.run_config.encoder_lr_factor != 1 else set()
        others = [p for p in self.parameters() if p not in slowed]
        groups = _groups(others, settings, 1.0)  # first, because the rate of the first group is logged
        if slowed:
            groups += _groups([*self.model.encoder.parameters()], settings, self.run_config.encoder_lr_factor)
        # A fused step is fastest, but unscales float16 gradients itself, after they were clipped.
        fused = getattr(self.trainer.precision_plugin, "scaler", None) is None
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=fused)
        total_steps = int(min(self.trainer.estimated_stepping_batches, 2**31))

        def factor(step: int) -> float:
            return lr_factor(step, total_steps, settings, self.plateau.drops)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["plateau"] = self.plateau.state_dict()
        checkpoint["config"] = to_dict(self.run_config)
        checkpoint["tokenizer"] = self.tokenizer.to_dict()
        checkpoint["init"] = self.init

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.plateau.load_state_dict(checkpoint["plateau"])
        self.init = checkpoint.get("init")

    def _seed_step(self, batch_idx: int) -> None:
        key = (self.run_config.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)))


@functools.lru_cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _groups(parameters: list[nn.Parameter], settings: OptimizerConfig, factor: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only: nothing justifies shrinking biases and norms toward zero."""
    matrices, vectors = ([p for p in parameters if (p.dim() >= 2) is wide] for wide in (True, False))
    rate = settings.lr * factor
    return [
        {"params": matrices, "weight_decay": settings.weight_decay, "lr": rate},
        {"params": vectors, "weight_decay": 0.0, "lr": rate},
    ]


_ONECYCLE_RISE = 0.3  # share of the run in which the one-cycle schedule rises (Smith & Topin, 2018)
_ONECYCLE_START = 0.04


def lr_factor(step: int, total_steps: int, config: OptimizerConfig, plateau_drops: int = 0) -> float:
    """Factor on `config.lr` at optimizer step `step` (from 0) of `total_steps`, after `plateau_drops` reductions."""
    if config.schedule == "onecycle":
        rise = max(1, round(_ONECYCLE_RISE * total_steps))
        if step < rise:
            return _cosine(_ONECYCLE_START, 1.0, step / rise)
        return _cosine(1.0, config.final_lr, (step - rise) / max(1, total_steps - rise))
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        return _cosine(1.0, config.final_lr, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    if config.schedule == "plateau":
        return config.plateau_factor**plateau_drops
    return 1.0


class Plateau:
    """Counts how often a metric to minimize did not improve for more than `patience` validations."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best, self.waited, self.drops = patience, math.inf, 0, 0

    def update(self, metric: float) -> None:
        if metric < self.best:
            self.best, self.waited = metric, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.waited, self.drops = 0, self.drops + 1

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best, "waited": self.waited, "drops": self.drops}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best, self.waited, self.drops = state["best"], int(state["waited"]), int(state["drops"])


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, share))))
