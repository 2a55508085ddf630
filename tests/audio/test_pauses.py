"""Pauses are found where a recording is silent, whatever its level, and none where it never is."""

from __future__ import annotations

import numpy as np
import pytest

from asr.audio.pauses import find_pauses, level_range

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
