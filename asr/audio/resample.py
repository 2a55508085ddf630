"""Band-limited resampling, by torchaudio's polyphase filters or, if these would be large, by an FFT.

Either all at once (`resample`), or in blocks with bounded memory (`Resampler`).
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np

# torchaudio's kernel has `target * (source + 2 * width)` taps over rates reduced by their common divisor:
# 130,000 for 44100 -> 16000 Hz, but a gigabyte for 16001 -> 16000 Hz.
_MAX_KERNEL = 4_000_000
_FILTER_WIDTH = 64  # zero crossings on each side; with this Kaiser window, the stop band is below -100 dB
_ROLLOFF = 0.9475937167399596
_BETA = 14.769656459379492
_BLOCK_SECONDS = 5.0  # of a block of `Resampler`: long compared to the reach of the filter


def resample(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Resample `(..., time)` float32 to `(..., ceil(time * target_rate / source_rate))`; the level is kept.

    Frequencies above half the lower rate are removed. Only the ratio of the rates matters.
    """
    source, target = _reduced(source_rate, target_rate)
    if source == target or samples.shape[-1] == 0:
        return samples
    if not _kernel_is_small(source, target):
        return _resample_fft(samples, source, target)

    import torch

    with torch.no_grad():
        resampled = _resampler(source, target)(torch.from_numpy(np.ascontiguousarray(samples)))
    return resampled.numpy()


def _reduced(source_rate: int, target_rate: int) -> tuple[int, int]:
    """The rates divided by their greatest common divisor: the numbers of samples that span the same time."""
    divisor = gcd(source_rate, target_rate)
    return source_rate // divisor, target_rate // divisor


def _width(source: int, target: int) -> float:
    """Half the length of the filter in source samples."""
    return _FILTER_WIDTH * source / (min(source, target) * _ROLLOFF)


def _kernel_is_small(source: int, target: int) -> bool:
    return target * (source + 2 * _width(source, target)) <= _MAX_KERNEL


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
    """Resample by cutting or extending the spectrum; exact for any ratio of integers, with the same roll-off."""
    length = samples.shape[-1]
    periods = -(-(length + 4 * _FILTER_WIDTH) // source)  # zeros at the end keep it from wrapping to the start
    spectrum = np.fft.rfft(samples.astype(np.float64), n=periods * source, axis=-1)
    kept = periods * min(source, target) // 2 + 1
    taper = np.ones(kept)
    first = int(kept * _ROLLOFF)
    taper[first:] = np.cos(np.linspace(0.0, np.pi / 2, kept - first)) ** 2
    resampled = np.fft.irfft(spectrum[..., :kept] * taper, n=periods * target, axis=-1) * (target / source)
    return resampled[..., : -(-length * target // source)].astype(np.float32)


class Resampler:
    """`resample` for a long signal `(time,)` given in blocks; it gives the same samples."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self._source, self._target = source, target = _reduced(source_rate, target_rate)
        # The distance, in source samples, at which a sample can change a resampled one (with an FFT, by above 1e-4).
        reach = int(_width(source, target) * (1 if _kernel_is_small(source, target) else 16)) + 1
        # The rest counts periods of `source` samples, which become `target`: blocks cut between periods need no phase.
        self._margin = -(-reach // source)
        self._least = max(1, int(_BLOCK_SECONDS * source_rate) // source)
        self._before = 0  # periods at the start of the buffer that were output already and are kept for the filter
        self._parts: list[np.ndarray] = []  # the buffer
        self._waiting = 0  # samples in the buffer

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The resampled samples that no later block can change."""
        if self._source == self._target:
            return np.ascontiguousarray(samples, dtype=np.float32)
        self._parts.append(samples)
        self._waiting += len(samples)
        ready = self._waiting // self._source - self._before - self._margin
        if ready < self._least:
            return np.zeros(0, dtype=np.float32)
        waiting = np.concatenate(self._parts)
        stop = self._before + ready
        resampled = resample(waiting[: (stop + self._margin) * self._source], self._source, self._target)
        kept = min(self._margin, stop)
        self._parts = [waiting[(stop - kept) * self._source :]]
        self._waiting = len(self._parts[0])
        first, self._before = self._before, kept
        return resampled[first * self._target : stop * self._target]

    def finish(self) -> np.ndarray:
        """The rest of the signal; no block may follow."""
        if not self._waiting:
            return np.zeros(0, dtype=np.float32)
        return resample(np.concatenate(self._parts), self._source, self._target)[self._before * self._target :]
