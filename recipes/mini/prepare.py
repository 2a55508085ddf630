"""Synthesizes the mini corpus, offline, as 16 kHz WAV; train, dev and test sets have different voices and sentences."""

from __future__ import annotations

import argparse
import random
from dataclasses import replace

from sentences import Grammar
from synthesize import Synthesizer, draw_voice, record
from tqdm import tqdm

from asr.corpus.manifest import write_manifest
from asr.recipe.corpus import Corpus
from asr.types import UsageError

CORPUS = Corpus(
    speech="English, synthesized by eSpeak NG from a grammar of 571 words",
    hours="1.8, or 2.3 from scratch",
    license="free; the synthesizer, eSpeak NG, is licensed under the GPL (version 3 or later)",
    homepage="https://github.com/espeak-ng/espeak-ng",
    disk_gb=0.28,
)
# In utterances. The sentences of dev and test are drawn after those of the largest training set, whichever is used, so
# that they are the same in all configurations; there are fewer of them for a training set of less than 900.
TRAINING_SETS = {"train": 2200, "train-3000": 3000}
SIZES = {"dev": 100, "test": 150}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    size = "size of the training set (default: 2200, or 3000 with --config scratch)"
    parser.add_argument("--utterances", type=int, metavar="N", help=size)
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other sentences (default: 1)")


def prepare(args: argparse.Namespace) -> None:
    """Write `audio/SPLIT/ID.wav` and the manifests below `args.data`; the seed determines every sample."""
    name = next((path.stem for path in args.manifests if path.stem in TRAINING_SETS), "train")
    size = TRAINING_SETS[name] if args.utterances is None else args.utterances
    if size < 1:
        raise UsageError(f"--utterances must be at least 1, found {size}")
    grammar = Grammar(args.seed)
    sentences = {"train": grammar.sentences(max(size, *TRAINING_SETS.values()))}
    for split, count in SIZES.items():
        known = {sentence.text for drawn in sentences.values() for sentence in drawn}
        sentences[split] = grammar.sentences(count, exclude=known)
    sentences = {split: drawn[: size if split == "train" else max(1, size // 6)] for split, drawn in sentences.items()}
    synthesizer = Synthesizer(args.seed)
    count = sum(map(len, sentences.values()))
    with tqdm(total=count, unit="utt", desc="synthesizing", disable=None, leave=False) as bar:
        for split, spoken in sentences.items():
            rows = []
            for i, sentence in enumerate(spoken):
                path = args.data / "audio" / split / f"{split}-{i:04d}.wav"
                chance = random.Random(f"{args.seed} {split} {i}")
                voice = draw_voice(split, chance)
                row = record(synthesizer, sentence.spoken, voice, path, chance)
                rows.append(replace(row, text=sentence.text, split=split))
                bar.update()
            write_manifest(args.data / f"{name if split == 'train' else split}.jsonl", rows)
