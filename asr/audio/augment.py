"""Augmentation of training data, drawn from (seed, epoch, utterance): speed, silence, reverb, noise, gain, masks."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from asr.audio.noise import RECORDED, MadeNoise, OtherSpeech, Recordings, add_noise, make_noise, seeded
from asr.audio.resample import resample
from asr.config import FilePath

if TYPE_CHECKING:
    from torch import Tensor

_SILENCE_PROBABILITY = 0.5  # at each end, so that utterances are also learned as they were recorded
_PEAK = 0.99  # to which an augmented waveform is scaled back if it would leave [-1, 1]
# Silence around a recording:
_BACKGROUND_SECONDS = 0.1  # the quietest stretch of this length is assumed to be the background
LEVELS_DB = (-30.0, 6.0)  # relative to the background
_DIGITAL = 0.2  # share of silences that are zeros, as in edited recordings
_WHITE = 0.5  # share of the others with a flat spectrum, as from another microphone


@dataclass(frozen=True)
class AugmentConfig:
    """The augmentations of a training utterance; the defaults change nothing.

    `speed`: factors, one drawn per utterance (the pitch changes too; Ko et al. 2015). `silence`: at most so many
    seconds of silence before an utterance, and after it, each with probability 1/2. `join`: share of the batches with
    joined utterances, if `batch_seconds` allows, so that long recordings occur in training: 2 to `join_up_to` at a
    time, a number drawn per batch, with at most `silence` seconds between. `gain_db`: largest change of level.
    `noise`: kinds of generated noise: white, pink, babble (see asr.audio.noise). `noise_dir`, `reverb_dir`: folders of
    recordings, including subfolders. With `noise_probability`, a noise of a kind drawn from `noise` and the folder is
    added at an SNR drawn from `noise_snr_db` (decibels); with `reverb_probability`, an impulse response is applied.
    Babble reads TALKERS other utterances, which is fast with `data.cache_audio`. SpecAugment (Park et al. 2019):
    `time_masks`, each shorter than `time_mask_ratio` of the utterance's frames, and `frequency_masks`, each narrower
    than `frequency_mask_width` mel bins. Raises ValueError on values out of range.
    """

    speed: tuple[float, ...] = ()
    silence: float = 0.0
    join: float = 0.0
    join_up_to: int = 2
    gain_db: float = 0.0
    noise: tuple[MadeNoise, ...] = ()
    noise_dir: FilePath = ""
    noise_snr_db: tuple[float, float] = (5.0, 20.0)
    noise_probability: float = 0.5
    reverb_dir: FilePath = ""
    reverb_probability: float = 0.3
    time_masks: int = 0
    time_mask_ratio: float = 0.05
    frequency_masks: int = 0
    frequency_mask_width: int = 15

    def __post_init__(self) -> None:
        for factor in self.speed:
            if not 0.5 <= factor <= 2.0:
                raise ValueError(f"speed factors must lie in [0.5, 2], found {factor:g}")
        for name in ("join", "noise_probability", "reverb_probability", "time_mask_ratio"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], found {getattr(self, name):g}")
        for name in ("silence", "gain_db", "time_masks", "frequency_masks", "frequency_mask_width"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name):g}")
        if self.join_up_to < 2:
            raise ValueError(f"join_up_to must be at least 2, found {self.join_up_to}")
        if self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise ValueError(f"noise_snr_db is (lowest, highest), found {self.noise_snr_db}")


class WaveAugment:
    """Speed, silence, reverberation, noise, gain, in the order in which they shape a recording. Can be pickled.

    The folders are listed once, in the constructor, which raises ConfigError if one is missing or has no recordings.
    The result depends only on samples, configuration, seed and other utterances, not on the process or random states.
    """

    def __init__(self, config: AugmentConfig, rate: int) -> None:
        self.config, self.rate = config, rate
        self.noises = Recordings(config.noise_dir, "augment.noise_dir", rate) if config.noise_dir else None
        self.impulses = Recordings(config.reverb_dir, "augment.reverb_dir", rate) if config.reverb_dir else None
        self.kinds = (*config.noise, *((RECORDED,) if self.noises else ()))

    def __call__(self, samples: np.ndarray, seed: tuple[int, ...], other: OtherSpeech | None = None) -> np.ndarray:
        """Augment `(time,)` float32 as drawn from `seed` = (run seed, epoch, utterance index); the input is kept.

        Babble is made of `other` utterances; without them, none is added.

        Length changes only with speed, to `ceil(time / speed)`, and by up to twice `silence`. If noise or gain would
        push samples out of [-1, 1], all samples are scaled back, so that augmentation never clips.
        """
        config = self.config
        draw = seeded("wave", seed)
        # Draw everything first, in a fixed order: switching one augmentation off does not change the others.
        which = draw.random()
        reverberate, impulse = draw.random() < config.reverb_probability, draw.random()
        noisy, noise, place = draw.random() < config.noise_probability, draw.random(), draw.random()
        snr = draw.uniform(*config.noise_snr_db)
        gain = draw.uniform(-config.gain_db, config.gain_db)

        peak = max(1.0, float(np.abs(samples).max(initial=0.0)))
        result = samples
        if config.speed:
            result = change_speed(result, config.speed[int(which * len(config.speed))])
        if config.silence and len(result):
            result = self._within_silence(result, seeded("silence", seed))
        if self.impulses and reverberate:
            result = reverb(result, self.impulses.impulse(impulse))
        if self.kinds and noisy:
            chosen, which = divmod(noise * len(self.kinds), 1.0)
            if (kind := self.kinds[int(chosen)]) == RECORDED and self.noises:
                added = self.noises.stretch(which, place, len(result))
            else:
                added = make_noise(kind, len(result), self.rate, seeded("noise", seed), other)
            result = add_noise(result, added, snr, self.rate)
        if gain:
            result = result * np.float32(10.0 ** (gain / 20.0))
        loudest = float(np.abs(result).max(initial=0.0))
        if loudest > peak:
            result = result * np.float32(_PEAK * peak / loudest)
        return np.array(result, dtype=np.float32) if result is samples else result.astype(np.float32, copy=False)

    def join(self, waveforms: Sequence[np.ndarray], seed: tuple[int, ...]) -> np.ndarray:
        """Concatenate waveforms `(time,)`, with up to `silence` seconds between them."""
        draw = seeded("join", seed)
        parts = [waveforms[0]]
        for waveform in waveforms[1:]:
            seconds = draw.uniform(0.0, self.config.silence)
            parts += [silence(parts[-1], round(seconds * self.rate), self.rate, draw), waveform]
        return np.concatenate(parts)

    def _within_silence(self, samples: np.ndarray, draw: random.Random) -> np.ndarray:
        parts = []
        for _ in range(2):
            added, seconds = draw.random() < _SILENCE_PROBABILITY, draw.uniform(0.0, self.config.silence)
            parts.append(silence(samples, round(seconds * self.rate) if added else 0, self.rate, draw))
        return np.concatenate([parts[0], samples, parts[1]])


def silence(samples: np.ndarray, count: int, rate: int, draw: random.Random) -> np.ndarray:
    """`(count,)` float32 samples of silence that resembles the background of `(time,)` samples at `rate` hertz."""
    kind, color, level = draw.random(), draw.random(), draw.uniform(*LEVELS_DB)
    generator = np.random.default_rng(draw.getrandbits(63))
    background = _quietest(samples, max(1, round(_BACKGROUND_SECONDS * rate)))
    rms = math.sqrt(float(np.mean(np.square(background, dtype=np.float64)))) if len(background) else 0.0
    if not count or kind < _DIGITAL or rms <= 0.0:
        return np.zeros(count, dtype=np.float32)
    noise = generator.standard_normal(count + len(background) - 1)
    if color < _WHITE:
        noise = noise[:count] * rms
    else:  # filtering white noise with the background as impulse response gives it the spectrum of the background
        size = 1 << (len(noise) + len(background)).bit_length()
        spectrum = np.fft.rfft(noise, n=size) * np.fft.rfft(background, n=size)
        noise = np.fft.irfft(spectrum, n=size)[len(background) - 1 : len(noise)] / math.sqrt(len(background))
    return (noise * 10.0 ** (level / 20.0)).astype(np.float32)


def _quietest(samples: np.ndarray, width: int) -> np.ndarray:
    """The stretch of `width` samples with the least energy; all samples if they are shorter than two stretches."""
    if len(samples) < 2 * width:
        return samples
    stretches = samples[: len(samples) // width * width].reshape(-1, width)
    return stretches[int(np.argmin(np.square(stretches, dtype=np.float64).sum(axis=1)))]


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Play `(time,)` samples `speed` times as fast, which raises the pitch above 1; gives `ceil(time / speed)`."""
    ratio = Fraction(speed).limit_denominator(1000)
    return resample(samples, ratio.numerator, ratio.denominator)


