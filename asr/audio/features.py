"""Log-mel features on the model's device: padded waveforms and lengths -> normalized frames and counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from asr.audio._torchaudio import functional
from asr.types import ConfigError

Count = TypeVar("Count", int, Tensor)

# Natural-log units; speech has 0.7 to 4. A bin that varies less may be rounding noise (up to 2e-6), which a smaller
# floor would amplify beyond the tolerance of 1e-4 for differences between an utterance alone and in a batch.
_STD_FLOOR = 0.1
_FLOOR_TOLERANCE = 1e-3  # natural-log units


@dataclass(frozen=True)
class FeatureConfig:
    """Settings of the log-mel front end: rate and band edges in hertz, window and hop in milliseconds.

    `high_hz` 0 means half the rate. `log_floor` is the smallest mel power before the logarithm, for samples in
    [-1, 1]. Raises ValueError on values that cannot work.
    """

    rate: int = 16000
    n_mels: int = 80
    window_ms: float = 25.0
    hop_ms: float = 10.0
    low_hz: float = 20.0
    high_hz: float = 0.0
    normalize: Literal["utterance", "none"] = "utterance"
    preemphasis: float = 0.97
    log_floor: float = 1e-10

    def __post_init__(self) -> None:
        for name in ("rate", "n_mels", "window_ms", "hop_ms", "log_floor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, found {getattr(self, name)}")
        if self.hop_samples < 1 or self.window_samples < 2:
            raise ValueError(f"hop_ms {self.hop_ms} or window_ms {self.window_ms} is too short for {self.rate} Hz")
        if not 0.0 <= self.high_hz <= self.rate / 2:
            raise ValueError(
                f"high_hz must lie between 0 and half the rate ({self.rate / 2:g}), found {self.high_hz:g}"
            )
        if not 0.0 <= self.low_hz < self.top_hz:
            raise ValueError(f"low_hz must lie between 0 and high_hz ({self.top_hz:g}), found {self.low_hz:g}")
        if not 0.0 <= self.preemphasis < 1.0:
            raise ValueError(f"preemphasis must lie in [0, 1), found {self.preemphasis:g}")
        if self.normalize not in ("utterance", "none"):
            raise ValueError(f"normalize must be 'utterance' or 'none', found {self.normalize!r}")

    @property
    def window_samples(self) -> int:
        return round(self.rate * self.window_ms / 1000)

    @property
    def hop_samples(self) -> int:
        return round(self.rate * self.hop_ms / 1000)

    @property
    def top_hz(self) -> float:
        """The upper edge of the highest filter, in hertz."""
        return self.high_hz or self.rate / 2


def frame_count(samples: Count, config: FeatureConfig) -> Count:
    """The number of frames of `samples` samples: one centered on every hop from sample 0 on; 0 without samples."""
    if isinstance(samples, Tensor):
        return torch.where(samples > 0, samples.div(config.hop_samples, rounding_mode="floor") + 1, 0)
    return samples // config.hop_samples + 1 if samples > 0 else 0


class LogMel(nn.Module):
    """Log-mel filter bank energies, the same alone and in any batch, whatever the padding contains.

    Frames are centered, and the signal outside the recording is taken to be zero after pre-emphasis, so that the last
    frames do not depend on the amount of padding. The output is the natural logarithm of the power in HTK mel bands,
    with triangular filters of height 1 (torchaudio's filter bank). Float32 throughout, even under autocast and in a
    model cast to half.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, config: FeatureConfig | None = None) -> None:
        super().__init__()
        self.config = config or FeatureConfig()
        self.fft_size, filters = _filter_bank(self.config)
        self.register_buffer("window", torch.hann_window(self.config.window_samples), persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    @property
    def hop_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return self.config.hop_samples / self.config.rate

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features of waveforms `(batch, samples)` in [-1, 1] with lengths `(batch,)` in samples.

        Returns `(batch, frames, n_mels)` float32, zero in the padding, and `(batch,)` int64 frame counts.
        Raises ValueError if shapes do not match.
        """
        if waveforms.dim() != 2 or lengths.shape != waveforms.shape[:1]:
            raise ValueError(
                "expected waveforms (batch, samples) and lengths (batch,), "
                f"found {tuple(waveforms.shape)} and {tuple(lengths.shape)}"
            )
        longest = max(lengths.tolist(), default=0) if lengths.device.type == "cpu" else 0  # no wait for a GPU
        if longest > waveforms.shape[1]:
            raise ValueError(f"a length of {longest} samples in a batch of {waveforms.shape[1]} samples")
        lengths = lengths.to(waveforms.device, torch.int64, non_blocking=True)
        with torch.autocast(device_type=waveforms.device.type, enabled=False):
            log_mel = self._log_mel(waveforms.float(), lengths)
            frame_lengths = frame_count(lengths, self.config)
            valid = torch.arange(log_mel.shape[1], device=log_mel.device) < frame_lengths[:, None]
            if self.config.normalize == "utterance":
                log_mel = _normalize(log_mel, valid, math.log(self.config.log_floor))
            return log_mel.masked_fill(~valid[:, :, None], 0.0), frame_lengths

    def _log_mel(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        frames = frame_count(waveforms.shape[1], self.config)
        if waveforms.shape[0] == 0 or frames == 0:
            return waveforms.new_zeros(waveforms.shape[0], frames, self.config.n_mels)
        if self.config.preemphasis:
            waveforms = functional.preemphasis(waveforms, self.config.preemphasis)
        # Mask after pre-emphasis, which spreads the last sample into the padding; the padding may contain NaN.
        padding = torch.arange(waveforms.shape[1], device=waveforms.device) >= lengths[:, None]
        spectrum = torch.stft(
            waveforms.masked_fill(padding, 0.0),
            self.fft_size,
            hop_length=self.config.hop_samples,
            win_length=self.config.window_samples,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
        if power.device.type == "cuda":  # float32 would run as TF32, with 3 digits, if the trainer allows it
            mel = (power.double() @ self.filters.double()).float()
        else:
            mel = power @ self.filters
        return mel.clamp(min=self.config.log_floor).log()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LogMel:
        super()._apply(fn, recurse)
        if self.window.dtype != torch.float32:  # after model.half(): follow the device, keep the precision
            self.window = torch.hann_window(self.config.window_samples, device=self.window.device)
            self.filters = _filter_bank(self.config)[1].to(self.window.device)
        return self


def _normalize(features: Tensor, valid: Tensor, floor: float) -> Tensor:
    """Zero mean and unit (biased) variance per utterance and bin, over the valid frames only.

    Frames of digital silence, at `floor` in all bins, and their neighbors, with windows that partly cover it, do not
    count, since they would distort the statistics of the recorded sound. Their features are raised to the lowest value
    that counts.
    """
    if features.shape[1] == 0:
        return features
    silent = valid & (features.amax(dim=2) <= floor + _FLOOR_TOLERANCE)
    recorded = valid & (nn.functional.max_pool1d(silent.float()[:, None], 3, 1, 1)[:, 0] == 0)
    counted = torch.where(recorded.any(dim=1, keepdim=True), recorded, valid)[:, :, None]
    count = counted.sum(dim=1, keepdim=True).clamp(min=1).to(features.dtype)
    # Relative to the first frame that counts, a constant bin is exactly zero, without rounding noise.
    first = features.gather(1, counted.int().argmax(dim=1, keepdim=True).expand(-1, -1, features.shape[2]))
    shifted = (features - first).masked_fill(~counted, 0.0)
    centered = features - first - shifted.sum(dim=1, keepdim=True) / count
    variance = centered.masked_fill(~counted, 0.0).square().sum(dim=1, keepdim=True) / count
    lowest = centered.masked_fill(~counted, torch.inf).amin(dim=1, keepdim=True)
    return torch.maximum(centered, lowest) / variance.sqrt().clamp(min=_STD_FLOOR)


def _filter_bank(config: FeatureConfig) -> tuple[int, Tensor]:
    """An FFT size for which no filter falls between bins, and the filters `(fft_size // 2 + 1, n_mels)`."""
    fft_size = 2 ** (config.window_samples - 1).bit_length()
    for size in (fft_size, 2 * fft_size, 4 * fft_size):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on empty filters, which this loop avoids
            filters = functional.melscale_fbanks(
                size // 2 + 1, config.low_hz, config.top_hz, config.n_mels, config.rate, norm=None, mel_scale="htk"
            )
        if bool((filters.amax(dim=0) > 0).all()):
            return size, filters
    raise ConfigError(
        f"features.n_mels {config.n_mels} is too many for {config.low_hz:g} to {config.top_hz:g} Hz "
        f"with a window of {config.window_ms:g} ms: lower n_mels or lengthen window_ms"
    )
