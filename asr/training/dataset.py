"""Utterances as tensors: read, augmented and tokenized on demand, mostly in worker processes, and padded to batches."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from asr.audio.augment import WaveAugment, drawn
from asr.audio.read import read
from asr.corpus.check import frames_needed
from asr.corpus.labels import label_of
from asr.corpus.manifest import Manifest, Utterance
from asr.model.acoustic import output_length
from asr.model.config import CLASSIFICATION
from asr.text.normalize import normalize
from asr.text.tokenizer import Tokenizer
from asr.training.config import TrainConfig
from asr.training.process import available_cores
from asr.types import AudioError, Failure, TextError

CACHE_BYTES = 2 << 30  # of decoded audio, per process
SMALL_SHARED_MEMORY = 512 << 20  # free bytes; containers have 64 MB by default
FEW_OPEN_FILES = 4096
SHARED_MEMORY = Path("/dev/shm")

_by_value = False  # set in worker processes only


@dataclass
class Sample:
    """One utterance: waveform (samples,) float32, tokens (length,) int64, `duration` of the waveform in seconds.

    If the audio could not be read, `failure` says why and both tensors are empty. If `utterances` were joined to one,
    `index` is that of the first.
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

    waveforms (batch, samples) float32, zero beyond each length; lengths (batch,) int64 in samples; tokens (sum of
    token_lengths,) int64, the transcripts concatenated; token_lengths (batch,) int64; `indices` in the manifest, which
    seed SpecAugment together with the run's seed and `epoch`; `utterances`, more than `len` if some were joined.

    Both tensors of lengths stay on the CPU, where SpecAugment and the CTC loss need them: reading them from a GPU would
    wait for it.

    Unreadable utterances are only in `failures`, as (index, Failure): evaluation scores them as empty hypotheses,
    training counts them. A batch without readable utterances has len 0: training must still take part in the step
    (with a zero loss), or the other ranks would wait forever.
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
        """The same batch with waveforms and tokens on `device`."""
        waveforms, tokens = (t.to(device, non_blocking=non_blocking) for t in (self.waveforms, self.tokens))
        return replace(self, waveforms=waveforms, tokens=tokens)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for copies to CUDA that overlap with computation."""
        return self._with(lambda tensor: tensor.pin_memory())

    def repeated(self, times: int) -> Batch:
        """The batch `times` times over: (first, second, ..., first, second, ...)."""
        repeated = self._with(lambda tensor: tensor.repeat(times, *[1] * (tensor.dim() - 1)))
        return replace(repeated, indices=self.indices * times, utterances=self.utterances * times)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {k: change(v) for k, v in self.__dict__.items() if isinstance(v, Tensor)}
        return replace(self, **changed)

    def __getstate__(self) -> dict[str, Any]:
        """Arrays if shared memory is scarce: torch sends tensors through it, but arrays through a pipe."""
        if not _by_value:
            return self.__dict__
        return {k: v.numpy() if isinstance(v, Tensor) else v for k, v in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in state.items()}


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad `samples` (of one epoch) with zeros to the longest; those with a failure go to `failures`."""
    readable = [s for s in samples if s.failure is None]
    lengths = [len(s.waveform) for s in readable]
    waveforms = torch.zeros(len(readable), max(lengths, default=0))
    for row, sample in zip(waveforms, readable, strict=True):
        row[: len(sample.waveform)] = sample.waveform
    return Batch(
        waveforms=waveforms,
        lengths=torch.tensor(lengths, dtype=torch.int64),
        tokens=torch.cat([s.tokens for s in readable] or [torch.zeros(0, dtype=torch.int64)]),
        token_lengths=torch.tensor([len(s.tokens) for s in readable], dtype=torch.int64),
        indices=[s.index for s in readable],
        epoch=samples[0].epoch if samples else 0,
        failures=[(s.index, s.failure) for s in samples if s.failure is not None],
        utterances=sum(s.utterances for s in readable),
    )


