"""Pauses are found where a recording is silent, whatever its level; silence made for training suits the recording."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.augment import LEVELS_DB, silence
from asr.recognition.windows import find_pauses, level_range

RATE = 16000


def spoken(*parts, noise=1e-3, seed=0):
    """Stretches of loud noise (positive seconds) and of faint noise (negative seconds)."""
    generator = np.random.default_rng(seed)
    levels = np.concatenate([np.full(round(abs(p) * RATE), 0.2 if p > 0 else noise) for p in parts])
    return (generator.standard_normal(len(levels)) * levels).astype(np.float32)


@pytest.mark.parametrize("gain", [1.0, 0.01, 3.0])
@pytest.mark.parametrize("rate", [8000, 16000])
def test_pauses_are_where_it_is_silent(gain, rate):
    samples = spoken(3.0, -0.8, 2.0, -0.2, 2.0, -1.5)[:: RATE // rate] * gain
    found = [(first / rate, last / rate) for first, last in find_pauses(samples, rate)]
    assert len(found) == 2  # 0.2 s is no pause
    for (first, last), expected in zip(found, [(3.0, 3.8), (8.0, 9.5)], strict=True):
        assert first == pytest.approx(expected[0], abs=0.05)
        assert last == pytest.approx(expected[1], abs=0.05)


def test_pauses_with_noise_count_beside_digital_silence():
    samples = spoken(3.0, -0.8, 2.0, -0.8, 3.0)
    samples[round(6.0 * RATE) : round(6.5 * RATE)] = 0.0  # part of the second pause
    found = [(first / RATE, last / RATE) for first, last in find_pauses(samples, RATE)]
    for (first, last), expected in zip(found, [(3.0, 3.8), (5.8, 6.6)], strict=True):
        assert first == pytest.approx(expected[0], abs=0.05)
        assert last == pytest.approx(expected[1], abs=0.05)


def test_none_in_steady_noise_in_digital_silence_or_in_nothing():
    assert find_pauses(spoken(10.0), RATE) == []
    assert find_pauses(np.zeros(5 * RATE, np.float32), RATE) == []
    assert find_pauses(np.zeros(0, np.float32), RATE) == []
    assert level_range(np.zeros(0, np.float32), RATE) == (0.0, 0.0)


def test_silence_is_known_by_the_speech_before_it():
    assert find_pauses(spoken(-5.0), RATE) == []
    _, loud = level_range(spoken(5.0), RATE)
    quiet, _ = level_range(spoken(-5.0), RATE)
    assert find_pauses(spoken(-5.0), RATE, (quiet, loud)) == [(0, 5 * RATE)]


def speech_over(noise: np.ndarray) -> np.ndarray:
    """A second of noise between two of the same with a loud tone over it."""
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    parts = np.split(noise[: 3 * RATE], 3)
    return np.concatenate([parts[0] + tone, parts[1], parts[2] + tone]).astype(np.float32)


def power_db(samples: np.ndarray) -> float:
    return 10.0 * float(np.log10(np.mean(np.square(samples, dtype=np.float64))))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 1000), st.sampled_from([8000, 16000]))
def test_silence_is_as_long_as_asked_for_and_decided_by_the_draw(time: int, count: int, seed: int, rate: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(time).astype(np.float32)
    result = silence(samples, count, rate, random.Random(seed))
    assert result.shape == (count,) and result.dtype == np.float32 and np.isfinite(result).all()
    assert np.array_equal(result, silence(samples, count, rate, random.Random(seed)))


def test_levels_of_silence_lie_around_the_background() -> None:
    samples = speech_over(1e-3 * np.random.default_rng(0).standard_normal(3 * RATE))
    silences = [silence(samples, RATE, RATE, random.Random(seed)) for seed in range(100)]
    levels = np.array([power_db(s) for s in silences if s.any()]) - power_db(samples[RATE : 2 * RATE])
    assert 60 <= len(levels) <= 95  # the others are zeros
    assert LEVELS_DB[0] - 3 <= levels.min() < -20 and 3 < levels.max() <= LEVELS_DB[1] + 2


def test_the_spectrum_of_silence_is_flat_or_that_of_the_background() -> None:
    generator = np.random.default_rng(1)
    low = np.convolve(generator.standard_normal(3 * RATE + 200), np.hanning(101) / 50, mode="valid")
    samples = speech_over(1e-2 * low)  # almost nothing above 500 Hz
    shares = []
    for seed in range(40):
        spectrum = np.abs(np.fft.rfft(silence(samples, RATE, RATE, random.Random(seed)))) ** 2
        if spectrum.any():
            shares.append(spectrum[1000:].sum() / spectrum.sum())
    assert all(share < 0.05 or share == pytest.approx(0.875, abs=0.03) for share in shares)
    assert 5 < sum(share < 0.05 for share in shares) < len(shares) - 5


def test_beside_digital_silence_stands_digital_silence() -> None:
    samples = np.concatenate([np.zeros(RATE), np.ones(RATE)]).astype(np.float32)
    assert not any(silence(samples, 100, RATE, random.Random(seed)).any() for seed in range(10))
