"""LibriSpeech (Panayotov et al., 2015): official archives, or a folder of them unpacked, to one manifest per split."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path, PurePosixPath

from asr.corpus.archive import ArchiveError, extract
from asr.corpus.download import download
from asr.corpus.formats import read_corpus
from asr.corpus.manifest import write_manifest
from asr.recipe.corpus import Archive, Corpus, verified
from asr.types import UsageError

BASE_URL = "https://www.openslr.org/resources/12"
LM_URL = "https://www.openslr.org/resources/11"
LANGUAGE_MODELS = ("3-gram.pruned.3e-7", "3-gram.pruned.1e-7", "3-gram", "4-gram")  # NAME.arpa.gz
# The MD5 sums that openslr.org publishes, and the size of each archive in GB.
SPLITS = {
    "dev-clean": ("42e2234ba48799c1f50f24a7926300a1", 0.3),
    "dev-other": ("c8d0bcc9cca99d4f8b62fcc847357931", 0.3),
    "test-clean": ("32fa31d27d2e1cad72775fee3f4849a9", 0.3),
    "test-other": ("fb5a50374b501bb3bac4815ee91d3135", 0.3),
    "train-clean-100": ("2a93770f6d5c6c964bc36631d331a522", 6.4),
    "train-clean-360": ("c0e676e450a7ff2f54aeade5171606fa", 23.0),
    "train-other-500": ("d1a0fd59409feb2c614ce4d30c387708", 30.6),
}

CORPUS = Corpus(
    speech="English, read books",
    hours=960,
    license="CC BY 4.0",
    homepage="https://www.openslr.org/12",
    disk_gb=125,
    archives=tuple(Archive(f"{BASE_URL}/{name}.tar.gz", gb, f"md5:{md5}") for name, (md5, gb) in SPLITS.items()),
    set_hours={"train-clean-100": 100.6, "train-clean-360": 363.6, "train-other-500": 496.7},
    mean_seconds=12.3,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--librispeech", type=Path, metavar="DIR", help="an unpacked LibriSpeech folder; it stays as it is"
    )
    where.add_argument("--archive-dir", type=Path, metavar="DIR", help="a folder with the official *.tar.gz archives")
    where.add_argument("--download", action="store_true", help="fetch the archives (100 h: 7 GB; 960 h: 61 GB)")
    parser.add_argument("--base-url", default=BASE_URL, metavar="URL", help="a mirror (default: %(default)s)")
    parser.add_argument("--lm-url", default=LM_URL, metavar="URL", help="the same for language models (%(default)s)")
    parser.add_argument("--no-checksum", action="store_true", help="accept archives other than the official ones")


def sources(args: argparse.Namespace) -> list[Path]:
    """The input folders of the preparation; it is done again when one of them changes."""
    return [path for path in (args.librispeech, args.archive_dir) if path]


def prepare(args: argparse.Namespace) -> None:
    """Write `SPLIT.jsonl` below `args.data` for every split among `args.manifests`; finished splits are left alone."""
    if args.lm_file and not args.lm_file.exists():
        _fetch_language_model(args)
    splits = [path.stem for path in args.manifests]
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise UsageError(f"LibriSpeech has no split '{unknown[0]}' (it has: {', '.join(SPLITS)})")
    due = [split for split in splits if not _is_done(split, args)]
    if due and not (args.librispeech or args.archive_dir or args.download):
        size = sum(SPLITS[split][1] for split in due)
        raise UsageError(
            f"where is the audio of {', '.join(due)}? Say --librispeech DIR (unpacked), --archive-dir DIR (*.tar.gz), "
            f"or --download ({size:.0f} GB, and as much again unpacked)"
        )
    for split in due:
        root = _unpacked(args.librispeech) if args.librispeech else _from_archive(split, args)
        if not (root / split).is_dir():
            raise UsageError(f"{root}: there is no folder '{split}' in it")
        manifest = read_corpus(root / split, "librispeech")
        write_manifest(args.data / f"{split}.jsonl", manifest)
        verified = not (args.librispeech or args.no_checksum)
        done = {"origin": _origin(args), "official": verified, "utterances": len(manifest)}
        _marker(args.data, split).write_text(json.dumps(done) + "\n", encoding="utf-8")
        print(f"{split}: {len(manifest)} utterances, {manifest.durations.sum() / 3600:.2f} h", file=sys.stderr)


def _from_archive(split: str, args: argparse.Namespace) -> Path:
    """Fetch or find the archive of a split, check and unpack it; return the LibriSpeech folder."""
    name = f"{split}.tar.gz"
    checksum = "" if args.no_checksum else f"md5:{SPLITS[split][0]}"
    if args.archive_dir:
        archive = args.archive_dir / name
        if not archive.is_file():
            raise UsageError(f"{args.archive_dir}: {name} is missing")
        verified(archive, checksum)
    else:
        archive = download(f"{args.base_url.rstrip('/')}/{name}", args.data / "archives" / name, checksum=checksum)

    def wanted(path: PurePosixPath) -> bool:
        return path.parts[0] == "LibriSpeech" and (len(path.parts) == 2 or path.parts[1] == split)

    if not extract(archive, args.data, wanted):
        raise ArchiveError(f"{archive}: holds no LibriSpeech/{split} folder: not the official layout")
    return args.data / "LibriSpeech"


def _fetch_language_model(args: argparse.Namespace) -> None:
    """The official language model that `lm.file` names, from the archives' folder or by download."""
    name = args.lm_file.name
    if name.removesuffix(".arpa.gz") not in LANGUAGE_MODELS:
        official = ", ".join(f"{known}.arpa.gz" for known in LANGUAGE_MODELS)
        raise UsageError(f"{args.lm_file} does not exist, and is no official language model (those are: {official})")
    if args.archive_dir and (args.archive_dir / name).is_file():
        shutil.copyfile(args.archive_dir / name, args.lm_file)
    elif args.download:
        download(f"{args.lm_url.rstrip('/')}/{name}", args.lm_file)
    else:
        raise UsageError(f"{args.lm_file} does not exist: say --download, or --archive-dir with {name} in it")


def _unpacked(folder: Path) -> Path:
    """The LibriSpeech folder itself, also when the one above it was named."""
    return folder / "LibriSpeech" if (folder / "LibriSpeech").is_dir() else folder


def _marker(data: Path, split: str) -> Path:
    return data / f"{split}.done"


def _origin(args: argparse.Namespace) -> str:
    return str((args.librispeech or args.archive_dir).resolve()) if args.librispeech or args.archive_dir else ""


def _is_done(split: str, args: argparse.Namespace) -> bool:
    """Whether a split was prepared from the place named now; with --download, only an official archive counts."""
    try:
        done = json.loads(_marker(args.data, split).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if args.download:
        fits = done.get("official", False)
    else:
        fits = _origin(args) in ("", done.get("origin"))
    return fits and (args.data / f"{split}.jsonl").exists()
