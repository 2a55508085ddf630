"""TED-LIUM release 3 (Hernandez et al., 2018), `legacy` distribution, with the older dev and test sets."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path, PurePosixPath

from asr.audio.read import probe
from asr.corpus.manifest import Utterance
from asr.files import read_text
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain
from asr.recipe.sets import write_sets
from asr.scoring.nist_files import read_stm
from asr.types import ManifestError, UsageError

CORPUS = Corpus(
    speech="English, TED talks, 2,351 for training",
    hours=452,
    license="CC BY-NC-ND 3.0",
    homepage="https://www.openslr.org/51/",
    disk_gb=108,
    archives=(
        Archive(
            "https://www.openslr.org/resources/51/TEDLIUM_release-3.tgz",
            54,
            "sha256:ad1e454d14d1ad550bc2564c462d87c7a7ec83d4dc2b9210f22ab4973b9eccdb",
        ),
    ),
)
UNKNOWN = "<unk>"
# Noises such as {BREATH}, pauses, the number of a pronunciation as in the(2), and a segment's name at the line's end.
_MARKS = re.compile(r"\{[A-Z]+\}|<sil>|(?<=\w)\(\d+\)|\([^()\s]*-\d+\)[ \t]*$", re.MULTILINE)
_CLITIC = re.compile(r"(?<=\w) (?='(?:s|re|ve|ll|d|m|t)\b)")  # it 's, don 't


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)


def prepare(args: argparse.Namespace) -> None:
    """Write `{train,dev,test}.jsonl` below `args.data`: segments of the talks, which stay in their SPH files."""
    root = obtain(args, CORPUS, "TEDLIUM_release-3", keep=is_wanted)
    train = root / "legacy" / "train"  # in the archive, links to data
    sets = {"train": train if (train / "stm").is_dir() else root / "data"}
    sets |= {name: root / "legacy" / name for name in ("dev", "test")}
    rows = {name: read_talks(folder) for name, folder in sets.items()}
    known = [utterance for utterance in rows["train"] if UNKNOWN not in utterance.text]
    if left := len(rows["train"]) - len(known):
        print(f"left out: {left} training segments with {UNKNOWN}, a word that nobody understood", file=sys.stderr)
    write_sets(args.data, {**rows, "train": known})


def is_wanted(path: PurePosixPath) -> bool:
    """Whether to unpack a file: the talks and the old dev and test sets, but not links or language model texts."""
    inside = path.parts[1:]
    return inside[:2] in (("data", "sph"), ("data", "stm")) or inside[:2] in (("legacy", "dev"), ("legacy", "test"))


def read_talks(folder: Path) -> list[Utterance]:
    """The segments of stm/TALK.stm in sph/TALK.sph, except empty ones and those that scoring ignores."""
    tables = sorted((folder / "stm").glob("*.stm"))
    if not tables:
        raise UsageError(f"{folder}: contains no stm/*.stm: name the folder TEDLIUM_release-3, or unpack it again")
    if spare := {path.stem for path in (folder / "sph").glob("*.sph")} - {path.stem for path in tables}:
        raise ManifestError(f"{folder}: {len(spare)} talks have no stm, e.g. {min(spare)}: unpack the archive again")
    utterances = []
    for table in tables:
        audio = folder / "sph" / f"{table.stem}.sph"
        if not audio.is_file():
            raise ManifestError(f"{audio}: missing, but {table} describes it: unpack the archive again")
        length = probe(str(audio)).duration
        for line in read_stm(str(table), _MARKS.sub("", read_text(table, ManifestError))).lines:
            text, start = clean(line.text or ""), line.offset
            seconds = round(min(line.duration or 0.0, length - start), 3)
            if seconds <= 0:
                raise ManifestError(
                    f"{table}: a segment begins at {start:g} s, after the end of {audio} ({length:g} s)"
                )
            if text:
                row = Utterance(line.id, str(audio), seconds, text, start, line.speaker, segment=True)
                utterances.append(row)
    return utterances


def clean(text: str) -> str:
    """The text without marks, and with words joined that were divided at an apostrophe."""
    return _CLITIC.sub("", " ".join(_MARKS.sub("", text).split()))
