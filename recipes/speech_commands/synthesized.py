"""A synthesized version of the corpus: the same words, spoken by eSpeak NG, with separate voices for each set."""

from __future__ import annotations

import itertools
import random
import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from asr.corpus.manifest import Utterance
from asr.recipe.sets import write_sets
from asr.types import UsageError

WORDS = [
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy"),
    *("house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop"),
    *("three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
]


def synthesize(folder: Path, clips: int | None, seed: int) -> None:
    """Write `audio/SET/ID.wav` and {train,dev,test}.jsonl below `folder`: each word in each voice of a set.

    With `clips`, each word is spoken in at most this many voices of a set, drawn at random.
    """
    sys.path.append(str(Path(__file__).parents[1] / "mini"))
    from synthesize import ACCENTS, VARIANTS, Synthesizer, record

    if clips is not None and clips < 1:
        raise UsageError(f"--clips must be at least 1, found {clips}")
    synthesizer = Synthesizer(seed)
    sets: dict[str, list[Utterance]] = {}
    for name, variants in VARIANTS.items():
        voices = ["+".join(pair) for pair in itertools.product(ACCENTS.split(), variants.split())]
        rows = sets.setdefault(name, [])
        for word in tqdm(WORDS, f"synthesizing {name}", unit="word", disable=None, leave=False):
            chance = random.Random(f"{seed} {name} {word}")
            for i, voice in enumerate(chance.sample(voices, min(clips or len(voices), len(voices)))):
                row = record(synthesizer, word, voice, folder / "audio" / name / f"{word}-{name}-{i:03d}.wav", chance)
                rows.append(replace(row, text=word, extra={"label": word}))
    write_sets(folder, sets)
