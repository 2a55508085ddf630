"""AISHELL-1 (Bu et al., 2017): Mandarin in characters, with the official split."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from asr.corpus.archive import unpack
from asr.corpus.manifest import Utterance
from asr.files import read_lines
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain
from asr.recipe.sets import with_durations, write_sets
from asr.types import ManifestError, UsageError

CORPUS = Corpus(
    speech="Mandarin, 400 speakers from all over China read sentences",
    hours=178,
    license="Apache 2.0",
    homepage="https://www.openslr.org/33/",
    disk_gb=52,
    set_hours={"train": 150},
    mean_seconds=4.5,
    archives=(
        Archive("https://www.openslr.org/resources/33/data_aishell.tgz", 15.6, "md5:2f494334227864a8a8fec932999db9d8"),
    ),
)
TRANSCRIPT = "transcript/aishell_transcript_v0.8.txt"
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width to ordinary letters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)


def prepare(args: argparse.Namespace) -> None:
    """Write `{train,dev,test}.jsonl` below `args.data`, and to `wav` the audio that is still packed by speaker."""
    root = obtain(args, CORPUS, "data_aishell")
    if not (root / TRANSCRIPT).is_file():
        raise UsageError(f"{root}: contains no {TRANSCRIPT}: name the folder data_aishell")
    texts = read_transcript(root / TRANSCRIPT)
    for archive in sorted((root / "wav").glob("*.tar.gz")):
        unpack(archive, args.data / "wav")
    sets: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    spare = 0
    for folder in dict.fromkeys((args.data / "wav", root / "wav")):
        for name, rows in sets.items():
            for path in sorted(folder.glob(f"{name}/*/*.wav")):
                text = texts.pop(path.stem, "")
                spare += not text
                if text:
                    rows.append(Utterance(path.stem, str(path), 0.0, text, speaker=path.parent.name))
    if texts:
        raise ManifestError(
            f"{root / 'wav'}: {len(texts)} transcripts have no recording, e.g. {min(texts)}: unpack it again"
        )
    if spare:
        print(f"left out: {spare} recordings without a transcript (325 in the official corpus)", file=sys.stderr)
    write_sets(args.data, {name: with_durations(rows) for name, rows in sets.items()})


def read_transcript(path: Path) -> dict[str, str]:
    """{id: text} without spaces, which only reflect one way to divide the text into words."""
    texts: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, ManifestError), start=1):
        if not line.strip():
            continue
        name, *words = line.split()
        if not words:
            raise ManifestError(f"{path}:{number}: '{name}' has no text")
        if name in texts:
            raise ManifestError(f"{path}:{number}: '{name}' occurs twice")
        texts[name] = "".join(words).translate(_WIDE)
    return texts
