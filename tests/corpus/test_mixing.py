"""Mixing corpora: each utterance as often as its weight says, on all ranks, resumable, within the bound of seconds."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.corpus.batching import BatchSampler
from asr.corpus.mixing import Mix, mixed_weights
from asr.types import ConfigError

WEIGHTS = st.floats(0.05, 4)
CORPORA = st.lists(st.tuples(st.integers(1, 30), WEIGHTS), min_size=1, max_size=3)


def slowly(durations, corpora, weights, epoch):
    """The utterances of an epoch, by a pointer that walks along each corpus and drops an utterance at every whole."""
    found = []
    for number, weight in enumerate(weights):
        members = [i for i in range(len(durations)) if corpora[i] == number]
        members.sort(key=lambda i: -durations[i])
        count = max(1, round(weight * len(members)))
        for place, index in enumerate(members):
            walked = (place + epoch) * count  # in units of 1 / len(members)
            found += [index] * ((walked + count) // len(members) - walked // len(members))
    return found


def drawn_corpora(corpora, seed):
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(np.repeat(np.arange(len(corpora)), [size for size, _ in corpora]))
    durations = rng.uniform(0.5, 12, len(numbers)).astype(np.float32)
    return durations, numbers, [weight for _, weight in corpora]


@settings(max_examples=150, deadline=None)
@given(
    CORPORA,
    st.integers(0, 99),
    st.integers(0, 50),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([1, 8]),
    st.integers(-3, 3),
)
def test_batches_hold_what_a_slow_walk_finds(corpora, draw, epoch, world_size, row_multiple, seed):
    durations, numbers, weights = drawn_corpora(corpora, draw)
    options = {"corpora": numbers, "weights": weights, "row_multiple": row_multiple, "seed": seed, "max_added": 0.5}
    samplers = [BatchSampler(durations, 40, rank=r, world_size=world_size, **options) for r in range(world_size)]
    for sampler in samplers:
        sampler.advance(epoch * len(sampler))
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}
    batches = [batch for share in shares for batch in share]
    for batch in batches:
        longest = max(durations[index % len(durations)] for _, index in batch) + 0.5
        assert len(batch) == 1 or longest * len(batch) <= 40 * (1 + 1e-6)
    found = Counter(index for batch in batches for _, index in batch)
    even = all(round(weight * size) == size for size, weight in corpora)
    expected = Counter(range(len(durations)) if even else slowly(durations, numbers, weights, epoch + seed))
    if repeated := sum(found.values()) - sum(expected.values()):  # only where nothing was left to split
        assert repeated < world_size and all(len(batch) == 1 for batch in batches)
        assert set(found) == {i + k * len(durations) for i, n in expected.items() for k in range(n)}
    else:  # repetitions of an utterance are told apart, or they would be augmented alike
        assert sorted(found) == sorted(i + k * len(durations) for i, n in expected.items() for k in range(n))
        assert set(found.values()) <= {1}


@settings(max_examples=80, deadline=None)
@given(CORPORA, st.integers(0, 99), st.integers(-40, 40), st.integers(1, 20))
def test_over_any_epochs_an_utterance_occurs_as_often_as_its_weight_says(corpora, draw, first, epochs):
    durations, numbers, weights = drawn_corpora(corpora, draw)
    mix = Mix(durations, numbers, weights)
    counts = Counter(int(i) % len(durations) for e in range(first, first + epochs) for i in mix.epoch(e))
    bounds = durations[mix.bounds()]
    for number, (size, weight) in enumerate(corpora):
        expected = epochs * max(1, round(weight * size)) / size
        for index in np.flatnonzero(numbers == number):
            assert math.floor(expected) <= counts[index] <= math.ceil(expected)
    for epoch in range(first, first + epochs):
        places = mix.epoch(epoch)
        assert len(places) == len(bounds) and (durations[places % len(durations)] <= bounds).all()


@settings(max_examples=60, deadline=None)
@given(CORPORA, st.integers(0, 99), st.integers(0, 3), st.integers(0, 200), st.booleans())
def test_resume_anywhere_is_the_tail_of_the_unbroken_run(corpora, draw, epoch, steps, first_sorted):
    durations, numbers, weights = drawn_corpora(corpora, draw)
    options = {"corpora": numbers, "weights": weights, "sorted_first_epoch": first_sorted, "seed": 3}
    samplers = [BatchSampler(durations, 25, rank=1, world_size=2, **options) for _ in range(3)]
    unbroken, running, resumed = samplers
    unbroken.advance(epoch * len(unbroken))
    sequence = list(unbroken)
    position = steps % len(running)
    running.advance(epoch * len(running) + position)
    resumed.load_state_dict(running.state_dict())
    assert list(resumed) == sequence[position:]


def test_weights_of_one_change_nothing_and_other_weights_are_noticed_on_resuming():
    durations = np.random.default_rng(1).uniform(1, 9, 60)
    corpora = np.arange(60) % 2
    plain = BatchSampler(durations, 30, seed=2)
    same = BatchSampler(durations, 30, seed=2, corpora=corpora, weights=[1.0, 1.0])
    assert list(plain) == list(same) and plain.state_dict() == same.state_dict()
    plain.advance(2)
    for change in ({"weights": [1.0, 2.0]}, {"weights": [1.0, 1.0], "sorted_first_epoch": True}):
        other = BatchSampler(durations, 30, seed=2, corpora=corpora, **change)
        with pytest.warns(UserWarning, match="changed since the checkpoint"):
            other.load_state_dict(plain.state_dict())


def test_the_first_epoch_runs_shortest_first_where_that_is_asked_for():
    durations = np.random.default_rng(1).uniform(1, 9, 300)
    samplers = [BatchSampler(durations, 30, rank=r, world_size=2, sorted_first_epoch=True) for r in range(2)]
    steps = [[max(durations[i] for batch in step for _, i in batch) for step in zip(*samplers, strict=True)]]
    for sampler in samplers:
        sampler.advance(len(sampler))
    steps.append([max(durations[i] for batch in step for _, i in batch) for step in zip(*samplers, strict=True)])
    assert steps[0] == sorted(steps[0]) and steps[1] != sorted(steps[1])


def test_temperature_brings_shares_closer_and_keeps_the_hours_of_an_epoch():
    hours = [100.0, 10.0, 1.0]
    assert mixed_weights([1, 2, 0.5], hours) == [1, 2, 0.5]
    for temperature in (1.5, 3.0, 100.0):
        weights = mixed_weights([1, 1, 1], hours, temperature)
        amounts = [w * h for w, h in zip(weights, hours, strict=True)]
        assert sum(amounts) == pytest.approx(111)
        assert amounts[0] / amounts[1] == pytest.approx(10 ** (1 / temperature))
        assert amounts[1] / amounts[2] == pytest.approx(10 ** (1 / temperature))
    assert mixed_weights([1, 2], [3.0, 1.5], 7.0) == pytest.approx([1, 2])  # equal amounts stay
    with pytest.raises(ConfigError, match=r"mix_temperature: 0\.5 is below 1"):
        mixed_weights([1], [1.0], 0.5)
    with pytest.raises(ConfigError, match="weight: -1 is not a positive number"):
        mixed_weights([-1], [1.0])
