"""`asr doctor`: what is installed, what is missing, and the command that fixes it.

Packages are imported in child processes, so that even one that crashes Python is reported.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from asr.types import VERSION

_GROUPS = ("required", "optional", "machine")
_TIMEOUT = 120.0  # seconds to wait for a child; a cold file system can be slow
_GIB = 2**30


class Package(NamedTuple):
    """A distribution with its lowest version, its module, and what it is for."""

    name: str
    lowest: str
    module: str
    purpose: str
    group: str = "required"

    def pip(self, option: str = "") -> str:
        """The command that installs it, "" where pip does not."""
        return f"pip install {option}'{self.name}>={self.lowest}'" if self.lowest else ""

    def broken(self, reason: str) -> Diagnosis:
        return Diagnosis(self.name, "broken", "", reason, self.pip("--force-reinstall "), self.group)


class Diagnosis(NamedTuple):
    """The state of a package or of a part of the machine (ok, warning, missing or broken); `fix` is a command."""

    name: str
    state: str = "ok"
    version: str = ""
    note: str = ""
    fix: str = ""
    group: str = "machine"


PACKAGES: tuple[Package, ...] = (
    Package("torch", "2.11", "torch", "networks"),
    Package("torchaudio", "2.11", "torchaudio", "filter banks, masks and resampling"),
    Package("pytorch-lightning", "2.5", "pytorch_lightning", "training"),
    Package("numpy", "1.26", "numpy", "arrays"),
    Package("soundfile", "0.12", "soundfile", "reading audio"),
    Package("sentencepiece", "0.2.1", "sentencepiece", "BPE and unigram tokenizers"),
    Package("jiwer", "4.0", "jiwer", "word error rates"),
    Package("rapidfuzz", "3", "rapidfuzz", "character error rates"),
    Package("safetensors", "0.4.3", "safetensors", "model files"),
    Package("numba", "0.60", "numba", "fast decoding"),
    Package("pyyaml", "6.0", "yaml", "recipes"),
    Package("tqdm", "4.66", "tqdm", "progress bars"),
    Package("matplotlib", "3.8", "matplotlib", "learning curves"),
    Package("tensorboard", "2.16", "tensorboard", "training logs"),
    Package("pyctcdecode", "0.5", "pyctcdecode", "--decoder pyctcdecode", "optional"),
    Package("flashlight-text", "0.0.7", "flashlight.lib.text", "--decoder flashlight", "optional"),
    Package("kenlm", "0.2", "kenlm", "the language models of these two (needs a C++ compiler)", "optional"),
    Package("optuna", "5", "optuna", "asr tune", "optional"),
    Package("espeakng-loader", "0.2.4", "espeakng_loader", "the speech of recipes/mini", "optional"),
    Package("GPU", "", "torch", "fast training", "machine"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")


def run(args: argparse.Namespace) -> int:
    diagnoses = sorted([*check_machine(), *check_packages()], key=lambda d: _GROUPS.index(d.group))
    failed = [d.name for d in diagnoses if d.group == "required" and d.state in ("missing", "broken")]
    if args.json:
        print(json.dumps({"ok": not failed, "version": VERSION, "parts": [d._asdict() for d in diagnoses]}))
    else:
        print(table(diagnoses, failed))
    return 1 if failed else 0


def table(diagnoses: Sequence[Diagnosis], failed: Sequence[str]) -> str:
    """A line per diagnosis, by group, with the command that fixes it below; at the end a summary."""
    width, version_width = max(len(d.name) for d in diagnoses), max(len(d.version) for d in diagnoses)
    lines: list[str] = []
    for group, members in groupby(diagnoses, key=lambda d: d.group):
        lines.append(group)
        for d in members:
            absent = d.state == "missing" and group != "required"
            mark = "-" if absent else d.state if d.state in ("ok", "warning") else d.state.upper()
            lines.append(f"  {d.name:<{width}}  {mark:<7}  {d.version:<{version_width}}  {d.note}".rstrip())
            lines += [" " * (width + 13) + f"-> {d.fix}"] if d.fix else []
        lines.append("")
    doubtful = [d.name for d in diagnoses if d.state == "warning" or (d.state == "broken" and d.group != "required")]
    summary = "all required parts work" + (f"; look at {', '.join(doubtful)}" if doubtful else "")
    if failed:
        summary = f"does not work yet: fix {', '.join(failed)}"
    return "\n".join([*lines, f"asr {VERSION}: {summary}"])


def check_packages(packages: Sequence[Package] = PACKAGES) -> list[Diagnosis]:
    """Import the packages in a child process and report for each, in order, whether it works.

    One child imports all of them, because they share most of what they import; if a package ends it, the next child
    continues after that package.
    """
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": path}
    diagnoses: list[Diagnosis] = []
    while rest := packages[len(diagnoses) :]:
        command = [sys.executable, "-m", "asr.commands.doctor", json.dumps(rest)]
        try:
            child = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=_TIMEOUT
            )
            answers = child.stdout
            message = child.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
            reason = f"importing it ends Python ({child.returncode}) {message}".strip()
        except subprocess.TimeoutExpired as late:
            answers, reason = late.stdout or b"", f"no answer within {_TIMEOUT:.0f} s"
        diagnoses += [Diagnosis(*json.loads(line)) for line in answers.splitlines()]
        if len(diagnoses) < len(packages):
            diagnoses.append(packages[len(diagnoses)].broken(reason))
    return diagnoses


def _child(packages: list[Package]) -> None:
    """In the child: print a JSON line per package to a descriptor that no import can print to."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as results:
        os.dup2(2, 1)
        for package in packages:
            print(json.dumps(_import(package)), file=results, flush=True)


