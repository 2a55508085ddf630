"""Batch samplers: what runs together, on which rank, in which order, and what comes next after a resume."""

from __future__ import annotations

import copy
import json
import pickle
from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.corpus.batching import BatchSampler, EvaluationBatchSampler
from asr.types import ConfigError, ManifestError

DURATIONS = st.lists(st.floats(0.0625, 40, width=32), min_size=1, max_size=120)
WORLD_SIZES = st.sampled_from([1, 2, 3, 4])
ROW_MULTIPLES = st.sampled_from([1, 3, 8])
RELEASED = [[(1, 7)], [(1, 1), (1, 6)], [(1, 0), (1, 5)], [(1, 3)], [(1, 2)], [(1, 4)]]


def ranks(durations, world_size, **options):
    return [BatchSampler(durations, rank=r, world_size=world_size, **options) for r in range(world_size)]


def indices(batches):
    return [index for batch in batches for _, index in batch]


def padded(batch, durations):
    return max(durations[index] for _, index in batch) * len(batch)


@pytest.fixture
def durations():
    return np.random.default_rng(7).gamma(4, 1.2, 500).clip(0.4, 25)


@settings(max_examples=150, deadline=None)
@given(
    DURATIONS,
    st.floats(1, 120),
    WORLD_SIZES,
    st.integers(1, 40),
    st.sampled_from([0, 1, 7]),
    st.sampled_from([1.0, 1 / 0.9]),
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 2),
    ROW_MULTIPLES,
)
def test_every_utterance_once_in_equal_counts_within_the_bound(
    durations, batch_seconds, world_size, buckets, max_batch_size, max_stretch, max_added, epoch, row_multiple
):
    samplers = ranks(
        durations,
        world_size,
        batch_seconds=batch_seconds,
        buckets=buckets,
        max_batch_size=max_batch_size,
        max_stretch=max_stretch,
        max_added=max_added,
        row_multiple=row_multiple,
    )
    for sampler in samplers:
        sampler.advance(epoch * len(sampler))
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}
    batches = [batch for share in shares for batch in share]
    assert all(number == epoch for batch in batches for number, _ in batch)
    for batch in batches:
        assert batch
        longest = padded(batch, durations) * max_stretch + len(batch) * max_added
        assert len(batch) == 1 or longest <= batch_seconds * (1 + 1e-6)
        assert not max_batch_size or len(batch) <= max_batch_size
    seen = Counter(indices(batches))
    assert set(seen) == set(range(len(durations)))
    repeated = sum(seen.values()) - len(durations)
    if repeated:  # allowed only when nothing was left to split
        assert all(len(batch) == 1 for batch in batches)
        assert repeated < world_size


@settings(max_examples=60, deadline=None)
@given(DURATIONS, st.floats(1, 120), WORLD_SIZES, st.sampled_from([0, 7]), st.integers(0, 2), st.floats(1, 300))
def test_windows_hold_each_utterance_once_in_equal_counts_within_the_bound(
    durations, batch_seconds, world_size, max_batch_size, epoch, window_seconds
):
    options = {"batch_seconds": batch_seconds, "max_batch_size": max_batch_size, "window_seconds": window_seconds}
    samplers = ranks(durations, world_size, **options)
    seen = Counter()
    windows_of_ranks = []
    for sampler in samplers:
        sampler.advance(epoch * len(sampler))
        share = list(sampler)
        assert len(share) == len(samplers[0])
        windows = sampler.windows()
        for batch, window in zip(share, windows, strict=True):
            assert len(durations) < world_size or {index for _, index in batch} <= set(window)
            assert len(batch) == 1 or padded(batch, durations) <= batch_seconds * (1 + 1e-6)
            assert not max_batch_size or len(batch) <= max_batch_size
        seen.update(indices(share))
        windows_of_ranks.append(windows)
        in_turn = [window for window, _ in groupby(windows)]
        late = in_turn[1:] if epoch == 0 else in_turn  # the largest batch of all comes first in epoch 0
        assert len(late) == len(set(late))  # no window is opened twice
    assert set(seen) == set(range(len(durations)))
    for index, count in seen.items():  # repeated only where nothing was left to split
        window_sizes = Counter(window for windows in windows_of_ranks for window in windows if index in window)
        if count > 1 and len(durations) >= world_size:
            assert all(batches >= len(window) for window, batches in window_sizes.items())


def test_one_window_of_all_utterances_gives_the_batches_without_windows(durations):
    plain, windowed = BatchSampler(durations, 60, seed=3), BatchSampler(durations, 60, seed=3, window_seconds=1e6)
    assert list(plain) == list(windowed)
    many = np.resize(durations, 5000)
    assert len(BatchSampler(many, 60, window_seconds=3600)) <= 1.05 * len(BatchSampler(many, 60))


def test_windows_exclude_weights(durations):
    with pytest.raises(ConfigError, match="window_seconds"):
        BatchSampler(durations, 60, weights=[1.5], window_seconds=600)


