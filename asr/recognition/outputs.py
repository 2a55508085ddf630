"""Output files in a folder that mirrors the inputs, written atomically, replacing existing ones only on request."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from asr.files import OutputError, write_text
from asr.recognition.writers import WRITERS
from asr.types import Transcript, UsageError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ENDINGS = 24  # bytes reserved after a shortened name, for endings such as "~2.ch10.textgrid"


class DiskFull(OutputError):
    """The disk is full or read-only, so that no other output file can be written either."""


class OutputFolder:
    """Writes transcripts to `folder/<id>.<format>`, one file per format, and channels to `<id>.ch0.<format>`.

    An existing file is an OutputError unless `overwrite`. A name too long for the file system is shortened and ends in
    a hash of the whole name, so that it is the same in every run; `shortened` holds the first such id and its path.
    Raises UsageError if the folder cannot be created.
    """

    def __init__(
        self,
        folder: str | Path,
        formats: Sequence[str],
        *,
        overwrite: bool = False,
        writers: Mapping[str, Callable[[Transcript], str]] = WRITERS,
    ) -> None:
        self.folder = Path(folder)
        self.writers = writers
        self.formats = tuple(formats)
        self.overwrite = overwrite
        self.shortened: tuple[str, Path] | None = None
        self._owners: dict[str, str] = {}  # the id of the recording that each file stem belongs to
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot create the output folder: {error.strerror or error}") from error
        self._limit = _longest_name(self.folder)

    def paths(self, recording_id: str, channel: int | None = None) -> list[Path]:
        """The files of one transcript, in the order of the formats."""
        stem, number = _safe(recording_id), 2
        plain = stem
        while self._owners.setdefault(stem, recording_id) != recording_id:  # ids that differ in replaced characters
            stem, number = f"{plain}~{number}", number + 1
        stem += "" if channel is None else f".ch{channel}"
        return [self._path(stem, f".{name}", recording_id) for name in self.formats]

    def _path(self, stem: str, ending: str, recording_id: str) -> Path:
        *folders, name = stem.split("/")
        fits = len(os.fsencode(name + ending)) <= self._limit
        kept = [_shortened(part, self._limit) for part in folders]
        kept.append((name if fits else _shortened(name, self._limit - _ENDINGS)) + ending)
        path = self.folder.joinpath(*kept)
        if kept != [*folders, name + ending]:
            self.shortened = self.shortened or (recording_id, path)
        return path

    def finished(self, recording_id: str, channels: Sequence[int | None] = (None,)) -> bool:
        """Whether every file of these channels exists."""
        return all(_exists(path) for channel in channels for path in self.paths(recording_id, channel))

    def existing(self, recording_id: str, channels: Sequence[int | None] = (None,)) -> Path | None:
        """The first file that already exists; None if there is none or overwriting is allowed."""
        paths = (path for channel in channels for path in self.paths(recording_id, channel))
        return None if self.overwrite else next(filter(_exists, paths), None)

    def write(self, transcript: Transcript, recording_id: str, *, only_missing: bool = False) -> None:
        """Write every format; with `only_missing`, skip existing files. Raises OutputError, DiskFull."""
        for name, path in zip(self.formats, self.paths(recording_id, transcript.channel), strict=True):
            if _exists(path) and not self.overwrite:
                if only_missing:
                    continue
                raise exists_error(path)
            try:
                write_text(path, self.writers[name](transcript))
            except OutputError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_FULL:
                    raise DiskFull(str(error)) from error
                raise


def exists_error(path: Path) -> OutputError:
    return OutputError(f"{path}: already exists; --resume skips what is finished, --force overwrites it")


def _exists(path: Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises if a path is too long


def _longest_name(folder: Path) -> int:
    """The longest file name on this file system, in bytes."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not tell
        return 255


def _shortened(name: str, limit: int) -> str:
    """`name` if it fits in `limit` bytes, else its start and a hash of the whole name."""
    data = os.fsencode(name)
    if len(data) <= limit:
        return name
    mark = f"~{hashlib.sha256(data).hexdigest()[:12]}"
    return data[: limit - len(mark)].decode("utf-8", "ignore") + mark


def _safe(recording_id: str) -> str:
    """A relative path that stays inside the folder, whatever the id contains."""
    parts = [part for part in PurePosixPath(recording_id.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    kept = ["".join("_" if ord(c) < 32 or c in ':*?"<>|' else c for c in part) for part in parts]
    return "/".join(kept) or "audio"
