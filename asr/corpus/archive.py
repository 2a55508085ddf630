"""Reads tar archives safely: nothing is written outside the destination, a damaged archive is one clear line."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from asr.types import AsrError

_GZIP_MAGIC = b"\x1f\x8b"


class ArchiveError(AsrError):
    """An archive is missing, damaged, or holds a member that must not be unpacked. The message names the archive."""


def members(archive: str | Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The regular files of a tar or tar.gz archive in one pass, as (relative path, open stream); nothing is written.

    Each stream is valid until the next iteration. Folders are skipped. Raises ArchiveError on a member that is
    absolute, climbs out with `..`, or is a link or device, and on truncation or a failed checksum (the gzip CRC is
    verified at the end).
    """
    archive = Path(archive)
    with _opened(archive) as stream, _one_line_errors(archive), tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = _safe_path(member, archive)
            if member.isdir():
                continue
            content = tar.extractfile(member)
            if content is None:
                raise ArchiveError(f"{archive}: cannot read the member '{member.name}'")
            yield path, content
        while stream.read(1 << 20):  # what follows the last member: reading it makes gzip verify length and CRC
            pass


def extract(archive: str | Path, destination: str | Path, keep: Callable[[PurePosixPath], bool] | None = None) -> int:
    """Unpack an archive below `destination` and return the number of files written; `keep` chooses by relative path.

    Each file appears under its name only when complete; running again after an interruption is safe. Modes and owners
    in the archive are not applied. Raises ArchiveError as `members` does.
    """
    destination = Path(destination)
    written = 0
    for path, content in members(archive):
        if keep is not None and not keep(path):
            continue
        target = destination.joinpath(*path.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        with partial.open("wb") as out:
            shutil.copyfileobj(content, out, 1 << 20)
        partial.replace(target)
        written += 1
    return written


def _safe_path(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    # A backslash or a colon separates folders or drives on Windows only; no speech corpus has them in its names.
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in member.name:
        raise ArchiveError(f"{archive}: refused: the member '{member.name}' would be written outside the target folder")
    if not (member.isreg() or member.isdir()):
        raise ArchiveError(f"{archive}: refused: the member '{member.name}' is a link or a device, not a file")
    return path


@contextmanager
def _one_line_errors(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(f"{archive}: damaged or incomplete archive ({error}); download it again") from error


@contextmanager
def _opened(archive: Path) -> Iterator[BinaryIO]:
    """The uncompressed tar stream, with a progress bar over the archive's own bytes on a terminal."""
    from tqdm import tqdm

    try:
        raw = archive.open("rb")
    except OSError as error:
        raise ArchiveError(f"{archive}: cannot open the archive: {error.strerror or error}") from error
    size = archive.stat().st_size
    with raw, tqdm(total=size, unit="B", unit_scale=True, desc=archive.name, disable=None, leave=False) as bar:
        counted = cast(BinaryIO, _Counted(raw, bar.update))
        magic = raw.read(2)
        raw.seek(0)
        if magic == _GZIP_MAGIC:
            with gzip.GzipFile(fileobj=counted, mode="rb") as unzipped:
                yield cast(BinaryIO, unzipped)
        else:
            yield counted


class _Counted:
    """A read-only stream that reports the number of bytes read."""

    def __init__(self, stream: BinaryIO, report: Callable[[int], object]) -> None:
        self._stream = stream
        self._report = report

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._report(len(data))
        return data
