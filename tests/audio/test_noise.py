"""Noise stands at the ratio asked for, has the spectrum of its name, and is decided by its seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.noise import TALKERS, add_noise, make_noise, seeded, speech_power

RATE = 16000


def power(samples: np.ndarray) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def slow_speech_power(samples: np.ndarray) -> float:
    """Frame by frame, as the definition has it."""
    frames = [power(samples[i : i + 320]) for i in range(0, len(samples) - 319, 320)]
    loud = [p for p in frames if 10 * np.log10(p / max(frames) + 1e-30) >= -30]
    return sum(loud) / len(loud)


@settings(max_examples=30, deadline=None)
@given(snr=st.floats(-10.0, 40.0), length=st.integers(1, 40000), seed=st.integers(0, 1000))
def test_noise_stands_at_the_snr_asked_for(voice: np.ndarray, snr: float, length: int, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    added = add_noise(voice, noise, snr, RATE) - voice
    assert len(added) == len(voice)
    assert 10 * np.log10(slow_speech_power(voice) / power(added)) == pytest.approx(snr, abs=0.1)


def test_pauses_do_not_change_the_level_of_speech(voice: np.ndarray) -> None:
    quiet = 1e-4 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    within = np.concatenate([quiet, voice, quiet])
    assert speech_power(within, RATE) == pytest.approx(speech_power(voice, RATE), rel=1e-6)
    assert power(within) < 0.3 * power(voice)
    assert speech_power(np.zeros(RATE), RATE) == speech_power(np.zeros(0), RATE) == 0.0
    assert speech_power(np.full(5, 0.5), RATE) == pytest.approx(0.25)


def test_silence_gets_no_noise_and_silent_noise_adds_nothing(voice: np.ndarray) -> None:
    for noise in (np.zeros(50, np.float32), np.zeros(0, np.float32)):
        assert np.array_equal(add_noise(voice, noise, 10.0, RATE), voice)
    for silence in (np.zeros(50, np.float32), np.zeros(0, np.float32)):
        assert np.array_equal(add_noise(silence, np.ones(9, np.float32), 10.0, RATE), silence)


def test_white_noise_is_flat_and_pink_noise_has_as_much_power_in_every_octave() -> None:
    frequencies = np.fft.rfftfreq(30 * RATE, 1 / RATE)
    edges = [125.0 * 2.0**k for k in range(7)]
    for kind, slope in (("white", 3.01), ("pink", 0.0)):
        noise = make_noise(kind, 30 * RATE, RATE, seeded("test", (1,)))
        spectrum = np.abs(np.fft.rfft(noise)) ** 2
        octaves = [10 * np.log10(spectrum[(frequencies >= low) & (frequencies < 2 * low)].sum()) for low in edges[:-1]]
        assert np.diff(octaves) == pytest.approx([slope] * 5, abs=0.35)
        assert np.array_equal(noise, make_noise(kind, 30 * RATE, RATE, seeded("test", (1,))))
        assert not np.array_equal(noise, make_noise(kind, 30 * RATE, RATE, seeded("test", (2,))))
        assert make_noise(kind, 0, RATE, seeded("test", (1,))).shape == (0,)


def test_babble_is_several_voices_of_equal_loudness(voice: np.ndarray) -> None:
    asked = []

    def other(draw: object) -> np.ndarray:
        asked.append(draw)
        time = np.arange(RATE + 100 * len(asked)) / RATE
        return (10.0 ** -len(asked) * np.sin(2 * np.pi * 500 * len(asked) * time)).astype(np.float32)

    noise = make_noise("babble", 2 * RATE, RATE, seeded("test", (3,)), other)
    assert len(noise) == 2 * RATE and len(asked) == TALKERS
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    bands = [spectrum[1000 * k - 100 : 1000 * k + 100].sum() for k in range(1, TALKERS + 1)]
    assert min(bands) > 0.8 * max(bands) and sum(bands) > 0.95 * spectrum.sum()
    assert not make_noise("babble", 100, RATE, seeded("test", (3,)), lambda _: np.zeros(0, np.float32)).any()
    assert make_noise("babble", 100, RATE, seeded("test", (3,))).shape == (0,)
