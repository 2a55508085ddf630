"""The LightningDataModule: manifests to batches, with a position that survives an interruption in mid-epoch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from asr.corpus.batching import BatchSampler, EvaluationBatchSampler
from asr.corpus.manifest import Manifest
from asr.model.acoustic import output_length
from asr.text.tokenizer import Tokenizer
from asr.training.config import TrainConfig
from asr.training.dataset import Batch, SpeechDataset, collate
from asr.training.workers import auto_workers, worker_init
from asr.types import ConfigError


class KeepPosition(Callback):
    """Tells the sampler of every batch that training has finished; a callback, so that it runs before checkpoints."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SpeechDataModule) and data.sampler is not None
        data.sampler.advance()


class SpeechDataModule(pl.LightningDataModule):
    """Training batches for this rank, and the dev set split over the ranks so that each utterance is seen once."""

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer, train: Manifest, dev: Manifest) -> None:
        super().__init__()
        self.run_config = config
        self.tokenizer = tokenizer
        self.train_manifest, self.dev_manifest = train, dev
        self.resume_position: dict[str, Any] | None = None
        self.sampler: BatchSampler | None = None

    def train_dataloader(self) -> DataLoader:
        data, augment = self.run_config.data, self.run_config.augment
        assert self.trainer is not None
        self.sampler = BatchSampler(
            self.train_manifest.durations,
            data.batch_seconds,
            buckets=data.buckets,
            seed=self.run_config.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            max_batch_size=data.max_batch_size,
            max_stretch=max(1.0, 1.0 / min(augment.speed)) if augment.speed else 1.0,
            max_added=2.0 * augment.silence,
        )
        if self.resume_position is not None:
            self.sampler.load_state_dict(self.resume_position)
            self.resume_position = None
        dataset = self._dataset(self.train_manifest, training=True)
        return self._loader(dataset, self.sampler)

    def val_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        if len(self.dev_manifest) < self.trainer.world_size:  # a rank without a batch would skip the common sums
            raise ConfigError(
                f"data.dev holds {len(self.dev_manifest)} utterances, fewer than the {self.trainer.world_size} devices"
            )
        sampler = EvaluationBatchSampler(
            self.dev_manifest.durations,
            self.run_config.data.eval_batch_seconds,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            max_batch_size=self.run_config.data.max_batch_size,
        )
        return self._loader(self._dataset(self.dev_manifest, training=False), sampler)

    def state_dict(self) -> dict[str, Any]:
        """The position by batches trained on (see `KeepPosition`); what workers have read ahead does not count."""
        return self.sampler.state_dict() if self.sampler is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.resume_position = state_dict or None

    def _dataset(self, manifest: Manifest, training: bool) -> SpeechDataset:
        config = self.run_config
        return SpeechDataset(
            manifest,
            self.tokenizer,
            config.features.rate,
            augment=config.augment if training else None,
            seed=config.seed,
            normalizer=config.text.normalizer,
            training=training,
            cache_audio=config.data.cache_audio,
            batch_seconds=config.data.batch_seconds,
            emitted=partial(output_length, features=config.features, model=config.model),
        )

    def _loader(self, dataset: SpeechDataset, sampler: Any) -> DataLoader:
        assert self.trainer is not None
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
        workers = self.run_config.data.workers
        if workers < 0:
            workers = auto_workers(accelerator, self.trainer.world_size // self.trainer.num_nodes)
        return data_loader(dataset, sampler, workers, pin_memory=torch.cuda.is_available())


def data_loader(
    dataset: SpeechDataset,
    batch_sampler: Iterable[list[tuple[int, int]]],
    workers: int = 0,
    *,
    pin_memory: bool = False,
    context: str | None = None,
) -> DataLoader[Batch]:
    """A DataLoader over `dataset` in the order of `batch_sampler`; its workers stay alive between epochs.

    `context` is the start method of the workers (`fork`, `forkserver`, `spawn`), by default the platform's.
    """
    options: dict[str, Any] = {}
    if workers:
        options = {
            "worker_init_fn": worker_init,
            "persistent_workers": True,
            "prefetch_factor": 2,
            "multiprocessing_context": context,
        }
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=batch_sampler,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
        **options,
    )
