"""From manifests to batches: the utterances that can be trained on, and data loaders that resume in mid-epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from asr.audio.members import member
from asr.corpus.batching import BatchSampler, EvaluationBatchSampler
from asr.corpus.check import Skip, infeasible, unknown_symbols, write_skipped
from asr.corpus.labels import label_numbers, label_set
from asr.corpus.manifest import Manifest, Utterance
from asr.corpus.mixing import mixed_weights
from asr.corpus.shards import holds_shards
from asr.model.acoustic import output_length
from asr.model.config import CLASSIFICATION
from asr.model.shapes import fast_rows
from asr.text.normalize import normalize, tag_warnings
from asr.text.tokenizer import LabelSet, Tokenizer, train_char, train_sentencepiece, train_word
from asr.training.config import DataConfig, TextConfig, TrainConfig, training_sets
from asr.training.dataset import Batch, SpeechDataset, auto_workers, collate, worker_init
from asr.training.process import say
from asr.types import AudioError, ConfigError, Failure, ManifestError, TextError

_PIECE = 4 << 20  # bytes read at once from a shard
MAX_SKIPPED = 0.01  # a larger share means that something is wrong with the data, not with a few utterances

_log = logging.getLogger(__name__)


def make_tokenizer(config: TextConfig, utterances: Iterable[Utterance]) -> Tokenizer:
    """Train the tokenizer on the training transcripts."""
    texts = (normalize(utterance.text, config.normalizer) for utterance in utterances)
    if config.tokenizer == "char":
        return train_char(texts)
    if config.tokenizer == "word":
        return train_word(texts)
    return train_sentencepiece(texts, config.vocab_size, config.tokenizer)


def training_symbols(config: TrainConfig, manifest: Manifest) -> Tokenizer:
    """The symbols of the output layer: the tokenizer of the training transcripts, or the set of labels."""
    return label_set(manifest) if config.task == CLASSIFICATION else make_tokenizer(config.text, manifest)


def read_manifest(config: TrainConfig, paths: list[str]) -> Manifest:
    """One or several manifests as one, whose rows must have texts unless the task is classification."""
    return Manifest.read(paths, require_text=config.task != CLASSIFICATION)


def describe_unknown_symbols(manifest: Iterable[Utterance], tokenizer: Tokenizer, normalizer: str) -> str:
    """The symbols that the tokenizer does not know, each with its count and an example id; "" if there are none."""
    unknown = unknown_symbols(manifest, tokenizer, normalizer)
    return ", ".join(f"{s.symbol!r} x {s.count} (e.g. {s.examples[0]})" for s in unknown[:8])


def training_manifest(manifest: Manifest, tokenizer: Tokenizer, config: TrainConfig, output: Path) -> Manifest:
    """The utterances that can be trained on; the others are written to `output/skipped.tsv` and counted.

    Utterances are skipped if their duration is outside [min_duration, max_duration], their text is empty, or CTC is
    infeasible (fewer output frames than tokens plus adjacent repeats); for a classifier only the duration matters.
    Annotators' tags in transcripts are reported; whether they are learned as words depends on the normalizer.

    Raises TextError for symbols that the tokenizer does not know, and ManifestError for a missing or unknown label, or
    if more than 1 % are skipped without `data.allow_skips`.
    """
    durations, low, high = manifest.durations, config.data.min_duration, config.data.max_duration
    skips = [
        Skip(manifest[int(index)].id, f"lasts {durations[index]:.2f} s, outside {low:g} to {high:g} s")
        for index in np.flatnonzero((durations < low) | (durations > high))
    ]
    if isinstance(tokenizer, LabelSet):
        label_numbers(manifest, tokenizer)
    else:
        skips += _without_alignment(manifest, tokenizer, config)
    skips = list({skip.id: skip for skip in reversed(skips)}.values())[::-1]  # the first reason of each utterance
    if not skips:
        return manifest
    where = output / "skipped.tsv"
    write_skipped(where, skips)
    share = len(skips) / len(manifest)
    message = f"{len(skips)} of {len(manifest)} training utterances ({share:.1%}) cannot be used, see {where}"
    if len(skips) == len(manifest) or (share > MAX_SKIPPED and not config.data.allow_skips):
        raise ManifestError(
            f"{message}; first: {skips[0].id}: {skips[0].reason} (data.allow_skips=true trains without them)"
        )
    say(f"warning: {message}")
    ids = {skip.id for skip in skips}
    keep = [index for index, utterance in enumerate(manifest) if utterance.id not in ids]
    return manifest.select(np.asarray(keep, dtype=np.int64))


def _without_alignment(manifest: Manifest, tokenizer: Tokenizer, config: TrainConfig) -> list[Skip]:
    """Utterances that CTC cannot learn. Raises TextError for symbols that the tokenizer does not know."""
    texts = ((utterance.id, utterance.text) for utterance in manifest)
    for warning in tag_warnings(texts, "the training transcripts", config.text.normalizer):
        say(f"warning: {warning}")
    if unknown := describe_unknown_symbols(manifest, tokenizer, config.text.normalizer):
        raise TextError(
            f"{manifest.path}: symbols that the tokenizer does not know: {unknown}; correct the transcripts, "
            f"choose another text.normalizer, or train a new tokenizer"
        )
    frames = partial(output_length, features=config.features, model=config.model)
    fastest = max((1.0, *config.augment.speed))
    return infeasible(manifest, tokenizer, config.text.normalizer, config.features.rate, frames, speed=fastest)


def weights_of(config: DataConfig, manifest: Manifest) -> list[float]:
    """How often an epoch uses the utterances of each file of the training manifest."""
    weights = [training_set.weight for training_set in training_sets(config.train)]
    return mixed_weights(weights, _hours(manifest).tolist(), config.mix_temperature)


def describe_mix(config: DataConfig, manifest: Manifest) -> str:
    """A line that says how much of each training manifest an epoch uses; "" if it uses everything once."""
    weights = weights_of(config, manifest)
    if all(weight == 1 for weight in weights):
        return ""
    hours = _hours(manifest)
    amounts = np.asarray(weights) * hours
    parts = zip(manifest.paths, weights, hours.tolist(), (amounts / amounts.sum()).tolist(), strict=True)
    return "an epoch holds " + ", ".join(f"{w:.3g} x {h:.2f} h of {path} ({s:.0%})" for path, w, h, s in parts)


def _hours(manifest: Manifest) -> np.ndarray:
    return np.bincount(manifest.files, weights=manifest.durations, minlength=len(manifest.paths)) / 3600


def training_sampler(
    config: TrainConfig, durations: np.ndarray, rank: int = 0, world_size: int = 1, **options: Any
) -> BatchSampler:
    """The training batches of one of `world_size` processes; `options` are further arguments of the sampler."""
    data, augment = config.data, config.augment
    return BatchSampler(
        durations,
        data.batch_seconds,
        buckets=data.buckets,
        seed=config.seed,
        rank=rank,
        world_size=world_size,
        max_batch_size=data.max_batch_size,
        max_stretch=max(1.0, 1.0 / min(augment.speed)) if augment.speed else 1.0,
        max_added=2.0 * augment.silence,
        **options,
    )


@dataclass
class UnreadableCount:
    """Counts unreadable utterances in the training process, and names each once in a warning.

    Raises AudioError if more than `limit` of the utterances read so far failed. The share is of at least
    min(utterances, 1000), so that one bad file early on does not end the run unless the set is small. `utterances` is
    the number that this rank reads in an epoch. A resumed run starts counting from zero.
    """

    utterances: int
    limit: float = 0.01
    read: int = 0
    failed: int = 0
    failures: dict[int, Failure] = field(default_factory=dict)  # by index in the manifest

    def add(self, batch: Batch) -> None:
        """Count a batch. Raises AudioError above the limit."""
        self.read += batch.utterances + len(batch.failures)
        self.failed += len(batch.failures)
        for index, failure in batch.failures:
            if index not in self.failures:
                self.failures[index] = failure
                _log.warning("left out of training: %s", failure.error)
        if self.failed > self.limit * max(self.read, min(self.utterances, 1000)):
            examples = ", ".join(f.id for f in list(self.failures.values())[:5])
            raise AudioError(
                f"{self.failed} of {self.read} utterances could not be read, more than {self.limit:.0%} ({examples}): "
                f"{next(iter(self.failures.values())).error}; `asr data check` lists them all"
            )


class ReadAhead:
    """The batches of a sampler over shards, whose current and next windows a thread reads into the page cache.

    It reads each shard front to back in large pieces, which suits slow and remote disks; the workers then find the
    members in memory, in whatever order the batches need them. Windows should be small compared to the memory: an hour
    of FLAC at 16 kHz takes about 60 MB. Read errors are left for the workers to report.
    """

    def __init__(self, sampler: BatchSampler, manifest: Manifest) -> None:
        self._sampler, self._manifest = sampler, manifest

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        windows = self._sampler.windows()
        changes = [window for window, _ in groupby(windows)]
        place = -1
        for batch, window in zip(self._sampler, windows, strict=True):
            if place < 0 or window != changes[place]:
                place += 1
                ahead = changes[place + (place > 0) : place + 2]
                Thread(target=self._read, args=(ahead,), daemon=True).start()
            yield batch

    def _read(self, windows: list[range]) -> None:
        piece = bytearray(_PIECE)
        for window in windows:
            spans: dict[str, list[int]] = {}
            for index in window:
                if found := member(self._manifest[index].audio_filepath):
                    spans.setdefault(found.tar, []).append(found.position)
            for tar, positions in spans.items():
                with suppress(OSError), open(tar, "rb", buffering=0) as file:  # noqa: PTH123 - no text
                    file.seek(min(positions))
                    while file.tell() < max(positions) and file.readinto(piece):
                        pass


class KeepPosition(Callback):
    """Advances the sampler after each training step. As a callback, it runs before checkpoints are saved."""

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any, **options: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SpeechDataModule) and data.sampler is not None
        data.sampler.advance()


class SpeechDataModule(pl.LightningDataModule):
    """Training batches of this rank, and its share of the dev set, of which each utterance is seen once."""

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer, train: Manifest, dev: Manifest) -> None:
        super().__init__()
        self.run_config = config
        self.tokenizer = tokenizer
        self.train_manifest, self.dev_manifest = train, dev
        self.resume_position: dict[str, Any] | None = None
        self.sampler: BatchSampler | None = None

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        weights = weights_of(self.run_config.data, self.train_manifest)
        in_windows = (
            holds_shards(self.train_manifest)
            and all(weight == 1 for weight in weights)
            and not self.run_config.data.sorted_first_epoch
        )
        self.sampler = training_sampler(
            self.run_config,
            self.train_manifest.durations,
            self.trainer.global_rank,
            self.trainer.world_size,
            row_multiple=fast_rows(self.trainer.strategy.root_device),
            corpora=self.train_manifest.files,
            weights=weights,
            sorted_first_epoch=self.run_config.data.sorted_first_epoch,
            window_seconds=3600 * self.run_config.data.window_hours if in_windows else 0.0,
        )
        if self.resume_position is not None:
            self.sampler.load_state_dict(self.resume_position)
            self.resume_position = None
        batches = ReadAhead(self.sampler, self.train_manifest) if in_windows else self.sampler
        return self._loader(self.train_manifest, batches, training=True)

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
            row_multiple=fast_rows(self.trainer.strategy.root_device),
        )
        return self._loader(self.dev_manifest, sampler, training=False)

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch trained on (see `KeepPosition`), whatever workers have read ahead."""
        return self.sampler.state_dict() if self.sampler is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.resume_position = state_dict or None

    def _loader(self, manifest: Manifest, sampler: Iterable[list[tuple[int, int]]], training: bool) -> DataLoader:
        assert self.trainer is not None
        workers = self.run_config.data.workers
        if workers < 0:
            accelerator = "gpu" if torch.cuda.is_available() else "cpu"
            workers = auto_workers(accelerator, self.trainer.world_size // self.trainer.num_nodes)
        dataset = SpeechDataset(self.run_config, manifest, self.tokenizer, training=training)
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
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_sampler=batch_sampler,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=worker_init,
        persistent_workers=workers > 0,
        multiprocessing_context=context if workers else None,
    )
