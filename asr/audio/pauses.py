"""Pauses: where a recording is silent, judged by the range of its levels, and silence made to match a recording."""

from __future__ import annotations

import math
import random

import numpy as np

LEAST_RANGE = 18.0  # decibels between quiet and loud parts; with less there may be no silence at all
_HOP_SECONDS = 0.01
_SMOOTHED_HOPS = 5
_SHORTEST_PAUSE = 0.4  # seconds; closures and hesitations inside words are shorter
_LEVEL = 0.3  # of the way from the quiet to the loud parts, in decibels; what lies below it is a pause
_WIDEST_RANGE = 50.0  # decibels; what is further below the loud parts is not background noise but digital silence

# Of the silence that is made:
_BACKGROUND_SECONDS = 0.1  # the quietest stretch of this length is taken for the background
LEVELS_DB = (-30.0, 6.0)  # relative to the background
_DIGITAL = 0.2  # share of silences that are zeros, as where recordings were edited
_WHITE = 0.5  # share of the others whose spectrum is flat, as of another microphone


def find_pauses(samples: np.ndarray, rate: int, levels: tuple[float, float] | None = None) -> list[tuple[int, int]]:
    """Pauses of at least 0.4 s in samples (time,) at `rate` hertz, as (first sample, one past the last).

    `levels` are those of the quiet and the loud parts in decibels, by default the `level_range` of the samples.
    """
    quiet, loud = level_range(samples, rate) if levels is None else levels
    if loud - quiet < LEAST_RANGE:
        return []
    hop = _hop(rate)
    is_low = np.concatenate(([False], _levels(samples, rate) < quiet + _LEVEL * (loud - quiet), [False]))
    edges = np.flatnonzero(is_low[1:] != is_low[:-1])
    return [
        (int(first) * hop, int(last) * hop)
        for first, last in zip(edges[::2], edges[1::2], strict=True)
        if (last - first) * hop >= _SHORTEST_PAUSE * rate
    ]


def level_range(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """The 5th and 95th percentiles of the level in decibels; they mean little for less than some seconds.

    Where a part is digital silence the quiet level is 50 dB below the loud one, so that pauses with noise count, too.
    """
    level = _levels(samples, rate)
    if not len(level):
        return 0.0, 0.0
    quiet, loud = np.percentile(level, [5, 95])
    return max(float(quiet), float(loud) - _WIDEST_RANGE), float(loud)


def _hop(rate: int) -> int:
    return max(1, round(_HOP_SECONDS * rate))


def _levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level in decibels (of full scale, -120 at least) of every hop, averaged over its neighbors."""
    hop, width = _hop(rate), _SMOOTHED_HOPS
    count = len(samples) // hop
    if not count:
        return np.zeros(0)
    energy = np.square(samples[: count * hop].reshape(count, hop), dtype=np.float64).mean(axis=1)
    summed = np.cumsum(np.concatenate(([0.0], energy)))
    first = np.maximum(np.arange(count) - (width - 1) // 2, 0)
    last = np.minimum(np.arange(count) + width // 2 + 1, count)
    return 10.0 * np.log10(np.maximum((summed[last] - summed[first]) / (last - first), 1e-12))


def silence(samples: np.ndarray, count: int, rate: int, draw: random.Random) -> np.ndarray:
    """`(count,)` float32 samples of silence such as may surround `(time,)` samples at `rate` hertz; `draw` decides."""
    kind, color, level = draw.random(), draw.random(), draw.uniform(*LEVELS_DB)
    generator = np.random.default_rng(draw.getrandbits(63))
    background = _quietest(samples, max(1, round(_BACKGROUND_SECONDS * rate)))
    rms = math.sqrt(float(np.mean(np.square(background, dtype=np.float64)))) if len(background) else 0.0
    if not count or kind < _DIGITAL or rms <= 0.0:
        return np.zeros(count, dtype=np.float32)
    noise = generator.standard_normal(count + len(background) - 1)
    if color < _WHITE:
        noise = noise[:count] * rms
    else:  # white noise through a filter whose impulse response is the background has the background's spectrum
        size = 1 << (len(noise) + len(background)).bit_length()
        spectrum = np.fft.rfft(noise, n=size) * np.fft.rfft(background, n=size)
        noise = np.fft.irfft(spectrum, n=size)[len(background) - 1 : len(noise)] / math.sqrt(len(background))
    return (noise * 10.0 ** (level / 20.0)).astype(np.float32)


def _quietest(samples: np.ndarray, width: int) -> np.ndarray:
    """Of successive stretches of `width` samples the one with the least energy; everything where there is only one."""
    if len(samples) < 2 * width:
        return samples
    stretches = samples[: len(samples) // width * width].reshape(-1, width)
    return stretches[int(np.argmin(np.square(stretches, dtype=np.float64).sum(axis=1)))]
