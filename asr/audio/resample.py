"""Band-limited resampling: torchaudio's polyphase filters where they are small, an FFT where they would not be."""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np

# torchaudio's kernel has `target * (source + 2 * width)` taps over rates reduced by their common divisor:
# 130,000 for 44100 -> 16000 Hz, but a gigabyte for 16001 -> 16000 Hz.
_MAX_KERNEL = 4_000_000
_FILTER_WIDTH = 64  # zero crossings each side; with the Kaiser window below: stop band under -100 dB
_ROLLOFF = 0.9475937167399596
_BETA = 14.769656459379492


def resample(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Resample `(..., time)` float32 to `(..., ceil(time * target_rate / source_rate))`; the level is kept.

    Frequencies above half the lower rate are removed. Only the ratio of the rates matters.
    """
    source, target = reduced_rates(source_rate, target_rate)
    if source == target or samples.shape[-1] == 0:
        return samples
    if target * (source + 2 * _width(source, target)) > _MAX_KERNEL:
        return _resample_fft(samples, source, target)

    import torch

    with torch.no_grad():
        resampled = _resampler(source, target)(torch.from_numpy(np.ascontiguousarray(samples)))
    return resampled.numpy()


def reduced_rates(source_rate: int, target_rate: int) -> tuple[int, int]:
    """The rates without their common divisor: so many samples of the one last as long as so many of the other."""
    divisor = gcd(source_rate, target_rate)
    return source_rate // divisor, target_rate // divisor


def filter_reach(source_rate: int, target_rate: int) -> int:
    """How many source samples away a sample can change a resampled one (by an FFT: by more than 1e-4 of it)."""
    source, target = reduced_rates(source_rate, target_rate)
    width = _width(source, target)
    by_fft = target * (source + 2 * width) > _MAX_KERNEL
    return int(width * (16 if by_fft else 1)) + 1


def _width(source: int, target: int) -> float:
    """Source samples in half of the filter."""
    return _FILTER_WIDTH * source / (min(source, target) * _ROLLOFF)


@lru_cache(maxsize=32)
def _resampler(source: int, target: int) -> Any:
    """torchaudio's Resample, which computes its filters once; cached per process and never pickled."""
    from asr.audio._torchaudio import transforms

    return transforms.Resample(
        source,
        target,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=_FILTER_WIDTH,
        rolloff=_ROLLOFF,
        beta=_BETA,
    )


def _resample_fft(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """Resample by cutting or extending the spectrum; exact for any ratio of whole numbers, with the same roll-off."""
    length = samples.shape[-1]
    periods = -(-(length + 4 * _FILTER_WIDTH) // source)  # zeros at the end, so that it does not wrap to the start
    spectrum = np.fft.rfft(samples.astype(np.float64), n=periods * source, axis=-1)
    kept = periods * min(source, target) // 2 + 1
    taper = np.ones(kept)
    first = int(kept * _ROLLOFF)
    taper[first:] = np.cos(np.linspace(0.0, np.pi / 2, kept - first)) ** 2
    resampled = np.fft.irfft(spectrum[..., :kept] * taper, n=periods * target, axis=-1) * (target / source)
    return resampled[..., : -(-length * target // source)].astype(np.float32)