def _import(package: Package) -> Diagnosis:
    """Import a package in this process and report whether it works."""
    name, lowest, module, purpose, group = package
    missing = Diagnosis(name, "missing", "", f"needed for {purpose}", package.pip(), group)
    try:
        if not importlib.util.find_spec(module):
            return missing
        if name not in ("espeakng-loader", "torchaudio"):  # the first is GPL, the second goes through asr.audio only
            importlib.import_module(module)
        diagnosis = Diagnosis(name, version=_installed(name), group=group)._replace(**_details(name))
    except BaseException as error:
        absent = isinstance(error, ModuleNotFoundError) and module.split(".")[0] == (error.name or "").split(".")[0]
        if absent or "is not installed" in str(error):
            return missing
        return package.broken(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])
    if diagnosis.version and _release(diagnosis.version) < _release(lowest):
        note, fix = f"too old, {lowest} is needed", package.pip("--upgrade ")
        return diagnosis._replace(state="broken", note=note, fix=fix)
    return diagnosis


def _installed(name: str) -> str:
    """The version of an installed distribution, else ""."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return ""


def _release(version: str) -> tuple[int, ...]:
    """The release of a version as numbers: (2, 13, 0) for '2.13.0+cpu'."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _warning(note: str, fix: str = "") -> dict[str, str]:
    return {"state": "warning", "note": note, "fix": fix}


def _details(name: str) -> dict[str, str]:
    """What else is worth knowing about a package that works, as fields of its diagnosis."""
    if name in ("torch", "torchaudio", "GPU"):
        return _torch_details(name)
    if name == "pytorch-lightning" and (other := _installed("lightning")):
        note = f"the package lightning {other} is also installed; objects of the two do not mix"
        return _warning(note, "pip uninstall -y lightning")
    if name == "soundfile":
        import soundfile

        kinds = soundfile.available_formats()
        lacking = [kind.lower() for kind in ("FLAC", "OGG", "MP3") if kind not in kinds]
        lacking += ["opus"] if "OGG" in kinds and "OPUS" not in soundfile.available_subtypes("OGG") else []
        library = f"libsndfile {soundfile.__libsndfile_version__}"
        if not lacking:
            return {"note": f"{library}: wav flac ogg opus mp3"}
        fix = "pip install --upgrade --force-reinstall soundfile"
        return _warning(f"{library} cannot read {' '.join(lacking)}", fix)
    if name == "pyctcdecode":
        import numpy

        if _release(numpy.__version__) >= (2,):
            note = f"requires numpy below 2, but {numpy.__version__} is installed: installing it downgrades numpy"
            return _warning(note, "pip install 'numpy<2'")
    return {}


