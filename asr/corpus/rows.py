"""Rows of manifests: reading their bytes one at a time, and validating them."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from asr.files import opened
from asr.types import ManifestError

REQUIRED = "audio_filepath"


class Source:
    """The bytes of one manifest: a plain file on disk, or in memory what came from a pipe, gzip or a program.

    Forked workers share the open file, and spawned ones open their own. Rows are read by position and not from a memory
    map, because touched pages of a map count as the process's own memory, 290 MB for a million rows, and truncating a
    mapped file kills the process.

    `folder` is where relative audio paths start; `digest` is the SHA-256 of the content once all rows have been read.
    """

    def __init__(self, path: str, content: bytes | None = None) -> None:
        self.path = path
        self.folder = base_folder(path)
        self.digest = b""
        self._file: io.FileIO | None = None
        self._content = content
        if content is None:
            with opened(path, ManifestError) as file:
                start = file.read(1 << 16)
                if file.on_disk and not _only_carriage_returns(start):
                    self._file = io.FileIO(path)
                    self._state = _stamp(self._file)
                else:
                    self._content = start + file.read()
        if self._content is not None and _only_carriage_returns(self._content):
            self._content = self._content.replace(b"\r", b"\n")

    def rows(self) -> Iterator[tuple[int, int, bytes]]:
        """(position, line number, JSON in UTF-8) of each row; a byte order mark and blank lines are skipped."""
        digest, position = hashlib.sha256(), 0
        content = io.BytesIO(self._content or b"")
        with open(self._file.fileno(), "rb", closefd=False) if self._file else content as lines:
            for number, line in enumerate(lines, start=1):
                digest.update(line)
                skipped = _byte_order_mark(line, self.path) if number == 1 else 0
                row = line[skipped:].strip()
                if row:
                    yield position + skipped, number, row
                position += len(line)
        self.digest = digest.digest()

    def row(self, position: int) -> bytes:
        """The JSON of the row at `position`. Raises ManifestError if the file has changed since it was opened."""
        line = b""
        while b"\n" not in line and (piece := self._read(position + len(line), max(4096, len(line)))):
            line += piece
        return line.partition(b"\n")[0].strip()

    def _read(self, start: int, length: int) -> bytes:
        if self._content is not None:
            return self._content[start : start + length]
        try:
            self._file = self._file or io.FileIO(self.path)  # in a spawned worker
        except OSError as error:
            raise ManifestError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        if _stamp(self._file) != self._state:
            raise ManifestError(f"{self.path}: the manifest was changed while in use: start again")
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), length, start)
        with Path(self.path).open("rb") as file:  # Windows: threads would share the position of one handle
            file.seek(start)
            return file.read(length)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _stamp(file: io.FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _only_carriage_returns(content: bytes) -> bool:
    """Whether lines end in a lone CR, as on classic Mac OS."""
    return b"\r" in content and b"\n" not in content


def base_folder(path: str | Path) -> str:
    """Where relative audio paths in a manifest or table start: its folder or, for a pipe or stdin, the current one."""
    try:
        piped = str(path) == "-" or stat.S_ISFIFO(Path(path).stat().st_mode)
    except OSError:
        piped = False
    return str(Path.cwd() if piped else Path(path).absolute().parent)


def parse_row(line: bytes, *, require_text: bool) -> dict[str, Any]:
    """The fields of one row as arguments of Utterance; `id` and `duration` are absent if the row has none.

    Raises ManifestError, without file and line, which the caller knows.
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
            keys = ", ".join(map(str, row)) or "nothing"
            remedy = _LHOTSE if {"supervisions", "recording_id", "sources"} & row.keys() else "add it"
            raise ManifestError(f"the row has no '{key}' (it has: {keys}): {remedy}")
    fields.setdefault("text", "")
    if not fields[REQUIRED].strip():
        raise ManifestError(f"'{REQUIRED}' is empty: name the audio file")
    if "id" in fields and (not fields["id"].strip() or not fields["id"].isprintable()):
        raise ManifestError(f"'id' is {_shown(fields['id'])}: give a printable name, or leave the key out")
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
_ARRAY = f"this is a JSON array, but {_ONE_PER_LINE}: run 'asr data convert FILE NEW.jsonl'"
_LHOTSE = "it is from lhotse: 'asr data convert cuts.jsonl NEW.jsonl' reads cuts"
_KNOWN = frozenset((*_STRINGS, "duration", "offset", "channel"))


def default_id(fields: dict[str, Any]) -> str:
    """The id of a row without one: file name without extension, @offset, #channel."""
    return _id_from(PurePath(fields[REQUIRED]).stem, fields)


def path_id(fields: dict[str, Any]) -> str:
    """The longer id for when file names repeat: the path as the manifest writes it, without extension."""
    path = PurePath(fields[REQUIRED])
    return _id_from(str(path.parent / path.stem), fields)


def _id_from(path: str, fields: dict[str, Any]) -> str:
    name = "_".join(path.split())
    if fields["segment"]:
        name += f"@{fields['offset']:.3f}"
    return name if fields["channel"] is None else f"{name}#{fields['channel']}"


def _string(value: Any, key: str) -> str:
    if key in ("id", "speaker") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # common, and nothing is lost
    if not isinstance(value, str):
        raise ManifestError(f"'{key}' must be a string, found {_shown(value)}: put it in quotes")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"'{key}' has half a surrogate pair (character {error.start}): write it as UTF-8"
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


def _byte_order_mark(first_line: bytes, path: str) -> int:
    """The length of a UTF-8 byte order mark; raises ManifestError for UTF-16 and UTF-32."""
    if first_line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first_line:
        raise ManifestError(f"{path}:1: not UTF-8 (UTF-16, or not text): save the file as UTF-8")
    return 3 if first_line.startswith(b"\xef\xbb\xbf") else 0


def _not_json(text: str, error: ValueError) -> str:
    if text.startswith("["):
        return _ARRAY
    reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    if text.startswith("{"):
        return f"not valid JSON ({reason}): {_ONE_PER_LINE}"
    return f"not JSON ({reason}): {_ONE_PER_LINE}; 'asr data convert' makes manifests from CSV, TSV and Kaldi"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
