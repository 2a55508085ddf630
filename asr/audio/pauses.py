"""Where a recording is silent: stretches of low energy, by the range of levels around them."""

from __future__ import annotations

import math
import random

import numpy as np

HOP_SECONDS = 0.01
SMOOTHING_SECONDS = 0.05
SHORTEST_PAUSE = 0.4  # seconds; closures and hesitations inside words are shorter
LEVEL = 0.3  # of the way from the quiet to the loud parts, in decibels; what lies below it is a pause
LEAST_RANGE = 18.0  # decibels between quiet and loud parts; with less there may be no silence in it at all
WIDEST_RANGE = 50.0  # decibels; quieter than that below the loud parts is no background noise but digital silence


def find_pauses(
    samples: np.ndarray, rate: int, within: tuple[float, float] | None = None, shortest: float = SHORTEST_PAUSE
) -> list[tuple[int, int]]:
    """Pauses of at least `shortest` seconds in samples (time,) at `rate` hertz, as (first sample, one past the last).

    `within` are the levels of the quiet and the loud parts in decibels, by default those of the samples.
    """
    quiet, loud = level_range(samples, rate) if within is None else within
    if loud - quiet < LEAST_RANGE:
        return []
    hop = _hop(rate)
    is_low = np.concatenate(([False], _levels(samples, rate) < quiet + LEVEL * (loud - quiet), [False]))
    edges = np.flatnonzero(is_low[1:] != is_low[:-1])
    return [
        (int(first) * hop, int(last) * hop)
        for first, last in zip(edges[::2], edges[1::2], strict=True)
        if (last - first) * hop >= shortest * rate
    ]


def level_range(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """The levels, in decibels, that 5 % of the time lie below, and above; of some seconds, or they mean little.

    Where a part is digital silence the quiet level is `WIDEST_RANGE` below the loud one: pauses with noise count too.
    """
    level = _levels(samples, rate)
    if not len(level):
        return 0.0, 0.0
    quiet, loud = np.percentile(level, [5, 95])
    return max(float(quiet), float(loud) - WIDEST_RANGE), float(loud)


def _hop(rate: int) -> int:
    return max(1, round(HOP_SECONDS * rate))


def _levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level in decibels (of full scale, -120 at least) of every hop, averaged over its neighbours."""
    hop, width = _hop(rate), max(1, round(SMOOTHING_SECONDS / HOP_SECONDS))
    count = len(samples) // hop
    if not count:
        return np.zeros(0)
    energy = np.square(samples[: count * hop].reshape(count, hop), dtype=np.float64).mean(axis=1)
    summed = np.cumsum(np.concatenate(([0.0], energy)))
    first = np.maximum(np.arange(count) - (width - 1) // 2, 0)
    last = np.minimum(np.arange(count) + width // 2 + 1, count)
    return 10.0 * np.log10(np.maximum((summed[last] - summed[first]) / (last - first), 1e-12))


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
