"""Files: inputs of any kind, read exactly once; atomic outputs; stamps of finished steps; walking folders."""

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
from pathlib import Path
from typing import Any, cast

from asr.types import AsrError

_GZIP = b"\x1f\x8b"
_GZIP_RATIO = 1032  # the highest ratio that deflate reaches
_BUFFERED = 1 << 16  # bytes


class OutputError(AsrError):
    """An output file exists already or cannot be written. The message names it."""


class Input(io.BufferedReader):
    """An input opened by `opened`. `peek` shows its first bytes (all of a short input), even of a pipe.

    `on_disk`: the bytes are those of a regular file, which can be opened again. `limit`: an upper bound of the number
    of bytes, None for a pipe.
    """

    on_disk: bool
    limit: int | None


@contextlib.contextmanager
def opened(path: str | Path, error: type[AsrError] = AsrError) -> Iterator[Input]:
    """Open a file, a pipe (`<(...)`, /dev/stdin) or stdin (`-`) for reading, decompressed if it is gzip.

    The input is opened exactly once, because a pipe can be read only once; use `peek` of the file object to look ahead.
    OSError and gzip errors, in the body too, are raised as `error` with a one-line message.
    """
    try:
        with contextlib.ExitStack() as stack:
            if str(path) != "-":
                raw = stack.enter_context(Path(path).open("rb"))
            elif sys.stdin is None:
                raise error("stdin: closed: give '-' only where something is piped in")
            else:
                raw = cast(io.BufferedReader, sys.stdin.buffer)
            # A buffer around a buffer: the inner one waits for all that the outer asks for, so that `peek` sees enough
            # bytes even where a pipe delivers them one by one.
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
    """The UTF-8 text of an input (see `opened`), without byte order mark, with `\\n` for any kind of line end.

    Raises `error` with file and line where the text is not UTF-8.
    """
    with opened(path, error) as file:
        data = file.read()
    return _decoded(data, path, 1, error).replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path, error: type[AsrError] = AsrError) -> Iterator[str]:
    """The lines of `read_text`, without line ends, one at a time, for texts that may not fit into memory."""
    number = 1
    with opened(path, error) as file:
        for data in file:
            text = _decoded(data, path, number, error)
            lines = text.removesuffix("\n").removesuffix("\r").split("\r") if text else []  # only a mark
            yield from lines
            number += len(lines)


@contextlib.contextmanager
def replacing(path: str | Path, error: type[AsrError] = OutputError, *, durable: bool = True) -> Iterator[Path]:
    """Replace `path` atomically: gives a temporary path to write to, which is renamed to `path` after the body.

    No reader ever sees half a file. The temporary file is in the same folder, so that the rename stays within one file
    system, and has a short name, so that a `path` of any valid length works. `durable` waits until the bytes are on the
    disk before the rename, so that a power failure leaves the old file or the new one. A device or pipe (/dev/stdout)
    is written to directly. A symbolic link is kept, and its target replaced. Creates the folder. Raises `error` for
    OSError.
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


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left of `replacing` in `folder` and below, where no other process is writing."""
    for path in folder.rglob(".????????????.part"):
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
    """Wait until a file, or the entries of a folder, are on the disk, where the system can do that."""
    # Windows cannot open a folder, and some file systems cannot flush one.
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _decoded(data: bytes, path: str | Path, line: int, error: type[AsrError]) -> str:
    """Decode bytes that begin at `line`; in the first line, a byte order mark is dropped."""
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


class Stamp:
    """A JSON file beside the results of a step: the inputs they were made from, and whether the step finished.

    `renew` makes inputs as this version would have written them of those that an older one wrote.
    """

    def __init__(self, path: Path, renew: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        self.path, self.renew = path, renew

    def read(self) -> dict[str, Any]:
        """{"inputs": ..., "finished": bool, "result": ...}; empty if the step never ran or the file is damaged."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(stored, dict):
            return {}
        if self.renew and isinstance(stored.get("inputs"), dict):
            stored["inputs"] = self.renew(stored["inputs"])
        return stored

    def write(self, inputs: Mapping[str, Any], *, finished: bool = True, result: Any = None) -> None:
        content = {"finished": finished, "inputs": inputs, "result": result}
        write_text(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n", durable=True)

    def why(self, inputs: Mapping[str, Any], outputs: Sequence[Path] = ()) -> str:
        """Why the step must be repeated, in a few words for the user; "" if it is up to date."""
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
    """Nested values as they would be read back from a JSON file (tuples become lists)."""
    return json.loads(json.dumps(values))


def file_state(path: Path) -> dict[str, Any]:
    """Size and modification time of a file or folder: cheaper than a digest for inputs of gigabytes."""
    try:
        status = path.stat()
    except OSError:
        return {}
    return {"path": str(path.resolve()), "bytes": status.st_size, "modified": status.st_mtime_ns}


def walk(folder: str | Path, problems: list[str] | None = None) -> list[tuple[Path, list[str]]]:
    """(folder, its file names) of `folder` and every folder below it, linked ones too, sorted; hidden ones left out.

    A folder that can be reached in several ways is visited once, preferably not through a link, so that links back to a
    parent end there. Broken links and folders without permission are described in `problems`.
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
            bad.extend(f"{Path(parent, name)}: a link to what is not there" for name in broken)
            found.append((Path(parent), [name for name in names if name not in broken]))
        waiting += sorted(links)
    return sorted(found)
