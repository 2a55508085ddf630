"""Standard streams of the command line: one that is closed or full causes a one-line error, or none at all.

Python sets a closed stream to None, and the next file to be opened gets its descriptor. A full disk is noticed only
when the interpreter flushes at exit, too late for the exit status.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TypeGuard

_STDOUT = "stdout"  # the file name in its errors
_BROKEN_PIPE = 141  # the exit status that a shell reports: 128 + SIGPIPE


class _Stdout(io.FileIO):
    """stdout, named in its errors. `failed` keeps the error of a write, which a caller such as argparse may swallow."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.failed: OSError | None = None

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            reason = "closed, results cannot be written" if error.errno == errno.EBADF else error.strerror
            self.failed = OSError(error.errno, reason, _STDOUT)
            raise self.failed from error


class _ClosedStdin(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        raise OSError(errno.EBADF, "closed", "stdin")


class _Messages(io.FileIO):
    """stderr: a message that cannot be written is not an error, except for the first one after its reader has gone."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._broken = False

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and not self._broken:
                self._broken = True
                raise
            return len(data)


def install() -> None:
    """Replace the standard streams of this process: each one exists, uses UTF-8, and is named in its errors.

    A closed stdin or stdout fails when it is used; a closed stderr silently discards everything.
    """
    # The order matters: a newly opened file gets the lowest free descriptor, that of the first closed stream.
    if sys.stdin is None:
        _occupy(os.O_RDONLY)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedStdin()), encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = output(_occupy(os.O_RDONLY))
    elif _is_file(sys.stdout):
        at_once = sys.stdout.line_buffering or sys.stdout.write_through
        sys.stdout = output(sys.stdout.fileno(), line_by_line=at_once)
    if sys.stderr is None:
        sys.stderr = _text(_Messages(_occupy(os.O_WRONLY)), line_by_line=True)
    elif _is_file(sys.stderr):
        sys.stderr = _text(_Messages(sys.stderr.fileno()), line_by_line=True)


def output(descriptor: int, *, line_by_line: bool = False) -> io.TextIOWrapper:
    """A text stream to a descriptor, whose errors have stdout as the file name."""
    return _text(_Stdout(descriptor), line_by_line)


def flush_stdout() -> None:
    """Flush stdout. Raises OSError, also for an earlier failure that argparse swallowed."""
    sys.stdout.flush()
    failed = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "failed", None)
    if failed is not None:
        raise failed


def guarded(command: Callable[[], int], name: str) -> int:
    """Run a command and return its exit status.

    If stdout cannot be written to, it is 1, with a line on stderr that begins with `name`; if the reader of stdout has
    gone (`| head`), it is 141, silently.
    """
    try:
        try:
            status = command()
        except SystemExit:  # argparse has printed help or an error
            flush_stdout()
            raise
        flush_stdout()  # notices a full disk, or that the reader has gone
        return status
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            flush_stdout()  # it may have been the reader of stderr
        _discard_stdout()
        return _BROKEN_PIPE
    except OSError as error:
        if error.filename != _STDOUT:
            raise
        _discard_stdout()
        print(f"{name}: error: {error.filename}: {error.strerror or error}", file=sys.stderr)
        return 1


def is_file_error(error: OSError) -> bool:
    """Whether the error is about a named file other than stdout."""
    return error.filename not in (None, _STDOUT)


def _discard_stdout() -> None:
    """Discard the rest of stdout, because the interpreter flushes it once more at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream without a descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _occupy(flags: int) -> int:
    """Occupy the lowest free descriptor, so that no other file gets it, not even in child processes."""
    descriptor = os.open(os.devnull, flags)
    os.set_inheritable(descriptor, True)
    return descriptor


def _text(raw: io.FileIO, line_by_line: bool) -> io.TextIOWrapper:
    # backslashreplace: file names need not be UTF-8
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=line_by_line
    )


def _is_file(stream: Any) -> TypeGuard[io.TextIOWrapper]:
    """Whether this is a stream of the operating system, rather than one that a program or test has put there."""
    if not isinstance(stream, io.TextIOWrapper):
        return False
    return isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO)  # unbuffered with `python -u`
