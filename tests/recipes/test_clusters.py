"""Work shared out among machines: sharded preparations, and the SLURM scripts of docs/clusters.md without SLURM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from test_consistency import FOLDERS, TINY, layout
from test_killed import state

from asr.corpus.archive import extract
from asr.corpus.manifest import Manifest
from asr.recipe.run import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")

# What SLURM does with a script, at once instead of when its turn comes: a process for each task of an array, ...
SBATCH = """#!{python}
import os, re, subprocess, sys
path = next(word for word in sys.argv[1:] if word.endswith(".sh"))
options, arguments = sys.argv[1 : sys.argv.index(path)], sys.argv[sys.argv.index(path) + 1 :]
lines = open(path, encoding="utf-8").read().splitlines()
options = [line.split(None, 1)[1] for line in lines if line.startswith("#SBATCH ")] + options
chosen = dict(option.removeprefix("--").partition("=")[::2] for option in options)
os.environ.update(SLURM_JOB_ID=str(1000 + os.getpid() % 9000), SLURM_JOB_NAME=chosen["job-name"])
os.environ.update(SLURM_CPUS_PER_TASK=chosen["cpus-per-task"])
if "nodes" in chosen:
    os.environ.update(SLURM_NNODES=chosen["nodes"], SLURM_NTASKS_PER_NODE=chosen["ntasks-per-node"])
first, last = map(int, chosen["array"].split("-")) if "array" in chosen else (0, 0)
running = []
for task in range(first, last + 1):
    array = dict(SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_TASK_COUNT=str(last - first + 1)) if last else dict()
    running.append(subprocess.Popen(["bash", path, *arguments], env=os.environ | array, stdout=sys.stderr))
if any([process.wait() for process in running]):
    sys.exit(1)
print(os.environ["SLURM_JOB_ID"] if "parsable" in chosen else "Submitted batch job")
"""
# ... and a process for each task of each node.
SRUN = """#!{python}
import os, subprocess, sys
nodes, each = int(os.environ["SLURM_NNODES"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
running = []
for rank in range(nodes * each):
    place = dict(SLURM_PROCID=str(rank), SLURM_NODEID=str(rank // each), SLURM_LOCALID=str(rank % each))
    place |= dict(SLURM_NTASKS=str(nodes * each), SLURM_NODELIST="localhost")
    running.append(subprocess.Popen(sys.argv[1:], env=os.environ | place))
sys.exit(max(process.wait() for process in running))
"""


def unpacked(name: str, folder: Path) -> Path:
    folder.mkdir()
    extract(layout(name).make(folder)[1], folder / "corpus")
    return folder / "corpus"


def test_shards_and_a_last_run_prepare_what_one_run_does(
    recipe_module: Callable[[str, str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = unpacked("vctk", tmp_path / "official")
    prepare = recipe_module("vctk", "prepare")
    monkeypatch.chdir(tmp_path)

    def run(data: str, *argv: str) -> int:
        return main(FOLDERS["vctk"], prepare, ["--unpacked", str(corpus), "--data", data, *argv])

    assert run("data", "--steps", "prepare") == 0
    whole = state(tmp_path / "data")
    (tmp_path / "data").rename(tmp_path / "whole")
    flacs = len(list((tmp_path / "whole").rglob("*.flac")))
    for number in (3, 1):  # the second one is lost
        assert run("data", "--shard", f"{number}/3") == 0
    done = state(tmp_path / "data")
    assert 0 < len(done) < flacs and done.items() <= whole.items()
    assert run("data", "--steps", "prepare") == 0
    assert state(tmp_path / "data") == whole
    capsys.readouterr()
    assert run("data", "--shard", "2/3") == 0 and "up to date" in capsys.readouterr().err
    assert main(FOLDERS["vctk"], prepare, ["--data", "other", "--shard", "1/3"]) == 2
    assert "--shard does not unpack" in capsys.readouterr().err


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[[str], str]:
    """Runs a section of the page in `tmp_path`, smaller; the log of its jobs."""
    (tmp_path / "bin").mkdir()
    asr = f'#!/bin/sh\nexec {sys.executable} -m asr "$@"\n'
    python = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    programs = {"sbatch": SBATCH.replace("{python}", sys.executable), "srun": SRUN.replace("{python}", sys.executable)}
    for name, text in {**programs, "asr": asr, "python": python}.items():
        (tmp_path / "bin" / name).write_text(text, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "docs" / "slurm").mkdir(parents=True)
    for path in (ROOT / "docs" / "slurm").glob("*.sh"):
        text = path.read_text("utf-8").replace("--ntasks-per-node=4", "--ntasks-per-node=1")
        (tmp_path / "docs" / "slurm" / path.name).write_text(text, encoding="utf-8")

    def run(section: str) -> str:
        found = re.search(rf"^## {section}\n+```sh\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
        assert found
        environment = os.environ | {
            "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }
        script = "set -e\n" + found[1].replace("--array=1-8", "--array=1-2")
        process = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert process.returncode == 0, process.stderr
        return process.stderr

    return run


def test_the_slurm_scripts_prepare_train_transcribe_and_score(slurm: Callable[[str], str], tmp_path: Path) -> None:
    corpus = unpacked("vctk", tmp_path / "official")
    (tmp_path / "corpora").mkdir()
    corpus.rename(tmp_path / "corpora" / "VCTK")
    assert slurm("Prepare").count("this part is converted") == 2
    train = tmp_path / "docs" / "slurm" / "train.sh"
    tiny = " ".join(f"'{setting}'" for setting in (*TINY, "trainer.max_steps=2"))
    train.write_text(train.read_text("utf-8").replace('"$@"', f'"$@" {tiny}'), encoding="utf-8")
    assert slurm("Train").count("dev WER") == 1  # of the first process; without the second it would wait forever
    assert yaml.safe_load((tmp_path / "exp" / "vctk" / "config.yaml").read_text("utf-8"))["trainer"]["num_nodes"] == 2
    table = slurm("Transcribe and score")
    ids = [utterance.id for utterance in Manifest.read(tmp_path / "data" / "vctk" / "test.jsonl")]
    lines = (tmp_path / "out" / "test.jsonl").read_text("utf-8").splitlines()
    assert [yaml.safe_load(line)["id"] for line in lines] == ids
    assert "WER" in table
