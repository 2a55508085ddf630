"""Synthesizes the mini corpus, offline: 16 kHz WAV; train, dev and test sets have different voices and sentences."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import soundfile
from sentences import Grammar, Sentence
from synthesize import Synthesizer
from tqdm import tqdm

from asr.audio.read import from_array
from asr.corpus.manifest import Utterance, write_manifest
from asr.recipe.corpus import Corpus
from asr.types import UsageError

CORPUS = Corpus(
    speech="English, synthesized by eSpeak NG from a grammar of 571 words",
    hours="1.8, or 2.3 from scratch",
    license="free; eSpeak NG, which speaks it, is under the GPL (version 3 or later)",
    homepage="https://github.com/espeak-ng/espeak-ng",
    disk_gb=0.28,
)
RATE = 16000  # hertz
_SILENCE = 200  # of 32768: below it, the ends of an utterance are cut away
_MARGIN = 0.08  # seconds kept before and after the speech
_PEAK = 0.7  # of full scale: room for what resampling adds

# A voice is an accent and a variant, another vocal tract. All sets share the accents; the variants of dev and test are
# not in the training set. The robots, whispers and monsters among eSpeak's variants are left out.
ACCENTS = "en-us en en-gb-x-rp en-us-nyc"
VARIANTS = {
    "train": """
        m1 m2 m4 m5 m7 f1 f3 f5 Alex Andrea Andy Annie Denis Gene Mario Mike Nguyen Storm antonio aunty belinda croak ed
        grandpa john linda max michel paul pedro quincy sandro steph victor""",
    "dev": "m6 f4 pablo",
    "test": "m3 m8 f2 grandma",
}


# Utterances. The sentences of dev and test are drawn after those of the largest training set, whichever is spoken, so
# that all configurations have the same ones; a training set of less than 900 gets fewer of them.
TRAINING_SETS = {"train": 2200, "train-3000": 3000}
SIZES = {"dev": 100, "test": 150}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--utterances", type=int, metavar="N", help="size of the training set (2200, or 3000 with --config scratch)"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other sentences (default: 1)")


def sources(args: argparse.Namespace) -> list[Path]:
    """The input files of the preparation: none, as everything is synthesized."""
    return []


def prepare(args: argparse.Namespace) -> None:
    """Write `audio/SPLIT/ID.wav` and the manifests below `args.data`; the seed decides every sample."""
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
                rows.append(_record(sentence, split, path, synthesizer, random.Random(f"{args.seed} {split} {i}")))
                bar.update()
            write_manifest(args.data / f"{name if split == 'train' else split}.jsonl", rows)


def _record(sentence: Sentence, split: str, path: Path, synthesizer: Synthesizer, chance: random.Random) -> Utterance:
    voice = f"{chance.choice(ACCENTS.split())}+{chance.choice(VARIANTS[split].split())}"
    samples = synthesizer.speak(
        sentence.spoken,
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
    duration = len(audio.samples) / RATE
    return Utterance(path.stem, str(path), duration, sentence.text, speaker=voice, split=split)


def trim(samples: np.ndarray, rate: int) -> np.ndarray:
    """(time,) samples without the silence at both ends, up to a small margin."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > _SILENCE)
    if not loud.size:
        return samples
    margin = int(_MARGIN * rate)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]
