"""The lines of manifests: where they lie, so that one can be read when needed, and what a valid one holds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from asr.files import opened
from asr.types import ManifestError

REQUIRED = "audio_filepath"


class FileSource:
    """A manifest file read by position: forked workers share its descriptor, spawned ones reopen it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = base_folder(path)
        self._descriptor = self._open()
        self._state = self._stamp()

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise ManifestError(f"{self.path}: cannot read the manifest: {error.strerror or error}") from error

    def _stamp(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def read(self, start: int, length: int) -> bytes:
        if self._descriptor < 0:
            self._descriptor = self._open()
        if self._stamp() != self._state:
            raise ManifestError(f"{self.path}: the manifest was changed while in use: start again")
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, length, start)
        with Path(self.path).open(
            "rb"
        ) as file:  # Windows: a handle of its own, so that threads do not share a position
            file.seek(start)
            return file.read(length)

    def scan(self) -> Iterator[bytes]:
        with Path(self.path).open("rb") as file:
            yield from file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": -1}

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            if self._descriptor >= 0:
                os.close(self._descriptor)


class MemorySource:
    """Manifest lines held in one block of memory: those of a program, a pipe, or a compressed file."""

    def __init__(self, data: bytes, path: str = "") -> None:
        self.path = path
        self.folder = base_folder(path)
        self._data = data.replace(b"\r", b"\n") if b"\n" not in data else data

    def read(self, start: int, length: int) -> bytes:
        return self._data[start : start + length]

    def scan(self) -> Iterator[bytes]:
        start = 0
        while start < len(self._data):
            end = self._data.find(b"\n", start) + 1 or len(self._data)
            yield self._data[start:end]
            start = end


def base_folder(path: str | Path) -> str:
    """Where the relative audio paths of a manifest or table start: its folder; of a pipe or stdin, the current one."""
    try:
        piped = str(path) == "-" or stat.S_ISFIFO(Path(path).stat().st_mode)
    except OSError:
        piped = False
    return str(Path.cwd() if piped else Path(path).absolute().parent)


def _in_place(path: str) -> bool:
    """Whether a manifest can be read by position: a plain file with ordinary line ends."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            start = file.read(1 << 16)
    except OSError as error:
        raise ManifestError(f"{path}: cannot read the manifest: {error.strerror or error}") from error
    return not start.startswith(b"\x1f\x8b") and (b"\n" in start or b"\r" not in start)


class RowStore:
    """The lines of one or several sources, numbered through; 16 bytes a row (18 with several sources)."""

    def __init__(self) -> None:
        self.sources: list[FileSource | MemorySource] = []
        self._starts = np.zeros(0, dtype=np.int64)
        self._lengths = np.zeros(0, dtype=np.int32)
        self._line_numbers = np.zeros(0, dtype=np.int32)
        self._source_of: np.ndarray | None = None
        self._digests: list[bytes] = []

    def open(self, path: str) -> None:
        """Add a manifest file; a pipe, stdin (`-`), gzip, and lines that end in a lone CR are held in memory."""
        if Path(path).is_dir():
            raise ManifestError(f"{path}: a folder, not a manifest: make one with 'asr data convert {path} NEW.jsonl'")
        if _in_place(path):
            self.sources.append(FileSource(path))
            return
        with opened(path, ManifestError) as file:
            self.hold(file.read(), path)

    def hold(self, data: bytes, path: str = "") -> None:
        """Add lines that are in memory; `path` is what messages call them and where relative audio paths start."""
        self.sources.append(MemorySource(data, path))

    def scan(self) -> Iterator[tuple[str, int, bytes]]:
        """Index all sources, giving each row as (path, line number, JSON in UTF-8)."""
        from array import array

        starts, lengths, line_numbers, source_of = array("q"), array("i"), array("i"), array("H")
        for number, source in enumerate(self.sources):
            digest, position = hashlib.sha256(), 0
            for line_number, raw in enumerate(source.scan(), start=1):
                digest.update(raw)
                start, position = position, position + len(raw)
                if line_number == 1:
                    start += _check_encoding(raw, source.path)
                    raw = raw[start:]
                row = raw.strip()
                if not row:
                    continue
                starts.append(start)
                lengths.append(len(raw))
                line_numbers.append(line_number)
                source_of.append(number)
                yield source.path, line_number, row
            self._digests.append(digest.digest())
        self._starts = np.array(starts, dtype=np.int64)
        self._lengths = np.array(lengths, dtype=np.int32)
        self._line_numbers = np.array(line_numbers, dtype=np.int32)
        if len(self.sources) > 1:
            self._source_of = np.array(source_of, dtype=np.uint16)

    def keep(self, rows: np.ndarray) -> None:
        """Forget all rows but these."""
        self._starts, self._lengths = self._starts[rows], self._lengths[rows]
        self._line_numbers = self._line_numbers[rows]
        if self._source_of is not None:
            self._source_of = self._source_of[rows]

    def source(self, i: int) -> FileSource | MemorySource:
        """The source of row `i`."""
        return self.sources[0 if self._source_of is None else int(self._source_of[i])]

    def line(self, i: int) -> bytes:
        """The JSON of row `i`, in UTF-8."""
        return self.source(i).read(int(self._starts[i]), int(self._lengths[i]))

    def where(self, i: int) -> str:
        """ "file:line" of row `i`, for messages."""
        return f"{self.source(i).path}:{self._line_numbers[i]}"

    def sha256(self) -> str:
        """Hash of the content, unpacked: of a plain file as `sha256sum` prints it."""
        if len(self._digests) == 1:
            return self._digests[0].hex()
        return hashlib.sha256(b"".join(self._digests)).hexdigest()


def parse_row(line: bytes, *, require_text: bool) -> dict[str, Any]:
    """The fields of one row as arguments of Utterance, `id` and `duration` absent where the row has none.

    Raises ManifestError without the place, which the caller knows.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(f"not UTF-8 (byte {error.start} of the line): save the file as UTF-8") from error
    try:
        row = json.loads(text)
    except ValueError as error:
        raise ManifestError(_not_json(text, error)) from error
    except RecursionError as error:
        raise ManifestError("the JSON is nested too deeply") from error
    if not isinstance(row, dict):
        raise ManifestError(_ARRAY if isinstance(row, list) else f"{_shown(row)} is not a JSON object: {_ONE_PER_LINE}")
    fields: dict[str, Any] = {}
    for key in _STRINGS:
        value = row.get(key)
        if value is not None:
            fields[key] = value if type(value) is str and value.isascii() else _string(value, key)
    for key in (REQUIRED, "text") if require_text else (REQUIRED,):
        if key not in fields:
            held = ", ".join(map(str, row)) or "nothing"
            mend = _LHOTSE if {"supervisions", "recording_id", "sources"} & row.keys() else "add it"
            raise ManifestError(f"the row has no '{key}' (it has: {held}): {mend}")
    fields.setdefault("text", "")
    if not fields[REQUIRED].strip():
        raise ManifestError(f"'{REQUIRED}' is empty: name the audio file")
    if "id" in fields and (not fields["id"].strip() or not fields["id"].isprintable()):
        raise ManifestError(
            f"'id' is {_shown(fields['id'])}: give a printable name, or leave the key out to have one made"
        )
    for key in ("duration", "offset"):
        value = row.get(key)
        if value is not None:
            fields[key] = _seconds(value, key)
    fields["segment"] = "offset" in fields
    channel = row.get("channel")
    if channel is not None and (isinstance(channel, bool) or not isinstance(channel, int) or channel < 0):
        raise ManifestError(f"'channel' must be a number from 0 up, found {_shown(channel)}")
    fields["channel"] = channel
    fields["extra"] = {} if row.keys() <= _KNOWN else {key: row[key] for key in row if key not in _KNOWN}
    return fields