class SpeechDataset(Dataset[Sample]):
    """The utterances of a manifest, each by its `(epoch, index)` pair as the batch samplers yield them.

    The k-th repetition of an utterance in an epoch has index + k * len(manifest), also in samples and batches. All
    randomness comes from (seed, epoch, index), so a sample depends neither on the worker nor on earlier samples.
    Segments of longer recordings are read without the rest. Holds no open files and can be pickled.

    In training, waveforms are augmented, and transcripts with unknown symbols are refused (TextError naming the
    utterance). In evaluation, unknown symbols are left out of the tokens, which are only for the loss; `reference` is
    scored.

    With `data.cache_audio`, decoded audio is kept in memory losslessly, with 2 bytes per sample if it is 16-bit, else
    4. Every worker process has its own cache of up to `CACHE_BYTES`.
    """

    def __init__(self, config: TrainConfig, manifest: Manifest, tokenizer: Tokenizer, *, training: bool) -> None:
        self.config = config
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.training = training
        self.rate = config.features.rate
        self._augment = WaveAugment(config.augment, self.rate) if training else None
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, place = key
        index = place % len(self.manifest)
        utterance = self.manifest[index]
        try:
            samples = self._samples(index, utterance)
        except (AudioError, OSError) as error:
            failure = Failure(utterance.id, utterance.audio_filepath, f"utterance '{utterance.id}': {error}")
            return Sample(index, torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.0, epoch, failure)
        if self._augment is not None:
            samples = self._augment(samples, (self.config.seed, epoch, place), partial(self._other, index))
        waveform = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        return Sample(place, waveform, self._tokens(self.reference(index), utterance), len(waveform) / self.rate, epoch)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Sample]:
        """The samples of a batch, as DataLoaders ask for them, possibly joined (`augment.join`)."""
        samples = [self[key] for key in keys]
        if self._augment is None or not samples or samples[0].failure is not None:
            return samples
        seed = (self.config.seed, samples[0].epoch, samples[0].index)
        augment = self._augment.config
        if drawn("batch", seed) >= augment.join:
            return samples
        readable = [s for s in samples if s.failure is None]
        together = 2 + int(drawn("together", seed) * (augment.join_up_to - 1))
        joined = [self._joined(readable[i : i + together]) for i in range(0, len(readable), together)]
        padded = max(s.duration for s in joined) * len(joined)
        if padded > self.config.data.batch_seconds or not all(map(self._is_feasible, joined)):
            return samples
        return joined + [s for s in samples if s.failure is not None]

    def reference(self, index: int) -> str:
        """The normalized transcript, or for a classifier the label, that hypotheses are scored against."""
        if self.config.task == CLASSIFICATION:
            return label_of(self.manifest[index])
        return normalize(self.manifest[index].text, self.config.text.normalizer)

    def _joined(self, samples: Sequence[Sample]) -> Sample:
        if len(samples) == 1:
            return samples[0]
        assert self._augment is not None
        first = samples[0]
        wave = self._augment.join([s.waveform.numpy() for s in samples], (self.config.seed, first.epoch, first.index))
        places = [s.index % len(self.manifest) for s in samples]
        tokens = self._tokens(" ".join(map(self.reference, places)), self.manifest[places[0]])
        seconds = len(wave) / self.rate
        return Sample(first.index, torch.from_numpy(wave), tokens, seconds, first.epoch, utterances=len(samples))

    def _is_feasible(self, sample: Sample) -> bool:
        """Whether CTC can align joined utterances: the space between their texts needs a frame too."""
        if sample.utterances == 1:
            return True
        frames = output_length(len(sample.waveform), self.config.features, self.config.model)
        return frames_needed(sample.tokens.tolist()) <= frames

    def _other(self, index: int, draw: random.Random) -> np.ndarray:
        """Another utterance than `index`, for babble; no samples if it cannot be read or there is none."""
        if len(self.manifest) < 2:
            return np.zeros(0, dtype=np.float32)
        other = self.manifest.another(index, draw)
        try:
            return self._samples(other, self.manifest[other])
        except (AudioError, OSError):  # reported when it is read for itself
            return np.zeros(0, dtype=np.float32)

    def _samples(self, index: int, utterance: Utterance) -> np.ndarray:
        cached = self._cache.get(index)
        if cached is not None:
            return cached.astype(np.float32) / np.float32(32768) if cached.dtype == np.int16 else cached.copy()
        offset, duration = utterance.window
        channel: str | int = "mix" if utterance.channel is None else utterance.channel
        path = utterance.audio_filepath
        samples = read(path, rate=self.rate, channel=channel, offset=offset, duration=duration).samples
        if len(samples) == 0:
            raise AudioError(f"{utterance.audio_filepath}: no audio from {offset:g} s on")
        if self.config.data.cache_audio and self._cached_bytes < CACHE_BYTES:
            self._cache[index] = _compact(samples)
            self._cached_bytes += self._cache[index].nbytes
        return samples

    def _tokens(self, text: str, utterance: Utterance) -> Tensor:
        try:
            tokens = self.tokenizer.encode(text)
        except TextError as error:
            if self.training:
                raise TextError(f"utterance '{utterance.id}': {error}") from error
            unknown = self.tokenizer.unknown_symbols(text)
            tokens = self.tokenizer.encode(" ".join("".join(c for c in text if c not in unknown).split()))
        return torch.tensor(tokens, dtype=torch.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "_cached_bytes": 0}  # spawned workers fill their own


