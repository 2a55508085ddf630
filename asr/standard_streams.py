"""The command line's stdin, stdout and stderr: where they are closed or full they fail in one line, or not at all.

Python leaves a closed stream out (`sys.stdout` is None), and the next file that is opened takes its descriptor; a full
disk is noticed when the interpreter flushes at exit, too late for an exit status.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any, TypeGuard

_STDOUT = "stdout"  # its errors bear this for a file name
_BROKEN_PIPE = 141  # as the shell has it: 128 + SIGPIPE


class _Stdout(io.FileIO):
    """stdout, whose errors say so. `failed`: the error of a write, where somebody swallows it."""

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
    """stderr: a message that nobody can get is no reason to fail; that its reader has gone away is, once."""

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
    """Make the streams of this process such that each is there, speaks UTF-8, and names itself where it fails.

    A closed stdin or stdout fails when it is used, a closed stderr takes everything in silence.
    """
    # in this order, because a closed stream gets the lowest free descriptor: its own
    if sys.stdin is None:
        _held(os.O_RDONLY)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedStdin()), encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = output(_held(os.O_RDONLY))
    elif _is_file(sys.stdout):
        at_once = sys.stdout.line_buffering or sys.stdout.write_through
        sys.stdout = output(sys.stdout.fileno(), line_by_line=at_once)
    if sys.stderr is None:
        sys.stderr = _text(_Messages(_held(os.O_WRONLY)), line_by_line=True)
    elif _is_file(sys.stderr):
        sys.stderr = _text(_Messages(sys.stderr.fileno()), line_by_line=True)


def output(descriptor: int, *, line_by_line: bool = False) -> io.TextIOWrapper:
    """A text stream to a descriptor whose errors bear the name of stdout."""
    return _text(_Stdout(descriptor), line_by_line)


def flush_stdout() -> None:
    """Write what is waiting. Raises OSError, also for an earlier failure that was swallowed (argparse does so)."""
    sys.stdout.flush()
    failed = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "failed", None)
    if failed is not None:
        raise failed


def guarded(command: Callable[[], int], name: str) -> int:
    """The exit status of a command: 1, with a line that begins with `name`, if it cannot write to stdout; 141, in
    silence, if the reader of stdout has gone away (`| head`).
    """
    try:
        try:
            status = command()
        except SystemExit:  # argparse has printed help, or what is wrong
            flush_stdout()
            raise
        flush_stdout()  # here, so that a full disk or a reader that has gone away is noticed
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
    """Whether a file is to blame that the error names, not stdout."""
    return error.filename not in (None, _STDOUT)


def _discard_stdout() -> None:
    """Send the rest of stdout nowhere, because the interpreter flushes it once more at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # of a stream without a descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _held(flags: int) -> int:
    """The lowest free descriptor, taken so that no other file gets it, for child processes too."""
    descriptor = os.open(os.devnull, flags)
    os.set_inheritable(descriptor, True)
    return descriptor


def _text(raw: io.FileIO, line_by_line: bool) -> io.TextIOWrapper:
    # file names that are not UTF-8 are escaped
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=line_by_line
    )


def _is_file(stream: Any) -> TypeGuard[io.TextIOWrapper]:
    """Whether this is a stream of the system's, not a program's own or a window of Windows."""
    if not isinstance(stream, io.TextIOWrapper):
        return False
    return isinstance(getattr(stream.buffer, "raw", stream.buffer), io.FileIO)  # `python -u` has no buffer between
