"""Compiled code: never older than any of its sources, and never dependent on a folder that can be written."""

from __future__ import annotations

import errno
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import pytest
from numba.core import caching

from asr.lm import compiling
from asr.lm.compiling import source_digest, source_files

ASR = Path(compiling.__file__).parents[1]
COMPILED = sorted(path for path in ASR.rglob("*.py") if "asr.lm.compiling import" in path.read_text("utf-8"))
TINY = {
    "__init__": "",
    "outer": "from asr.lm.compiling import search_kernel\nfrom tiny.inner import add\n\n"
    "@search_kernel\ndef total(x):\n    return add(x) + 1\n",
    "inner": "from asr.lm.compiling import kernel\nfrom tiny.numbers import STEP\n\n"
    "@kernel\ndef add(x):\n    return x + STEP\n",
    "numbers": "STEP = 10\n",
}
ONCE = "asr: compiling the beam search, once (about 15 s)\n"


def test_all_compiled_functions_go_through_the_one_decorator() -> None:
    pattern = re.compile(r"numba[\w.]*(\.| import [^\n]*\b)(n?jit|(gu)?vectorize|cfunc|stencil)\b")
    found = {path.name for path in ASR.rglob("*.py") if pattern.search(path.read_text("utf-8"))}
    assert found == {"compiling.py"}
    assert len(COMPILED) > 10


def called(function: Any) -> set[Path]:
    """The files of all functions that compiled code reaches from a function, found in the byte code."""
    found: set[Path] = set()
    todo, seen = [function], set()
    while todo:
        outer = todo.pop()
        inner: FunctionType | None = getattr(outer, "py_func", None) or getattr(outer, "_defn", None)
        if inner is not None and inner not in seen:
            seen.add(inner)
            found.add(Path(inner.__code__.co_filename))
            todo += [inner.__globals__.get(name) for name in inner.__code__.co_names]
    return found


def test_an_edit_in_any_file_of_compiled_code_is_noticed_by_all_that_call_it(tmp_path: Path) -> None:
    calls = {path: {path} for path in COMPILED}
    for path in COMPILED:
        module = importlib.import_module(".".join(path.relative_to(ASR.parent).with_suffix("").parts))
        for function in vars(module).values():
            if hasattr(function, "py_func"):
                calls[path] |= called(function)
    copy = tmp_path / "asr"
    shutil.copytree(ASR, copy, ignore=shutil.ignore_patterns("__pycache__"))
    place = {
        path: copy / path.relative_to(ASR) for path in {*COMPILED, *(f for files in calls.values() for f in files)}
    }
    before = {path: source_digest(place[path], copy) for path in COMPILED}
    assert max(len(files) for files in calls.values()) > 4
    for edited, file in place.items():
        text = file.read_text("utf-8")
        file.write_text(text + "\n# edited\n", "utf-8")
        compiling._read.cache_clear()
        after = {path: source_digest(place[path], copy) for path in COMPILED}
        changed = {path for path in COMPILED if after[path] != before[path]}
        assert {path for path in COMPILED if edited in calls[path]} <= changed
        file.write_text(text, "utf-8")
    compiling._read.cache_clear()


def test_a_file_depends_on_what_it_imports_however_it_is_written(tmp_path: Path) -> None:
    package = tmp_path / "tiny"
    for name in ("a", "b", "c", "d", "e", "sub/f", "sub/__init__", "g", "__init__"):
        (package / name).parent.mkdir(exist_ok=True, parents=True)
        (package / f"{name}.py").write_text("import tiny.a\n", "utf-8")
    (package / "a.py").write_text(
        "from tiny import (  # several\n    b,\n    c as other,\n)\nimport os, tiny.d\nif TYPE_CHECKING:\n"
        "    from tiny.e import x\n\nfrom tiny.sub import f\nfrom tinyother import g\n",
        "utf-8",
    )
    files = {str(path.relative_to(package)) for path in source_files(package / "a.py", package)}
    assert files == {"a.py", "b.py", "c.py", "d.py", "e.py", "sub/f.py", "sub/__init__.py", "__init__.py"}


