"""Checkpoints: written whole or not at all, after validations, every few minutes, and when the run is told to stop."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from asr.files import replacing
from asr.training.interruption import Interrupted, Signals
from asr.training.tasks import Task
from asr.types import AsrError

LAST = "last.ckpt"
BEFORE_LAST = "previous.ckpt"
DAMAGED = "damaged.ckpt"  # what could not be read, out of the way


class DurableCheckpoints(TorchCheckpointIO):
    """Writes every checkpoint beside its place, waits for the disk, and renames it; keeps the `last.ckpt` before.

    Lightning's own way leads through $TMPDIR: where that is another file system, it empties the target and copies.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises AsrError, in one line, when the disk is full; what was there before is still there then."""
        buffer = io.BytesIO()  # torch reports a full disk as an internal error of its zip writer
        torch.save(checkpoint, buffer)
        with replacing(path, AsrError) as partial:
            partial.write_bytes(buffer.getbuffer())
            if Path(path).name == LAST:
                _keep(Path(path))


def _keep(last: Path) -> None:
    """Give `last.ckpt` a second name, which it keeps when another one takes its place."""
    before = last.with_name(BEFORE_LAST)
    spare = last.with_name(f".{BEFORE_LAST}.part")
    if not last.exists():
        return
    spare.unlink(missing_ok=True)
    try:
        os.link(last, spare)
    except OSError:  # a file system without hard links
        last.replace(before)
    else:
        spare.replace(before)


class SaveOnInterrupt(Callback):
    """Writes `last.ckpt` at a step boundary when a signal has come, and every `minutes`; then the run stops.

    A signal inside a step must wait for its end: only there are weights, optimizer and position consistent. After the
    last step of an epoch the validation comes first, or no run would ever see it, and the first step after that. All
    ranks agree on it, so that none is left waiting in a collective.
    """

    def __init__(self, directory: Path, minutes: float, signals: Signals) -> None:
        self.directory, self.minutes, self.signals = directory, minutes, signals
        self._saved_at = time.monotonic()
        self._saved_step = -1

    def save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.directory / LAST)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._displace()

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if received := self._agreed(trainer, pl_module)[0]:
            raise Interrupted(received)  # nothing was learned since the start

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._displace()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return  # accumulated gradients are not part of a checkpoint
        received, due = self._agreed(trainer, pl_module)
        if received or due:
            self.save(trainer)
        if received and not trainer.is_last_batch:
            raise Interrupted(received)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._agreed(trainer, pl_module)[0] and self._saved_step != trainer.global_step:
            self.save(trainer)

    def _agreed(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[int, bool]:
        """The signal that some rank has received, and whether it is time to save."""
        due = time.monotonic() - self._saved_at > self.minutes * 60
        if trainer.world_size == 1:
            return self.signals.received, due
        state = torch.tensor([self.signals.received, int(due)], device=pl_module.device)
        state = trainer.strategy.reduce(state, reduce_op="max")
        return int(state[0]), bool(state[1])

    def _displace(self) -> None:
        """Put our handlers in the place of Lightning's, which end a run on SIGTERM without saving, with status 0."""
        for number in self.signals.handled:
            signal.signal(number, self.signals.receive)


class KeepBest(ModelCheckpoint):
    """Keeps the best checkpoints, and then writes `last.ckpt`, a real file, after every validation.

    Lightning's `save_last` may write a mere link; a callback of its own would run before this one, and `last.ckpt`
    would name the best checkpoints of the validation before, which may be deleted by now.
    """

    def __init__(self, saver: SaveOnInterrupt, task: Task, keep: int) -> None:
        metric = task.monitor.rpartition("/")[2]
        super().__init__(
            dirpath=saver.directory / "checkpoints",
            filename=f"epoch{{epoch:03d}}-{metric}{{{task.monitor}:.4f}}",
            auto_insert_metric_name=False,
            monitor=task.monitor,
            mode=task.mode,
            save_on_train_epoch_end=False,
            save_top_k=keep,
        )
        self.saver = saver

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self.saver.save(trainer)


def remove_partial_files(output: Path) -> None:
    """Remove what a run that was killed while it wrote has left behind."""
    for folder in (output, output / "checkpoints"):
        for path in folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                path.unlink()
