"""Utterances as tensors: each is read, augmented and spelled when asked for, and padded into batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from asr.audio.augment import AugmentConfig, WaveAugment, drawn
from asr.audio.read import read
from asr.corpus.check import frames_needed
from asr.corpus.manifest import Manifest, Utterance
from asr.text.normalize import normalize
from asr.text.tokenizer import Tokenizer
from asr.training.workers import pass_by_value
from asr.types import AudioError, Failure, TextError

_log = logging.getLogger(__name__)


@dataclass
class Sample:
    """One utterance: waveform (samples,) float32, tokens (length,) int64, `duration` the waveform's seconds.

    Where the audio could not be read `failure` says why and both tensors are empty. `utterances` is how many were
    joined to this one, of which `index` is the first.
    """

    index: int
    waveform: Tensor
    tokens: Tensor
    duration: float
    epoch: int = 0
    failure: Failure | None = None
    utterances: int = 1


@dataclass
class Batch:
    """Padded utterances of one epoch.

    waveforms (batch, samples) float32, zero beyond each length; lengths (batch,) int64 in samples; tokens
    (sum of token_lengths,) int64, the transcripts one after another; token_lengths (batch,) int64; `indices`
    the batch's places in the manifest, which with the run's seed and `epoch` seed SpecAugment; `utterances` more
    than these where some were joined. Utterances
    that could not be read are not among these but in `failures`, as (index, Failure): evaluation must score
    them as empty hypotheses, training counts them with UnreadableCount. A batch of which nothing could be
    read has len 0: training must still take part in the step (with a zero loss), or the other ranks wait
    forever.
    """

    waveforms: Tensor
    lengths: Tensor
    tokens: Tensor
    token_lengths: Tensor
    indices: list[int]
    epoch: int = 0
    failures: list[tuple[int, Failure]] = field(default_factory=list)
    utterances: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on `device`."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for copies to CUDA that run beside the computation."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {k: change(v) for k, v in self.__dict__.items() if isinstance(v, Tensor)}
        return replace(self, **changed)

    def __getstate__(self) -> dict[str, Any]:
        """As arrays where shared memory is scarce: torch sends tensors through it, arrays through a pipe."""
        if not pass_by_value():
            return self.__dict__
        return {k: v.numpy() if isinstance(v, Tensor) else v for k, v in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}


class SpeechDataset(Dataset[Sample]):
    """The utterances of a manifest, each by its `(epoch, index)` pair as the batch samplers yield them.

    All randomness comes from (seed, epoch, index), so a sample does not depend on the worker or on what was
    read before. Holds no open files and pickles; give it to a DataLoader with `collate` and `worker_init`, or
    use `data_loader`.

    Args:
        manifest: the utterances; segments of longer recordings are read without the rest.
        tokenizer: spells the normalized transcripts; None leaves the tokens empty.
        rate: samples per second of the waveforms.
        augment: changes to the waveform, in training only.
        seed: the run's seed.
        normalizer: name of the text normalizer (asr.text.normalize).
        training: whether to augment, and to refuse transcripts that the tokenizer cannot spell (TextError
            naming the utterance). In evaluation the symbols it cannot spell are left out of the tokens, which
            serve the loss only; what is scored is `reference`.
        cache_audio: keep the decoded audio in memory (exactly as read: 2 bytes a sample where it is 16-bit,
            else 4), up to `cache_limit` bytes. For small sets that are read again each epoch. Every worker
            process has a cache of its own, so with workers it pays only with persistent ones, or after
            `preload` where workers are forked.
        batch_seconds: bound on the padded seconds of a batch whose utterances `augment` joins.
        emitted: how many frames the model emits for so many samples; joined are only utterances whose transcripts
            then fit. None: not known, all fit.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: Tokenizer | None,
        rate: int = 16000,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        normalizer: str = "none",
        training: bool = False,
        *,
        cache_audio: bool = False,
        cache_limit: int = 2 << 30,
        batch_seconds: float = math.inf,
        emitted: Callable[[int], int] | None = None,
    ) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.rate = rate
        self.seed = seed
        self.normalizer = normalizer
        self.training = training
        self.cache_audio = cache_audio
        self.cache_limit = cache_limit
        self.batch_seconds = batch_seconds
        self.emitted = emitted
        self._augment = WaveAugment(augment, rate) if training and augment is not None else None
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        utterance = self.manifest[index]
        try:
            samples = self._samples(index, utterance)
        except (AudioError, OSError) as error:
            failure = Failure(utterance.id, utterance.audio_filepath, f"utterance '{utterance.id}': {error}")
            return Sample(index, torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.0, epoch, failure)
        if self._augment is not None:
            samples = self._augment(samples, (self.seed, epoch, index))
        waveform = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        tokens = torch.tensor(self._tokens(utterance), dtype=torch.int64)
        return Sample(index, waveform, tokens, len(waveform) / self.rate, epoch)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Sample]:
        """The samples of a batch (DataLoaders ask for them so), some of them joined where `augment.join` draws it."""
        samples = [self[key] for key in keys]
        if self._augment is None or not samples or samples[0].failure is not None:
            return samples
        seed = (self.seed, samples[0].epoch, samples[0].index)
        if drawn("batch", seed) >= self._augment.config.join:
            return samples
        read_ones = [s for s in samples if s.failure is None]
        together = 2 + int(drawn("together", seed) * (self._augment.config.join_up_to - 1))
        joined = [self._joined(read_ones[i : i + together]) for i in range(0, len(read_ones), together)]
        if max(s.duration for s in joined) * len(joined) > self.batch_seconds or not all(map(self._fits, joined)):
            return samples
        return joined + [s for s in samples if s.failure is not None]

    def _joined(self, samples: Sequence[Sample]) -> Sample:
        if len(samples) == 1:
            return samples[0]
        assert self._augment is not None
        first = samples[0]
        wave = self._augment.join([s.waveform.numpy() for s in samples], (self.seed, first.epoch, first.index))
        text = " ".join(self.reference(s.index) for s in samples)
        tokens = torch.tensor(self._encoded(text, self.manifest[first.index]), dtype=torch.int64)
        seconds = len(wave) / self.rate
        return Sample(first.index, torch.from_numpy(wave), tokens, seconds, first.epoch, utterances=len(samples))

    def _fits(self, sample: Sample) -> bool:
        """Whether CTC can align what was joined: what stands between the texts needs frames, too."""
        if self.emitted is None or sample.utterances == 1:
            return True
        return frames_needed(sample.tokens.tolist()) <= self.emitted(len(sample.waveform))

    def reference(self, index: int) -> str:
        """The normalized transcript, which hypotheses are scored against."""
        return normalize(self.manifest[index].text, self.normalizer)

    def _samples(self, index: int, utterance: Utterance) -> np.ndarray:
        cached = self._cache.get(index)
        if cached is not None:
            return cached.astype(np.float32) / np.float32(32768) if cached.dtype == np.int16 else cached.copy()
        offset, duration = utterance.window
        channel: str | int = "mix" if utterance.channel is None else utterance.channel
        samples = read(
            utterance.audio_filepath, rate=self.rate, channel=channel, offset=offset, duration=duration
        ).samples
        if len(samples) == 0:
            raise AudioError(f"{utterance.audio_filepath}: no audio from {offset:g} s on")
        if self.cache_audio and self._cached_bytes < self.cache_limit:
            kept = _compact(samples)
            self._cache[index] = kept
            self._cached_bytes += kept.nbytes
        return samples

    def _tokens(self, utterance: Utterance) -> list[int]:
        return self._encoded(normalize(utterance.text, self.normalizer), utterance)

    def _encoded(self, text: str, utterance: Utterance) -> list[int]:
        if self.tokenizer is None:
            return []
        try:
            return self.tokenizer.encode(text)
        except TextError as error:
            if self.training:
                raise TextError(f"utterance '{utterance.id}': {error}") from error
        unknown = self.tokenizer.unknown_symbols(text)
        return self.tokenizer.encode(" ".join("".join(c for c in text if c not in unknown).split()))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "_cached_bytes": 0}  # spawned workers fill their own


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad `samples` (of one epoch) with zeros to the longest; those with a failure go to `failures`."""
    read_ones = [s for s in samples if s.failure is None]
    lengths = [len(s.waveform) for s in read_ones]
    waveforms = torch.zeros(len(read_ones), max(lengths, default=0))
    for row, sample in zip(waveforms, read_ones, strict=True):
        row[: len(sample.waveform)] = sample.waveform
    return Batch(
        waveforms=waveforms,
        lengths=torch.tensor(lengths, dtype=torch.int64),
        tokens=torch.cat([s.tokens for s in read_ones] or [torch.zeros(0, dtype=torch.int64)]),
        token_lengths=torch.tensor([len(s.tokens) for s in read_ones], dtype=torch.int64),
        indices=[s.index for s in read_ones],
        epoch=samples[0].epoch if samples else 0,
        failures=[(s.index, s.failure) for s in samples if s.failure is not None],
        utterances=sum(s.utterances for s in read_ones),
    )


class UnreadableCount:
    """Counts, in the training process, the utterances that were left out because they could not be read.

    `add` each batch; every such utterance is named once in a warning. Raises AudioError when more than
    `limit` of what was read failed, judged over at least min(utterances, 1000) so that one bad file early on
    does not end the run (unless the set is so small that it is more than `limit` of it). `utterances` is how
    many this rank reads in an epoch. Not part of checkpoints: a resumed run counts afresh.
    """

    def __init__(self, utterances: int, limit: float = 0.01) -> None:
        self.utterances = utterances
        self.limit = limit
        self.read = 0
        self.failed = 0
        self.failures: dict[int, Failure] = {}  # by index in the manifest

    def add(self, batch: Batch) -> None:
        """Take note of a batch. Raises AudioError above the limit."""
        self.read += batch.utterances + len(batch.failures)
        self.failed += len(batch.failures)
        for index, failure in batch.failures:
            if index not in self.failures:
                self.failures[index] = failure
                _log.warning("left out of training: %s", failure.error)
        if self.failed > self.limit * max(self.read, min(self.utterances, 1000)):
            examples = ", ".join(f.id for f in list(self.failures.values())[:5])
            raise AudioError(
                f"{self.failed} of {self.read} utterances could not be read, more than {self.limit:.0%} "
                f"({examples}): "
                f"{next(iter(self.failures.values())).error}; `asr data check` lists them all"
            )


def _compact(samples: np.ndarray) -> np.ndarray:
    """The samples as int16 where that loses nothing, else a copy: cached and fresh audio are the same."""
    scaled = samples * np.float32(32768)
    if len(scaled) and scaled.max() <= 32767 and scaled.min() >= -32768:
        whole = scaled.astype(np.int16)
        if np.array_equal(whole, scaled):
            return whole
    return samples.copy()
