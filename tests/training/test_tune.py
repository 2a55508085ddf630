"""`asr tune`: the search space, studies whose trainings are stand-ins, and a real one that is killed and resumed."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("optuna")

from asr.__main__ import main
from asr.training import study as study_module
from asr.training import trials
from asr.training.config import read_config
from asr.training.space import Dimension, grid, split_arguments, with_parameters
from asr.training.study import create_study, current, open_storage
from asr.types import ConfigError

Settings = Callable[..., dict[str, Any]]


def only(argument: str) -> Dimension:
    plain, space = split_arguments([argument])
    assert not plain
    return space[0]


def test_the_space_is_read_and_a_list_of_one_is_no_dimension() -> None:
    plain, space = split_arguments(
        ["model.layers=2", "model.cell=[lstm, gru]", "optimizer.lr=loguniform(1e-4, 1e-2)", "data.dev=[[a, b]]"]
    )
    assert [d.key for d in space] == ["model.cell", "optimizer.lr"] and plain[0] == "model.layers=2"
    assert with_parameters({}, [], {}) == {} and yaml.safe_load(plain[1].partition("=")[2]) == ["a", "b"]
    assert only("a=int(2,9,3)").cells() == [2, 5, 8] and only("a=int(2,4)").cells() == [2, 3, 4]
    assert only("a=uniform(0,0.5)").cells() is None and grid([only("a=uniform(0,0.5)")]) is None
    assert only("a=[1e-3, 1e-2]").choices == (0.001, 0.01)  # which YAML 1.1 reads as text
    speeds = only("augment.speed=[[0.9,1.0],[],null]")
    assert speeds.labels == ("[0.9, 1.0]", "[]", None) and speeds.value("[]") == []
    assert grid([only("a=[1,2]"), only("b=[x,y]")]) == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("a=loguniform(0,1)", "low must be above 0"),
        ("a=uniform(2,1)", "low must be less than high"),
        ("a=uniform(1)", r"uniform takes \(low, high\)"),
        ("a=int(1,2.5)", "whole numbers"),
        ("a=int(1,5,0)", "a step of at least 1"),
        ("a=uniform(x,1)", "all of them numbers"),
        ("a=lognormal(1,2)", "no range 'lognormal' .did you mean 'loguniform'"),
        ("a=[]", "is empty"),
        ("a=[1,2", "not valid YAML"),
        ("a=[1,2,1]", "twice"),
        ("output=[a,b]", "cannot be searched"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_arguments([argument])


@pytest.fixture
def recipe(settings: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings()), encoding="utf-8")
    return path


class Training:
    """Stands in for the process of a training: WER = a function of its settings; it is done at the first look."""

    wer: Callable[[dict[str, Any]], float | None]
    lasts = False
    seen: list[dict[str, Any]]
    ended = 0

    def __init__(self, plan: trials.Plan, place: int, folder: Path) -> None:
        values = yaml.safe_load((folder / trials.SETTINGS).read_text(encoding="utf-8"))
        read_config(folder / trials.SETTINGS)
        type(self).seen.append(values)
        self.returncode: int | None = None
        if (rate := type(self).wer(values)) is None:
            (folder / trials.LOG).write_text("epoch 1\nasr: error: it did not work\n", encoding="utf-8")
            self.returncode = 1
            return
        log = folder / "logs" / "csv" / "version_0" / "metrics.csv"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("step,dev/wer\n" + "".join(f"{step},{rate}\n" for step in range(10, 80, 10)), encoding="utf-8")
        if not self.lasts:
            (folder / "result").write_text(str(rate), encoding="utf-8")
            self.returncode = 0

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        type(self).ended += 1
        self.returncode = 143

    def wait(self, timeout: float = 0) -> int:
        return self.returncode or 0


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> type[Training]:
    def result(folder: Path, monitor: str) -> float | None:
        path = folder / "result"
        return float(path.read_text(encoding="utf-8")) if path.exists() else None

    stand_in = type("StandIn", (Training,), {"seen": [], "wer": staticmethod(lambda values: 0.5)})
    monkeypatch.setattr(trials, "launch", stand_in)
    monkeypatch.setattr(trials, "_result", result)
    monkeypatch.setattr(trials, "_POLL", 0.0)
    return stand_in


def test_a_grid_tries_every_cell_once_and_writes_what_it_found(
    recipe: Path, training: type[Training], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.wer = staticmethod(lambda v: v["model"]["hidden_size"] / 100 + (v["model"]["cell"] == "gru") / 1000)
    output = tmp_path / "study"
    command = ["tune", str(recipe), "model.hidden_size=[16,8]", "model.cell=[lstm,gru]", "seed=3", "--jobs", "2"]
    assert main([*command, "-o", str(output)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1].split() == ["2", "complete", "8.00%", "8", "lstm", "0"]
    assert sorted((v["model"]["hidden_size"], v["model"]["cell"]) for v in training.seen) == [
        (8, "gru"), (8, "lstm"), (16, "gru"), (16, "lstm"),
    ]  # fmt: skip
    assert {v["seed"] for v in training.seen} == {3} and len({v["output"] for v in training.seen}) == 4
    rows = list(csv.DictReader((output / "trials.csv").open(encoding="utf-8")))
    assert [float(row["dev_wer"]) for row in rows] == [0.16, 0.161, 0.08, 0.081]
    best = read_config(output / "best.yaml")
    assert (best.model.hidden_size, best.model.cell, best.seed) == (8, "lstm", 3)  # type: ignore[attr-defined]
    assert best.output == str(output / "best") and best.data == read_config(recipe).data
    for name in ("history", "importance", "parallel_coordinates"):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # Again: nothing is left to do. The report of the folder says the same.
    assert main([*command, "-o", str(output), "--json"]) == 0 and len(training.seen) == 4
    again = json.loads(capsys.readouterr().out)
    assert main(["tune", "--report", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == again
    assert again["best"]["parameters"] == {"model.hidden_size": 8, "model.cell": "lstm"} and len(again["trials"]) == 4


def test_folds_by_speaker_give_the_mean_and_its_standard_error(
    settings: Settings, training: type[Training], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = settings()
    train = Path(values["data"]["train"])
    rows = [json.loads(line) for line in train.read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        row |= {"speaker": f"s{number % 7}", "audio_filepath": str(train.parent / row["audio_filepath"])}
    for name, part in (("a", rows[:20]), ("b", rows[20:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    values["data"]["train"] = [str(tmp_path / "a.jsonl"), {"path": str(tmp_path / "b.jsonl"), "weight": 2.0}]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    training.wer = staticmethod(lambda v: {"1": 0.1, "2": 0.2, "3": 0.6}[Path(v["data"]["dev"]).parent.name])
    command = ["tune", str(recipe), "optimizer.lr=[0.1,0.01]", "-o", str(tmp_path / "study"), "--json"]
    assert main([*command, "--folds", "3"]) == 0
    best = json.loads(capsys.readouterr().out)["best"]
    assert best["folds"] == [0.1, 0.2, 0.6] and best["value"] == pytest.approx(0.3)
    assert best["standard_error"] == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2 / 3))
    ids = []
    for values in training.seen[:3]:
        assert [part["weight"] for part in values["data"]["train"]] == [1.0, 2.0]
        parts = [Path(part["path"]) for part in values["data"]["train"]]
        read = [json.loads(line) for path in parts for line in path.read_text(encoding="utf-8").splitlines()]
        held_out = [json.loads(line) for line in Path(values["data"]["dev"]).read_text(encoding="utf-8").splitlines()]
        assert not {row["speaker"] for row in held_out} & {row["speaker"] for row in read}
        assert len(read) + len(held_out) == len(rows)
        ids += [row["id"] for row in held_out]
    assert len(ids) == len(set(ids)) == len(rows)
    assert main([*command[:-1], "--folds", "8", "-o", str(tmp_path / "other")]) == 1
    assert "8 folds need as many speakers, found 7" in capsys.readouterr().err


def test_tpe_finds_a_better_rate_and_worse_trials_are_pruned(
    recipe: Path, training: type[Training], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.wer = staticmethod(lambda v: abs(math.log10(float(v["optimizer"]["lr"])) + 3) / 4)
    command = ["tune", str(recipe), "optimizer.lr=loguniform(1e-5,1)", "-o", str(tmp_path / "study"), "--json"]
    assert main([*command, "--trials", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"]["value"] < 0.03 and len({t["value"] for t in found["trials"]}) == 20
    late = [t["value"] for t in found["trials"] if t["trial"] >= 10]
    assert sum(late) / len(late) < 0.25 < sum(t["value"] for t in found["trials"] if t["trial"] < 10) / 10
    # Two more, of which the validations are bad: ended before they are done.
    training.lasts, training.wer = True, staticmethod(lambda v: 0.9)
    assert main([*command, "--trials", "22"]) == 0
    states = [t["state"] for t in json.loads(capsys.readouterr().out)["trials"]]
    assert states.count("pruned") == training.ended == 2


def test_failed_trials_are_named_and_run_again_by_the_next_command(
    recipe: Path, training: type[Training], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training.wer = staticmethod(lambda v: None if v["model"]["hidden_size"] == 16 else 0.5)
    command = ["tune", str(recipe), "model.hidden_size=[8,16,24]", "-o", str(tmp_path / "study")]
    assert main(command) == 1
    assert "trial 1: failed: it did not work" in capsys.readouterr().err
    training.wer = staticmethod(lambda v: 0.25)
    assert main(command) == 0
    rows = list(csv.DictReader((tmp_path / "study" / "trials.csv").open(encoding="utf-8")))
    assert [(row["state"], row["model.hidden_size"]) for row in rows] == [
        ("complete", "8"), ("complete", "24"), ("complete", "16"),
    ]  # fmt: skip
    assert training.seen[-1]["output"] == training.seen[1]["output"]  # to go on where it was


def test_a_trial_whose_command_has_stopped_counting_is_run_again_but_not_that_of_a_live_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage("", tmp_path)
    space = [only("a=[1,2,3]")]
    attributes = {"asked": {"space": {}}}
    study = create_study(storage, "s", "minimize", attributes, grid(space) or [])
    mine, live, dead = (study_module.next_trial(study, space, "grid", 1, 3) for _ in range(3))
    assert mine and live and dead and study_module.next_trial(study, space, "grid", 1, 3) is None
    now = [1000.0]
    monkeypatch.setattr(study_module.time, "monotonic", lambda: now[0])
    for trial in (live, dead):
        trial.set_user_attr("runner", ["elsewhere", 1, 0])
    watch = study_module.HeartbeatMonitor(study)
    assert watch.abandoned([mine.number]) == ([], 2)
    now[0] += study_module.GRACE
    live.set_user_attr("runner", ["elsewhere", 1, 1])
    assert watch.abandoned([mine.number]) == ([], 1)
    now[0] += 1
    found, unsure = watch.abandoned([mine.number])
    assert [trial.number for trial in found] == [dead.number] and unsure == 0
    assert study_module.run_again(study, found[0]) and not study_module.run_again(study, found[0])
    assert not study_module.heartbeat(dead, 5)  # its command learns that it has lost the trial
    again = study_module.next_trial(study, space, "grid", 1, 3)
    assert again and again.params == dead.params and again.user_attrs["folder"] == "trial-0002"
    assert [trial.number for trial in current(study)] == [0, 1, 3]


def test_a_study_of_another_recipe_or_search_is_refused(
    recipe: Path, training: type[Training], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    command = ["tune", "--storage", url, "-o", str(tmp_path / "study"), str(recipe), "model.hidden_size=[8,16]"]
    assert main([*command, "data.workers=1"]) == 0
    assert main([*command, "data.workers=2"]) == 0 and len(training.seen) == 2  # changes nothing that is learned
    for changed, key in (("optimizer.lr=0.5", "recipe.optimizer.lr"), ("model.layers=[1,2]", "space.model.layers")):
        capsys.readouterr()
        assert main([*command, changed]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"another recipe or search ({key}" in error
    assert main([*command, "optimizer.lr=0.5", "--study", "other"]) == 0
    capsys.readouterr()
    assert main(["tune", "--report", str(tmp_path / "study"), "--storage", url]) == 1
    assert "name one with --study (valid: other, tones)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "nothing to search"),
        (["model.hiden_size=[8,16]"], 2, "did you mean 'hidden_size'"),
        (["model.hidden_size=[8,big]"], 2, "expected a whole number, found 'big'"),
        (["model.hidden_size=uniform(8,16.5)"], 2, "expected a whole number, found 16.5"),
        (["model.dropout=uniform(0,2)"], 2, "dropout must lie in"),
        (["optimizer.lr=uniform(0,1)", "--search", "grid"], 2, "a grid over 'optimizer.lr' would be infinite"),
        (["model.layers=[1,2]", "--folds", "1"], 2, "at least 2"),
        (["model.layers=[1,2]", "--folds", "3"], 1, "no 'speaker'"),
        (["model.layers=[1,2]", "--storage", "nowhere"], 1, "--storage nowhere: "),
        (["model.layers=[1,2]", "--report", "x"], 2, "--report takes no recipe"),
        (["model.layers=[1,2]", "trainer.devices=2", "--jobs", "2"], 2, "each trial has one GPU"),
    ],
)
def test_wrong_usage_is_one_clear_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, message: str
) -> None:
    assert main(["tune", str(recipe), *arguments, "-o", str(tmp_path / "study")]) == status
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1] and "Traceback" not in error


def test_a_missing_study_and_a_missing_optuna_are_said(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["tune", "--report", str(tmp_path)]) == 1
    assert "no such study" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "asr.training.study")
    monkeypatch.delattr("asr.training.study")
    assert main(["tune", "--report", str(tmp_path)]) == 1
    assert "asr tune needs Optuna: pip install" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_real_trainings_side_by_side_are_interrupted_and_go_on(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "study"
    values = settings(trainer={"max_epochs": 6}) | {"output": str(tmp_path / "tones")}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "asr", "tune", str(recipe), "model.hidden_size=[8,16]", "--jobs", "2"]
    command += ["-o", str(output)]
    with subprocess.Popen(command) as process:
        folders = [output / "trial-0000", output / "trial-0001"]
        deadline = time.monotonic() + 100
        while not all((folder / "last.ckpt").exists() for folder in folders):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()  # its trainings do not notice
    assert main(command[3:]) == 0
    captured = capfd.readouterr()
    assert captured.err.count("was interrupted and is run again") == 2
    assert [line.split()[1] for line in captured.out.splitlines()[1:]] == ["complete"] * 2
    for folder in folders:
        log = (folder / "train.log").read_text(encoding="utf-8")
        assert "resuming from" in log and log.count("epoch   1 ") == 1 and (folder / "model.asr").exists()
        assert not (folder / "last.ckpt").exists() and not (folder / "checkpoints").exists()


def test_trials_at_once_share_gpus_or_cores(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []
    monkeypatch.setattr(trials.subprocess, "Popen", lambda command, env, **options: started.append(env))
    monkeypatch.setattr(trials, "available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config = read_config(recipe)
    plan = trials.Plan({}, config, [], tmp_path, "grid", 9, jobs=3, gpus=["4", "7"])
    for place in range(3):
        trials.launch(plan, place, tmp_path)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in started] == ["4", "7", "4"]
    trials.launch(trials.Plan({}, config, [], tmp_path, "grid", 9, jobs=3), 1, tmp_path)
    assert started[-1]["OMP_NUM_THREADS"] == "2" and "CUDA_VISIBLE_DEVICES" not in started[-1]
