"""Files: inputs of any kind, opened once; atomic outputs; stamps of finished steps; walking folders."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from asr.types import AsrError

_GZIP = b"\x1f\x8b"
_GZIP_RATIO = 1032  # the highest ratio that deflate reaches
_BUFFERED = 1 << 16  # bytes


class OutputError(AsrError):
    """An output file exists already or cannot be written. The message names it."""


class Input(io.BufferedReader):
    """An input opened by `opened`. `peek` returns its first bytes (all of a short input), even of a pipe.

    `on_disk`: the bytes are those of a regular file, which can be opened again. `limit`: an upper bound on the number
    of bytes, None for a pipe.
    """

    on_disk: bool
    limit: int | None


@contextlib.contextmanager
def opened(path: str | Path, error: type[AsrError] = AsrError) -> Iterator[Input]:
    """Open a file, a pipe (`<(...)`, /dev/stdin) or stdin (`-`) for reading, decompressed if it is gzip.

    The input is opened exactly once, because a pipe can be read only once; use `peek` to look ahead. OSError and gzip
    errors, also those in the body, are raised as `error` with a one-line message.
    """
    try:
        with contextlib.ExitStack() as stack:
            if str(path) != "-":
                raw = stack.enter_context(Path(path).open("rb"))
            elif sys.stdin is None:
                raise error("stdin: closed: give '-' only where something is piped in")
            else:
                raw = cast(io.BufferedReader, sys.stdin.buffer)
            # A buffer around a buffer: the inner one waits for all that the outer one asks for, so that `peek` returns
            # enough bytes even if a pipe delivers them one by one.
            whole = Input(raw, _BUFFERED)
            stack.callback(whole.detach)  # stdin stays open
            packed = whole.peek(len(_GZIP)).startswith(_GZIP)
            file = Input(gzip.GzipFile(fileobj=whole), _BUFFERED) if packed else whole
            state = None if str(path) == "-" else os.fstat(raw.fileno())
            regular = state is not None and stat.S_ISREG(state.st_mode)
            file.on_disk = regular and not packed
            file.limit = state.st_size * (_GZIP_RATIO if packed else 1) if state is not None and regular else None
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as reason:
        raise error(f"{_name(path)}: the gzip data is cut off or damaged ({reason}): fetch it again") from reason
    except OSError as reason:
        raise error(f"{_name(path)}: cannot be read: {reason.strerror or reason}") from reason


def is_input(argument: str) -> bool:
    """Whether an argument names a file, pipe or device to read, rather than being a text itself."""
    try:
        return Path(argument).exists() and not Path(argument).is_dir()
    except (OSError, ValueError):  # too long for a name; a NUL in it
        return False


def read_text(path: str | Path, error: type[AsrError] = AsrError) -> str:
    """The UTF-8 text of an input (see `opened`) without byte order mark, with `\\n` for any kind of line end.

    Raises `error` with file and line if the text is not UTF-8.
    """
    with opened(path, error) as file:
        data = file.read()
    return _decoded(data, path, 1, error).replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path, error: type[AsrError] = AsrError) -> Iterator[str]:
    """The lines of `read_text` without line ends, one at a time, for texts that may not fit into memory."""
    number = 1
    with opened(path, error) as file:
        for data in file:
            text = _decoded(data, path, number, error)
            lines = text.removesuffix("\n").removesuffix("\r").split("\r") if text else []  # only a mark
            yield from lines
            number += len(lines)


@contextlib.contextmanager
def replacing(path: str | Path, error: type[AsrError] = OutputError, *, durable: bool = True) -> Iterator[Path]:
    """Replace `path` atomically: yields a temporary path to write to, which is renamed to `path` after the body.

    Readers never see a partial file. The temporary file is in the same folder, so that the rename stays within one file
    system, and has a short name, so that a `path` of any valid length works. `durable` waits until the bytes are on
    disk before the rename, so that a power failure leaves either the old or the new file. Devices and pipes
    (/dev/stdout) are written to directly. Of a symbolic link, the target is replaced. Creates the folder. Raises
    `error` for OSError.
    """
    target = Path(path)
    try:
        # /dev/stdout may be redirected to a file, which the rest of the command also writes to
        device = str(target.absolute()).startswith("/dev/")
        if device or (target.exists() and not (target.is_dir() or stat.S_ISREG(target.stat().st_mode))):
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


def remove_unfinished(folder: Path, *, below: bool = True) -> None:
    """Delete the temporary files of a killed process in `folder` and, by default, in the folders below.

    No other process may be writing there.
    """
    for path in (folder.rglob if below else folder.glob)(".????????????.part"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str, error: type[AsrError] = OutputError, *, durable: bool = False) -> None:
    """Write a UTF-8 file atomically (see `replacing`)."""
    # newline: identical files on every platform; errors: names of audio files need not be valid UTF-8
    with (
        replacing(path, error, durable=durable) as partial,
        partial.open("w", encoding="utf-8", newline="\n", errors="backslashreplace") as file,
    ):
        file.write(text)


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk, if the system supports it."""
    # Windows cannot open folders, and some file systems cannot flush them.
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _decoded(data: bytes, path: str | Path, line: int, error: type[AsrError]) -> str:
    """Decode bytes that start at `line`, without the byte order mark that line 1 may have."""
    if line == 1 and data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(f"{_name(path)}: not UTF-8 but UTF-16: save the file as UTF-8")
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as reason:
        before = data[: reason.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        line += before.count(b"\n")
        raise error(f"{_name(path)}:{line}: not UTF-8: save the file as UTF-8") from reason


def _name(path: str | Path) -> str:
    return "stdin" if str(path) == "-" else str(path)


@dataclass(frozen=True)
class Stamp:
    """A JSON file next to the results of a step: the inputs they were made from, and whether the step finished.

    `renew` converts inputs that an older version wrote to what this version would have written.
    """

    path: Path
    renew: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def read(self) -> dict[str, Any]:
        """{"inputs": ..., "finished": bool, "result": ...}; empty if the step never ran or the file is damaged."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = None
        if not isinstance(stored, dict):
            return {}
        if self.renew and isinstance(stored.get("inputs"), dict):
            stored["inputs"] = self.renew(stored["inputs"])
        return stored

    def write(self, inputs: Mapping[str, Any], *, finished: bool = True, result: Any = None) -> None:
        content = {"finished": finished, "inputs": inputs, "result": result}
        write_text(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n", durable=True)

    def why(self, inputs: Mapping[str, Any], outputs: Sequence[Path] = ()) -> str:
        """Why the step must be repeated, in a few words; "" if it is up to date."""
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
    """Nested values as JSON would return them (tuples become lists)."""
    return json.loads(json.dumps(values))


def file_state(path: Path) -> dict[str, Any]:
    """Size and modification time of a file or folder, which are cheaper than a digest for large inputs."""
    try:
        status = path.stat()
    except OSError:
        return {}
    return {"path": str(path.resolve()), "bytes": status.st_size, "modified": status.st_mtime_ns}


def walk(folder: str | Path, problems: list[str] | None = None) -> list[tuple[Path, list[str]]]:
    """(folder, file names) for `folder` and every folder below it, sorted, including linked ones but not hidden ones.

    A folder that can be reached in several ways is visited once, preferably not through a link, so that links to a
    parent do not loop. Broken links and unreadable folders are described in `problems`.
    """
    found: list[tuple[Path, list[str]]] = []
    bad = [] if problems is None else problems

    def unreadable(error: OSError) -> None:
        bad.append(f"{error.filename}: cannot be read: {error.strerror or error}")

    seen: set[tuple[int, int]] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        links: list[str] = []
        for parent, folders, files in os.walk(waiting.pop(0), onerror=unreadable):
            status = os.stat(parent)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = [name for name in folders if not name.startswith(".")]
            links += [str(path) for name in folders if (path := Path(parent, name)).is_symlink()]
            names = sorted(name for name in files if not name.startswith("."))
            broken = [name for name in names if not os.path.exists(os.path.join(parent, name))]  # noqa: PTH110, PTH118
            bad.extend(f"{Path(parent, name)}: a broken link" for name in broken)
            found.append((Path(parent), [name for name in names if name not in broken]))
        waiting += sorted(links)
    return sorted(found)
