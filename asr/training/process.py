"""The process of a run: its rank, its threads, the signals that stop it, and the lock on its output folder.

Light to import, because signals must be handled before torch and Lightning are imported, which takes seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from asr.types import AsrError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
# Scheduler and launcher both signal a process. Only a signal after this time is a second request.
_REPEAT_SECONDS = 1.0

# OpenMP threads spin by default while they wait for work. Next to another busy process, they take the core from the
# very thread that they wait for, and training on few cores falls to a third of its speed (benchmarks/threads.py).
THREAD_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}


def set_thread_environment() -> None:
    """Set `THREAD_ENVIRONMENT` unless the user has; call it before importing torch, whose OpenMP reads it once."""
    for name, value in THREAD_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def available_cores() -> int:
    """The number of cores this process may use, by its affinity and a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return cores


def is_first_process() -> bool:
    """True in an ordinary process and in rank 0, which does preparation, locks and messages for the others."""
    return all(os.environ.get(name, "0").strip() in ("", "0") for name in _RANKS)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count, chosen = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return chosen.split(",")[:count] if chosen else [str(i) for i in range(count)]


def launch_job(command: Sequence[str], log: Path, gpu: str = "", threads: int = 0) -> subprocess.Popen[bytes]:
    """Start a process, on one GPU or with so many threads if given, whose output is appended to `log`.

    It gets a session of its own, so that Ctrl-C reaches only the caller, which has to end it.
    """
    environment = dict(os.environ)
    environment |= {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def say(line: str) -> None:
    """Print a line about the run to stderr, in the first process only."""
    if is_first_process():
        print(line, file=sys.stderr, flush=True)


def quiet_lightning() -> None:
    """Silence Lightning's notices, which are for its developers."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Except for this one, which says that a process it started has ended and that it kills all others.
    logging.getLogger("lightning_fabric.strategies.launchers.subprocess_script").setLevel(logging.INFO)
    messages = ("does not have many workers", "Checkpoint directory", "number of training batches", "LeafSpec")
    for message in messages:
        warnings.filterwarnings("ignore", f".*{message}.*")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")


class Interrupted(BaseException):
    """A run was told to stop, and everything is saved.

    Not an Exception, so that no `except Exception` mistakes it for a bad recording; not a KeyboardInterrupt, which
    Lightning turns into exit status 1.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number

    @property
    def status(self) -> int:
        """The exit status that shells and schedulers expect: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal_number


class Signals:
    """The signals since `handled_signals`: `received` is the number of the first one, or 0."""

    def __init__(self) -> None:
        self.received = 0
        self.handled: list[int] = []
        self._received_at = 0.0
        self._retry: threading.Timer | None = None
        self._retrying = False
        # The other ranks never stop on their own: the first would wait for them.
        self._deferred = 0 if is_first_process() else 1

    def check(self) -> None:
        """Raise `Interrupted` if a signal has arrived."""
        if self.received:
            raise Interrupted(self.received)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """In this context a signal only sets `received`, and the code inside saves and stops by itself."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; a second request ends the process as if there were no handler.

        SLURM's early warning (SIGUSR1) is not a first request: the SIGTERM at the time limit must not interrupt saving.
        """
        now = time.monotonic()
        if self._retrying:
            self._retrying = False
            if not self._deferred:
                raise Interrupted(self.received)
            return
        if self.received:
            if self.received in (signal.SIGINT, signal.SIGTERM) and now - self._received_at >= _REPEAT_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received, self._received_at = number, now
        if not self._deferred:
            raise Interrupted(number)
        if is_first_process():  # not by print, which fails in a handler that interrupts another print
            os.write(2, b"interrupted: saving first (again to stop at once)\n")

    def unraisable(self, hook: Callable[[Any], object], error: Any) -> None:
        """`sys.unraisablehook`: if Python drops our exception (destructors, callbacks from C), signal again shortly."""
        if not isinstance(error.exc_value, Interrupted):
            hook(error)
            return
        self._retry = threading.Timer(0.1, self._send_again)
        self._retry.daemon = True
        self._retry.start()

    def close(self) -> None:
        """Cancel a pending retry."""
        self._deferred += 1
        if self._retry:
            self._retry.cancel()
            self._retry.join()

    def _send_again(self) -> None:
        self._retrying = True
        os.kill(os.getpid(), self.received)


_active: Signals | None = None


@contextlib.contextmanager
def handled_signals() -> Iterator[Signals]:
    """Handle SIGINT and SIGTERM, and in a SLURM job SIGUSR1 (`#SBATCH --signal=SIGUSR1@90`), in this context.

    Nested uses share the signals of the outermost. At the end, `Interrupted` is raised if a signal has arrived. After
    SIGUSR1 the job is requeued. Outside the main thread, no signal is handled.
    """
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        yield _active or Signals()
        return
    _active = signals = Signals()
    previous: dict[int, Any] = {}
    hook, sys.unraisablehook = sys.unraisablehook, partial(signals.unraisable, sys.unraisablehook)
    slurm = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ and hasattr(signal, "SIGUSR1") else []
    try:
        for number in (signal.SIGINT, signal.SIGTERM, *slurm):
            previous[number] = signal.signal(number, signals.receive)
            signals.handled.append(number)
        yield signals
        signals.check()
    except Interrupted as stop:
        if stop.signal_number not in (signal.SIGINT, signal.SIGTERM) and is_first_process():
            _requeue()
        raise
    finally:
        _active = None
        signals.close()
        sys.unraisablehook = hook
        for handled, handler in previous.items():
            signal.signal(handled, handler if handler is not None else signal.SIG_DFL)


def _requeue() -> None:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        say(f"warning: the SLURM job {job} could not be queued again: {reason.strip()}")


_held: set[Path] = set()


class LockedError(AsrError):
    """Another run is using the folder. The message names its host and process."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which is created if needed, until the end of the block or of this process.

    The file `.lock` in it names host and process. The system's lock on that file ends with the process that holds it,
    so a run that was killed on this host leaves nothing to clean up. Many network file systems lock within one host
    only, so the name of another host is enough to refuse, unless this SLURM job ran there before it was requeued. Only
    the first process of a distributed run locks, and it may lock the same folder again. Raises LockedError.
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


def take_over(folder: Path, seconds: float) -> None:
    """End the run that works in `folder` on this host, giving it `seconds` to save, and remove its lock.

    The lock of another host is just removed: the caller must know that nothing runs there any more.
    """
    path = folder / LOCK
    try:
        host, process, _ = path.read_text(encoding="utf-8").split(" ", 2)
    except (OSError, ValueError):
        return
    if host != socket.gethostname():
        path.unlink(missing_ok=True)
        return
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + patience
        if _is_locked(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), number)
        while _is_locked(path) and time.monotonic() < deadline:
            time.sleep(0.2)


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock. Its number alone does not tell, because numbers are reused."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return not _try_lock(file.fileno())
    return False


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks, where only the content of the file can tell
    return True


def _acquire(path: Path) -> int:
    """The open and locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = _try_lock(descriptor)
            host, process, job = _holder(descriptor)
            elsewhere = bool(host) and host != socket.gethostname() and (not job or job != _job())
            if elsewhere or (not free and (not process or alive(process))):
                where = f"on {host}" if elsewhere else "on this host"
                remedy = f"if that run is over, remove the lock: rm {path}" if elsewhere else "wait for it, or end it"
                who = f"process {process}" if process else "another process"
                raise LockedError(f"{path.parent} is in use by {who} {where}: {remedy}")
            if free and _is_same(descriptor, path):
                return descriptor
            if not free and _is_same(descriptor, path):  # forked workers of a killed run still hold its lock
                path.unlink(missing_ok=True)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(descriptor: int) -> tuple[str, int, str]:
    """Host, process id and SLURM job in the lock file; ("", 0, "") if it is new or damaged."""
    host, process, job, *_ = [*os.pread(descriptor, 1000, 0).decode("utf-8", "replace").split(), "", "", ""]
    return (host, int(process), job) if process.isdecimal() else ("", 0, "")


def _job() -> str:
    return os.environ.get("SLURM_JOB_ID", "")


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether `path` is still the open file, which its holder may have removed in the meantime."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
