"""One run at a time in a folder: another is refused with host and process; what a dead run left is taken over."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr.training.process import LOCK, LockedError, locked

fcntl = pytest.importorskip("fcntl")
HERE = socket.gethostname()


@pytest.fixture(scope="module")
def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A lock file that someone else has locked, still empty."""
    path = tmp_path / LOCK
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def test_a_lock_is_entered_again_by_its_holder_and_gone_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with pytest.raises(KeyError), locked(folder):
        with locked(folder / ".." / "run"):
            assert (folder / LOCK).read_text(encoding="utf-8").split()[:2] == [HERE, str(os.getpid())]
        assert (folder / LOCK).exists()
        raise KeyError
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("process", [os.getppid(), 0])  # 0: it has not written its name yet
def test_a_running_process_on_this_host_is_named(held: Path, process: int) -> None:
    if process:
        held.write_text(f"{HERE} {process}\n", encoding="utf-8")
    name = f"process {process}" if process else "another process"
    with pytest.raises(LockedError, match=f"in use by {name} on this host"), locked(held.parent):
        pass
    assert held.exists()


def test_another_host_is_refused_with_the_line_that_removes_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).write_text("node7 4711 99\n", encoding="utf-8")
    with pytest.raises(LockedError) as error, locked(tmp_path):
        pass
    assert f"process 4711 on node7: if that run is over, remove the lock: rm {tmp_path / LOCK}" in str(error.value)
    monkeypatch.setenv("SLURM_JOB_ID", "98")
    with pytest.raises(LockedError), locked(tmp_path):
        pass
    monkeypatch.setenv("SLURM_JOB_ID", "99")  # the same job, queued again on another node
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["{host} {gone}\n", "", "damaged", "\0\xff"])
def test_what_a_dead_or_damaged_run_left_is_taken_over(tmp_path: Path, gone: int, content: str) -> None:
    (tmp_path / LOCK).write_text(content.format(host=HERE, gone=gone), encoding="latin-1")
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / LOCK).read_text(encoding="utf-8")


def test_workers_of_a_killed_run_do_not_hold_its_lock(held: Path, gone: int) -> None:
    held.write_text(f"{HERE} {gone}\n", encoding="utf-8")
    with locked(held.parent):
        assert str(os.getpid()) in held.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_other_ranks_of_a_run_are_not_locked_out(held: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with locked(held.parent):
        pass


def test_the_lock_of_a_process_that_is_killed_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from asr.training.process import locked\n"
        f"with locked(Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