def _compact(samples: np.ndarray) -> np.ndarray:
    """The samples as int16 if that is lossless, else a copy: cached audio equals audio read again."""
    scaled = samples * np.float32(32768)
    if len(scaled) and scaled.max() <= 32767 and scaled.min() >= -32768:
        whole = scaled.astype(np.int16)
        if np.array_equal(whole, scaled):
            return whole
    return samples.copy()


def prepare_workers() -> list[str]:
    """Lift the limits that break workers; called once in the main process before the first DataLoader.

    Raises the soft limit of open files to the hard one (against "Too many open files" and "received 0 items of
    ancdata"). Returns notes for the log, if any. See `worker_init` for small shared memory.
    """
    files = _raise_open_files()
    if files < FEW_OPEN_FILES:
        return [f"only {files} open files are allowed (`ulimit -Hn`): workers pass batches through pipes"]
    if shared_memory_is_small():
        return ["shared memory (/dev/shm) is small: workers pass batches through pipes (docker: --shm-size=2g)"]
    return []


def worker_init(worker_id: int) -> None:
    """`worker_init_fn` of the DataLoaders: one thread, Ctrl-C ignored, no shared memory if it is scarce.

    Both of torch's sharing strategies pass tensors from worker to trainer through open files in /dev/shm, and a worker
    dies with "bus error" if there is too little memory or too few files. Batches are sent through a pipe then, which
    takes some milliseconds each.
    """
    global _by_value
    torch.set_num_threads(1)
    _by_value = _raise_open_files() < FEW_OPEN_FILES or shared_memory_is_small()
    # The main process handles Ctrl-C; it may still need batches while it saves, and it ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        # Schedulers send SIGTERM to every process of a job. If a worker died of it, no checkpoint could be saved; if it
        # ignored it, it could not be ended. (This also replaces a handler inherited from the main process.)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _leave_soon)


def shared_memory_is_small() -> bool:
    """Whether /dev/shm has less free space than batches in flight need. False if it does not exist (macOS)."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free < SMALL_SHARED_MEMORY
    except OSError:
        return False


def auto_workers(accelerator: str = "cpu", ranks: int = 1) -> int:
    """The default number of workers for each of `ranks` training processes on this machine.

    For a GPU, as many as there are cores, at most 8. On a CPU, workers take cores from training: one worker per four
    cores. Without workers, audio is read between the steps.
    """
    cores = available_cores() // max(1, ranks)
    return min(4, cores // 4) if accelerator == "cpu" else max(1, min(8, cores - 1))


def _leave_soon(signum: int, frame: object) -> None:
    """On SIGTERM: end in half a minute, by when the main process should have saved and closed the workers."""
    signal.alarm(30)


def _raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one, at most 65,536, and return it."""
    most = 65536
    try:
        import resource
    except ImportError:  # Windows
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return most
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS refuses more than its own maximum
            pass
    return soft
