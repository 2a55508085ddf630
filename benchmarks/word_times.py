"""Word times of forced alignment and of decoding against the exact ones of synthesized speech.

    python benchmarks/word_times.py MODEL [--output benchmarks/results/word_times.json]

MODEL is one of the mini recipe, whose voices these are (the test set's). eSpeak NG reports the sample at which each
word and each phoneme begins; a word ends where the next one or a pause begins. Needs the extra `demo`. Words that
eSpeak runs together into one ("of the") have no boundary between them and are left out there. Fails if the mean
absolute error of the aligned boundaries is not below 80 ms.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes" / "mini"))
import synthesize
from sentences import Grammar

import asr
from asr.audio.read import from_array
from asr.recognition.alignment import align_recording
from asr.recognition.inputs import as_recording
from asr.training.record import provenance
from asr.types import AsrError, Word

LIMIT = 0.080  # seconds
_WORD, _END, _PHONEME = 1, 5, 7  # espeak_EVENT_TYPE in espeak-ng/speak_lib.h
_PHONEME_EVENTS = 0x0001


class Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


@dataclass
class Truth:
    """Begin and end of each word in seconds, None where the synthesizer marks none."""

    starts: list[float | None]
    ends: list[float | None]


class TimedSynthesizer(synthesize.Synthesizer):
    """The recipe's synthesizer, which keeps what the library says about times."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        options = synthesize._INITIALIZE_DONT_EXIT | _PHONEME_EVENTS
        self._library.espeak_Initialize(synthesize._AUDIO_OUTPUT_SYNCHRONOUS, 0, str(self._data).encode(), options)
        self._library.espeak_ng_SetRandSeed(seed)
        self._library.espeak_SetSynthCallback(self._callback)
        self.events: list[tuple[int, int, int, bytes]] = []  # type, text position, sample, phoneme

    def _receive(self, samples: object, count: int, events: object) -> int:
        pointer = ctypes.cast(events, ctypes.POINTER(Event))  # type: ignore[arg-type]
        i = 0
        while pointer[i].type:
            event = pointer[i]
            name = bytes(event.id) if event.type == _PHONEME else b""
            self.events.append((event.type, event.text_position, event.sample, name))
            i += 1
        status: int = super()._receive(samples, count, events)
        return status

    def truth(self, text: str) -> Truth:
        """When the words of the text spoken last began and ended."""
        words = text.split()
        position: dict[int, int] = {}
        at = 0
        for i, word in enumerate(words):
            at = text.index(word, at)
            position[at + 1] = i
            at += len(word)
        starts: list[float | None] = [None] * len(words)
        ends: list[float | None] = [None] * len(words)
        current: int | None = None
        for kind, text_position, sample, phoneme in self.events:
            seconds = sample / self.rate
            pause = kind == _PHONEME and phoneme.startswith(b"_")
            if current is not None and ends[current] is None and (kind in (_WORD, _END) or pause):
                ends[current] = seconds
            if kind == _WORD:
                current = position.get(text_position)
            elif kind == _PHONEME and not pause and current is not None and starts[current] is None:
                starts[current] = seconds
        for i in range(1, len(words)):
            if starts[i] is None:
                ends[i - 1] = None
        return Truth(starts, ends)


def errors(words: list[Word], truth: Truth) -> tuple[list[float], list[float]]:
    """Measured minus true, in seconds, of begins and of ends."""
    begins = [w.start - t for w, t in zip(words, truth.starts, strict=True) if t is not None]
    ends = [w.end - t for w, t in zip(words, truth.ends, strict=True) if t is not None]
    return begins, ends


def figures(begins: list[float], ends: list[float]) -> dict[str, Any]:
    """Milliseconds."""
    both = np.abs(np.array([*begins, *ends]))
    return {
        "boundaries": len(both),
        "mean_absolute_error_ms": round(1000 * float(both.mean()), 1),
        "begins_ms": round(1000 * float(np.abs(begins).mean()), 1),
        "ends_ms": round(1000 * float(np.abs(ends).mean()), 1),
        "bias_begins_ms": round(1000 * float(np.mean(begins)), 1),
        "bias_ends_ms": round(1000 * float(np.mean(ends)), 1),
        "median_ms": round(1000 * float(np.median(both)), 1),
        "p95_ms": round(1000 * float(np.percentile(both, 95)), 1),
        "within_50_ms": round(float((both <= 0.05).mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", help="model file of the mini recipe")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--seed", type=int, default=101, help="of sentences and voices; none of the recipe's own")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    recognizer = asr.load(args.model, device="cpu")
    synthesizer = TimedSynthesizer(args.seed)
    sentences = [s for s in Grammar(args.seed).sentences(args.utterances, exclude=set()) if s.spoken == s.text]
    aligned: tuple[list[float], list[float]] = ([], [])
    decoded: tuple[list[float], list[float]] = ([], [])
    right = 0
    for i, sentence in enumerate(sentences):
        chance = random.Random(f"{args.seed} {i}")
        voice = f"{chance.choice(synthesize.ACCENTS.split())}+{chance.choice(synthesize.VARIANTS['test'].split())}"
        synthesizer.events.clear()
        samples = synthesizer.speak(
            sentence.spoken,
            voice,
            words_per_minute=chance.randint(125, 180),
            pitch=chance.randint(30, 70),
            pitch_range=chance.randint(30, 70),
        ).astype(np.float32)
        samples *= 0.7 / np.abs(samples).max()
        audio = from_array(samples, synthesizer.rate, target_rate=recognizer.rate)
        recording = as_recording((audio.samples, recognizer.rate))
        truth = synthesizer.truth(sentence.text)
        heard = recognizer.transcribe(recording)
        for found, sums in (
            (align_recording(recognizer, recording, sentence.text).words, aligned),
            (heard.words if heard.text == sentence.text else (), decoded),
        ):
            if found:
                for total, part in zip(sums, errors(list(found), truth), strict=True):
                    total += part
        right += heard.text == sentence.text
    report = provenance() | {
        "model": Path(args.model).name,
        "sentences": len(sentences),
        "frame_ms": round(1000 * recognizer.frame_seconds),
        "aligned": figures(*aligned),
        "greedy_where_right": {"sentences": right, **(figures(*decoded) if right else {})},
    }
    print(json.dumps(report, indent=1))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if report["aligned"]["mean_absolute_error_ms"] >= 1000 * LIMIT:
        sys.exit(f"the mean absolute error is not below {1000 * LIMIT:.0f} ms")


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"word_times.py: error: {error}")
