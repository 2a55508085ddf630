"""Generated and recorded noise, and adding it at a signal-to-noise ratio, for training and evaluation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from asr.audio.read import probe, read
from asr.files import walk
from asr.types import AudioError, ConfigError

MadeNoise = Literal["white", "pink", "babble"]
MADE_NOISES: tuple[str, ...] = get_args(MadeNoise)
RECORDED = "recorded"  # noise from a folder
TALKERS = 6  # in babble; speech is hardest to understand among 6 to 8 (Simpson and Cooke, JASA 2005)
LOWEST_PINK = 20.0  # hertz; below this inaudible limit, pink noise would have half of its power
SPEECH_FRAME = 0.02  # seconds
SPEECH_RANGE_DB = 30.0
_ENDINGS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".sph", ".w64"}

# Returns the waveform (time,) of another utterance, chosen with the generator; no samples if it cannot be read.
OtherSpeech = Callable[[random.Random], np.ndarray]


def seeded(purpose: str, seed: tuple[int | str, ...]) -> random.Random:
    """A generator seeded by a hash of the arguments, so that neighboring seeds are unrelated."""
    return random.Random(":".join(map(str, (purpose, *seed))))


def speech_power(samples: np.ndarray, rate: int) -> float:
    """The mean square of the speech in `(time,)` samples: of the 20 ms frames within 30 dB of the loudest.

    Pauses do not count, so an utterance has the same power with and without silence around it.
    """
    width = max(1, round(SPEECH_FRAME * rate))
    frames = samples[: len(samples) // width * width] if len(samples) >= width else samples
    if not len(frames):
        return 0.0
    powers = np.square(frames, dtype=np.float64).reshape(-1, min(width, len(frames))).mean(axis=1)
    return float(powers[powers >= powers.max() * 10.0 ** (-SPEECH_RANGE_DB / 10.0)].mean())


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float, rate: int) -> np.ndarray:
    """`samples + g * noise`, with `g` such that `speech_power` is `snr_db` decibels above the noise's mean square.

    Noise is repeated or cut to the length of the samples. If either is silent, the samples are returned unchanged.
    """
    if not len(noise) or not len(samples):
        return samples
    noise = np.resize(noise, len(samples))
    power, noise_power = speech_power(samples, rate), float(np.mean(np.square(noise, dtype=np.float64)))
    if power <= 0.0 or noise_power <= 0.0:
        return samples
    return samples + noise * np.float32(math.sqrt(power / noise_power) * 10.0 ** (-snr_db / 20.0))


def make_noise(kind: str, count: int, rate: int, draw: random.Random, other: OtherSpeech | None = None) -> np.ndarray:
    """`(count,)` float32 samples of a noise in MADE_NOISES, at an arbitrary level.

    White noise is Gaussian. Pink noise has equal power in every octave above 20 Hz. Babble is TALKERS `other`
    utterances at once, equally loud, each from a random position on; it is empty without `other`.
    """
    if kind == "babble":
        return _babble(count, rate, draw, other) if other else np.zeros(0, dtype=np.float32)
    noise = np.random.default_rng(draw.getrandbits(63)).standard_normal(count)
    if kind == "pink" and count:
        frequencies = np.fft.rfftfreq(count, 1.0 / rate)
        weights = np.where(frequencies >= LOWEST_PINK, 1.0 / np.sqrt(np.maximum(frequencies, LOWEST_PINK)), 0.0)
        noise = np.fft.irfft(np.fft.rfft(noise) * weights, n=count)
    return noise.astype(np.float32)


def _babble(count: int, rate: int, draw: random.Random, other: OtherSpeech) -> np.ndarray:
    mixed = np.zeros(count)
    for _ in range(TALKERS):
        voice, start = other(draw), draw.random()
        if (power := speech_power(voice, rate)) > 0.0:
            mixed += np.resize(np.roll(voice, -int(start * len(voice))), count) / math.sqrt(power)
    return mixed.astype(np.float32)


class Recordings:
    """The recordings in a folder and its subfolders, sorted, to be read at `rate` hertz. Can be pickled.

    `where` is the setting that named the folder, for messages. Raises ConfigError if the folder is missing or has no
    recordings, or if a recording cannot be read.
    """

    def __init__(self, folder: str, where: str, rate: int) -> None:
        self.where, self.rate = where, rate
        if not Path(folder).is_dir():
            raise ConfigError(f"{where}: '{folder}' is not a folder")
        files = [parent / name for parent, names in walk(Path(folder).resolve()) for name in names]
        paths = sorted(str(path) for path in files if path.suffix.lower() in _ENDINGS)
        if not paths:
            raise ConfigError(f"{where}: '{folder}' holds no recordings ({', '.join(sorted(_ENDINGS))})")
        try:
            self.files = tuple((path, probe(path).duration) for path in paths)
        except AudioError as error:
            raise ConfigError(f"{where}: {error}") from error

    def stretch(self, which: float, place: float, count: int) -> np.ndarray:
        """`count` samples of recording `which` from `place` on (both in [0, 1)); all of it if it is shorter."""
        path, seconds = self.files[int(which * len(self.files))]
        needed = max(count / self.rate, 0.1)  # less might be no sample at the recording's own rate
        if needed >= seconds:
            return _read(path, self.rate, self.where)
        return _read(path, self.rate, self.where, place * (seconds - needed), needed)

    def impulse(self, which: float) -> np.ndarray:
        """The first channel of recording `which` (in [0, 1))."""
        return _impulse(self.files[int(which * len(self.files))][0], self.rate, self.where)


@lru_cache(maxsize=256)
def _impulse(path: str, rate: int, where: str) -> np.ndarray:
    return _read(path, rate, where, channel=0)


def _read(
    path: str, rate: int, where: str, offset: float = 0.0, duration: float | None = None, channel: str | int = "mix"
) -> np.ndarray:
    try:
        return read(path, rate=rate, offset=offset, duration=duration, channel=channel).samples
    except AudioError as error:
        raise ConfigError(f"{where}: {error}") from error
