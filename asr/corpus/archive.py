"""Archives (tar, plain or compressed, and zip): read in one pass, or unpacked safely into a folder."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from asr.files import Stamp, file_state, remove_unfinished, replacing
from asr.types import AsrError

_BLOCK = 1 << 20
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class ArchiveError(AsrError):
    """An archive is missing, damaged, or has a member that must not be unpacked. The message names the archive."""


def members(
    archive: str | Path, keep: Callable[[PurePosixPath], bool] | None = None
) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """The regular files of a tar (plain, gzip, bzip2 or xz) or zip archive as (relative path, open stream), in order.

    Nothing is written. Each stream is valid until the next iteration. Folders are skipped, as is every member for
    whose relative path `keep` is false. Raises ArchiveError on a member with an absolute path or `..`, on a link or
    device that is not skipped, and on truncation or a failed checksum (including that at the end of a compressed tar).
    """
    archive = Path(archive)
    with _opened(archive) as stream:
        if isinstance(stream, zipfile.ZipFile):
            for entry in stream.infolist():
                mode = stat.S_IFMT(entry.external_attr >> 16)  # 0 if the archive was made on Windows
                path = _safe_path(entry.filename, archive)
                if entry.is_dir() or (keep is not None and not keep(path)):
                    continue
                if mode not in (0, stat.S_IFREG):
                    raise _link(archive, entry.filename)
                with stream.open(entry) as content:
                    yield path, cast(IO[bytes], _Content(content, archive))
            return
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                path = _safe_path(member.name, archive)
                if member.isdir() or (keep is not None and not keep(path)):
                    continue
                extracted = tar.extractfile(member) if member.isreg() else None
                if extracted is None:
                    raise _link(archive, member.name)
                yield path, cast(IO[bytes], _Content(extracted, archive))
            while stream.read(_BLOCK):  # reading to the end verifies length and checksum
                pass


def extract(
    archive: str | Path,
    destination: str | Path,
    keep: Callable[[PurePosixPath], bool] | None = None,
) -> int:
    """Unpack an archive into `destination` and return the number of files written; `keep` selects by relative path.

    Each file appears under its name only when complete, so it is safe to run again after an interruption. Modes and
    owners in the archive are ignored. Raises ArchiveError as `members` does.
    """
    destination = Path(destination)
    written = 0
    for path, content in members(archive, keep):
        with (
            replacing(destination.joinpath(*path.parts), ArchiveError, durable=False) as partial,
            partial.open("wb") as out,
        ):
            shutil.copyfileobj(content, out, _BLOCK)
        written += 1
    return written


def unpack(archive: str | Path, destination: str | Path, keep: Callable[[PurePosixPath], bool] | None = None) -> None:
    """`extract`, once: a finished archive is read again only if it has changed, an interrupted one from its start."""
    archive, destination = Path(archive), Path(destination)
    stamp = Stamp(destination / f".{archive.name}.unpacked")
    inputs = {"archive": file_state(archive)}
    if not archive.is_file():
        raise ArchiveError(f"{archive}: no such file")
    if stamp.why(inputs):
        if stamp.read():  # not the first time, since this visits every file
            remove_unfinished(destination)
        stamp.write(inputs, finished=False)
        if not extract(archive, destination, keep):
            raise ArchiveError(f"{archive}: has none of the expected files: not the official layout")
        stamp.write(inputs)


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    # Backslashes and colons separate folders and drives on Windows; no speech corpus has them in its file names.
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise ArchiveError(f"{archive}: refused: the member '{name}' would be written outside the target folder")
    return path


def _link(archive: Path, name: str) -> ArchiveError:
    return ArchiveError(f"{archive}: refused: the member '{name}' is a link or a device, not a file")


class _Content:
    """The content of a member; reading it raises ArchiveError on damage, outside the reach of `members`."""

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream, self._archive = stream, archive

    def read(self, size: int = -1) -> bytes:
        with _damage_reported(self._archive):
            return self._stream.read(size)


@contextmanager
def _damage_reported(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ArchiveError(f"{archive}: damaged or incomplete archive ({error}); download it again") from error


@contextmanager
def _opened(archive: Path) -> Iterator[Any]:
    """The zip file, or the uncompressed tar stream; on a terminal with a progress bar over the archive's bytes."""
    from tqdm import tqdm

    bar: dict[str, Any] = {"unit": "B", "unit_scale": True, "desc": archive.name, "disable": None, "leave": False}
    try:
        with (
            _damage_reported(archive),
            archive.open("rb") as raw,
            tqdm.wrapattr(raw, "read", archive.stat().st_size, **bar) as counted,
        ):
            start = raw.peek(6)[:6]
            file = cast(BinaryIO, counted)
            if start.startswith(b"PK"):
                with zipfile.ZipFile(raw) as opened:  # without the progress bar, which does not support seeking
                    yield opened
            elif start.startswith(b"\x1f\x8b"):
                yield gzip.GzipFile(fileobj=file, mode="rb")
            elif start.startswith(b"BZh"):
                yield bz2.BZ2File(file)
            elif start == b"\xfd7zXZ\0":
                yield lzma.LZMAFile(file)  # noqa: SIM115 (like the others, closed with the underlying file)
            else:
                yield counted
    except (RuntimeError, NotImplementedError) as error:  # a zip with a password or an unsupported compression
        raise ArchiveError(f"{archive}: cannot be unpacked: {error}") from error
    except OSError as error:
        raise ArchiveError(f"{archive}: cannot open the archive: {error.strerror or error}") from error
