"""The house rules that a machine can check: who may import what, and what `import asr` loads."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "asr").rglob("*.py"))
# The path of the data: a room imports only from rooms before it, and from the files at the top.
ROOMS = [
    "audio", "text", "corpus", "model", "lm", "decoding", "scoring", "training", "recognition", "recipe", "commands",
]  # fmt: skip
TOP = {"__init__", "__main__", "config", "types", "files", "standard_streams"}
SUBROOMS = {"decoding": {"beam"}, "training": {"losses"}}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in SOURCES}


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere in it, for type checking and inside functions, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in full}
    return found


def room(module: str) -> str:
    """The room of a module of ours; "" for the files at the top, and for the modules of others."""
    parts = module.split(".")
    return parts[1] if parts[0] == "asr" and len(parts) > 1 and parts[1] not in TOP else ""


def test_every_file_is_in_a_room() -> None:
    for path in SOURCES:
        *folders, name = path.relative_to(ROOT / "asr").with_suffix("").parts
        if not folders:
            assert name in TOP, f"{path} is in no room"
            continue
        assert folders[0] in ROOMS, f"{path} is in no room"
        assert len(folders) == 1 or (len(folders) == 2 and folders[1] in SUBROOMS.get(folders[0], ())), path


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_path_of_the_data(name: str) -> None:
    here = room(name)
    for imported in imports(MODULES[name]):
        top = imported.partition(".")[0]
        if top in ("pytorch_lightning", "lightning"):
            assert here == "training" and top == "pytorch_lightning", f"{name} imports {imported}"
        if top in ("torchaudio", "torchcodec"):
            assert name == "asr.audio._torchaudio", f"{name} imports {imported}"
        assert top != "espeakng_loader", "eSpeak NG is GPL: only recipes/mini may use it"
        if here and room(imported):
            assert ROOMS.index(room(imported)) <= ROOMS.index(here), f"{name} imports {imported}"


def test_there_are_no_circles() -> None:
    # asr/__init__.py and asr/__main__.py name what is below them, to be imported when it is asked for.
    graph = {name: {i for i in imports(path) if i in MODULES and i != name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' <- '.join(error.args[1])}")


def test_import_asr_and_help_load_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io, asr\n"
        "from asr.__main__ import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): assert main(['--help']) == 0\n"
        "print(sorted({'torch', 'numpy', 'pytorch_lightning', 'numba', 'matplotlib', 'torchaudio'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_file_is_a_bag_of_things() -> None:
    for path in [*SOURCES, *(ROOT / "recipes").rglob("*.py")]:
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, f"{path} holds two things"


def test_files_named_in_the_source_exist() -> None:
    sources = [path for folder in ("asr", "benchmarks", "recipes", "tests") for path in (ROOT / folder).rglob("*.py")]
    names = {path.name for path in sources}
    for path in sources:
        if "tests" not in path.parts and path.name != "_torchaudio.py":  # which names files of torchaudio
            for name in re.findall(r"\b\w+\.py\b", path.read_text(encoding="utf-8")):
                assert name in names, f"{path} names {name}"
