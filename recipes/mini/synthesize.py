"""Speaks text with eSpeak NG through ctypes, to files: offline, about 2 ms an utterance. Needs espeakng-loader."""

from __future__ import annotations

import ctypes
import random
from pathlib import Path

import numpy as np
import soundfile

from asr.audio.read import from_array
from asr.corpus.manifest import Utterance
from asr.types import AsrError

INSTALL = "pip install -e '.[demo]'"
REINSTALL = "pip install --force-reinstall espeakng-loader"

RATE = 16000  # hertz
_SILENCE = 200  # of 32768; the ends of an utterance are trimmed below this level
_MARGIN = 0.08  # seconds kept before and after the speech
_PEAK = 0.7  # of full scale, to leave room for the overshoot of resampling

# A voice is an accent plus a variant, which is a vocal tract. All sets share the accents; the variants of dev and test
# are not in the training set. The robots, whispers and monsters among eSpeak's variants are left out.
ACCENTS = "en-us en en-gb-x-rp en-us-nyc"
VARIANTS = {
    "train": """
        m1 m2 m4 m5 m7 f1 f3 f5 Alex Andrea Andy Annie Denis Gene Mario Mike Nguyen Storm antonio aunty belinda croak ed
        grandpa john linda max michel paul pedro quincy sandro steph victor""",
    "dev": "m6 f4 pablo",
    "test": "m3 m8 f2 grandma",
}

# espeak-ng/speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_FLAGS = 0x001 | 0x100  # UTF-8; phonemes in [[double brackets]]
_POSITION_CHARACTER = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class SynthesisError(AsrError):
    """eSpeak NG is not installed, or refuses a voice or a text."""


class Synthesizer:
    """eSpeak NG in this process; its state is global, so use one at a time. `rate` is its sampling rate in hertz.

    Voices have breath and flutter from a random generator: in a new process, the same seed and the same sequence of
    calls give the same samples; a second Synthesizer in the same process continues from the library's internal state.
    """

    def __init__(self, seed: int = 1) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise SynthesisError(f"this recipe needs eSpeak NG from pip; run: {INSTALL}") from error
        try:
            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
            self._data = Path(espeakng_loader.get_data_path())
        except (OSError, RuntimeError) as error:
            raise SynthesisError(f"eSpeak NG cannot be loaded ({error}); run: {REINSTALL}") from error
        self._library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        self._library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
            ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        self.rate: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, str(self._data).encode(), _INITIALIZE_DONT_EXIT
        )
        if self.rate <= 0:
            raise SynthesisError(f"eSpeak NG cannot read its data in {self._data}; run: {REINSTALL}")
        self._library.espeak_ng_SetRandSeed(seed)
        self._blocks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._receive)  # kept: the C library holds only a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(
        self, text: str, voice: str = "en-us", *, words_per_minute: int = 175, pitch: int = 50, pitch_range: int = 50
    ) -> np.ndarray:
        """Samples of `text`, (time,) int16 at `self.rate`.

        `pitch` and `pitch_range` range from 0 to 100; 50 is the voice's own. `voice` is a language, alone or with a
        variant: "en-us", "en-gb-x-rp+m2". In `text`, [[double brackets]] enclose eSpeak phonemes. Raises SynthesisError
        for a voice that does not exist.
        """
        variant = voice.partition("+")[2]  # eSpeak silently ignores an unknown one
        known = not variant or (self._data / "voices" / "!v" / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SynthesisError(f"eSpeak NG has no voice '{voice}'")
        for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks.clear()
        encoded = text.encode() + b"\0"
        status = self._library.espeak_Synth(encoded, len(encoded), 0, _POSITION_CHARACTER, 0, _FLAGS, None, None)
        if status != 0 or not self._blocks:
            raise SynthesisError(f"eSpeak NG cannot speak '{text}' (status {status})")
        return np.concatenate(self._blocks)

    def _receive(self, samples: object, count: int, _events: object) -> int:
        if count > 0 and samples:
            self._blocks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0


def draw_voice(split: str, chance: random.Random) -> str:
    """One of the voices of a set."""
    return f"{chance.choice(ACCENTS.split())}+{chance.choice(VARIANTS[split].split())}"


def record(synthesizer: Synthesizer, spoken: str, voice: str, path: Path, chance: random.Random) -> Utterance:
    """Speak at a random speed, pitch and pitch range, and write WAV to `path`; the returned row has no text."""
    samples = synthesizer.speak(
        spoken,
        voice,
        words_per_minute=chance.randint(125, 180),
        pitch=chance.randint(30, 70),
        pitch_range=chance.randint(30, 70),
    )
    speech = trim(samples, synthesizer.rate).astype(np.float32)
    speech *= _PEAK / np.abs(speech).max(initial=1.0)
    audio = from_array(speech, synthesizer.rate, target_rate=RATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.samples, RATE, subtype="PCM_16")
    return Utterance(path.stem, str(path), len(audio.samples) / RATE, "", speaker=voice)


def trim(samples: np.ndarray, rate: int) -> np.ndarray:
    """The samples (time,) without the silence at both ends, except for a small margin."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _SILENCE)
    if not loud.size:
        return samples
    margin = int(_MARGIN * rate)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]
