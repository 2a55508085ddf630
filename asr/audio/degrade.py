"""Degrading recordings in known ways to measure robustness: noise, rooms, speed, narrow bands, codecs, levels."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.audio.augment import change_speed, reverb
from asr.audio.noise import MADE_NOISES, RECORDED, OtherSpeech, Recordings, add_noise, make_noise, seeded
from asr.audio.resample import resample
from asr.config import nearest
from asr.types import AudioError, UsageError

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # hertz
_MP3_DELAY = 1105  # samples: 576 of LAME's encoder and 529 of a decoder
_LOWEST_BAND = 1000.0  # hertz


@dataclass(frozen=True)
class _Kind:
    unit: str
    least: float
    most: float
    default: float | None = None
    variants: tuple[str, ...] = ()  # names allowed in place of a value or before it


_KINDS = {
    "noise": _Kind("dB of SNR", -30.0, 80.0, variants=(*MADE_NOISES, RECORDED)),
    "reverb": _Kind("s of reverberation time", 0.1, 10.0, 0.5, (RECORDED,)),
    "speed": _Kind("times the speed", 0.5, 2.0),
    "band": _Kind("Hz of sampling rate", _LOWEST_BAND, math.inf),
    "mp3": _Kind("kbit/s", 8.0, 320.0),
    "gain": _Kind("dB", -90.0, 90.0),
    "clip": _Kind("of the peak", 0.001, 1.0, 0.25),
}


@dataclass(frozen=True)
class Degradation:
    """One condition: its kind, its variant if it has one ("pink" for noise), and its value in the unit of the kind."""

    kind: str
    value: float | None
    variant: str = ""

    @property
    def name(self) -> str:
        """The condition written in full, with defaults filled in: "noise:white:10"."""
        value = "" if self.value is None else f"{self.value:g}"
        return ":".join(filter(None, (self.kind, self.variant, value)))


def parse_degradations(words: Sequence[str], noise_dir: str = "", reverb_dir: str = "") -> list[Degradation]:
    """The distinct conditions for words such as "noise:pink:20,10" and "reverb". Raises UsageError.

    Noise without a variant is recorded noise if there is a `noise_dir`, else white noise; reverberation without a value
    uses the recordings in `reverb_dir`, if there is one.
    """
    parsed: list[Degradation] = []
    for word in words:
        kind, *rest = word.split(":")
        if kind not in _KINDS:
            hint = "; put the manifests before --degrade" if word.endswith((".jsonl", ".json", ".gz")) else ""
            raise UsageError(f"--degrade: unknown degradation '{kind}'{nearest(kind, _KINDS)}{hint}")
        about, folder = _KINDS[kind], {"noise": noise_dir, "reverb": reverb_dir}.get(kind, "")
        variant = rest.pop(0) if rest and rest[0] in about.variants else ""
        if not variant and (kind == "noise" or not rest):
            variant = RECORDED if folder else "white" * (kind == "noise")
        if variant == RECORDED and not folder:
            raise UsageError(f"--degrade {word}: give a folder of recordings with --{kind}-dir")
        if kind == "reverb" and variant:
            if rest:
                raise UsageError(f"--degrade {word}: recorded rooms have no value, write reverb:{RECORDED}")
            parsed.append(Degradation(kind, None, variant))
            continue
        if len(rest) > 1:
            raise UsageError(f"--degrade {word}: expected {kind}:VALUE[,VALUE]{_variants_in_words(about)}")
        if not rest and about.default is None:
            raise UsageError(f"--degrade {word}: no value in {about.unit}, expected {kind}:VALUE[,VALUE]")
        values = rest[0].split(",") if rest else [str(about.default)]
        parsed += [Degradation(kind, _value(word, text, about), variant) for text in values]
    for folder, option, kind in ((noise_dir, "--noise-dir", "noise"), (reverb_dir, "--reverb-dir", "reverb")):
        if folder and not any(d.kind == kind and d.variant == RECORDED for d in parsed):
            raise UsageError(f"{option} is not used: add {kind}:{RECORDED} to --degrade")
    return list(dict.fromkeys(parsed))


def _value(word: str, text: str, about: _Kind) -> float:
    try:
        value = float(text)
    except ValueError:
        variants = _variants_in_words(about)
        raise UsageError(f"--degrade {word}: '{text}' is not a number ({about.unit}){variants}") from None
    if not about.least <= value <= about.most:  # also false for NaN
        limits = f"at least {about.least:g}" if math.isinf(about.most) else f"from {about.least:g} to {about.most:g}"
        raise UsageError(f"--degrade {word}: {text} {about.unit} is not {limits}")
    return value


def _variants_in_words(about: _Kind) -> str:
    return f", or {', '.join(about.variants)}" if about.variants else ""


class Degrader:
    """Applies degradations to waveforms at `rate` hertz, in float32.

    Everything random is drawn from the utterance's id: it is the same in every run, on every machine, in any order, and
    the noise is the same at every SNR. Raises UsageError for what is impossible at this rate, ConfigError for folders
    without recordings.

    - noise: `add_noise` at an SNR in decibels, from the mean power of the noise and that of the speech without pauses.
    - reverb: convolution with `room`, or with a recorded impulse response; the level is kept.
    - speed: resampling, which also changes the pitch.
    - band: resampling to that rate and back.
    - mp3: encoding by LAME at that constant bit rate, and decoding.
    - gain: as if recorded with 16 bits at that level: rounded, and clipped at full scale.
    - clip: hard clipping at that share of the largest sample.
    """

    def __init__(
        self, degradations: Sequence[Degradation], rate: int, *, noise_dir: str = "", reverb_dir: str = ""
    ) -> None:
        self.rate = rate
        self._noises = Recordings(noise_dir, "--noise-dir", rate) if noise_dir else None
        self._impulses = Recordings(reverb_dir, "--reverb-dir", rate) if reverb_dir else None
        for degradation in degradations:
            if degradation.kind == "band" and degradation.value and degradation.value >= rate:
                raise UsageError(f"--degrade {degradation.name}: the model listens at {rate} Hz: choose a lower rate")
            if degradation.kind == "mp3":
                least, most = _bit_rates(rate)
                if not least <= (degradation.value or 0.0) <= most:
                    raise UsageError(
                        f"--degrade {degradation.name}: at {rate} Hz, MP3 has {least:g} to {most:g} kbit/s"
                    )
                _through_mp3(np.zeros(1152, dtype=np.float32), rate, most)  # raises if MP3 cannot be written

    def __call__(
        self, degradation: Degradation, samples: np.ndarray, name: str, other: OtherSpeech | None = None
    ) -> np.ndarray:
        """Degrade `(time,)` samples of the utterance with the id `name`; babble is made of `other` utterances.

        Only speed changes the length. Raises AudioError if the noise is silent or no other utterance can be read.
        """
        value = degradation.value or 0.0
        draw = seeded(degradation.kind, (degradation.variant, name))
        match degradation.kind:
            case "noise":
                noise = self._noise(degradation.variant, len(samples), draw, other)
                result = add_noise(samples, noise, value, self.rate)
            case "reverb":
                recorded = self._impulses if degradation.variant else None
                impulse = recorded.impulse(draw.random()) if recorded else room(value, self.rate, draw)
                result = reverb(samples, impulse)
            case "speed":
                result = change_speed(samples, value)
            case "band":
                narrow = resample(samples, self.rate, round(value))
                result = resample(narrow, round(value), self.rate)[: len(samples)]
            case "mp3":
                result = _through_mp3(samples, self.rate, value)
            case "gain":
                steps = np.rint(samples * (32768.0 * 10.0 ** (value / 20.0)))
                result = np.clip(steps, -32768.0, 32767.0) / 32768.0
            case _:
                limit = value * np.abs(samples).max(initial=0.0)
                result = np.clip(samples, -limit, limit)
        return result.astype(np.float32, copy=False)

    def _noise(self, kind: str, count: int, draw: random.Random, other: OtherSpeech | None) -> np.ndarray:
        if kind == RECORDED and self._noises:
            noise, problem = self._noises.stretch(draw.random(), draw.random(), count), "the recorded noise is silent"
        else:
            noise = make_noise(kind, count, self.rate, draw, other)
            problem = "no other utterance could be read to make babble of" if kind == "babble" else ""
        if problem and not noise.any():
            raise AudioError(problem)
        return noise


def room(reverberation_time: float, rate: int, draw: random.Random) -> np.ndarray:
    """The impulse response of a room, `(time,)` float32, after Polack's model.

    `h[0] = 1` is the direct sound. It is followed by Gaussian noise that decays by 60 dB in `reverberation_time` (RT60,
    seconds), `h[n] = g * w[n] * 10 ** (-3 n / (rate * RT60))`, and ends there; `g` gives it the energy of the direct
    sound, as at the critical distance of a room. (J.-D. Polack, "La transmission de l'energie sonore dans les salles",
    1988.)
    """
    count = round(reverberation_time * rate)
    noise = np.random.default_rng(draw.getrandbits(63)).standard_normal(count)
    tail = noise * 10.0 ** (-3.0 * np.arange(1, count + 1) / count)
    # The direct sound must stay the largest sample, which `reverb` takes as time zero.
    tail *= min(1.0 / math.sqrt(float(np.sum(tail**2))), 0.99 / float(np.abs(tail).max()))
    return np.concatenate([[1.0], tail]).astype(np.float32)


def _bit_rates(rate: int) -> tuple[float, float]:
    """The lowest and highest bit rate of MP3 (kbit/s) at a sampling rate (hertz)."""
    return (32.0, 320.0) if rate >= 32000 else (8.0, 160.0) if rate >= 16000 else (8.0, 64.0)


def _through_mp3(samples: np.ndarray, rate: int, bit_rate: float) -> np.ndarray:
    import soundfile

    least, most = _bit_rates(rate)
    level = min((most - bit_rate) / (most - least), 0.999)  # of compression: libsndfile derives the bit rate from it
    file = io.BytesIO()
    if "MP3" not in soundfile.available_formats() or rate not in MP3_RATES:
        raise UsageError(f"--degrade mp3: this libsndfile writes no MP3 at {rate} Hz; see `asr doctor`")
    try:
        # libsndfile would clip samples outside [-1, 1].
        peak = np.float32(max(1.0, np.abs(samples).max(initial=0.0)))
        soundfile.write(
            file,
            samples / peak,
            rate,
            format="MP3",
            subtype="MPEG_LAYER_III",
            compression_level=level,
            bitrate_mode="CONSTANT",
        )
    except TypeError:
        raise UsageError("--degrade mp3 needs soundfile 0.13 or newer: pip install --upgrade soundfile") from None
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    if len(decoded) > len(samples):  # low bit rates have no room for the header that gives the delay
        decoded = decoded[_MP3_DELAY:]
    return np.pad(decoded[: len(samples)], (0, max(0, len(samples) - len(decoded)))) * peak
