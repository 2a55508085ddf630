"""Silence to put around utterances in training: noise like their own background, or fainter, or none at all."""

from __future__ import annotations

import math
import random

import numpy as np

BACKGROUND_SECONDS = 0.1  # the quietest stretch of this length is taken for the background
LEVELS_DB = (-30.0, 6.0)  # of the silence, against the background
DIGITAL = 0.2  # share of silences that are zeros, as where recordings were edited
WHITE = 0.5  # share of the others whose spectrum is flat, as of another microphone


def silence(samples: np.ndarray, count: int, rate: int, draw: random.Random) -> np.ndarray:
    """`(count,)` float32 of silence as it may stand beside `(time,)` samples at `rate` hertz; `draw` decides which."""
    kind, colour, level = draw.random(), draw.random(), draw.uniform(*LEVELS_DB)
    generator = np.random.default_rng(draw.getrandbits(63))
    background = _quietest(samples, max(1, round(BACKGROUND_SECONDS * rate)))
    rms = math.sqrt(float(np.mean(np.square(background, dtype=np.float64)))) if len(background) else 0.0
    if not count or kind < DIGITAL or rms <= 0.0:
        return np.zeros(count, dtype=np.float32)
    noise = generator.standard_normal(count + len(background) - 1)
    if colour < WHITE:
        noise = noise[:count] * rms
    else:  # white noise through a filter whose impulse response is the background has the background's spectrum
        size = 1 << (len(noise) + len(background)).bit_length()
        spectrum = np.fft.rfft(noise, n=size) * np.fft.rfft(background, n=size)
        noise = np.fft.irfft(spectrum, n=size)[len(background) - 1 : len(noise)] / math.sqrt(len(background))
    return (noise * 10.0 ** (level / 20.0)).astype(np.float32)


def _quietest(samples: np.ndarray, width: int) -> np.ndarray:
    """Of successive stretches of `width` samples the one with the least energy; all of fewer samples."""
    if len(samples) < 2 * width:
        return samples
    stretches = samples[: len(samples) // width * width].reshape(-1, width)
    return stretches[int(np.argmin(np.square(stretches, dtype=np.float64).sum(axis=1)))]
