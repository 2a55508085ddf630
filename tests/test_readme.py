"""Every command and every line of Python in README.md and docs/ runs, and every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from asr.training.config import parse_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TYPED = [page for page in PAGES if page.name != "clusters.md"]  # tests/recipes/test_clusters.py runs its commands
BLOCKS = [
    block
    for page in TYPED
    for block in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]
COMMANDS = [
    line.partition("  #")[0].strip()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.strip()
]
SETTINGS = [text for language, text in BLOCKS if language == "yaml"]
TOKENS = {"a": 300.0, "b": 480.0, "c": 770.0, " ": 1230.0}  # a tone per letter, in hertz

# Runs commands in one process, because importing torch takes longer than most of them.
RUNNER = """
import json, shlex, shutil, subprocess, sys
from asr.__main__ import main
for command in json.loads(sys.argv[1]):
    print(f"$ {command}", file=sys.stderr, flush=True)
    if command.startswith("asr "):
        status = main(shlex.split(command)[1:])
    else:
        status = subprocess.run(command, shell=True).returncode
    assert status == 0, command
    if command == "asr train my.yaml":
        shutil.copy("exp/my/model.asr", "model.asr")
exec(compile(sys.argv[2], "the Python of the pages", "exec"))
"""


def speak(path: Path, text: str) -> None:
    t = np.arange(4800) / 16000
    soundfile.write(path, np.concatenate([0.3 * np.sin(2 * np.pi * TOKENS[letter] * t) for letter in text]), 16000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: recordings with their texts, `my.yaml` as printed, files to transcribe."""
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
    recipe = next(text for text in SETTINGS if text.startswith("name: my\n"))  # the README's
    # As printed, only smaller and shorter.
    small = recipe.replace("hidden_size: 384", "hidden_size: 16").replace(
        "max_epochs: 80", "max_epochs: 2, accelerator: cpu"
    )
    assert small.count("16") == 1 and "max_epochs: 2" in small
    (folder / "my.yaml").write_text(small, encoding="utf-8")
    words = next(text for text in SETTINGS if text.startswith("name: words\n")).replace("128", "16")
    (folder / "words.yaml").write_text(words.replace("max_epochs: 50", "max_epochs: 1"), encoding="utf-8")
    for name, count in {"train": 6, "dev": 2, "test": 2}.items():
        source = "dev" if name == "test" else name
        rows = [{"audio_filepath": f"{source}{i}.wav", "label": ("yes", "no")[i % 2]} for i in range(count)]
        (folder / f"words-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    row = {"audio_filepath": "a.wav", "duration": 0.9, "text": "abc"}
    (folder / "test.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (folder / "corpus.txt").write_text("abc cab\nbac abc\ncab bac\n" * 5, encoding="utf-8")
    (folder / "words.txt").write_text("abc\ncab\nbac\n", encoding="utf-8")
    (folder / "other.trn").write_text("abc (a)\n", encoding="utf-8")
    return folder


def test_commands_and_python_in_the_order_a_reader_would_type_them(folder: Path) -> None:
    commands = [c for c in COMMANDS if re.search(r"\basr \w", c) and not c.startswith(("make", "pip", "asr doctor"))]
    commands = list(dict.fromkeys(commands))  # what stands on two pages runs once
    commands.sort(
        key=lambda command: not command.startswith(("asr data", "asr train my.yaml"))
    )  # stable: a model first
    code = "\n".join(text for language, text in BLOCKS if language == "python")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(commands), code],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert " 0.9\n" in done.stdout
    for path in ("exp/my/learning_curve.png", "out/sub/y.srt", "report.html", "results/hyp.trn", "calibrated.asr"):
        assert (folder / path).exists(), path


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_in_yaml_are_known(settings: str) -> None:
    parse_config(yaml.safe_load(settings))


def test_make_targets_exist() -> None:
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    assert {"demo", "test"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_command_is_of_a_tested_kind() -> None:
    # .ci/run installs with pip; tests/commands/test_doctor.py runs `asr doctor`, tests/recipes the recipes.
    known = r"(\S+ \S+ \| )?asr [a-z]+( |$)|make [a-z]+$|pip install |python recipes/"
    for command in COMMANDS:
        assert re.match(known, command), command


@pytest.mark.parametrize(
    "page",
    [*PAGES, ROOT / "CONTRIBUTING.md", *ROOT.glob("recipes/**/*.md"), ROOT / "benchmarks" / "README.md"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles]


def test_changes_touch_at_most_five_files() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Where to change what")[2].partition("\n## ")[0]
    for change in section.split("\n**")[1:]:
        files = set(re.findall(r"\]\(([^)]+\.\w+)\)", change.partition("\n(")[0]))
        assert 1 <= len(files) <= 5, change.partition("**")[0]