@settings(max_examples=60, deadline=None)
@given(
    DURATIONS,
    WORLD_SIZES,
    st.integers(0, 3),
    st.integers(0, 200),
    st.integers(-5, 5),
    ROW_MULTIPLES,
    st.sampled_from([0.0, 60.0]),
)
def test_resume_anywhere_is_the_tail_of_the_unbroken_run(
    durations, world_size, epoch, steps, seed, row_multiple, window_seconds
):
    options = {"batch_seconds": 30.0, "seed": seed, "row_multiple": row_multiple, "window_seconds": window_seconds}
    for unbroken, resumed in zip(
        ranks(durations, world_size, **options), ranks(durations, world_size, **options), strict=True
    ):
        unbroken.advance(epoch * len(unbroken))
        sequence = list(unbroken)
        unbroken.advance(len(unbroken))
        sequence += list(unbroken)
        position = steps % (len(resumed) + 1)
        running = ranks(durations, world_size, **options)[unbroken.rank]
        running.advance(epoch * len(running) + position)
        resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
        tail = list(resumed)
        if resumed.epoch == epoch:
            resumed.advance(len(tail))
            tail += list(resumed)
        assert tail == sequence[position:]


def test_the_end_of_an_epoch_is_the_start_of_the_next(durations):
    sampler = BatchSampler(durations, 60)
    sampler.advance(5)
    assert (sampler.epoch, sampler.consumed) == (0, 5)
    sampler.advance(len(sampler) - 5)
    assert (sampler.epoch, sampler.consumed) == (1, 0)
    assert sampler.state_dict()["epoch"] == 1 and sampler.state_dict()["consumed"] == 0


def test_iterating_ahead_does_not_move_the_position(durations):
    sampler = BatchSampler(durations, 60)
    ahead = iter(sampler)
    first = [next(ahead) for _ in range(6)]
    sampler.advance(2)
    assert sampler.state_dict()["consumed"] == 2
    assert next(iter(sampler)) == first[2]
    assert len(sampler) == len(list(BatchSampler(durations, 60)))  # a whole epoch, wherever it stands


@pytest.mark.parametrize("change", [{"batch_seconds": 90}, {"seed": 1}, {"world_size": 2}, {"row_multiple": 8}])
def test_resume_with_other_settings_warns_and_goes_on(durations, change):
    old = BatchSampler(durations, 60)
    sampler = BatchSampler(durations, **{"batch_seconds": 60, **change})
    with pytest.warns(UserWarning, match="changed since the checkpoint"):
        sampler.load_state_dict({**old.state_dict(), "consumed": 3})
    assert (sampler.epoch, sampler.consumed) == (0, 3)
    with pytest.warns(UserWarning, match="changed"):
        sampler.load_state_dict({**old.state_dict(), "consumed": 10_000, "fingerprint": "other"})
    assert (sampler.epoch, sampler.consumed) == (1, 0)


def test_order_depends_on_seed_and_epoch_only(durations):
    def epoch_of(seed, epoch):
        sampler = BatchSampler(durations, 60, seed=seed)
        sampler.advance(epoch * len(sampler))
        return [[index for _, index in batch] for batch in sampler]

    assert epoch_of(3, 1) == epoch_of(3, 1)
    different = [epoch_of(3, 1), epoch_of(3, 2), epoch_of(4, 1), epoch_of(-3, 1)]
    assert len({str(order) for order in different}) == 4
    together = [{frozenset(batch) for batch in order} for order in different[:2]]
    assert len(together[0] & together[1]) < len(together[0]) / 4  # other batches, not the same ones in another order


def test_shuffled_order_is_the_one_released(durations):
    # Checkpoints hold a position in this sequence: it must not change between versions of ours or of NumPy.
    sampler = BatchSampler([1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 2.5, 3.5], 8, seed=5)
    sampler.advance(len(sampler))
    assert list(sampler) == RELEASED


@settings(max_examples=60, deadline=None)
@given(DURATIONS, WORLD_SIZES, ROW_MULTIPLES)
def test_the_batch_with_most_padded_seconds_runs_first_in_the_first_epoch(durations, world_size, row_multiple):
    def filled(batch):  # with the rows that fill it up
        return padded(batch, durations) / len(batch) * -(-len(batch) // row_multiple) * row_multiple

    samplers = ranks(durations, world_size, batch_seconds=50.0, row_multiple=row_multiple)
    shares = [list(sampler) for sampler in samplers]
    most = max(filled(batch) for share in shares for batch in share)
    assert max(filled(share[0]) for share in shares) == pytest.approx(most, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0625, 7, width=32), min_size=1, max_size=200), st.floats(60, 300), WORLD_SIZES)