def _torch_details(name: str) -> dict[str, str]:
    import torch

    cuda = torch.version.cuda
    target = f"CUDA {cuda}" if cuda else "the CPU"
    if name == "torch":
        return {"version": torch.__version__, "note": f"built for {target}, {torch.get_num_threads()} threads"}
    if name == "torchaudio":
        from asr.audio import _torchaudio as ours

        if ours.native_available:
            return {"version": ours.version, "note": "native part loaded"}
        wheel, reason = ours.version.partition("+cu")[2], ours.unavailable_reason
        if wheel.isdecimal() and wheel != (cuda or "").replace(".", ""):
            reason = f"a wheel for CUDA {wheel[:-1]}.{wheel[-1]}, but torch is for {target}"
        return {"version": ours.version, "note": f"without its native part, which is not needed here ({reason})"}
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return {"note": ", ".join(f"{card.name} ({card.total_memory / _GIB:.0f} GiB)" for card in cards)}
    if not Path("/proc/driver/nvidia/version").exists():
        return {"note": "none: everything runs on the CPU"}
    if cuda:
        return _warning(f"torch cannot use the NVIDIA driver with CUDA {cuda}: is the driver too old?")
    fix = "pip uninstall -y torch && pip install 'torch>=2.11'"
    return _warning("there is an NVIDIA driver, but this torch is built for the CPU", fix)


def check_machine() -> list[Diagnosis]:
    """Python, ffmpeg, cores, memory, shared memory and open files."""
    from asr.training.process import available_cores

    python = Diagnosis("python", "ok", ".".join(map(str, sys.version_info[:3])), sys.executable, "", "required")
    if not (3, 10) <= sys.version_info[:2] < (3, 14):
        fix = "use Python 3.10 to 3.13: python3.12 -m venv .venv"
        python = python._replace(state="broken", note="Python 3.10 to 3.13 is needed", fix=fix)
    usable, present = available_cores(), os.cpu_count() or 1
    cores = {"note": f"{usable} usable" + (f" of {present}" if usable != present else "")}
    shared = {"note": "not on this system"}
    with suppress(OSError):
        free = shutil.disk_usage("/dev/shm").free
        shared = {"note": f"{free / _GIB:.1f} GiB free"}
        if free < _GIB:
            note = f"{free / 2**20:.0f} MiB free: data loading workers pass their batches through it"
            shared = _warning(note, "docker run --shm-size=8g ..., or data.workers=0")
    files = {"note": "no limit on this system"}
    with suppress(ImportError):  # Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        files = {"note": f"limit {limit}"}
        if limit != resource.RLIM_INFINITY and limit < 1024:
            files = _warning(f"limit {limit}: workers may run out", "ulimit -n 4096")
    rows = {"cores": cores, "memory": _memory(), "/dev/shm": shared, "open files": files}
    return [python, _ffmpeg(), *(Diagnosis(name, **fields) for name, fields in rows.items())]


def _ffmpeg() -> Diagnosis:
    program = shutil.which("ffmpeg")
    if program is None:
        fix = "apt install ffmpeg, brew install ffmpeg or conda install ffmpeg"
        return Diagnosis("ffmpeg", "missing", "", "needed for m4a, webm and other containers", fix, "optional")
    try:
        done = subprocess.run([program, "-version"], capture_output=True, timeout=10, check=True, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Diagnosis("ffmpeg", "broken", "", f"{program}: {error}", "", "optional")
    return Diagnosis("ffmpeg", "ok", "".join(done.stdout.split()[2:3]), program, "", "optional")


def _memory() -> dict[str, str]:
    """Total and free memory, within the limits of a container."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return {"note": "unknown on this system"}
    sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+): +(\d+) kB", text, re.M)}
    total, free = sizes["MemTotal"], sizes["MemAvailable"]
    with suppress(OSError, ValueError):  # no container, or one without a limit, whose file says "max"
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text("utf-8")) for name in ("max", "current"))
        total, free = min(total, limit), min(free, limit - used)
    note = f"{total / _GIB:.1f} GiB, {free / _GIB:.1f} GiB free"
    return _warning(f"{note}: little for training") if free < 2 * _GIB else {"note": note}


if __name__ == "__main__":
    _child([Package(*package) for package in json.loads(sys.argv[1])])
