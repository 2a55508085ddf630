"""Which parts are installed and work: imported in child processes, so that one that crashes is only reported."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from asr.training.workers import available_cores

State = Literal["ok", "warning", "missing", "broken"]
Group = Literal["required", "optional", "machine"]

_TIMEOUT = 120.0  # seconds for a batch of parts to import; a cold file system can be slow


@dataclass(frozen=True)
class Part:
    """A package: the module to import, what to give pip (a distribution and its lowest version), what it is for."""

    name: str
    module: str
    requirement: str
    purpose: str
    group: Group = "required"


@dataclass(frozen=True)
class Finding:
    """What was found out about one part, or one property of the machine; `fix` is the line that mends it, if any."""

    name: str
    state: State
    version: str = ""
    note: str = ""
    fix: str = ""
    group: Group = "required"


PARTS: tuple[Part, ...] = (
    Part("torch", "torch", "torch>=2.11", "networks"),
    Part("torchaudio", "torchaudio", "torchaudio>=2.11", "filter banks, masks and resampling"),
    Part("pytorch-lightning", "pytorch_lightning", "pytorch-lightning>=2.5", "training"),
    Part("numpy", "numpy", "numpy>=1.26", "arrays"),
    Part("soundfile", "soundfile", "soundfile>=0.12", "reading audio"),
    Part("sentencepiece", "sentencepiece", "sentencepiece>=0.2.1", "BPE and unigram tokenizers"),
    Part("jiwer", "jiwer", "jiwer>=3.0.1", "word error rates"),
    Part("rapidfuzz", "rapidfuzz", "rapidfuzz>=3", "character error rates"),
    Part("safetensors", "safetensors", "safetensors>=0.4.3", "model files"),
    Part("numba", "numba", "numba>=0.60", "fast decoding"),
    Part("pyyaml", "yaml", "pyyaml>=6.0", "recipes"),
    Part("tqdm", "tqdm", "tqdm>=4.66", "progress bars"),
    Part("matplotlib", "matplotlib", "matplotlib>=3.8", "learning curves"),
    Part("tensorboard", "tensorboard", "tensorboard>=2.16", "training logs"),
    Part("pyctcdecode", "pyctcdecode", "pyctcdecode>=0.5", "--decoder pyctcdecode", "optional"),
    Part("flashlight-text", "flashlight.lib.text", "flashlight-text>=0.0.7", "--decoder flashlight", "optional"),
    Part("kenlm", "kenlm", "kenlm>=0.2", "language models of these two (needs a C++ compiler)", "optional"),
    Part("espeakng-loader", "espeakng_loader", "espeakng-loader>=0.2.4", "the speech of recipes/mini", "optional"),
    Part("GPU", "torch", "torch>=2.11", "fast training", "machine"),
)
# Importing Lightning takes as long as all others together: it and what it builds on go into a child of their own.
_SLOW = ("torch", "torchaudio", "GPU", "pytorch-lightning")


def check_parts(parts: Sequence[Part] = PARTS) -> list[Finding]:
    """Import every part in child processes and say for each whether it works, in the order given."""
    found: dict[str, Finding] = {}
    batches = ([p for p in parts if p.name in _SLOW], [p for p in parts if p.name not in _SLOW])
    threads = [threading.Thread(target=_check_batch, args=(batch, found)) for batch in batches if batch]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[part.name] for part in parts]


def _check_batch(parts: Sequence[Part], found: dict[str, Finding]) -> None:
    """One child for all of them, since they share imports; another for the rest after a part that killed it."""
    waiting = list(parts)
    while waiting:
        for report in _child_reports(list(waiting)):
            part = waiting.pop(0)
            found[part.name] = _judge(part, report)


def _child_reports(parts: list[Part]) -> Iterator[dict[str, str]]:
    """Reports on the parts in order, at least one; the last one says so where a part ended the child."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "utf-8"}
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-m", "asr.commands.installation", json.dumps([asdict(part) for part in parts])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
            encoding="utf-8",
        )
        timer = threading.Timer(_TIMEOUT, child.kill)
        timer.start()
        done = 0
        assert child.stdout is not None
        for line in child.stdout:
            done += 1
            yield json.loads(line)
        status = child.wait()
        late = not timer.is_alive()
        timer.cancel()
        if done < len(parts):
            complaints.seek(0)
            last = complaints.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
            cause = f"no answer within {_TIMEOUT:.0f} s" if late else f"importing it ends Python ({status}) {last}"
            yield {"error": cause.strip()}


