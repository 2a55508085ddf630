"""Lightning callbacks: weight averaging, reports, and checkpoints after validations and before a stop."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from asr.training.checkpoints import LAST
from asr.training.process import Interrupted, Signals, say
from asr.training.tasks import Task, format_parts, format_rates


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, used for validation, selection and the model file.

    The running statistics of batch norm are averaged like the weights: those of the current weights would not fit.
    The decay rises as (1 + n) / (10 + n), so that the random initial weights are forgotten within the first steps.
    Lightning's callback keeps the average on the CPU, where the model was before the run, and so copies all weights
    from the GPU in every step; this one keeps it on the device of the run.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False)
        self.decay, self._averaged = decay, -1

    @property
    def state_key(self) -> str:
        """The key in checkpoints is that of Lightning's callback, which wrote the older ones."""
        return WeightAveraging.__qualname__

    @property
    def module(self) -> torch.nn.Module:
        """A copy of the run's module that holds the averages."""
        assert self._average_model is not None
        return self._average_model.module

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step <= self._latest_update_step:
            return
        average = self._average_model
        assert average is not None
        n = self._averaged if self._averaged >= 0 else int(average.n_averaged)  # from the checkpoint
        decay = min(self.decay, (1.0 + n) / (10.0 + n)) if n else 0.0
        averaged, current = (
            [*module.parameters(), *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
            for module in (average.module, pl_module)
        )
        get_ema_multi_avg_fn(decay)(averaged, current, n)
        for mine, buffer in zip(average.module.buffers(), pl_module.buffers(), strict=True):
            if not buffer.is_floating_point():
                mine.copy_(buffer)
        average.n_averaged += 1
        self._averaged, self._latest_update_step = n + 1, trainer.global_step


class DataWait(Callback):
    """Logs the share of an epoch spent waiting for data, and gives advice if it is large."""

    def __init__(self, warn_above: float = 0.3) -> None:
        self.warn_above, self.warned = warn_above, False
        self._waited = self._worked = self._mark = 0.0  # seconds

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._waited = self._worked = 0.0
        self._mark = time.perf_counter()

    on_train_start = on_train_epoch_start  # an epoch that is resumed in its middle has no other start

    def on_train_batch_start(self, *arguments: Any, **options: Any) -> None:
        self._waited += self._lap()

    def on_train_batch_end(self, *arguments: Any, **options: Any) -> None:
        self._worked += self._lap()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or self._waited + self._worked == 0:
            return
        share = self._waited / (self._waited + self._worked)
        for logger in trainer.loggers:
            logger.log_metrics({"train/data_wait_share": share}, step=trainer.global_step)
        slow = share > self.warn_above and self._waited > 10.0
        if slow and trainer.current_epoch >= 1 and not self.warned and trainer.is_global_zero:
            self.warned = True
            say(
                f"training waits for data {share:.0%} of the time: raise data.workers, or set data.cache_audio=true "
                "for a set that fits in memory"
            )

    def _lap(self) -> float:
        now = time.perf_counter()
        seconds, self._mark = now - self._mark, now
        return seconds


class EpochReport(Callback):
    """Prints a line per epoch to stderr, shows a progress bar on a terminal, and explains the all-blank plateau."""

    def __init__(self, task: Task, blank_plateau_epochs: int) -> None:
        self.task, self.blank_plateau_epochs = task, blank_plateau_epochs
        self._bar: Any = None
        self._started = 0.0
        self._warned = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.monotonic()  # an epoch that is resumed in its middle has no other start

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
            if batch_idx % 10 == 0:  # reading the loss waits for the GPU
                self._bar.set_postfix(loss=f"{float(outputs['loss']):.3f}", refresh=False)

    def _close_bar(self, *arguments: Any, **options: Any) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    on_validation_start = on_exception = _close_bar

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close_bar()
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch + 1
        parts = [f"epoch {epoch:3d}", f"step {trainer.global_step:6d}"]
        losses = {"loss": "train/loss_epoch", "dev loss": "dev/loss"}
        parts += [f"{label} {metrics[name]:.3f}" for label, name in losses.items() if name in metrics]
        if self.task.monitor in metrics:
            parts += filter(None, [format_rates(self.task, metrics, width=7), format_parts(self.task, metrics)])
        if "train/blank_share" in metrics:
            parts.append(f"blank {metrics['train/blank_share']:4.0%}")
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        say("  ".join([*parts, f"lr {rate:.2e}", f"{time.monotonic() - self._started:.1f} s"]))
        reference, hypothesis = self.task.example
        if reference and epoch % 5 == 0:
            say(f"    reference  {reference}\n    hypothesis {hypothesis}")
        if infeasible := metrics.get("train/infeasible"):
            say(f"warning: {infeasible:.0f} utterances were too short for their text and had no effect in this epoch")
        if metrics.get("train/blank_share", 0.0) > 0.99:
            self._explain_blanks(epoch)

    def _explain_blanks(self, epoch: int) -> None:
        if epoch == 1 < self.blank_plateau_epochs:
            say("    only blanks so far: normal in the first epochs of CTC training")
        elif epoch >= self.blank_plateau_epochs and not self._warned:
            self._warned = True
            say(
                f"warning: still nothing but blanks after {epoch} epochs. Check the transcripts (asr data check), then "
                "try a lower optimizer.lr, more optimizer.warmup_steps, less augmentation, or more data"
            )


AGREE_BATCHES = 5  # ranks synchronize to agree on signals, so they do it only about every 5 batches


class SaveOnInterrupt(Callback):
    """Writes `last.ckpt` between steps after a signal, which ends the run, and every `minutes`.

    A signal within a step waits for its end, when weights, optimizer and position are consistent. After the last step
    of an epoch it also waits for the validation and the first step after it; otherwise a validation that is always
    interrupted would never be completed. All ranks agree, so that none is left waiting in a collective, and do so only
    every `every` steps, when all have the same weights.
    """

    def __init__(self, directory: Path, minutes: float, signals: Signals, every: int = 1) -> None:
        self.directory, self.minutes, self.signals, self.every = directory, minutes, signals, every
        self._saved_at = time.monotonic()
        self._saved_step = -1

    def save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.directory / LAST)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number in self.signals.handled:  # Lightning's handlers end a run on SIGTERM without saving, with status 0
            signal.signal(number, self.signals.receive)

    on_sanity_check_start = on_train_start

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if received := self._agreed(trainer, pl_module)[0]:
            raise Interrupted(received)  # nothing has been learned yet

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = trainer.accumulate_grad_batches  # accumulated gradients are not part of a checkpoint
        if trainer.world_size > 1:
            every *= self.every
            every *= max(1, AGREE_BATCHES // every)
        if (batch_idx + 1) % every and not trainer.is_last_batch:
            return
        received, due = self._agreed(trainer, pl_module)
        if received or due:
            self.save(trainer)
        if received and not trainer.is_last_batch:
            raise Interrupted(received)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._agreed(trainer, pl_module)[0] and self._saved_step != trainer.global_step:
            self.save(trainer)

    def _agreed(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[int, bool]:
        """The signal that any rank has received, or 0, and whether it is time to save."""
        due = time.monotonic() - self._saved_at > self.minutes * 60
        if trainer.world_size == 1:
            return self.signals.received, due
        state = torch.tensor([self.signals.received, int(due)], device=pl_module.device)
        state = trainer.strategy.reduce(state, reduce_op="max")
        return int(state[0]), bool(state[1])


class KeepBest(ModelCheckpoint):
    """Keeps the best checkpoints, and then writes `last.ckpt` after every validation.

    Lightning's `save_last` may write a link instead of a file. A separate callback would run before this one, and its
    `last.ckpt` would refer to best checkpoints that may be deleted by now.
    """

    def __init__(self, saver: SaveOnInterrupt, task: Task, keep: int) -> None:
        super().__init__(
            dirpath=saver.directory / "checkpoints",
            filename=f"epoch{{epoch:03d}}-{_short_name(task)}{{{task.monitor}:.4f}}",
            auto_insert_metric_name=False,
            monitor=task.monitor,
            mode=task.mode,
            save_on_train_epoch_end=False,
            save_top_k=keep,
        )
        self.saver = saver

    def best_first(self) -> list[tuple[str, float]]:
        """The kept checkpoints with their metrics, best first."""
        kept = [(path, float(metric)) for path, metric in self.best_k_models.items()]
        return sorted(kept, key=lambda item: item[1], reverse=self.mode == "max")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.saver.save(trainer)


def best_checkpoints(output: Path, task: type[Task] | Task) -> list[Path]:
    """The checkpoints that `KeepBest` left in a run's folder, best first by the metric in their names."""
    label = f"-{_short_name(task)}"

    def metric(path: Path) -> float:
        # Lightning adds a version if a name is taken: epoch003-wer0.1234-v1.ckpt
        return float(path.stem.rpartition(label)[2].partition("-")[0])

    found = sorted((output / "checkpoints").glob(f"*{label}[0-9]*.ckpt"))
    return sorted(found, key=metric, reverse=task.mode == "max")


def _short_name(task: type[Task] | Task) -> str:
    return task.monitor.rpartition("/")[2]
