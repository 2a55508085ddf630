"""Recordings for the audio tests: a speech-like signal, and its encoding in any format that soundfile writes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

RATE = 16000


@pytest.fixture(scope="session")
def voice() -> np.ndarray:
    """Two seconds at 16 kHz, `(time,)` float32: harmonics that glide and pulse, with a little noise."""
    time = np.arange(2 * RATE) / RATE
    pitch = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.3 * time)) / RATE
    harmonics = sum(np.sin(k * pitch) / k for k in range(1, 20))
    envelope = 0.2 + 0.8 * np.abs(np.sin(2 * np.pi * 2.1 * time))
    hiss = np.random.default_rng(0).standard_normal(len(time))
    return (0.15 * envelope * harmonics + 0.002 * hiss).astype(np.float32)


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """`encode(samples, format, subtype, rate)`: the bytes of a sound file; samples `(time,)` or `(time, channels)`."""

    def make(samples: np.ndarray, format: str = "WAV", subtype: str | None = None, rate: int = RATE) -> bytes:
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
        return buffer.getvalue()

    return make
