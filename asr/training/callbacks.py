"""Around the training steps: averaging, progress lines, warnings."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor

from asr.training.module import SpeechModule


def ema_callback(decay: float) -> WeightAveraging:
    """Exponential moving average of the weights; validation, selection and the model file use it.

    The decay rises as (1 + n) / (10 + n), so that the random initial weights are forgotten within the first steps.
    """

    def average(averaged: Tensor, current: Tensor, count: int | Tensor) -> Tensor:
        n = float(count)
        return torch.lerp(current, averaged, min(decay, (1.0 + n) / (10.0 + n)))

    return WeightAveraging(avg_fn=average, use_buffers=False)


class DataWait(Callback):
    """Logs the share of an epoch's time spent waiting for data, and says what to do when it is large."""

    def __init__(self, warn_above: float = 0.3) -> None:
        self.warn_above, self.warned = warn_above, False
        self._waited = self._worked = 0.0
        self._mark = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._waited = self._worked = 0.0
        self._mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self._waited, self._mark = self._waited + now - self._mark, now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self._worked, self._mark = self._worked + now - self._mark, now

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or self._waited + self._worked == 0:
            return
        share = self._waited / (self._waited + self._worked)
        for logger in trainer.loggers:
            logger.log_metrics({"train/data_wait_share": share}, step=trainer.global_step)
        slow = share > self.warn_above and self._waited > 10.0
        if slow and trainer.current_epoch >= 1 and not self.warned and trainer.is_global_zero:
            self.warned = True
            print(
                f"training waits for data {share:.0%} of the time: raise data.workers, or set data.cache_audio=true "
                "for a set that fits in memory",
                file=sys.stderr,
            )


class Progress(Callback):
    """One line per validation on stderr, a bar within the epoch on a terminal, and the all-blank plateau explained."""

    def __init__(self, blank_plateau_epochs: int, say: Callable[[str], None]) -> None:
        self.blank_plateau_epochs, self.say = blank_plateau_epochs, say
        self._bar: Any = None
        self._started = time.monotonic()
        self._warned = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()
        if trainer.is_global_zero and sys.stderr.isatty():
            from tqdm import tqdm

            total = int(trainer.num_training_batches)
            self._bar = tqdm(total=total, desc=f"epoch {trainer.current_epoch + 1}", leave=False, file=sys.stderr)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            self._bar.update(1)
            self._bar.set_postfix(loss=f"{float(outputs['loss']):.3f}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()
        metrics = trainer.callback_metrics
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        line = f"epoch {epoch:3d}  step {trainer.global_step:6d}"
        if "train/loss_epoch" in metrics:
            line += f"  loss {float(metrics['train/loss_epoch']):.3f}"
        if "dev/wer" in metrics:
            line += f"  dev loss {float(metrics['dev/loss']):.3f}  WER {float(metrics['dev/wer']):7.2%}"
            line += f"  CER {float(metrics['dev/cer']):7.2%}"
        blank = float(metrics.get("train/blank_share", torch.tensor(0.0)))
        line += f"  blank {blank:4.0%}  lr {trainer.optimizers[0].param_groups[0]['lr']:.2e}"
        line += f"  {time.monotonic() - self._started:.1f} s"
        self.say(line)
        if isinstance(pl_module, SpeechModule) and pl_module.task.example[0] and epoch % 5 == 0:
            self.say(f"    reference  {pl_module.task.example[0]}\n    hypothesis {pl_module.task.example[1]}")
        infeasible = float(metrics.get("train/infeasible", torch.tensor(0.0)))
        if infeasible:
            self.say(
                f"warning: {infeasible:.0f} utterances were too short for their text in this epoch and taught nothing"
            )
        self._plateau(epoch, blank)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _plateau(self, epoch: int, blank: float) -> None:
        if blank <= 0.99:
            return
        if epoch < self.blank_plateau_epochs:
            if epoch == 1:
                self.say("    only blanks so far: normal in the first epochs of CTC training")
        elif not self._warned:
            self._warned = True
            self.say(
                f"warning: still nothing but blanks after {epoch} epochs. Check the transcripts (asr data check), then "
                "try a lower optimizer.lr, more optimizer.warmup_steps, less augmentation, or more data"
            )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