Fresh = Callable[..., Any]


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fresh]:
    """Imports `tiny.outer.total` as a new process would, after writing its files with the texts given."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, text in TINY.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(**texts: str) -> Any:
        for name, text in texts.items():
            (folder / f"{name}.py").write_text(text, "utf-8")
        for name in [name for name in sys.modules if name.partition(".")[0] == "tiny"]:
            del sys.modules[name]
        compiling._read.cache_clear()
        monkeypatch.setattr(compiling, "_printed", set())
        return importlib.import_module("tiny.outer").total

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "tiny"]:
        del sys.modules[name]


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


def test_compiled_code_follows_every_source_and_is_announced_only_when_it_is_compiled(
    fresh: Fresh, capsys: pytest.CaptureFixture[str]
) -> None:
    total = fresh()
    assert (total(1), hits(total), capsys.readouterr().err) == (12, 0, ONCE)
    total = fresh()
    assert (total(1), hits(total), capsys.readouterr().err) == (12, 1, "")
    total = fresh(inner=TINY["inner"].replace("x + STEP", "x * STEP"))  # inlined or called, from another file
    assert (total(2), hits(total), capsys.readouterr().err) == (21, 0, ONCE)
    total = fresh(numbers="STEP = 20\n")  # a constant, two files away
    assert (total(2), hits(total), capsys.readouterr().err) == (41, 0, ONCE)
    assert (total(2.5), capsys.readouterr().err) == (51.0, "")  # another signature; said once in a process


def test_a_kill_between_index_and_code_does_not_lead_to_older_code(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fresh()(1) == 12

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(caching.IndexDataCacheFile, "_save_data", full)
        assert fresh(numbers="STEP = 20\n")(1) == 22
    assert "(No space left on device): every run compiles it again" in capsys.readouterr().err
    total = fresh()
    assert (total(1), hits(total)) == (22, 0)
    total = fresh()
    assert (total(1), hits(total)) == (22, 1)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b[::-1]])
def test_damaged_files_are_as_good_as_none(
    fresh: Fresh, tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    assert fresh()(1) == 12
    files = list((tmp_path / "tiny" / "__pycache__").glob(f"*.{suffix}"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    total = fresh()
    assert (total(1), hits(total)) == (12, 0)
    total = fresh()
    assert (total(1), hits(total)) == (12, 1)


@pytest.fixture
def closed(fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fresh:
    """`fresh` where neither beside the source nor at home anything can be written, not even by root."""
    (tmp_path / "tiny" / "__pycache__").touch()
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return fresh


def test_without_a_folder_to_write_code_is_kept_in_a_private_one(
    closed: Fresh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = closed()
    assert (total(1), hits(total)) == (12, 0)
    [folder] = (tmp_path / "temporary").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    warning, line = capsys.readouterr().err.splitlines(keepends=True)
    assert str(folder) in warning and "NUMBA_CACHE_DIR" in warning and line == ONCE
    total = closed()
    assert (total(1), hits(total), capsys.readouterr().err) == (12, 1, "")


def _planted(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def _linked(folder: Path) -> None:
    (folder.parent.parent / "elsewhere").mkdir(0o700)
    folder.symlink_to(folder.parent.parent / "elsewhere")


def _exchangeable(folder: Path) -> None:
    folder.parent.chmod(0o777)


@pytest.mark.parametrize("prepare", [_planted, _linked, Path.touch, _exchangeable])
def test_code_that_others_may_have_planted_is_never_run(
    closed: Fresh, tmp_path: Path, capsys: pytest.CaptureFixture[str], prepare: Callable[[Path], None]
) -> None:
    prepare(tmp_path / "temporary" / f"asr-compiled-{os.geteuid()}")
    for _ in range(2):
        total = closed()
        assert (total(1), hits(total)) == (12, 0)
        warning, line = capsys.readouterr().err.splitlines()
        assert "in every run" in warning and "NUMBA_CACHE_DIR" in warning
        assert line == "asr: compiling the beam search (about 15 s)"
    assert not list((tmp_path / "temporary").rglob("*.nb?")) and not list(tmp_path.glob("elsewhere/*"))


def test_commands_work_in_a_container_without_a_writable_place(tmp_path: Path) -> None:
    """A read-only package, no home, NUMBA_CACHE_DIR closed: the result, and one line that says what it costs."""
    shutil.copytree(ASR, tmp_path / "asr", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in {path.parent for path in (tmp_path / "asr").rglob("*.py")}:
        (folder / "__pycache__").touch()  # root, too, cannot write into a file
    (tmp_path / "ref.trn").write_text("a b (u1)\nc d (u2)\n", "utf-8")
    (tmp_path / "hyp.trn").write_text("a x (u1)\nc d (u2)\n", "utf-8")
    (tmp_path / "temporary").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tmp_path),
        "HOME": "/dev/null",
        "NUMBA_CACHE_DIR": "/dev/null/cache",
        "TMPDIR": str(tmp_path / "temporary"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "asr", "score", "ref.trn", "hyp.trn"]
    first, second = (
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == second.returncode == 0, first.stderr
    assert "25.0" in first.stdout and first.stdout == second.stdout
    assert len(first.stderr.splitlines()) == 1
    assert "NUMBA_CACHE_DIR (/dev/null/cache)" in first.stderr and str(tmp_path / "temporary") in first.stderr
    assert second.stderr == ""