def reverb(samples: np.ndarray, impulse: np.ndarray) -> np.ndarray:
    """Convolve with an impulse response; its largest peak is taken as the direct sound, at time zero.

    Length, alignment and level (root mean square) are kept, so that word times stay valid.
    """
    direct = int(np.abs(impulse).argmax()) if len(impulse) else 0
    if not len(samples) or not len(impulse) or impulse[direct] == 0.0:
        return samples
    size = 1 << (len(samples) + len(impulse) - 2).bit_length()
    spectrum = np.fft.rfft(samples, n=size) * np.fft.rfft(impulse, n=size)
    result = np.fft.irfft(spectrum, n=size)[direct : direct + len(samples)]
    power, before = np.mean(np.square(result)), np.mean(np.square(samples, dtype=np.float64))
    return (result * math.sqrt(before / power)).astype(np.float32) if power > 0.0 else samples


def spec_augment(
    features: Tensor,
    lengths: Sequence[int],
    config: AugmentConfig,
    seeds: Sequence[tuple[int, ...]],
    normalized: bool = True,
) -> Tensor:
    """Mask stretches of time and bands of frequency in `(batch, frames, mels)`, with 0, the mean after normalization.

    Features that are not `normalized`, which must be zero in the padding, are masked with the mean of their utterance
    and band. `lengths` counts the frames of each utterance, which is masked within them by its own seed, the same
    alone and in any batch; no random state is touched. For training only. Returns a new tensor. Masks are drawn as in
    torchaudio: a width below the largest, then a start, both uniform. They are drawn in Python and sent to the device
    of the features in one piece, without waiting for it.
    """
    if not config.time_masks and not config.frequency_masks:
        return features
    _, frames, mels = features.shape
    times, bands = [], []
    for length, seed in zip(lengths, seeds, strict=True):
        draw = seeded("spec", seed)
        times.append(_spans(length, int(config.time_mask_ratio * length), config.time_masks, draw))
        bands.append(_spans(mels, min(config.frequency_mask_width, mels), config.frequency_masks, draw))
    hidden = _within(times, frames, features)[:, :, None] | _within(bands, mels, features)[:, None, :]
    if normalized:
        return features.masked_fill(hidden, 0.0)
    inside = _within([[(0, length)] for length in lengths], frames, features)[:, :, None]
    means = features.sum(dim=1, keepdim=True) / inside.sum(dim=1, keepdim=True).clamp(min=1)
    return features.where(~(hidden & inside), means)


def _spans(size: int, width: int, masks: int, draw: random.Random) -> list[tuple[int, int]]:
    """Start and end of `masks` random stretches of a row of `size`, each shorter than `width`."""
    spans = []
    for _ in range(masks):
        wide = draw.random() * width
        start = int(draw.random() * (size - wide))
        spans.append((start, start + int(wide)))
    return spans


def _within(spans: Sequence[Sequence[tuple[int, int]]], size: int, like: Tensor) -> Tensor:
    """`(rows, size)`, true within any of each row's spans, on the device of `like`."""
    import torch

    edges = torch.tensor(spans, dtype=torch.int32).reshape(len(spans), -1, 2, 1).to(like.device, non_blocking=True)
    places = torch.arange(size, device=like.device)
    return ((places >= edges[:, :, 0]) & (places < edges[:, :, 1])).any(dim=1)


def drawn(purpose: str, seed: tuple[int, ...]) -> float:
    """A number in [0, 1) that depends only on purpose and seed."""
    return seeded(purpose, seed).random()
