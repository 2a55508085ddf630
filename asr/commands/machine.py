"""What the machine offers: cores, memory, shared memory and open files, as far as this process may use them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from asr.commands.installation import Finding, State
from asr.training.workers import available_cores

_GIB = 2**30


def check_machine() -> list[Finding]:
    """Python, ffmpeg, cores, memory, shared memory and open files."""
    return [_python(), _ffmpeg(), _cores(), _memory(), _shared_memory(), _open_files()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 10) <= sys.version_info[:2] < (3, 14):
        return Finding("python", "ok", version, sys.executable, group="required")
    fix = "use Python 3.10 to 3.13: python3.12 -m venv .venv"
    return Finding("python", "broken", version, "Python 3.10 to 3.13 is needed", fix, "required")


def _ffmpeg() -> Finding:
    program = shutil.which("ffmpeg")
    if program is None:
        note = "needed for m4a, webm and other containers"
        fix = "apt install ffmpeg, brew install ffmpeg or conda install ffmpeg"
        return Finding("ffmpeg", "missing", "", note, fix, "optional")
    try:
        done = subprocess.run([program, "-version"], capture_output=True, timeout=10, check=False, text=True)
        words = done.stdout.split()
        if done.returncode:
            return Finding("ffmpeg", "broken", "", f"{program} ends with status {done.returncode}", "", "optional")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("ffmpeg", "broken", "", f"{program}: {error}", "", "optional")
    return Finding("ffmpeg", "ok", words[2] if len(words) > 2 else "", program, group="optional")


def _cores() -> Finding:
    usable, there = available_cores(), os.cpu_count() or 1
    note = f"{usable} usable" if usable == there else f"{usable} usable of {there}"
    return Finding("cores", "ok", "", note, group="machine")


def _memory() -> Finding:
    sizes = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) * 1024 if rest.split() else 0
    if "MemTotal" not in sizes:
        return Finding("memory", "ok", "", "unknown on this system", group="machine")
    total, available = sizes["MemTotal"], sizes.get("MemAvailable", 0)
    limit = _first_line("/sys/fs/cgroup/memory.max")
    if limit.isdecimal() and int(limit) < total:
        used = _first_line("/sys/fs/cgroup/memory.current")
        total = int(limit)
        available = min(available, total - int(used) if used.isdecimal() else total)
    state: State = "ok" if available >= 2 * _GIB else "warning"
    note = f"{total / _GIB:.1f} GiB, {available / _GIB:.1f} GiB free"
    return Finding("memory", state, "", note + ("" if state == "ok" else ": little for training"), group="machine")


def _shared_memory() -> Finding:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return Finding("/dev/shm", "ok", "", "not on this system", group="machine")
    if free >= _GIB:
        return Finding("/dev/shm", "ok", "", f"{free / _GIB:.1f} GiB free", group="machine")
    note = f"{free / 2**20:.0f} MiB free: loading workers pass their batches through it"
    return Finding("/dev/shm", "warning", "", note, "docker run --shm-size=8g ..., or data.workers=0", "machine")


def _open_files() -> Finding:
    try:
        import resource
    except ImportError:
        return Finding("open files", "ok", "", "no limit on this system", group="machine")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY or limit >= 1024:
        return Finding("open files", "ok", "", f"limit {limit}", group="machine")
    note = f"limit {limit}: loading workers may run out"
    return Finding("open files", "warning", "", note, "ulimit -n 4096", "machine")


def _first_line(path: str) -> str:
    return _read(path).partition("\n")[0].strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
