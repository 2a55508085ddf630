"""python speak_names.py FOLDER: spoken sentences with invented names, and the text that knows all names but one.

Run in a process of its own: only there do eSpeak NG's random numbers begin anew, so that every sample is the same.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "mini"))

from synthesize import RATE, Synthesizer, trim

from asr.audio.read import from_array

RARE = "dilo"  # in no sentence of the training set, and not in the text of the language model
NAMES = ("lino", "mila", "tina", "lena", "pino", "rita", "dora")
RIVAL = "dino"  # what the language model makes of the rare name
VERBS = ("porta", "saluta", "trova", "invita")
TIMES = ("domani", "subito", "ora", "dopo")
NOISE = 0.002  # of full scale: enough doubt for the language model to decide


def main(folder: Path) -> None:
    """Write train, dev (clean), rare and known (noisy) .jsonl with their audio, and lm.txt."""
    chance, noise = random.Random(1), np.random.default_rng(1)
    synthesizer = Synthesizer(1)

    def name() -> str:
        """Two syllables that are written as they are spoken; never the rare name."""
        found = "".join(chance.choice(letters) for letters in ("bdflmnprst", "aeiou") * 2)
        return found if found != RARE else name()

    def sentence(of: str) -> str:
        return f"{chance.choice(VERBS)} {of} {chance.choice(TIMES)}"

    def write(split: str, sentences: list[str], level: float) -> None:
        rows = []
        for number, text in enumerate(sentences):
            spoken = trim(synthesizer.speak(text, "it", words_per_minute=150), synthesizer.rate).astype(np.float32)
            samples = from_array(0.7 * spoken / np.abs(spoken).max(), synthesizer.rate, target_rate=RATE).samples
            samples += (level * noise.standard_normal(len(samples))).astype(np.float32)
            path = folder / f"{split}-{number:03d}.wav"
            soundfile.write(path, samples, RATE, subtype="PCM_16")
            rows.append({"audio_filepath": path.name, "duration": len(samples) / RATE, "text": text})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")

    write("train", [sentence(name()) for _ in range(240)], 0.0)
    write("dev", [sentence(name()) for _ in range(12)], 0.0)
    write("rare", [f"{verb} {RARE} {time}" for verb in VERBS[:2] for time in TIMES[:2]], NOISE)
    write("known", [sentence(known) for known in NAMES], NOISE)
    known = [f"{verb} {of} {time}" for verb in VERBS for of in (*NAMES, RIVAL) for time in TIMES]
    (folder / "lm.txt").write_text("\n".join(known) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
