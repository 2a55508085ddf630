"""Multilingual LibriSpeech (Pratap et al., 2020): one of eight languages, with the official split."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from asr.corpus.manifest import Utterance
from asr.files import read_lines, walk
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain
from asr.recipe.sets import write_sets
from asr.types import ManifestError, UsageError

# The size in GB and the published MD5 sum of each archive of Opus files.
LANGUAGES = {
    "dutch": (23, "96658c55ef85993a56cf2efbf6f83f57"),
    "english": (651, "60390221eec6f456611563b37f0b052c"),
    "french": (16, "b4716b2fd4f67b07c17c6b2a6068641f"),
    "german": (29, "b24a9dfd3a8dd1aeabc1341982cc4775"),
    "italian": (3.8, "ca5a74d7e97cc62635022719e0ef529d"),
    "polish": (1.6, "21f83647876c61566c96fdc6298a7b65"),
    "portuguese": (2.5, "4dbd6cbdda61268e5d26c4117b0bf769"),
    "spanish": (14, "a2c4b0ff02a71f10ddb21beffbe640ce"),
}
URL = "https://dl.fbaipublicfiles.com/mls/mls_{}_opus.tar.gz"
ARCHIVES = {name: Archive(URL.format(name), gb, f"md5:{md5}") for name, (gb, md5) in LANGUAGES.items()}
CORPUS = Corpus(
    speech="audio books in eight European languages",
    hours="104 (Polish) to 44,660 (English) for training",
    license="CC BY 4.0",
    homepage="https://www.openslr.org/94/",
    disk_gb="twice the download",
    archives=tuple(ARCHIVES.values()),
    download="1.6 GB (Polish) to 651 GB (English)",
)
LIMITED = {"10min": ("1hr/0",), "1h": ("1hr/*",), "10h": ("1hr/*", "9hr")}  # below train/limited_supervision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)
    parser.add_argument("--language", choices=LANGUAGES, default="polish", help="default: %(default)s, the smallest")
    parser.add_argument("--limited", choices=LIMITED, help="train only on the official subset of this length")


def archives(args: argparse.Namespace) -> list[Archive]:
    return [ARCHIVES[args.language]]


def prepare(args: argparse.Namespace) -> None:
    """Write `{train,dev,test}.jsonl` below `args.data`; the audio stays Opus, which the recognizer can read."""
    root = obtain(args, CORPUS, f"mls_{args.language}_opus", archives=archives(args))
    if args.unpacked and args.language not in root.name:
        raise UsageError(f"{root}: not the folder mls_{args.language}_opus: name it, or another --language")
    sets = {name: read_split(root / name) for name in ("train", "dev", "test")}
    if args.limited:
        chosen = read_handles(root / "train", LIMITED[args.limited])
        sets["train"] = [utterance for utterance in sets["train"] if utterance.id in chosen]
    write_sets(args.data, sets)


def read_split(folder: Path) -> list[Utterance]:
    """Transcripts `ID<TAB>TEXT`, times `ID<TAB>URL<TAB>START<TAB>END`, audio/SPEAKER/BOOK/SPEAKER_BOOK_NUMBER.opus."""
    texts = read_columns(folder / "transcripts.txt", 2)
    times = read_columns(folder / "segments.txt", 4)
    files = [below / name for below, names in walk(folder / "audio") for name in names]
    audio = {path.stem: path for path in files if path.suffix in (".opus", ".flac")}
    for what, having in (("recording", audio), ("line in segments.txt", times)):
        if lost := texts.keys() - having.keys():
            raise ManifestError(f"{folder}: {len(lost)} transcripts have no {what}, e.g. {min(lost)}: unpack it again")
    if spare := audio.keys() - texts.keys():
        print(f"{folder}: left out: {len(spare)} recordings without a transcript, e.g. {min(spare)}", file=sys.stderr)
    return [
        Utterance(name, str(audio[name]), round(float(end) - float(start), 3), text, speaker=name.partition("_")[0])
        for name, (text,) in texts.items()
        for _, start, end in [times[name]]
    ]


def read_columns(path: Path, count: int) -> dict[str, list[str]]:
    """{first column: the other columns}."""
    rows: dict[str, list[str]] = {}
    for number, line in enumerate(read_lines(path, ManifestError), start=1):
        name, *columns = line.strip().split("\t")
        if len(columns) != count - 1 or name in rows:
            fault = f"'{name}' occurs twice" if name in rows else f"expected {count} columns, found {len(columns) + 1}"
            raise ManifestError(f"{path}:{number}: {fault}")
        rows[name] = columns
    return rows


def read_handles(train: Path, places: tuple[str, ...]) -> set[str]:
    lists = [p for place in places for p in (train / "limited_supervision").glob(f"{place}/handles.txt")]
    if not lists:
        raise UsageError(f"{train}: contains no limited_supervision/{places[0]}/handles.txt")
    return {line.strip() for path in lists for line in read_lines(path, ManifestError)}
