"""LibriSpeech (Panayotov et al., 2015): the official archives, packed or unpacked, to a manifest per split."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from asr.corpus.archive import ArchiveError, extract
from asr.corpus.download import download
from asr.corpus.formats import read_corpus
from asr.corpus.manifest import write_manifest
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain_archives, what_to_get
from asr.types import UsageError

BASE_URL = "https://www.openslr.org/resources/12"
LM_URL = "https://www.openslr.org/resources/11"
LANGUAGE_MODELS = ("3-gram.pruned.3e-7", "3-gram.pruned.1e-7", "3-gram", "4-gram")  # NAME.arpa.gz
# The MD5 sum that openslr.org publishes and the size in GB of each archive.
SPLITS = {
    "dev-clean": ("42e2234ba48799c1f50f24a7926300a1", 0.34),
    "dev-other": ("c8d0bcc9cca99d4f8b62fcc847357931", 0.31),
    "test-clean": ("32fa31d27d2e1cad72775fee3f4849a9", 0.35),
    "test-other": ("fb5a50374b501bb3bac4815ee91d3135", 0.33),
    "train-clean-100": ("2a93770f6d5c6c964bc36631d331a522", 6.4),
    "train-clean-360": ("c0e676e450a7ff2f54aeade5171606fa", 23.0),
    "train-other-500": ("d1a0fd59409feb2c614ce4d30c387708", 30.6),
}


def archive_of(split: str) -> Archive:
    md5, gigabytes = SPLITS[split]
    return Archive(f"{BASE_URL}/{split}.tar.gz", gigabytes, f"md5:{md5}")


CORPUS = Corpus(
    speech="English, read books",
    hours=960,
    license="CC BY 4.0",
    homepage="https://www.openslr.org/12",
    disk_gb=125,
    archives=tuple(map(archive_of, SPLITS)),
    set_hours={"train-clean-100": 100.6, "train-clean-360": 363.6, "train-other-500": 496.7},
    mean_seconds=12.3,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)
    url = "folder of the language models (default: %(default)s)"
    parser.add_argument("--lm-url", default=LM_URL, metavar="URL", help=url)


def prepare(args: argparse.Namespace) -> None:
    """Write `SPLIT.jsonl` below `args.data` for every split among `args.manifests`; finished splits are skipped."""
    if args.archive and args.archive.is_file():
        args.archive = args.archive.parent  # the other splits are beside it
    if args.lm_file and not args.lm_file.exists():
        _fetch_language_model(args)
    splits = [path.stem for path in args.manifests]
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise UsageError(f"LibriSpeech has no split '{unknown[0]}' (it has: {', '.join(SPLITS)})")
    due = [split for split in splits if not _is_done(split, args)]
    if due and not (args.unpacked or args.archive or args.download):
        raise UsageError(what_to_get(args, CORPUS, [archive_of(split) for split in due]))
    for split, root in zip(due, _unpacked(due, args), strict=True):
        manifest = read_corpus(root / split, "librispeech")
        write_manifest(args.data / f"{split}.jsonl", manifest)
        official = not (args.unpacked or args.no_checksum)
        done = {"origin": _origin(args), "official": official, "utterances": len(manifest)}
        _marker(args.data, split).write_text(json.dumps(done) + "\n", encoding="utf-8")
        print(f"{split}: {len(manifest)} utterances, {manifest.durations.sum() / 3600:.2f} h", file=sys.stderr)


def _unpacked(splits: list[str], args: argparse.Namespace) -> Iterator[Path]:
    """The LibriSpeech folder with each split, unpacked one by one. Raises UsageError, first, if any is missing."""
    folder = args.archive
    if args.unpacked:  # either LibriSpeech or the folder above
        folder = args.unpacked / "LibriSpeech" if (args.unpacked / "LibriSpeech").is_dir() else args.unpacked
    names = splits if args.unpacked else [archive_of(split).name for split in splits]
    if folder and (missing := [name for name in names if not (folder / name).exists()]):
        raise UsageError(
            f"{folder}: contains no {', no '.join(missing)} ({CORPUS.homepage} has them). To use what you have, name "
            "other sets for data.train, data.dev and data.test, or split it by speaker with recipes/custom/run.py"
        )
    for split in splits:
        if args.unpacked:
            yield folder
            continue
        [archive] = obtain_archives(args, CORPUS, [archive_of(split)])

        def wanted(path: PurePosixPath, split: str = split) -> bool:
            return path.parts[0] == "LibriSpeech" and (len(path.parts) == 2 or path.parts[1] == split)

        extract(archive, args.data, wanted)
        if not (args.data / "LibriSpeech" / split).is_dir():
            raise ArchiveError(f"{archive}: contains no folder LibriSpeech/{split}: not the official layout")
        yield args.data / "LibriSpeech"


def _fetch_language_model(args: argparse.Namespace) -> None:
    """The official language model that `lm.file` names, from the archives' folder or by download."""
    name = args.lm_file.name
    if name.removesuffix(".arpa.gz") not in LANGUAGE_MODELS:
        official = ", ".join(f"{known}.arpa.gz" for known in LANGUAGE_MODELS)
        raise UsageError(f"{args.lm_file} does not exist and is not an official language model ({official})")
    if args.archive and (args.archive / name).is_file():
        shutil.copyfile(args.archive / name, args.lm_file)
    elif args.download:
        download(f"{args.lm_url.rstrip('/')}/{name}", args.lm_file)
    else:
        raise UsageError(f"{args.lm_file} does not exist: use --download, or --archive with a folder that contains it")


def _marker(data: Path, split: str) -> Path:
    return data / f"{split}.done"


def _origin(args: argparse.Namespace) -> str:
    return str((args.unpacked or args.archive).resolve()) if args.unpacked or args.archive else ""


def _is_done(split: str, args: argparse.Namespace) -> bool:
    """Whether a split was prepared from the current source; with --download, only from an official archive."""
    try:
        done = json.loads(_marker(args.data, split).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if args.download:
        fits = done.get("official", False)
    else:
        fits = _origin(args) in ("", done.get("origin"))
    return fits and (args.data / f"{split}.jsonl").exists()
