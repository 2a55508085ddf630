"""`asr doctor`: finds what is missing, broken, too old or in conflict, and says how to fix it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.commands import doctor
from asr.commands.doctor import PACKAGES, Diagnosis, Package, check_packages

ROOT = Path(__file__).parents[2]


def modules(folder: Path, **sources: str) -> None:
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def test_missing_broken_and_crashing_parts_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules(
        tmp_path,
        good="print('noise on stdout')",
        undefined="raise OSError('libfoo.so: undefined symbol: bar\\nsecond line')",
        needs_other="import not_there_at_all",
        crashes="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
        leaves="import sys\nsys.exit(3)",
    )
    names = ["good", "gone_for_good", "undefined", "needs_other", "crashes", "leaves", "good2"]
    modules(tmp_path, good2="")
    parts = [Package(name, "1.0", name, "tests") for name in names]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = {finding.name: finding for finding in check_packages(parts)}
    assert list(found) == names
    assert {name: f.state for name, f in found.items()} == {
        "good": "ok",
        "gone_for_good": "missing",
        "undefined": "broken",
        "needs_other": "broken",
        "crashes": "broken",
        "leaves": "broken",
        "good2": "ok",
    }
    assert found["gone_for_good"].fix == "pip install 'gone_for_good>=1.0'"
    assert found["undefined"].note == "OSError: libfoo.so: undefined symbol: bar second line"
    assert found["undefined"].fix == "pip install --force-reinstall 'undefined>=1.0'"
    assert "not_there_at_all" in found["needs_other"].note
    assert "ends Python (-11)" in found["crashes"].note
    for finding in found.values():
        assert "\n" not in finding.note


def test_an_old_version_and_an_incomplete_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str, version: str) -> None:
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")

    modules(
        tmp_path,
        oldie="",
        soundfile="__libsndfile_version__ = '1.0.28'\ndef available_formats(): return ['WAV', 'FLAC', 'OGG']\n"
        "def available_subtypes(kind): return ['VORBIS']\n",
        pytorch_lightning="",
        pyctcdecode="",
        numpy="__version__ = '2.4.6'\n",
    )
    for name, version in (
        ("oldie", "1.9.3"),
        ("lightning", "2.6.0"),
        ("pytorch-lightning", "2.10.0"),
        ("soundfile", "0.12"),
    ):
        distribution(name, version)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    real = {package.name: package for package in PACKAGES}
    parts = [
        Package("oldie", "1.10", "oldie", "tests"),
        *(real[n] for n in ("soundfile", "pytorch-lightning", "pyctcdecode")),
    ]
    found = {finding.name: finding for finding in check_packages(parts)}
    assert found["oldie"].state == "broken" and found["oldie"].fix == "pip install --upgrade 'oldie>=1.10'"
    assert found["soundfile"].state == "warning" and "mp3 opus" in found["soundfile"].note
    assert found["pytorch-lightning"].state == "warning"
    assert found["pytorch-lightning"].fix == "pip uninstall -y lightning"
    assert found["pyctcdecode"].state == "warning" and "numpy" in found["pyctcdecode"].fix


def test_a_part_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules(tmp_path, hangs="import time\ntime.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_TIMEOUT", 1.0)
    (found,) = check_packages([Package("hangs", "1", "hangs", "tests")])
    assert found.state == "broken" and "no answer within 1 s" in found.note


def test_torchaudio_that_is_absent_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules(tmp_path, torch="class version: cuda = None\n", torchaudio="raise ModuleNotFoundError(name='torchaudio')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = check_packages([package for package in PACKAGES if package.name == "torchaudio"])
    assert (found.state, found.fix) == ("missing", "pip install 'torchaudio>=2.11'")


def test_the_lowest_versions_are_those_of_the_package() -> None:
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for package in PACKAGES:
        if package.group == "required":
            assert f'"{package.name}>={package.lowest}"' in declared, package.name
    dependencies = re.search(r"^dependencies = \[(.*?)^\]", declared, re.MULTILINE | re.DOTALL)
    assert dependencies is not None
    names = set(re.findall(r'^\s*"([\w-]+)', dependencies[1], re.MULTILINE))
    assert names <= {package.name for package in PACKAGES}


def test_the_table_and_the_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    findings = [
        Diagnosis("torch", "ok", "2.13.0", "built for the CPU", "", "required"),
        Diagnosis("jiwer", "missing", "", "needed for word error rates", "pip install 'jiwer>=3.0.1'", "required"),
        Diagnosis("ffmpeg", "missing", "", "needed for m4a", "apt install ffmpeg", "optional"),
        Diagnosis("open files", "warning", "", "limit 256", "ulimit -n 4096", "machine"),
    ]
    monkeypatch.setattr(doctor, "check_machine", lambda: findings[3:])
    monkeypatch.setattr(doctor, "check_packages", lambda: findings[:3])
    args = doctor.argparse.Namespace(json=False)
    assert doctor.run(args) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "required" and "optional" in lines and "machine" in lines
    (missing,) = [number for number, line in enumerate(lines) if "MISSING" in line]
    assert lines[missing + 1].strip() == "-> pip install 'jiwer>=3.0.1'"
    assert "fix jiwer" in lines[-1]
    columns = {line.index(mark) for line, mark in zip([lines[1], lines[2]], ["ok", "MISSING"], strict=True)}
    assert len(columns) == 1
    findings[1] = Diagnosis("jiwer", "ok", "4.0.0", group="required")
    assert doctor.run(args) == 0
    assert "all required parts work; look at open files" in capsys.readouterr().out


def test_what_the_machine_offers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [finding.name for finding in doctor.check_machine()]
    assert names == ["python", "ffmpeg", "cores", "memory", "/dev/shm", "open files"]
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {finding.name: finding for finding in doctor.check_machine()}
    assert found["ffmpeg"].state == "missing" and "install ffmpeg" in found["ffmpeg"].fix
    (tmp_path / "ffmpeg").write_text("#!/bin/sh\necho ffmpeg version 7.1 Copyright\n", encoding="utf-8")
    (tmp_path / "ffmpeg").chmod(0o755)
    found = {finding.name: finding for finding in doctor.check_machine()}
    assert (found["ffmpeg"].state, found["ffmpeg"].version) == ("ok", "7.1")


def test_little_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = doctor.shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage._replace(free=64 * 2**20))
    found = {finding.name: finding for finding in doctor.check_machine()}
    assert found["/dev/shm"].state == "warning" and "64 MiB" in found["/dev/shm"].note and found["/dev/shm"].fix


def test_the_command_here(asr_command: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = asr_command("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    by_name = {part["name"]: part for part in report["parts"]}
    assert set(by_name) >= {package.name for package in PACKAGES} | {"python", "ffmpeg", "cores", "memory", "/dev/shm"}
    assert by_name["python"]["state"] == "ok" and by_name["python"]["note"] == sys.executable
    assert by_name["torchaudio"]["state"] == "ok"
    assert done.stderr == ""
