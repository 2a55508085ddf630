"""VCTK 0.92 (Yamagishi et al., 2019): English accents, with whole speakers held out."""

from __future__ import annotations

import argparse
from pathlib import Path

from asr.corpus.manifest import Utterance
from asr.files import read_text
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain
from asr.recipe.sets import add_shard_argument, split_by, to_flac, write_sets
from asr.types import ManifestError

CORPUS = Corpus(
    speech="English, 110 people with various accents read newspaper sentences",
    hours=44,
    license="CC BY 4.0",
    homepage="https://datashare.ed.ac.uk/handle/10283/3443",
    disk_gb=30,
    archives=(
        Archive(
            "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip",
            11.7,
            "sha256:f96258be9fdc2cbff6559541aae7ea4f59df3fcaf5cf963aae5ca647357e359c",
        ),
    ),
)
AUDIO = "wav48_silence_trimmed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)
    add_shard_argument(parser)
    parser.add_argument("--mic", choices=("mic1", "mic2"), default="mic1", help="the microphone (default: mic1)")


def prepare(args: argparse.Namespace) -> None:
    """Write `audio/SPEAKER/ID.flac` (16 kHz) and `{train,dev,test}.jsonl` below `args.data`."""
    suffix = f"_{args.mic}.flac"
    root = obtain(args, CORPUS, AUDIO).parent
    utterances = to_flac(read_speakers(root, suffix), args.data / "audio" / args.mic, shard=args.shard)
    write_sets(args.data, split_by(lambda u: u.speaker, utterances))


def read_speakers(root: Path, suffix: str) -> list[Utterance]:
    """The recordings of one microphone that have a text: p315 has no texts, p280 and p362 have no mic2 recordings."""
    utterances = []
    for path in sorted((root / AUDIO).glob(f"*/*{suffix}")):
        name, speaker = path.name.removesuffix(suffix), path.parent.name
        text = root / "txt" / speaker / f"{name}.txt"
        if text.exists():
            utterances.append(Utterance(name, str(path), 0.0, read_text(text).strip(), speaker=speaker))
    if not utterances:
        raise ManifestError(f"{root}: no {AUDIO}/SPEAKER/*{suffix} with a text in txt/SPEAKER: not VCTK 0.92")
    return utterances