def _judge(part: Part, report: dict[str, str]) -> Finding:
    version, note, fix = report.get("version", ""), report.get("note", ""), report.get("fix", "")
    lowest = part.requirement.partition(">=")[2]
    state: State = "ok"
    if "missing" in report:
        state, note, fix = "missing", f"needed for {part.purpose}", f"pip install '{part.requirement}'"
    elif "error" in report:
        state, note, fix = "broken", report["error"], f"pip install --force-reinstall '{part.requirement}'"
    elif version and _release(version) < _release(lowest):
        state, note, fix = "broken", f"too old, {lowest} is needed", f"pip install --upgrade '{part.requirement}'"
    elif "warning" in report:
        state, note = "warning", report["warning"]
    return Finding(part.name, state, version, note, fix, part.group)


def _release(version: str) -> tuple[int, ...]:
    """The release of a version, (2, 13, 0) for '2.13.0+cpu', to compare by."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _report(part: Part) -> dict[str, str]:
    """Import a part in this process and say what it is: keys version, note, warning, fix; or missing; or error."""
    try:
        if part.name == "espeakng-loader":  # GPL, and so never imported here
            return {"version": _version(part)} if importlib.util.find_spec(part.module) else {"missing": "yes"}
        if part.name != "torchaudio":  # which is imported through our own module only
            importlib.import_module(part.module)
        details = _DETAILS.get(part.name, dict)()
    except ModuleNotFoundError as error:
        if error.name and part.module.split(".")[0] == error.name.split(".")[0]:
            return {"missing": "yes"}
        return {"error": _one_line(error)}
    except BaseException as error:
        return {"missing": "yes"} if "is not installed" in str(error) else {"error": _one_line(error)}
    return {"version": _version(part), **details}


def _version(part: Part) -> str:
    try:
        return "" if part.group == "machine" else importlib.metadata.version(part.requirement.partition(">=")[0])
    except importlib.metadata.PackageNotFoundError:
        return ""


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _torch() -> dict[str, str]:
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    return {"version": torch.__version__, "note": f"{built}, {torch.get_num_threads()} threads"}


def _torchaudio() -> dict[str, str]:
    import torch

    from asr.audio import _torchaudio as ours

    if ours.native_available:
        return {"version": ours.version, "note": "native part loaded"}
    wheel, cuda = ours.version.partition("+cu")[2], torch.version.cuda
    cause = ours.unavailable_reason
    if wheel.isdecimal() and wheel != (cuda or "").replace(".", ""):
        beside = f"CUDA {cuda}" if cuda else "the CPU"
        cause = f"a wheel for CUDA {wheel[:-1]}.{wheel[-1]}, torch is for {beside}"
    return {"version": ours.version, "note": f"without its native part, which nothing here needs ({cause})"}


def _lightning() -> dict[str, str]:
    try:
        other = importlib.metadata.version("lightning")
    except importlib.metadata.PackageNotFoundError:
        return {}
    warning = f"the package lightning {other} is installed beside it; objects of the two do not mix"
    return {"warning": warning, "fix": "pip uninstall -y lightning"}


def _soundfile() -> dict[str, str]:
    import soundfile

    kinds = soundfile.available_formats()
    lacking = [kind for kind in ("FLAC", "OGG", "MP3") if kind not in kinds]
    if "OGG" in kinds and "OPUS" not in soundfile.available_subtypes("OGG"):
        lacking.append("OPUS")
    library = f"libsndfile {soundfile.__libsndfile_version__}"
    if lacking:
        fix = "pip install --upgrade --force-reinstall soundfile"
        return {"warning": f"{library} cannot read {' '.join(lacking).lower()}", "fix": fix}
    return {"note": f"{library}: wav flac ogg opus mp3"}


def _pyctcdecode() -> dict[str, str]:
    import numpy

    if _release(numpy.__version__) >= (2,):
        warning = f"declares numpy below 2, {numpy.__version__} is here: installing it will downgrade numpy"
        return {"warning": warning, "fix": "pip install 'numpy<2'"}
    return {}


def _gpu() -> dict[str, str]:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return {"note": ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards)}
    if Path("/proc/driver/nvidia/version").exists():
        if torch.version.cuda is None:
            fix = "pip uninstall -y torch && pip install 'torch>=2.11'"
            return {"warning": "there is an NVIDIA driver, but this torch is built for the CPU", "fix": fix}
        return {"warning": f"torch cannot use the NVIDIA driver with CUDA {torch.version.cuda}: is it too old?"}
    return {"note": "none: everything runs on the CPU"}


_DETAILS: dict[str, Callable[[], dict[str, str]]] = {
    "torch": _torch,
    "torchaudio": _torchaudio,
    "pytorch-lightning": _lightning,
    "soundfile": _soundfile,
    "pyctcdecode": _pyctcdecode,
    "GPU": _gpu,
}


def _main(parts: list[Part]) -> None:
    """The child: one JSON line for each part, on a descriptor that no import can print to."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as results:
        os.dup2(2, 1)
        for part in parts:
            print(json.dumps(_report(part)), file=results, flush=True)


if __name__ == "__main__":
    _main([Part(**part) for part in json.loads(sys.argv[1])])


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
