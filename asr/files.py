"""Files: an input is read once, whatever it is; an output is there whole or not at all; stamps of finished steps."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import secrets
import stat
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from asr.types import AsrError

_GZIP = b"\x1f\x8b"


class OutputError(AsrError):
    """An output file exists already or cannot be written. The message names it."""


@contextlib.contextmanager
def opened(path: str | Path, error: type[AsrError] = AsrError) -> Iterator[BinaryIO]:
    """An input opened for reading, unpacked if it is gzip: a file, a pipe (`<(...)`, /dev/stdin), or `-` for stdin.

    It is opened exactly once, because what a pipe has given is gone. `peek` of the file object looks ahead. What fails
    on the way, in the body too, is raised as `error`, in one line.
    """
    try:
        with contextlib.ExitStack() as stack:
            raw: BinaryIO = (
                _stdin(error) if str(path) == "-" else stack.enter_context(Path(path).open("rb", buffering=0))
            )
            start = _read_exactly(raw, len(_GZIP))
            whole = io.BufferedReader(cast(io.RawIOBase, _Rejoined(start, raw)), 1 << 16)
            packed = start == _GZIP
            yield cast(BinaryIO, gzip.GzipFile(fileobj=whole, mode="rb") if packed else whole)
    except (EOFError, zlib.error, gzip.BadGzipFile) as reason:
        raise error(f"{_name(path)}: the gzip data is cut off or damaged ({reason}): fetch it again") from reason
    except OSError as reason:
        raise error(f"{_name(path)}: cannot be read: {reason.strerror or reason}") from reason


def read_text(path: str | Path, error: type[AsrError] = AsrError) -> str:
    """The UTF-8 text of an input (see `opened`), without byte order mark, with `\\n` for any kind of line end.

    Raises `error` with file and line where the text is not UTF-8.
    """
    with opened(path, error) as file:
        data = file.read()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(f"{_name(path)}: not UTF-8 but UTF-16: save the file as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = data.count(b"\n", 0, reason.start) + 1
        raise error(f"{_name(path)}:{line}: not UTF-8: save the file as UTF-8") from reason
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextlib.contextmanager
def replacing(path: str | Path, error: type[AsrError] = OutputError, *, durable: bool = True) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the body is through: no reader ever sees half a file.

    It lies beside `path`, so that the last step is a rename within one file system, under a short name, so that any
    name that fits `path` will do. `durable` waits until the bytes are on the disk before the rename: a machine that
    loses power then keeps the old file or the new one. A device or a pipe (/dev/stdout) is written to directly, and a
    symbolic link keeps its place: the file it points to is replaced. Makes the folder. Raises `error` for OSError.
    """
    target = Path(path)
    try:
        if target.exists() and not (target.is_dir() or stat.S_ISREG(target.stat().st_mode)):
            yield target
            return
        target = target.resolve() if target.is_symlink() else target
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{secrets.token_hex(6)}.part")
        try:
            yield partial
            if durable:
                _flush(partial)
            partial.replace(target)
            if durable:
                _flush(target.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as reason:
        raise error(f"{path}: cannot be written: {reason.strerror or reason}") from reason


def write_text(path: str | Path, text: str, error: type[AsrError] = OutputError, *, durable: bool = False) -> None:
    """Write a UTF-8 file, whole or not at all (see `replacing`)."""
    # newline: the same file on every platform; errors: names of audio files need not be UTF-8
    with (
        replacing(path, error, durable=durable) as partial,
        partial.open("w", encoding="utf-8", newline="\n", errors="backslashreplace") as file,
    ):
        file.write(text)


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk; where the system cannot do that, go on."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(path: str | Path) -> str:
    return "stdin" if str(path) == "-" else str(path)


def _stdin(error: type[AsrError]) -> BinaryIO:
    if sys.stdin is None:
        raise error("stdin: closed: give '-' only where something is piped in")
    return sys.stdin.buffer


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    """The next `count` bytes, fewer only at the end: a pipe may give them in several pieces."""
    data = b""
    while len(data) < count and (piece := file.read(count - len(data))):
        data += piece
    return data


class _Rejoined(io.RawIOBase):
    """A file whose first bytes were read already, with these before the rest."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._start[: len(buffer)] or self._rest.read(len(buffer))
        self._start = self._start[len(data) :]
        buffer[: len(data)] = data
        return len(data)


class Stamp:
    """A JSON file beside a step's results: the inputs they were made from, and whether the step came to its end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """{"inputs": ..., "finished": bool, "result": ...}; empty when it never ran or the file is damaged."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def write(self, inputs: Mapping[str, Any], *, finished: bool = True, result: Any = None) -> None:
        content = {"finished": finished, "inputs": inputs, "result": result}
        write_text(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n", durable=True)

    def why(self, inputs: Mapping[str, Any], outputs: Sequence[Path] = ()) -> str:
        """Why the step must be done: "" when it is up to date, otherwise a few words for the user."""
        stored = self.read()
        if not stored:
            return "not done yet"
        changed = differences(stored.get("inputs"), as_json(inputs))
        if changed:
            return f"{changed[0]} changed" + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
        if not stored.get("finished"):
            return "was interrupted"
        missing = next((path for path in outputs if not path.exists()), None)
        return f"{missing} is missing" if missing else ""


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Dotted names of the entries that differ between two nested plain values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in sorted({*old, *new}):
            path = f"{where}.{key}" if where else key
            if key not in old or key not in new:
                found.append(path)
            else:
                found += differences(old[key], new[key], path)
        return found
    return [] if old == new else [where]


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values as they come back from a JSON file (tuples as lists)."""
    return json.loads(json.dumps(values))


def file_state(path: Path) -> dict[str, Any]:
    """Size and time of change of a file or folder: cheap, for inputs of gigabytes."""
    try:
        status = path.stat()
    except OSError:
        return {}
    return {"path": str(path.resolve()), "bytes": status.st_size, "modified": status.st_mtime_ns}
