"""VoxForge, English: an archive per submission; named speakers are held out, anonymous ones are only in training."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from asr.corpus.archive import ArchiveError, unpack
from asr.corpus.download import download
from asr.corpus.manifest import Utterance
from asr.recipe.corpus import Corpus, add_source_arguments
from asr.recipe.sets import add_shard_argument, split_by_first, to_flac, write_sets
from asr.types import UsageError

INDEX = "http://www.repository.voxforge1.org/downloads/SpeechCorpus/Trunk/Audio/Main/16kHz_16bit"
CORPUS = Corpus(
    speech="English, volunteers read ten sentences or so with their own microphones",
    hours="not published; the preparation counts them",
    license="GPL 3 (or later); each submission keeps its license and README",
    homepage="https://www.voxforge.org",
    disk_gb="about 2.5 times the archives",
    by_hand=f"thousands of small archives, listed at {INDEX}",
)
PROMPTS = ("prompts-original", "PROMPTS")  # the first has the case and punctuation of what was read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)
    add_shard_argument(parser)
    parser.add_argument("--download", action="store_true", help="download all submissions that the index lists")
    parser.add_argument("--mirror", default=INDEX, metavar="URL", help="another index (default: %(default)s)")


def prepare(args: argparse.Namespace) -> None:
    """Write `audio/SPEAKER/ID.flac` and `{train,dev,test}.jsonl` below `args.data`."""
    utterances = [u for folder in submissions(args) for u in read_submission(folder)]
    utterances = to_flac(utterances, args.data / "audio", shard=args.shard)
    named = [u for u in utterances if not is_anonymous(u.speaker)]
    groupings = {"speaker": lambda u: u.speaker, "submission": lambda u: u.extra["submission"]}
    sets = split_by_first(groupings, named)
    sets["train"] += [u for u in utterances if is_anonymous(u.speaker)]  # one voice may be in several submissions
    write_sets(args.data, sets)


def submissions(args: argparse.Namespace) -> list[Path]:
    """The folders of the unpacked submissions; damaged archives are named and left out."""
    folder, kept = args.unpacked, args.data / "archives"
    if not folder:
        if args.archive and args.archive.suffix == ".tar":  # an archive of submissions
            unpack(args.archive, kept)
        elif args.download:
            page = download(args.mirror.rstrip("/") + "/", kept / "index.html").read_text("utf-8", errors="replace")
            for name in sorted(set(re.findall(r'href="([^"/]+\.tgz)"', page))):
                download(f"{args.mirror.rstrip('/')}/{name}", kept / name)
        archives = args.archive if args.archive and args.archive.is_dir() else kept
        files = [args.archive] if args.archive and args.archive.suffix == ".tgz" else sorted(archives.rglob("*.tgz"))
        if not files:
            raise UsageError(f"where is the data? {CORPUS.by_hand}; use --download, --archive PATH or --unpacked DIR")
        folder = args.data / "submissions"
        for archive in files:
            try:
                unpack(archive, folder)
            except ArchiveError as error:
                print(f"left out: {error}", file=sys.stderr)
    if unpacked := sorted(path.parent for path in folder.glob("*/etc")):
        return unpacked
    raise UsageError(f"{folder}: contains no folders of submissions, each with etc/ and wav/")


def read_submission(folder: Path) -> list[Utterance]:
    """The utterances with a prompt (a line `ID TEXT` or `FOLDER/mfc/ID TEXT`) and a recording, WAV or FLAC."""
    prompts = next((folder / "etc" / name for name in PROMPTS if (folder / "etc" / name).exists()), None)
    if prompts is None:
        print(f"left out: {folder}: neither etc/{' nor etc/'.join(PROMPTS)}", file=sys.stderr)
        return []
    content = prompts.read_bytes()
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        lines = content.decode("cp1252", errors="replace").splitlines()  # typed on Windows
    speaker = folder.name if is_anonymous(folder.name) else folder.name.split("-")[0].lower()
    utterances = []
    for name, _, text in (line.strip().partition(" ") for line in lines):
        stem = name.rsplit("/", 1)[-1]
        path = next((p for kind in ("wav", "flac") if (p := folder / kind / f"{stem}.{kind}").exists()), None)
        if path and text.strip():
            row = Utterance(f"{folder.name}-{stem}", str(path), 0.0, text.strip(), speaker=speaker)
            utterances.append(replace(row, extra={"submission": folder.name}))
    return utterances


def is_anonymous(speaker: str) -> bool:
    return speaker.startswith("anonymous-")
