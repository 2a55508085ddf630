"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from asr.training.interruption import is_first_process
from asr.types import AsrError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_held: set[Path] = set()


class LockedError(AsrError):
    """Another run is at work in the folder. The message names its host and process."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made if need be, until the end or the end of this process.

    The file `.lock` there names host and process. The system's lock on it ends with the process that holds it, so that
    of a run that was killed on this host nothing is left to clear away. Many network file systems lock for one host
    only: there the name of another host is enough to refuse, unless it is an earlier life of this SLURM job. Only the
    first process of a distributed run locks; a folder that this process holds already may be entered again. Raises
    LockedError.
    """
    key = folder.resolve()
    if fcntl is None or not is_first_process() or key in _held:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()} {_job()}\n".encode(), 0)
        _held.add(key)
        yield
    finally:
        _held.discard(key)
        with contextlib.suppress(OSError):
            path.unlink()
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # forked workers have the file open too
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """The open and locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free = False
            except OSError:
                pass  # a file system without locks: what the file says must do
            host, process, job = _holder(descriptor)
            elsewhere = bool(host) and host != socket.gethostname() and (not job or job != _job())
            if elsewhere or (not free and (not process or _alive(process))):
                where = f"on {host}" if elsewhere else "on this host"
                remedy = f"if that run is over, remove the lock: rm {path}" if elsewhere else "wait for it, or end it"
                who = f"process {process}" if process else "another process"
                raise LockedError(f"{path.parent} is in use by {who} {where}: {remedy}")
            if free and _is_same(descriptor, path):
                return descriptor
            if not free and _is_same(descriptor, path):  # forked workers of a run that was killed still have its lock
                path.unlink(missing_ok=True)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(descriptor: int) -> tuple[str, int, str]:
    """Host, process and SLURM job in the lock file; ("", 0, "") when it is new or damaged."""
    host, process, job, *_ = [*os.pread(descriptor, 1000, 0).decode("utf-8", "replace").split(), "", "", ""]
    return (host, int(process), job) if process.isdecimal() else ("", 0, "")


def _job() -> str:
    return os.environ.get("SLURM_JOB_ID", "")


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether `path` is still the open file: its holder may have removed it since."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
