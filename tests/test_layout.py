"""The house rules that a machine can check: who may import what, and what `import asr` loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "asr").rglob("*.py"))
# The data's path: a package imports only from those before it (and from the small shared types).
ORDER = ["audio", "text", "corpus", "model", "decoding", "scoring", "training", "commands"]
# Feasibility is decided with the model's own output length: the one arrow against the order, to a pure function.
ALLOWED_BACKWARD = {
    ("corpus", "asr.model.acoustic"),
    ("corpus", "asr.model.config"),
    ("corpus", "asr.model.checkpoint"),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_path_of_the_data(path: Path) -> None:
    package = path.parent.name
    for name in imports(path):
        top = name.partition(".")[0]
        if top in ("pytorch_lightning", "lightning"):
            assert package == "training" and top == "pytorch_lightning", f"{path} imports {name}"
        if top in ("torchaudio", "torchcodec"):
            assert path.name == "_torchaudio.py", f"{path} imports {name}"
        assert top != "espeakng_loader", "eSpeak NG is GPL: only recipes/mini may use it"
        parts = name.split(".")
        if parts[0] == "asr" and len(parts) > 1 and parts[1] in ORDER and package in ORDER:
            backward = ORDER.index(parts[1]) > ORDER.index(package)
            assert not backward or (package, name) in ALLOWED_BACKWARD, f"{path} imports {name}"


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
