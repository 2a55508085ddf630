"""The corpus of a recipe: facts about it, and its official archives, downloaded or from where the user has them."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from asr.corpus.archive import ArchiveError, unpack
from asr.corpus.download import DownloadError, download, verify
from asr.files import Stamp
from asr.types import UsageError

# Arguments that name the source of the data; they do not change what is prepared.
WHERE = ("archive", "unpacked", "download", "mirror", "no_checksum")


@dataclass(frozen=True)
class Archive:
    """An official file: its URL, its size in GB (10^9 bytes), and its published checksum ("md5:...", "sha256:...").

    Where none is published, the checksum is that of a copy that was read in full, or "".
    """

    url: str
    gigabytes: float
    checksum: str = ""

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Corpus:
    """Facts about the data, for a recipe's page and its `--dry-run`.

    `hours` are those of the official corpus, `set_hours` those of its sets by the names of their manifests. `disk_gb`
    is what the recipe leaves in its data folder, archives included. `download` describes the size of the download
    (default: that of all archives). `hours`, `disk_gb` and `download` may be text where they depend on options.
    `mean_seconds` is the utterance length to plan with before the data is there. `by_hand` tells how to get data that
    no program may download.
    """

    speech: str
    hours: float | str
    license: str
    homepage: str
    disk_gb: float | str
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""
    set_hours: Mapping[str, float] = field(default_factory=dict)
    download: str = ""
    mean_seconds: float = 8.0

    @property
    def download_gb(self) -> float:
        return sum(archive.gigabytes for archive in self.archives)

    def facts(self) -> list[tuple[str, str]]:
        """(name, value) pairs, in the order and wording of the table in the recipe's README.md."""
        download = self.download or (size(self.download_gb) if self.archives else self.by_hand or "none")
        disk = self.disk_gb if isinstance(self.disk_gb, str) else size(self.disk_gb)
        hours = self.hours if isinstance(self.hours, str) else f"{self.hours:g}"
        return [
            ("speech", self.speech),
            ("hours", hours),
            ("license", self.license),
            ("download", download),
            ("disk", disk),
            ("from", self.homepage),
        ]


def size(gigabytes: float) -> str:
    """A size for people: "64 MB", "2.7 GB"."""
    if gigabytes < 1:
        return f"{1000 * gigabytes:.0f} MB"
    return f"{gigabytes:.1f} GB" if gigabytes < 10 else f"{gigabytes:.0f} GB"


def add_source_arguments(parser: argparse.ArgumentParser, corpus: Corpus, unpacked: bool = True) -> None:
    """`--archive`, `--unpacked`, `--download`, `--mirror`, `--no-checksum`: the source of the data."""
    where = parser.add_mutually_exclusive_group()
    names = corpus.archives[0].name if len(corpus.archives) == 1 else "the official archive"
    where.add_argument("--archive", type=Path, metavar="PATH", help=f"{names}, or the folder that contains it")
    if unpacked:
        where.add_argument("--unpacked", type=Path, metavar="DIR", help="the unpacked corpus; it is not modified")
    if corpus.archives:
        needed = corpus.download or size(corpus.download_gb)
        where.add_argument("--download", action="store_true", help=f"download {needed}, unless already here")
        parser.add_argument("--mirror", metavar="URL", help="download the files from this folder instead")
        parser.add_argument("--no-checksum", action="store_true", help="accept files other than the official ones")


def source_paths(args: argparse.Namespace) -> list[Path]:
    """The file or folder of `--archive` or `--unpacked`, if given. Raises UsageError if it does not exist."""
    named = [path for name in ("archive", "unpacked") if (path := getattr(args, name, None))]
    if missing := [path for path in named if not path.exists()]:
        raise UsageError(f"{missing[0]}: no such file or folder")
    return named


def obtain(
    args: argparse.Namespace,
    corpus: Corpus,
    top: str,
    keep: Callable[[PurePosixPath], bool] | None = None,
    archives: Sequence[Archive] | None = None,
) -> Path:
    """The unpacked corpus: the folder `top` of its archives, which are downloaded, verified and unpacked as needed.

    `archives` are the ones to use (default: all of the corpus); `keep` selects files in them by relative path. If the
    user names no source, what was unpacked before is used. Raises UsageError with what to get and where to get it.
    """
    if args.unpacked:
        inside = args.unpacked / top
        if not args.unpacked.is_dir():
            raise UsageError(f"{args.unpacked}: not a folder; an archive goes with --archive")
        return inside if inside.is_dir() else args.unpacked
    stamp = Stamp(args.data / ".unpacked.json")
    wanted = [archive.name for archive in (corpus.archives if archives is None else archives)]
    if not (args.archive or getattr(args, "download", False)) and not stamp.why(
        {"archives": wanted}, [args.data / top]
    ):
        return args.data / top
    for path in obtain_archives(args, corpus, archives):
        unpack(path, args.data, keep)
    if not (args.data / top).is_dir():
        raise ArchiveError(f"{args.archive or args.data}: contains no folder '{top}': not the official layout")
    stamp.write({"archives": wanted})
    return args.data / top


def obtain_archives(args: argparse.Namespace, corpus: Corpus, archives: Sequence[Archive] | None = None) -> list[Path]:
    """The verified archive files: those that the user names, or downloads in `args.data`/archives."""
    wanted = corpus.archives if archives is None else archives
    if not wanted:  # the corpus cannot be downloaded by a program
        if not args.archive:
            raise UsageError(what_to_get(args, corpus, wanted))
        return [args.archive]
    found = []
    for archive in wanted:
        checksum = "" if args.no_checksum else archive.checksum
        kept = args.data / "archives" / archive.name
        if args.archive:
            path = args.archive / archive.name if args.archive.is_dir() or len(wanted) > 1 else args.archive
            if not path.is_file():
                raise UsageError(f"{path}: no such file; it comes from {archive.url}")
            try:
                verify(path, checksum)
            except DownloadError as error:
                raise ArchiveError(f"{error}; if it is meant to differ, use --no-checksum") from error
            found.append(path)
        elif args.download or kept.is_file():
            url = f"{args.mirror.rstrip('/')}/{archive.name}" if args.mirror else archive.url
            _check_space(args.data, wanted, corpus)
            found.append(download(url, kept, checksum=checksum))
        else:
            raise UsageError(what_to_get(args, corpus, wanted))
    return found


def what_to_get(args: argparse.Namespace, corpus: Corpus, archives: Sequence[Archive]) -> str:
    """One line: where to get the data, and the arguments for it."""
    options = ["--archive PATH (an archive you have)"]
    if hasattr(args, "unpacked"):
        options.append("--unpacked DIR (the unpacked corpus)")
    if not archives:
        return f"where is the data? {corpus.by_hand}; then use {' or '.join(options)}"
    needed = size(sum(archive.gigabytes for archive in archives))
    names = archives[0].url if len(archives) == 1 else f"{len(archives)} files, {archives[0].url} ..."
    return f"where is the data? Use --download ({needed}: {names}), {' or '.join(options)}"


def _check_space(data: Path, wanted: Sequence[Archive], corpus: Corpus) -> None:
    """Refuse to start a download if there is no room to unpack it."""
    if isinstance(corpus.disk_gb, str) or len(wanted) < len(corpus.archives):
        return
    used = sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) / 1e9
    free = shutil.disk_usage(data).free / 1e9
    if used + free < corpus.disk_gb:
        raise UsageError(f"{data}: {size(corpus.disk_gb)} needed, only {size(free)} free: choose another --data")
