"""Batches bounded by padded seconds: shuffled every epoch, distributed over ranks, resumable."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from asr.corpus.batch_plan import Largest, make_plan, windowed_plan
from asr.corpus.mixing import Mix
from asr.types import ConfigError, ManifestError


class BatchSampler:
    """Training batches as lists of `(epoch, index)` pairs, for `DataLoader(dataset, batch_sampler=...)`.

    The utterances are sorted by duration and cut into buckets. Every epoch shuffles each bucket and cuts it into
    batches of nearly equal size, such that longest x count <= `batch_seconds` for any shuffle, and every epoch has the
    same number of batches (`len`). An utterance longer than `batch_seconds` forms a batch of its own. In epoch 0 the
    batch with the most padded seconds runs first, so that running out of memory shows in the first minute.

    In each step the batches of all ranks have similar lengths, so that no rank waits for another. All ranks get the
    same number of batches: if the number of batches is not a multiple of `world_size`, some are split. Every utterance
    runs exactly once an epoch, or as often as the `weights` of the corpora demand (see `Mix`; the k-th repetition of an
    utterance is index + k * utterances). Only if every batch is a single utterance, and nothing can be split any more,
    do up to `world_size` - 1 utterances run twice.

    Windows. With `window_seconds` the utterances are assumed to be stored in order in large files (see
    asr.corpus.shards) that are best read front to back. They are cut, in this order, into windows of about that
    duration, and each batch is drawn from one window. Rows of `world_size` windows, one for each rank, are used up one
    after another; an epoch shuffles the rows, the batches of a row and, in buckets, the utterances of a window. All of
    the above holds, with the bound on repeated utterances for each row; there are a few more batches.

    Position. Workers fetch ahead of training, so iterating never moves the position (`epoch`, `consumed`). `advance()`
    does: call it once for each batch that training has *finished*; after the last batch it moves on to the next epoch.
    A new iterator starts at the position. `state_dict()` is therefore correct with any number of workers and any
    prefetching, and the same on every rank, and a run that continues from it gets exactly the batch that the
    uninterrupted run would have had next.

    Args:
        durations: seconds of each utterance, in the order of the manifest.
        batch_seconds: bound on the padded seconds of one batch on one rank.
        buckets: number of buckets of equal total duration (more are made if the lengths differ much).
        seed: determines, together with the epoch, the order on every rank and machine.
        rank, world_size: the share of this process.
        max_batch_size: bound on the utterances of one batch; 0 for no bound.
        max_stretch: how much augmentation may lengthen an utterance (speed 0.9 gives 1 / 0.9).
        max_added: seconds of silence that augmentation may add to an utterance.
        row_multiple: the number of utterances in a batch is a multiple of this if `batch_seconds` allows it and enough
            utterances of similar length are left.
        corpora, weights: the number of each utterance's corpus, and how often an epoch has each utterance of a corpus.
        sorted_first_epoch: the batches of epoch 0 run shortest first (SortaGrad; Amodei et al., 2016, "Deep Speech 2").
        window_seconds: 0 to draw batches from all utterances; must be 0 unless all weights are 1.

    Raises ConfigError for settings that cannot work, ManifestError for durations that are not positive.
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        batch_seconds: float,
        *,
        buckets: int = 30,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        max_batch_size: int = 0,
        max_stretch: float = 1.0,
        max_added: float = 0.0,
        row_multiple: int = 1,
        corpora: Sequence[int] | np.ndarray | None = None,
        weights: Sequence[float] = (1.0,),
        sorted_first_epoch: bool = False,
        window_seconds: float = 0.0,
    ) -> None:
        seconds = _checked(durations, batch_seconds, rank, world_size, max_batch_size)
        if not (max_stretch >= 1 and math.isfinite(max_stretch)):
            raise ConfigError(f"max_stretch: {max_stretch} is below 1 (1: utterances are never lengthened)")
        if not (max_added >= 0 and math.isfinite(max_added)):
            raise ConfigError(f"max_added: {max_added} is not a number of seconds")
        if buckets < 1:
            raise ConfigError(f"buckets: {buckets} is not a positive number of length buckets")
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.row_multiple = row_multiple
        self.epoch = self.consumed = 0
        self.sorted_first_epoch = sorted_first_epoch
        corpus_of = np.zeros(len(seconds), np.int64) if corpora is None else np.asarray(corpora)
        self._mix = Mix(seconds, corpus_of, weights)
        lengthened = seconds[self._mix.bounds()] * max_stretch + max_added
        largest = Largest(float(batch_seconds), max_batch_size, row_multiple)
        if window_seconds and not self._mix.even:
            raise ConfigError("window_seconds: corpora with weights cannot be read in windows")
        if window_seconds and len(seconds) >= world_size:
            self._plan = windowed_plan(lengthened, largest, buckets, world_size, window_seconds)
        else:
            self._plan = make_plan(lengthened, largest, buckets, world_size)
        self._seconds = seconds.astype(np.float32)
        # "True" was the value of a setting that no longer exists: it keeps the fingerprints of older checkpoints.
        settings = f"{batch_seconds} {buckets} True {seed} {world_size} {max_batch_size} {max_stretch} {max_added}"
        if row_multiple > 1:
            settings += f" {row_multiple}"
        if sorted_first_epoch:
            settings += " sorted"
        if window_seconds:
            settings += f" windows {window_seconds}"
        if not self._mix.even:
            settings += f" {list(weights)} {hashlib.sha256(corpus_of.astype(np.int64).tobytes()).hexdigest()}"
        self._fingerprint = hashlib.sha256(self._seconds.tobytes() + settings.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """Batches of a whole epoch on each rank, the same in every epoch and after resuming within one."""
        return self._plan.batches // self.world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """The batches of `epoch` from `consumed` on; the position is read on this call, not at the first batch."""
        order, offsets, groups = self._epoch_order(self.epoch)
        mine = self._plan.place[groups[self.consumed :] * self.world_size + self.rank]
        return _batches(order, offsets, mine, self.epoch)

    def windows(self) -> list[range]:
        """For each batch of this rank, in order, the utterances of its window."""
        plan = self._plan
        _, _, groups = self._epoch_order(self.epoch)
        numbers = plan.row[groups[self.consumed :]] * self.world_size + self.rank
        return [range(*plan.cuts[number : number + 2]) for number in numbers.tolist()]

    def advance(self, batches: int = 1) -> None:
        """Move the position past `batches` batches that training has finished, not just fetched."""
        epochs, self.consumed = divmod(self.consumed + batches, len(self))
        self.epoch += epochs

    def state_dict(self) -> dict[str, Any]:
        """The position for a checkpoint, the same on all ranks; the end of an epoch is the start of the next."""
        position = {"epoch": self.epoch, "consumed": self.consumed}
        return {**position, "batches": len(self), "fingerprint": self._fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position of `state_dict`.

        If the data, the seed, the number of ranks or a batch setting has changed since, the rest of the epoch cannot be
        the same batches. Then a warning says so, the position is kept by number (to agree with the trainer's counters),
        and everything is exact again from the next epoch on.
        """
        self.epoch, self.consumed = int(state["epoch"]), int(state["consumed"])
        if state["fingerprint"] != self._fingerprint and self.consumed:
            warnings.warn(
                "the data, the seed, the batch settings, the number or kind of devices, or this package's batching "
                f"have changed since the checkpoint: the rest of epoch {self.epoch} will repeat some utterances and "
                "leave out others",
                stacklevel=2,
            )
        if self.consumed >= len(self):
            self.epoch, self.consumed = self.epoch + 1, 0

    def _epoch_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices in batch order, where each batch begins, and the order of the groups of `world_size` batches."""
        plan = self._plan
        rng = np.random.Generator(np.random.PCG64([abs(self.seed), int(self.seed < 0), epoch]))
        # Sorting by bucket number + a draw from [0, 1) shuffles all buckets at once.
        order = plan.order[np.argsort(plan.bucket + rng.random(len(plan.order)), kind="stable")]
        if plan.repeated:
            extra = np.resize(np.argsort(rng.random(len(order)), kind="stable"), plan.repeated)
            order = np.concatenate([order, order[extra]])
        order = self._mix.epoch(epoch + self.seed)[order]
        groups = np.lexsort((rng.random(len(self)), rng.random(plan.row[-1] + 1)[plan.row]))
        if epoch == 0:
            longest = np.maximum.reduceat(self._seconds[order % len(self._seconds)], plan.offsets[:-1])[plan.place]
        if epoch == 0 and self.sorted_first_epoch:
            groups = np.argsort(longest.reshape(-1, self.world_size).max(axis=1), kind="stable")
        elif epoch == 0:
            sizes = np.diff(plan.offsets)[plan.place]
            rows = -(-sizes // self.row_multiple) * self.row_multiple  # including the rows that fill up a batch
            padded = (longest * rows).reshape(-1, self.world_size).max(axis=1)
            first = int(np.argmax(padded))
            groups = np.concatenate([[first], groups[groups != first]])
        return order, plan.offsets, groups


class EvaluationBatchSampler:
    """Evaluation batches, lists of `(0, index)` pairs: every utterance exactly once over all ranks.

    They are sorted by length, longest first (for the least padding, and so that running out of memory happens at once),
    and dealt to the ranks in turn, so that all have about the same work; their numbers of batches may differ by one.
    Every rank has at least one batch if there are as many utterances as ranks. Arguments and errors are those of
    `BatchSampler`.
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        batch_seconds: float,
        *,
        rank: int = 0,
        world_size: int = 1,
        max_batch_size: int = 0,
        row_multiple: int = 1,
    ) -> None:
        seconds = _checked(durations, batch_seconds, rank, world_size, max_batch_size)
        largest = Largest(batch_seconds, max_batch_size, row_multiple)
        self._order = np.argsort(-seconds, kind="stable")
        sorted_seconds = seconds[self._order]
        offsets = [0]
        while offsets[-1] < len(seconds):
            size, _ = largest(sorted_seconds[offsets[-1]])
            offsets.append(min(offsets[-1] + size, len(seconds)))
        while len(offsets) - 1 < min(world_size, len(seconds)):  # too few batches for the ranks: halve the largest
            place = int(np.argmax(np.diff(offsets)))
            begin, size = offsets[place], offsets[place + 1] - offsets[place]
            unit = row_multiple if size > row_multiple else 1
            offsets.insert(place + 1, begin + max(size // 2 // unit, 1) * unit)
        self._offsets = np.array(offsets)
        self._mine = np.arange(rank, len(offsets) - 1, world_size)

    def __len__(self) -> int:
        return len(self._mine)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return _batches(self._order, self._offsets, self._mine, 0)


def _batches(
    order: np.ndarray, offsets: np.ndarray, numbers: np.ndarray, epoch: int
) -> Iterator[list[tuple[int, int]]]:
    for number in numbers.tolist():
        yield [(epoch, index) for index in order[offsets[number] : offsets[number + 1]].tolist()]


def _checked(
    durations: Sequence[float] | np.ndarray, batch_seconds: float, rank: int, world_size: int, max_batch_size: int
) -> np.ndarray:
    """The durations as float64 seconds, after checking them and the settings."""
    if not (batch_seconds > 0 and math.isfinite(batch_seconds)):
        raise ConfigError(f"batch_seconds: {batch_seconds} is not a positive number of seconds")
    if max_batch_size < 0:
        raise ConfigError(f"max_batch_size: {max_batch_size} is negative (0 for no bound)")
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} does not exist among {world_size} processes")
    seconds = np.asarray(durations, dtype=np.float64)
    if len(seconds) == 0:
        raise ManifestError("no utterances to make batches of: the manifest is empty")
    wrong = np.flatnonzero(~(np.isfinite(seconds) & (seconds > 0)))
    if len(wrong):
        raise ManifestError(
            f"utterance {wrong[0] + 1} has a duration of {seconds[wrong[0]]:g} seconds: remove or correct it "
            f"({len(wrong)} such in all; `asr data check` lists them)"
        )
    return seconds
