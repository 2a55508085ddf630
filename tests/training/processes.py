"""Runs of several processes, forked from the test, so that nothing is imported again; also on hosts of their own."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

NO_NAMESPACES = 77
_NEW_HOSTNAME, _NEW_USER, _NEW_NETWORK = 0x04000000, 0x10000000, 0x40000000  # of sched.h

fork = multiprocessing.get_context("fork")


def run_processes(
    function: Callable[..., Any], count: int, folder: Path, *arguments: Any, hosts: bool = False
) -> list[tuple[int, str]]:
    """Call `function(rank, *arguments)` in `count` processes, each a node to Lightning; their statuses and stderr.

    hosts: two processes, in network namespaces of their own that a cable joins. Skips the test where that is forbidden.
    """
    if torch.cuda.is_available():
        pytest.skip("a process with a GPU cannot be forked")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    cable = (fork.Value("i", 0), fork.Event(), fork.Event()) if hosts else None
    processes = []
    for rank in range(count):
        environment = {"MASTER_ADDR": _address(0) if hosts else "127.0.0.1", "MASTER_PORT": str(port)}
        environment["NODE_RANK"] = str(rank)
        errors = folder / f"stderr{rank}"
        process = fork.Process(target=_child, args=(function, rank, environment, errors, cable, arguments))
        process.start()
        processes.append((process, errors))
    results = []
    for process, errors in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
            process.join()
        results.append((process.exitcode or 0, errors.read_text(encoding="utf-8", errors="replace")))
    if hosts and NO_NAMESPACES in [status for status, _ in results]:
        pytest.skip(f"this machine allows no network namespaces: {results[0][1] or results[1][1]}")
    return results


def _child(
    function: Callable[..., Any], rank: int, environment: dict[str, str], errors: Path, cable: Any, arguments: Any
) -> None:
    os.environ.update(environment)
    with errors.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    status = NO_NAMESPACES if cable else 1
    try:
        if cable:
            _move_to_host(rank, *cable)
        status = 1
        status = function(rank, *arguments) or 0
    except (OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def _address(rank: int) -> str:
    return f"10.77.0.{rank + 1}"


def _move_to_host(rank: int, first: Any, first_is_there: Any, cable_is_there: Any) -> None:
    """Move this process to a host of its own; the second lays the cable."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    if rank == 0:
        user, group = os.getuid(), os.getgid()
        check(libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_HOSTNAME))
        for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path(f"/proc/self/{name}").write_text(line, encoding="ascii")
        first.value = os.getpid()
        first_is_there.set()
        if not cable_is_there.wait(20):
            raise OSError("the other host has laid no cable")
    else:
        if not first_is_there.wait(20):
            raise OSError("the first host has not come up")
        namespace = os.open(f"/proc/{first.value}/ns/user", os.O_RDONLY)
        check(libc.setns(namespace, _NEW_USER))
        check(libc.unshare(_NEW_NETWORK | _NEW_HOSTNAME))
        _ip("link", "add", "cable1", "type", "veth", "peer", "name", "cable0", "netns", str(first.value))
        cable_is_there.set()
    socket.sethostname(f"host{rank}")
    _ip("addr", "add", f"{_address(rank)}/24", "dev", f"cable{rank}")
    for device in ("lo", f"cable{rank}"):
        _ip("link", "set", device, "up")
    os.environ["GLOO_SOCKET_IFNAME"] = f"cable{rank}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
