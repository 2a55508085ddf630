"""LJ Speech 1.1 (Ito and Johnson, 2017): one speaker, with whole chapters held out."""

from __future__ import annotations

import argparse
from pathlib import Path

from asr.corpus.manifest import Utterance
from asr.files import read_lines
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain
from asr.recipe.sets import add_shard_argument, split_by_first, to_flac, write_sets
from asr.types import ManifestError

CORPUS = Corpus(
    speech="English, one woman reads seven books of non-fiction",
    hours=24,
    license="public domain",
    homepage="https://keithito.com/LJ-Speech-Dataset/",
    disk_gb=8,
    archives=(
        Archive(
            "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
            2.7,
            "sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
        ),
    ),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)
    add_shard_argument(parser)


def prepare(args: argparse.Namespace) -> None:
    """Write `audio/lj/ID.flac` (16 kHz) and `{train,dev,test}.jsonl` below `args.data`."""
    root = obtain(args, CORPUS, "LJSpeech-1.1")
    utterances = to_flac(read_metadata(root), args.data / "audio", shard=args.shard)
    # a part of the corpus may have too few chapters
    write_sets(args.data, split_by_first({"chapter": chapter, "utterance": lambda u: u.id}, utterances))


def read_metadata(root: Path) -> list[Utterance]:
    """`metadata.csv`, without quoting: ID|as printed|as read, with numbers and abbreviations in words."""
    path = root / "metadata.csv"
    utterances = []
    for number, line in enumerate(read_lines(path, ManifestError), start=1):
        columns = line.split("|")
        if len(columns) != 3:
            raise ManifestError(f"{path}:{number}: expected ID|TEXT|NORMALIZED TEXT, found {len(columns)} columns")
        name, _, text = columns
        utterances.append(Utterance(name, str(root / "wavs" / f"{name}.wav"), 0.0, text, speaker="lj"))
    return utterances


def chapter(utterance: Utterance) -> str:
    return utterance.id.partition("-")[0]  # LJ001-0001
