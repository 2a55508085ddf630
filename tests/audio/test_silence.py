"""Silence for training: as long as asked for, decided by the draw, never much louder than the background."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.pauses import LEVELS_DB, silence

RATE = 16000


def speech_over(noise: np.ndarray) -> np.ndarray:
    """A second of noise between two of the same with a loud tone over it."""
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    parts = np.split(noise[: 3 * RATE], 3)
    return np.concatenate([parts[0] + tone, parts[1], parts[2] + tone]).astype(np.float32)


def power_db(samples: np.ndarray) -> float:
    return 10.0 * float(np.log10(np.mean(np.square(samples, dtype=np.float64))))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 1000), st.sampled_from([8000, 16000]))
def test_length_type_and_draw(time: int, count: int, seed: int, rate: int) -> None:
    samples = np.random.default_rng(seed).standard_normal(time).astype(np.float32)
    result = silence(samples, count, rate, random.Random(seed))
    assert result.shape == (count,) and result.dtype == np.float32 and np.isfinite(result).all()
    assert np.array_equal(result, silence(samples, count, rate, random.Random(seed)))


def test_levels_lie_around_the_background() -> None:
    samples = speech_over(1e-3 * np.random.default_rng(0).standard_normal(3 * RATE))
    silences = [silence(samples, RATE, RATE, random.Random(seed)) for seed in range(100)]
    levels = np.array([power_db(s) for s in silences if s.any()]) - power_db(samples[RATE : 2 * RATE])
    assert 60 <= len(levels) <= 95  # the others are zeros
    assert LEVELS_DB[0] - 3 <= levels.min() < -20 and 3 < levels.max() <= LEVELS_DB[1] + 2


def test_colour_is_that_of_the_background_or_white() -> None:
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
