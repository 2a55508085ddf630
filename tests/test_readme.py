"""Every command and every line of Python in README.md runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.partition("  #")[0].strip()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.strip()
]
TOKENS = {"a": 300.0, "b": 480.0, "c": 770.0, " ": 1230.0}


def speak(path: Path, text: str) -> None:
    t = np.arange(4800) / 16000
    soundfile.write(path, np.concatenate([0.3 * np.sin(2 * np.pi * TOKENS[letter] * t) for letter in text]), 16000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README takes for granted: recordings with their texts, `my.yaml` as printed there, files to transcribe."""
    folder = tmp_path_factory.mktemp("readme")
    for name, texts in {"train": ["abc", "cab", "a b", "bca", "c ab", "ba c"], "dev": ["acb", "b ac"]}.items():
        rows = ["file,text"]
        for number, text in enumerate(texts):
            speak(folder / f"{name}{number}.wav", text)
            rows.append(f"{name}{number}.wav,{text}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "recordings" / "sub").mkdir(parents=True)
    for path in ("recordings/x.wav", "recordings/sub/y.wav", "a.wav", "new.wav", "talk.mp3"):
        speak(folder / path, "abc")
    [yaml] = [text for language, text in BLOCKS if language == "yaml"]
    # As printed, only smaller and shorter.
    small = yaml.replace("hidden_size: 320", "hidden_size: 16").replace(
        "max_epochs: 80", "max_epochs: 2, accelerator: cpu"
    )
    assert small.count("16") == 1 and "max_epochs: 2" in small
    (folder / "my.yaml").write_text(small, encoding="utf-8")
    row = {"audio_filepath": "a.wav", "duration": 0.9, "text": "abc"}
    (folder / "test.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (folder / "corpus.txt").write_text("abc cab\nbac abc\ncab bac\n" * 5, encoding="utf-8")
    (folder / "other.trn").write_text("abc (a)\n", encoding="utf-8")
    return folder


def run(command: str, folder: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stderr}"
    return result.stdout


def test_commands_and_python_in_the_order_a_reader_would_type_them(folder: Path) -> None:
    asr = [command for command in COMMANDS if re.search(r"\basr\b", command) and "pip install" not in command]
    training = [command for command in asr if re.match(r"asr (data|train)\b", command)]
    assert any("convert" in c for c in training) and any(c.startswith("asr train") for c in training)
    for command in training:
        run(command, folder)
    assert (folder / "exp/my/learning_curve.png").exists()
    shutil.copy(folder / "exp/my/model.asr", folder / "model.asr")
    rest = [command for command in asr if command not in training]
    assert len(rest) >= 6
    for command in rest:
        run(command, folder)
    assert (folder / "out/sub/y.srt").exists()
    code = "\n".join(text for language, text in BLOCKS if language == "python")
    (folder / "example.py").write_text(code, encoding="utf-8")
    assert " 0.9\n" in run(f"{sys.executable} example.py", folder)


def test_make_targets_exist() -> None:
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    assert {"demo", "test"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_command_is_of_a_tested_kind() -> None:
    for command in COMMANDS:
        known: tuple[Callable[[str], object], ...] = (
            lambda c: c.startswith("make "),
            lambda c: re.search(
                r"\basr (transcribe|evaluate|score|compare|align|calibrate|bench|data|train|lm|info|doctor)\b", c
            ),
            lambda c: c.startswith("pip install"),  # .ci/run installs
            lambda c: c.startswith("python recipes/"),  # tests/recipes
        )
        assert any(kind(command) for kind in known), command


def test_links_point_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
