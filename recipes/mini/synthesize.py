"""Speaks text with eSpeak NG through ctypes: offline, about 2 ms an utterance. Needs espeakng-loader from pip."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from asr.types import AsrError

INSTALL = "pip install -e '.[demo]'"
REINSTALL = "pip install --force-reinstall espeakng-loader"

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
    """eSpeak NG in this process (its state is global: one at a time). `rate` is its sampling rate, in hertz.

    Voices have breath and flutter from a random generator: in a fresh process the same seed and the same sequence of
    calls give the same samples; a second Synthesizer in one process goes on from the library's inner state.
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

        `pitch` and `pitch_range` go from 0 to 100, 50 is the voice's own. `voice` is a language, alone or with a
        variant: "en-us", "en-gb-x-rp+m2". In `text`, [[double brackets]] hold eSpeak phonemes. Raises SynthesisError
        for a voice that does not exist.
        """
        variant = voice.partition("+")[2]  # an unknown one would silently be the plain voice
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