_STRINGS = (REQUIRED, "text", "id", "speaker", "split")
_ONE_PER_LINE = "a manifest has one whole JSON object per line"
_ARRAY = f"this is a JSON array, and {_ONE_PER_LINE}: run 'asr data convert FILE NEW.jsonl'"
_LHOTSE = "it is lhotse's: 'asr data convert cuts.jsonl NEW.jsonl' reads its cuts"
_KNOWN = frozenset((*_STRINGS, "duration", "offset", "channel"))


def default_id(fields: dict[str, Any]) -> str:
    """The id of a row that has none: file name without extension, @offset, #channel."""
    return _id_from(PurePath(fields[REQUIRED]).stem, fields)


def path_id(fields: dict[str, Any]) -> str:
    """The longer id for where file names repeat: the path as the manifest writes it, without extension."""
    path = PurePath(fields[REQUIRED])
    return _id_from(str(path.parent / path.stem), fields)


def _id_from(path: str, fields: dict[str, Any]) -> str:
    name = "_".join(path.split())
    if fields["segment"]:
        name += f"@{fields['offset']:.3f}"
    return name if fields["channel"] is None else f"{name}#{fields['channel']}"


def _string(value: Any, key: str) -> str:
    if key in ("id", "speaker") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # numbers are common here and lose nothing
    if not isinstance(value, str):
        raise ManifestError(f"'{key}' must be a string, found {_shown(value)}: put it in quotes")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"'{key}' holds half a surrogate pair (character {error.start}): write it as UTF-8"
        ) from error
    return value


def _seconds(value: Any, key: str) -> float:
    if type(value) is float and 0.0 <= value < math.inf:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ManifestError(f"'{key}' must be a number of seconds, found {_shown(value)}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ManifestError(f"'{key}' is not a finite number of seconds{_DURATION_FIX if key == 'duration' else ''}")
    if seconds < 0:
        raise ManifestError(f"'{key}' is negative ({value:g} s){_DURATION_FIX if key == 'duration' else ''}")
    return seconds


_DURATION_FIX = ": leave it out to have it read from the file"


def _check_encoding(first_line: bytes, path: str) -> int:
    """Bytes of a UTF-8 byte order mark to skip; raises ManifestError for UTF-16 and UTF-32."""
    if first_line.startswith(b"\xef\xbb\xbf"):
        return 3
    if first_line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first_line:
        raise ManifestError(f"{path}:1: not UTF-8 (UTF-16, or not text at all): save the file as UTF-8")
    return 0


def _not_json(text: str, error: ValueError) -> str:
    if text.startswith("["):
        return _ARRAY
    reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    if text.startswith("{"):
        return f"not valid JSON ({reason}): {_ONE_PER_LINE}"
    return f"not JSON ({reason}): {_ONE_PER_LINE}; 'asr data convert' makes one of CSV, TSV and Kaldi"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
