"""Resampling: a tone stays that tone, what the lower rate cannot hold is gone, and both ways of computing it agree."""

from __future__ import annotations

import numpy as np
import pytest

from asr.audio import resample as module
from asr.audio.resample import resample


def tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def middle(samples: np.ndarray) -> np.ndarray:
    """Without the edges, where the recording begins and ends abruptly."""
    edge = len(samples) // 8
    return samples[edge:-edge]


RATES = [(44100, 16000), (48000, 16000), (8000, 16000), (22050, 16000), (11025, 16000), (16000, 8000), (15999, 16000)]


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("hertz", [100.0, 1000.0, 3300.0])
def test_a_tone_stays_the_tone(source: int, target: int, hertz: float) -> None:
    found = resample(tone(hertz, source), source, target)
    assert found.dtype == np.float32
    assert len(found) == target
    np.testing.assert_allclose(middle(found), middle(tone(hertz, target)), atol=2e-4)


@pytest.mark.parametrize(
    ("source", "target", "hertz"), [(48000, 16000, 9000.0), (44100, 16000, 15000.0), (16001, 8000, 5000.0)]
)
def test_nothing_is_folded_back(source: int, target: int, hertz: float) -> None:
    assert np.abs(middle(resample(tone(hertz, source), source, target))).max() < 1e-4  # -80 dB


def test_the_ways_agree(monkeypatch: pytest.MonkeyPatch, voice: np.ndarray) -> None:
    polyphase = resample(voice, 22050, 16000)
    monkeypatch.setattr(module, "_MAX_KERNEL", 0)
    spectral = resample(voice, 22050, 16000)
    assert len(polyphase) == len(spectral)
    assert np.abs(polyphase - spectral).max() < 0.02 * np.abs(voice).max()


def test_rates_without_a_common_divisor_take_no_gigabyte() -> None:
    assert len(resample(np.ones(16001, np.float32), 16001, 16000)) == 16000


def test_channels_and_nothing_to_do(voice: np.ndarray) -> None:
    both = resample(np.stack([voice, -voice]), 16000, 8000)
    assert both.shape == (2, len(voice) // 2)
    np.testing.assert_allclose(both[0], -both[1], atol=1e-6)
    assert resample(voice, 16000, 16000) is voice
    assert resample(voice[:0], 8000, 16000).shape == (0,)
    assert resample(voice[:1], 44100, 16000).shape == (1,)
