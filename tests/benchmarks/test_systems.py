"""The comparison of systems: which runs are done, what is kept of them, and the report; trainings are made up."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import systems

import asr
from asr.model.checkpoint import load_model, save_model
from asr.recognition.evaluation import evaluate
from asr.scoring.edits import EditCounts, Score
from asr.training.record import provenance


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    for name in ("lstm", "gru", "l1"):
        (tmp_path / f"{name}.yaml").write_text(f"output: x\nmodel: {{cell: {name}}}\n")
    monkeypatch.setattr(systems, "SYSTEMS", tmp_path)
    monkeypatch.setattr(systems, "RESULTS", tmp_path / "results" / "systems.jsonl")
    monkeypatch.setattr(systems, "REPORT", tmp_path / "systems.md")
    (tmp_path / "train.jsonl").touch()


def made_up(system, seed, dev, test, **changes):
    """A row whose dev and test errors by utterance are given; an utterance has 10 words and a speaker of its own."""
    made = {"date": "", "revision": "abc", "versions": provenance()["versions"], "machine": "a machine"}
    row = {"system": system, "seed": seed, "epochs": 3, "settings": [], "parameters": 2_500_000}
    row |= {"seconds_per_epoch": 4.0 + seed, "lm": False, "jobs": 2, **made}
    for name, errors in (("dev", dev), ("test", test)):
        part = {"errors": errors, "words": [10] * len(errors), "speakers": [f"s{i}" for i in range(len(errors))]}
        row[name] = {"greedy": part}
    return row | {"config": systems.Job(system, seed, 3, ()).config} | changes


def write_rows(*rows):
    systems.RESULTS.parent.mkdir(exist_ok=True)
    systems.RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_report_is_sorted_by_dev_and_keeps_what_is_written_by_hand(capsys, tmp_path):
    other_decoder = made_up("l1", 1, [3] * 5, [3] * 5)
    for part in ("dev", "test"):
        other_decoder[part] = {"attention": other_decoder[part]["greedy"]}
    write_rows(
        made_up("lstm", 1, [2, 2, 2, 2, 2], [1, 2, 1, 3, 1]),
        made_up("lstm", 2, [2, 2, 2, 2, 2], [2, 2, 1, 3, 2]),
        made_up("gru", 1, [1, 1, 1, 1, 1], [9, 9, 9, 9, 9]),  # an older row of the same run
        made_up("gru", 1, [1, 1, 1, 1, 1], [3, 2, 2, 3, 1]),
        made_up("l1", 1, [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], epochs=9),  # another budget
        other_decoder,
    )
    assert systems.main(["--report", "--epochs", "3"]) == 0
    text = systems.REPORT.read_text()
    assert "python benchmarks/systems.py --epochs 3 --seeds 1,2 --jobs 2" in text and "a machine." in text
    gru, lstm, l1 = (line.split(" | ") for line in text.splitlines() if line.startswith("| ["))
    assert gru[0] == "| [gru](../recipes/an4/systems/gru.yaml)" and gru[1:3] == ["2.50 M", "5.0"]
    assert lstm[2] == "5.5" and lstm[5] == "16.0, 20.0"
    low, high = Score("word", tuple(EditCounts(e, reference_length=20) for e in (3, 4, 2, 6, 3))).interval
    assert lstm[4] == f"**18.0** ({100 * low:.1f} to {100 * high:.1f})"
    assert l1[0] == "| [l1, attention](../recipes/an4/systems/l1.yaml)" and l1[5] == "30.0"
    assert gru[6].startswith("+6.0 (")  # 22 against the 16 of the seed that both have
    assert systems.RESULTS.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    systems.REPORT.write_text(text + "\nGRUs are fine.\n")
    assert systems.main(["--report", "--epochs", "3"]) == 0
    assert systems.REPORT.read_text() == text + "\nGRUs are fine.\n"
    assert systems.main(["--report", "--epochs", "4"]) == 0 and "nothing is finished" in capsys.readouterr().err


def test_a_finished_run_is_known_by_all_its_settings(tmp_path):
    rows = [made_up("lstm", 1, [1], [1])]
    assert systems.Job("lstm", 1, 3, ()).finished(rows, lm=False)
    assert not systems.Job("lstm", 1, 3, ()).finished(rows, lm=True)
    assert systems.Job("lstm", 1, 3, ()).finished([made_up("lstm", 1, [1], [1], lm=True)], lm=True)
    for other in (systems.Job("lstm", 2, 3, ()), systems.Job("lstm", 1, 4, ()), systems.Job("gru", 1, 3, ())):
        assert not other.finished(rows, lm=False)
    assert not systems.Job("lstm", 1, 3, ("model.layers=2",)).finished(rows, lm=False)
    (tmp_path / "lstm.yaml").write_text("output: y\nmodel: {cell: lstm}\n")
    assert systems.Job("lstm", 1, 3, ()).finished(rows, lm=False)
    (tmp_path / "lstm.yaml").write_text("output: y\nmodel: {cell: lstm, layers: 9}\n")
    assert not systems.Job("lstm", 1, 3, ()).finished(rows, lm=False)


def test_runs_are_done_side_by_side_and_a_failed_one_is_named(tmp_path, monkeypatch, capsys, tiny_model, write_audio):
    """All but the training: a run's folder is made from a model with random weights."""
    write_audio(tmp_path / "a.wav", 0.6)
    rows = [{"audio_filepath": "a.wav", "duration": 0.6, "text": "a b c", "speaker": "s"}] * 2
    for name in ("dev", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(job, place, args):
        folder = args.output / job.name
        places.append(place)
        if job.system == "l1":
            folder.mkdir(parents=True)
            (folder / "run.log").write_text("an4: error: too bad\n")
            return subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])
        file = load_model(tiny_model)
        for name in ("dev", "test"):
            folder.joinpath("results", name).mkdir(parents=True)
            evaluate(asr.load(tiny_model, decoder="greedy"), tmp_path / f"{name}.jsonl").write(
                folder / "results" / name / "greedy"
            )
        save_model(folder / "model.asr", file.model, file.tokenizer, "basic", provenance())
        (folder / "run.log").write_text(
            "".join(f"epoch   {i}  step      9  loss 3.2  WER  99.00%  lr 1e-3  {i}.5 s\n" for i in (1, 2, 3))
        )
        return subprocess.Popen([sys.executable, "-c", ""])

    places: list[int] = []
    monkeypatch.setattr(systems, "start", start)
    options = ["--epochs", "3", "--jobs", "2", "--seeds", "7", "--data", str(tmp_path)]
    assert systems.main([*options, "--output", str(tmp_path / "exp")]) == 1
    assert "l1-7: failed with status 2: an4: error: too bad" in capsys.readouterr().err
    assert set(places) == {0, 1} and len(places) == 3
    kept = {row["system"]: row for row in systems.read_rows()}
    assert set(kept) == {"lstm", "gru"}
    file = load_model(tiny_model)
    assert kept["gru"]["parameters"] == sum(p.numel() for p in file.model.parameters())
    assert kept["gru"]["seconds_per_epoch"] == 2.5 and kept["gru"]["machine"] == provenance()["machine"]
    part = kept["gru"]["test"]["greedy"]
    assert part["words"] == [3, 3] and part["speakers"] == ["s", "s"] and np.sum(part["errors"]) > 0
    places.clear()
    monkeypatch.setattr(systems, "start", lambda job, *_: places.append(job.name) or subprocess.Popen(["false"]))
    assert systems.main([*options, "--output", str(tmp_path / "exp")]) == 1
    assert places == ["l1-7"]


def test_wrong_usage(capsys, tmp_path):
    for arguments, message in (
        (["--systems", "lstn"], "there is no system lstn (valid: gru, l1, lstm)"),
        (["--data", str(tmp_path / "no")], "name the archive of AN4 with --archive"),
        (["--jobs", "0"], "must be at least 1"),
    ):
        with pytest.raises(SystemExit) as stop:
            systems.main(arguments)
        assert stop.value.code == 2 and message in capsys.readouterr().err
