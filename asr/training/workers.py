"""Worker processes of a DataLoader: how many, what each does first, and the limits that break them."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

SMALL_SHARED_MEMORY = 512 << 20  # free bytes; containers have 64 MB unless told otherwise
FEW_OPEN_FILES = 4096
SHARED_MEMORY = Path("/dev/shm")

_by_value = False  # set in worker processes only


def prepare_workers() -> list[str]:
    """Lift the limits that break workers; call once in the main process before the first DataLoader.

    Raises the soft limit of open files to the hard one ("Too many open files", "received 0 items of
    ancdata"). Returns remarks for the log, empty where nothing is amiss. Small shared memory needs nothing
    from the user: see `worker_init`.
    """
    remarks = []
    files = _raise_open_files()
    if files is not None and files < FEW_OPEN_FILES:
        remarks.append(f"only {files} open files are allowed (`ulimit -Hn`): workers pass batches through pipes")
    elif shared_memory_is_small():
        remarks.append("shared memory (/dev/shm) is small: workers pass batches through pipes (docker: --shm-size=2g)")
    return remarks


def worker_init(worker_id: int) -> None:
    """`worker_init_fn` of the DataLoaders: one thread, deaf to Ctrl-C, no shared memory where it is scarce.

    torch hands tensors from worker to trainer through files in /dev/shm, one open file each, under both of
    its sharing strategies; where there is too little of either the worker dies with "bus error". Batches are
    then sent through a pipe instead (some milliseconds each).
    """
    global _by_value
    import torch

    torch.set_num_threads(1)
    files = _raise_open_files()
    _by_value = shared_memory_is_small() or (files is not None and files < FEW_OPEN_FILES)
    # The main process handles Ctrl-C; it may still need batches while it saves, and it ends its workers
    # itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        # Schedulers send SIGTERM to every process of a job. A worker that died of it would take the
        # checkpoint with it; one that ignored it for ever could not be ended. (Also undoes a handler
        # inherited from the main process.)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _leave_soon)


def pass_by_value() -> bool:
    """Whether this process is a worker that must not send tensors through shared memory."""
    return _by_value


def shared_memory_is_small() -> bool:
    """Whether /dev/shm has less free than batches in flight need. False where there is none (macOS)."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free < SMALL_SHARED_MEMORY
    except OSError:
        return False


def auto_workers(accelerator: str = "cpu", ranks: int = 1) -> int:
    """A number of workers for each of `ranks` training processes on this machine.

    On a GPU as many as the cores allow, at most 8. When the CPU itself trains, a core that decodes is taken
    from training: one worker for every four cores, none below (reading then happens between the steps).
    """
    cores = available_cores() // max(1, ranks)
    return min(4, cores // 4) if accelerator == "cpu" else max(1, min(8, cores - 1))


def available_cores() -> int:
    """Cores this process may use: its affinity, and a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return cores


def _leave_soon(signum: int, frame: object) -> None:
    """On SIGTERM: go on for half a minute, in which the main process saves and closes us, then die."""
    signal.alarm(30)


def _raise_open_files() -> int | None:
    """Raise the soft limit of open files to the hard one, at most 65,536; returns it (None on Windows)."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = 65536 if hard == unlimited else min(hard, 65536)
    if soft != unlimited and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS refuses more than its own maximum
            pass
    return 65536 if soft == unlimited else soft
