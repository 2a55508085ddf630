"""The part of batching that is the same in every epoch: buckets by length, windows of shards, and batch sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

# In one bucket, the longest utterance is at most this many times as long as the shortest (unless the bucket would then
# be smaller than BUCKET_BATCHES batches), which bounds the padding to about a tenth in any corpus.
BUCKET_RATIO = 1.25
BUCKET_BATCHES = 4  # with fewer, a bucket would give nearly the same batches every epoch


@dataclass(frozen=True)
class Plan:
    """What is the same in every epoch: utterances by length, their buckets, and where the batches begin."""

    order: np.ndarray  # (utterances,) indices, longest first
    bucket: np.ndarray  # (utterances,) bucket number of each position of `order`
    offsets: np.ndarray  # (batches + 1,) first position of each batch; repeated utterances come last
    repeated: int  # number of utterances that run twice in an epoch, drawn anew in each
    place: np.ndarray  # (batches,) positions in `offsets`, grouped by step: one batch for each rank in turn
    row: np.ndarray  # (groups,) the row of windows from which each step is drawn, ascending
    cuts: list[int]  # boundaries of the windows, row by row, in the order of the utterances

    @property
    def batches(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Largest:
    """The most utterances that a batch may have, given the seconds of its longest: at least 1, however long that is.

    Called, it returns that size and the multiple that batch sizes must keep: `row_multiple`, or 1 if not even
    `row_multiple` utterances fit.
    """

    batch_seconds: float
    max_batch_size: int
    row_multiple: int

    def __call__(self, longest: float) -> tuple[int, int]:
        size = max(1, int(self.batch_seconds / longest))
        size = min(size, self.max_batch_size) if self.max_batch_size else size
        unit = self.row_multiple if size >= self.row_multiple else 1
        return size - size % unit, unit


def make_plan(seconds: np.ndarray, largest: Largest, buckets: int, world_size: int) -> Plan:
    """Batches from buckets of all utterances; `seconds` (utterances,) are the longest that augmentation may make."""
    order = np.argsort(-seconds, kind="stable")
    falling = seconds[order]
    mass = np.cumsum(falling)
    borders, counts, units = [0], [], []
    while borders[-1] < len(order):
        start = borders[-1]
        longest = falling[start]
        size, unit = largest(longest)
        # A bucket ends when it has its share of all audio, or before an utterance that needs too much padding.
        by_mass = int(np.searchsorted(mass, mass[start] - longest + mass[-1] / buckets, side="right"))
        by_ratio = int(np.searchsorted(-falling, -longest / BUCKET_RATIO, side="right"))
        end = min(max(min(by_mass, by_ratio), start + BUCKET_BATCHES * size), len(order))
        if longest > largest.batch_seconds:  # utterances that need a batch each get buckets of their own
            end = int(np.searchsorted(-falling, -largest.batch_seconds, side="left"))
        if end < len(order):
            end -= (end - start) % unit
        borders.append(end)
        counts.append(math.ceil((end - start) / size))
        units.append(unit)

    sizes = np.diff(borders)
    count, unit_of = np.array(counts), np.array(units)
    missing = -int(count.sum()) % world_size
    while missing and (sizes > count).any():  # add a batch to the bucket where it changes the batch size least
        whole = -(-sizes // unit_of) > count  # if possible one that can keep its multiple
        splits = whole if whole.any() else sizes > count
        count[np.argmax(np.where(splits, count, 0))] += 1
        missing -= 1
    parts = zip(borders, sizes.tolist(), count.tolist(), units, strict=False)
    offsets = np.concatenate([border + _offsets(*part) for border, *part in parts])
    ends = len(order) + np.arange(missing + 1)
    offsets = np.concatenate([offsets, ends])
    place = np.arange(len(offsets) - 1)
    row = np.zeros(len(place) // world_size, dtype=np.int64)
    cuts = [0, *[len(order)] * world_size]
    return Plan(order, np.repeat(np.arange(len(sizes)), sizes), offsets, missing, place, row, cuts)


def _offsets(size: int, count: int, unit: int) -> np.ndarray:
    """Where the `count` batches of a bucket of `size` utterances begin, at multiples of `unit` if possible."""
    whole = -(-size // unit)
    if count <= whole:  # sizes differ by at most one unit: no small leftover batch
        return np.arange(count) * whole // count * unit
    # More batches than units: divide as few units as possible, the last ones.
    divided = next(n for n in range(1, whole + 1) if size - (whole - n) * unit >= count - whole + n)
    kept = whole - divided
    smaller = np.arange(count - kept) * (size - kept * unit) // (count - kept)
    return np.concatenate([np.arange(kept) * unit, kept * unit + smaller])


def windowed_plan(seconds: np.ndarray, largest: Largest, buckets: int, world_size: int, window_seconds: float) -> Plan:
    """The plans of all windows in one; windows of a row get as many batches as the one that needs most."""
    rows = min(max(1, round(seconds.sum() / (window_seconds * world_size))), len(seconds) // world_size)
    cuts = _cuts(seconds, rows * world_size).tolist()
    order: list[np.ndarray] = []
    bucket: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    place: list[np.ndarray] = []
    row: list[np.ndarray] = []
    size = count = kinds = 0  # utterances, batches and buckets so far
    for first in range(0, len(cuts) - 1, world_size):
        windows = [slice(*cuts[number : number + 2]) for number in range(first, first + world_size)]
        batches = max(make_plan(seconds[window], largest, buckets, 1).batches for window in windows)
        for window in windows:
            plan = make_plan(seconds[window], largest, buckets, batches)
            again = np.resize(plan.order, plan.repeated)
            order.append(window.start + np.concatenate([plan.order, again]))
            bucket.append(kinds + np.concatenate([plan.bucket, plan.bucket[-1] + 1 + np.arange(plan.repeated)]))
            offsets.append(size + plan.offsets[:-1])
            size += len(order[-1])
            kinds = int(bucket[-1][-1]) + 1
        place.append((count + np.arange(batches * world_size).reshape(world_size, batches)).T.ravel())
        row.append(np.full(batches, first // world_size))
        count += batches * world_size
    offsets.append(np.array([size]))
    joined = [np.concatenate(parts) for parts in (order, bucket, offsets)]
    return Plan(joined[0], joined[1], joined[2], 0, np.concatenate(place), np.concatenate(row), cuts)


def _cuts(seconds: np.ndarray, pieces: int) -> np.ndarray:
    """(pieces + 1,) boundaries that cut the utterances, in order, into non-empty pieces of about equal duration."""
    numbers = np.arange(pieces + 1)
    ends = np.cumsum(seconds)
    cuts = np.searchsorted(ends, ends[-1] * numbers / pieces)
    cuts[0], cuts[-1] = 0, len(seconds)
    cuts = np.maximum.accumulate(cuts - numbers) + numbers
    return np.minimum(cuts, len(seconds) - pieces + numbers)
