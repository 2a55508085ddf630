"""Common Voice (Ardila et al., 2020): any language of a release, with its official dev and test sets."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from selection import ALL, learnable, shared_sentences, with_alphabet

from asr.corpus.manifest import Utterance
from asr.corpus.tables import table_rows
from asr.files import read_lines, read_text
from asr.recipe.corpus import Corpus, add_source_arguments, obtain, source_paths
from asr.recipe.sets import with_durations, write_sets
from asr.types import ManifestError, UsageError

CORPUS = Corpus(
    speech="any of more than 280 languages, volunteers read sentences",
    hours="depends on the language",
    license="CC0 1.0",
    homepage="https://datacollective.mozillafoundation.org/",
    disk_gb="twice the download",
    by_hand="the Mozilla Data Collective gives each language's archive to anyone who agrees to its terms",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)
    language = "the language, such as de, if the folder contains several"
    parser.add_argument("--language", metavar="CODE", default="", help=language)
    table = "table of the training set (default: %(default)s)"
    parser.add_argument("--train", choices=("train", "validated"), default="train", help=table)
    digits = "training texts that contain digits (default: %(default)s)"
    parser.add_argument("--digits", choices=("leave-out", "keep"), default="leave-out", help=digits)
    normalizer = "rules for case and punctuation, as text.normalizer (default: %(default)s)"
    parser.add_argument("--normalizer", default="basic", help=normalizer)
    parser.add_argument("--alphabet", metavar="FILE", default="", help=f"file of the letters to learn, or '{ALL}'")


def sources(args: argparse.Namespace) -> list[Path]:
    return [*source_paths(args), *([Path(args.alphabet)] if args.alphabet not in ("", ALL) else [])]


def prepare(args: argparse.Namespace) -> None:
    """Write `{train,dev,test}.jsonl` below `args.data`; the clips stay MP3 files."""
    folder = find_language(obtain(args, CORPUS, ""), args.language)
    seconds = read_durations(folder / "clip_durations.tsv")
    files = {path.name for path in (folder / "clips").iterdir()} if (folder / "clips").is_dir() else set()
    sets = {name: read_set(folder / f"{name}.tsv", files, seconds) for name in (args.train, "dev", "test")}
    sets = {"train": sets[args.train], "dev": sets["dev"], "test": sets["test"]}
    for line in shared_sentences(sets) if args.train == "train" else ():
        print(f"note: {line}", file=sys.stderr)
    clips = learnable(sets["train"], sets["dev"] + sets["test"], args.digits == "keep")
    sets["train"] = with_alphabet(clips, args.alphabet, args.normalizer, args.data / "alphabet.txt")
    for name, rows in sets.items():
        probed = {row.id: row for row in with_durations([row for row in rows if not row.duration])}
        sets[name] = [probed.get(row.id, row) for row in rows if row.duration or row.id in probed]
    write_sets(args.data, sets)


def find_language(root: Path, language: str) -> Path:
    """The folder with train.tsv: `root`, or LANGUAGE or cv-corpus-N-DATE/LANGUAGE in it."""
    if (root / "train.tsv").is_file() and language in ("", root.name):
        return root
    name = language or "*"
    folders = [path.parent for p in (f"{name}/train.tsv", f"*/{name}/train.tsv") for path in sorted(root.glob(p))]
    if len(folders) != 1:
        names = ", ".join(path.name for path in folders) or "none"
        raise UsageError(f"{root}: expected one folder of a language with train.tsv, found {names}: use --language")
    return folders[0]


def read_durations(path: Path) -> dict[str, float]:
    """{clip file name: seconds}; empty for releases before 16.1, which have no such table."""
    rows = [line.split("\t") for line in read_lines(path, ManifestError)][1:] if path.is_file() else []
    return {row[0]: int(row[1]) / 1000 for row in rows if len(row) == 2 and row[1].isdecimal()}


def read_set(path: Path, files: set[str], seconds: dict[str, float]) -> list[Utterance]:
    """The clips of a table; `extra` holds the votes."""
    rows = [row for row in table_rows(path, read_text(path, ManifestError), clips=True) if row]
    names = [Path(row["audio_filepath"]).name for row in rows]
    if lost := [name for name in names if name not in files]:
        raise ManifestError(
            f"{path}: {len(lost)} of its {len(rows)} clips are not in clips/, e.g. {lost[0]}: unpack again"
        )
    if len(set(names)) < len(names):
        raise ManifestError(f"{path}: the clip {Counter(names).most_common(1)[0][0]} occurs twice")
    clips = []
    for name, row in zip(names, rows, strict=True):
        extra = {key: row[key] for key in row if key in ("up_votes", "down_votes")}
        clip = Utterance(Path(name).stem, row["audio_filepath"], seconds.get(name, 0.0), row["text"], extra=extra)
        clips.append(replace(clip, speaker=row.get("speaker", "")))
    return clips