def test_batches_have_a_multiple_of_eight_rows_but_for_what_is_left_over(durations, batch_seconds, world_size):
    samplers = ranks(durations, world_size, batch_seconds=batch_seconds, row_multiple=8, max_batch_size=50)
    counts = [len(batch) for sampler in samplers for batch in sampler]
    if len(durations) >= 8 * world_size:  # with fewer, every rank still gets its share
        # One is what is left over. Up to world_size - 1 batches more, for equal counts, take each another one apart.
        assert sum(count % 8 > 0 for count in counts) <= 1 + 2 * (world_size - 1)
    evaluation = [
        EvaluationBatchSampler(durations, batch_seconds, rank=rank, world_size=world_size, row_multiple=8)
        for rank in range(world_size)
    ]
    counts = [len(batch) for sampler in evaluation for batch in sampler]
    if len(durations) >= 8 * world_size:
        assert sum(count % 8 > 0 for count in counts) <= 1


def test_an_utterance_longer_than_the_bound_is_alone_and_draws_no_others_with_it():
    durations = [100.0, 70.0] + [2.0] * 100
    sampler = BatchSampler(durations, 60, buckets=1)
    sizes = {tuple(index for _, index in batch): len(batch) for batch in sampler}
    assert sizes[0,] == sizes[1,] == 1
    assert min(size for key, size in sizes.items() if 0 not in key and 1 not in key) >= 20


def test_padding_is_small_and_batches_are_full(durations):
    batches = list(BatchSampler(durations, 60))
    total = sum(padded(batch, durations) for batch in batches)
    assert durations.sum() / total > 0.9
    assert total / len(batches) > 0.8 * 60


def test_batches_of_one_step_have_like_lengths_on_all_ranks(durations):
    shares = [list(sampler) for sampler in ranks(durations, 4, batch_seconds=20.0)]
    spread = [
        max(durations[b[0][1]] for b in step) / min(durations[b[0][1]] for b in step)
        for step in zip(*shares, strict=True)
    ]
    assert np.median(spread) < 1.5


@settings(max_examples=150, deadline=None)
@given(DURATIONS, st.floats(1, 120), WORLD_SIZES, st.sampled_from([0, 1, 5]), ROW_MULTIPLES)
@example([1.0, 1.0, 1.0, 1.0, 1.0, 3.0], 5.0, 3, 0, 1)  # fewer batches than ranks, of unlike lengths
def test_evaluation_runs_every_utterance_exactly_once(
    durations, batch_seconds, world_size, max_batch_size, row_multiple
):
    options = {"world_size": world_size, "max_batch_size": max_batch_size, "row_multiple": row_multiple}
    samplers = [EvaluationBatchSampler(durations, batch_seconds, rank=r, **options) for r in range(world_size)]
    shares = [list(sampler) for sampler in samplers]
    assert [len(share) for share in shares] == [len(sampler) for sampler in samplers]
    batches = [batch for share in shares for batch in share]
    assert sorted(indices(batches)) == list(range(len(durations)))
    for batch in batches:
        assert len(batch) == 1 or padded(batch, durations) <= batch_seconds * (1 + 1e-6)
        assert not max_batch_size or len(batch) <= max_batch_size
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1 or len(durations) < world_size
    for share in shares:
        lengths = [durations[index] for index in indices(share)]
        assert lengths == sorted(lengths, reverse=True)
    assert shares == [list(sampler) for sampler in samplers]


def test_a_million_utterances():
    durations = np.random.default_rng(0).gamma(4, 1.5, 1_000_000).clip(0.3, 40).astype(np.float32)
    sampler = BatchSampler(durations, 600, rank=1, world_size=2)
    first = next(iter(sampler))
    assert padded(first, durations) <= 600
    assert len(pickle.dumps(sampler)) < 40_000_000  # no object per utterance
    mine = list(sampler)
    assert len(mine) == len(sampler)
    other = copy.copy(sampler)
    other.rank = 0
    assert sorted(indices(mine) + indices(other)) == list(range(1_000_000))


def test_samplers_survive_pickling_with_their_position(durations):
    sampler = BatchSampler(durations, 60)
    sampler.advance(3)
    assert list(pickle.loads(pickle.dumps(sampler))) == list(sampler)
    evaluation = EvaluationBatchSampler(durations, 60)
    assert list(pickle.loads(pickle.dumps(evaluation))) == list(evaluation)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"batch_seconds": 0}, "batch_seconds"),
        ({"batch_seconds": float("nan")}, "batch_seconds"),
        ({"buckets": 0}, "buckets"),
        ({"max_batch_size": -1}, "max_batch_size"),
        ({"max_stretch": 0.5}, "max_stretch"),
        ({"max_added": -1.0}, "max_added"),
        ({"rank": 2, "world_size": 2}, "rank"),
    ],
)
def test_impossible_settings_are_named(options, word):
    with pytest.raises(ConfigError, match=word):
        BatchSampler([1.0, 2.0], **{"batch_seconds": 60, **options})


@pytest.mark.parametrize("make", [BatchSampler, EvaluationBatchSampler])
def test_impossible_durations_are_refused(make):
    with pytest.raises(ManifestError, match="no utterances"):
        make([], 60)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ManifestError, match="utterance 2 has a duration"):
            make([1.0, wrong], 60)
