"""Plans of trainings: `asr train --dry-run`, and the search for the batch that fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from asr.__main__ import main
from asr.corpus.manifest import Manifest
from asr.training.config import parse_config
from asr.training.data import training_sampler
from asr.training.measure import Shape, estimated_memory, find_batch, largest_fitting, stand_in
from asr.training.plan import corpus, plan, spread_durations
from asr.types import ConfigError

NO_GPU = not torch.cuda.is_available()


@pytest.fixture
def recipe(settings, tmp_path):
    def write(**sections):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings(**sections)), encoding="utf-8")
        return path

    return write


def test_dry_run_measures_and_writes_nothing(recipe, tones, tmp_path, capsys):
    objectives = {"ctc": 1.0, "consistency": 0.2, "attention": 0.3}
    path = recipe(trainer={"accumulate_grad_batches": 2}, objectives=objectives, model={"decoder": {"hidden_size": 8}})
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", str(path), "--dry-run", "--json"]) == 0
    what = json.loads(capsys.readouterr().out)
    assert sorted(tmp_path.rglob("*")) == before
    config = parse_config(yaml.safe_load(path.read_text(encoding="utf-8")))
    train_set = Manifest.read(config.data.train)
    batches = len(training_sampler(config, train_set.durations))
    assert (what["utterances"], what["epochs"]) == (48, 3)
    assert what["steps_per_epoch"] == -(-batches // 2)
    assert what["steps"] == 3 * what["steps_per_epoch"]
    assert what["hours"] == pytest.approx(float(train_set.durations.sum()) / 3600, rel=1e-5)
    assert what["parameters"] == sum(p.numel() for p in stand_in(config, what["vocab_size"]).model.parameters())
    assert what["largest_batch"]["rows"] * what["largest_batch"]["seconds"] <= config.data.batch_seconds
    assert what["days"] == pytest.approx(3 * what["hours"] / 24 / what["throughput"], abs=1e-6)
    assert what["memory"] > 0


def test_dry_run_for_another_machine_runs_nothing(recipe, capsys, monkeypatch):
    monkeypatch.setattr("asr.training.plan.measure", lambda *_: pytest.fail("a step was run"))
    path = recipe(trainer={"max_steps": 7})
    assert main(["train", str(path), "--dry-run", "--throughput", "2000"]) == 0
    out = capsys.readouterr().out
    assert "7 in all" in out and "2,000 seconds of audio a second (as given)" in out and "(estimated)" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json"], "--throughput and --json need --dry-run"),
        (["--dry-run", "--throughput", "-1"], "--throughput must be positive"),
        (["trainer.max_epochs=-1", "--dry-run", "--throughput", "9"], "the training has no end to plan for"),
        pytest.param(["--find-batch"], "--find-batch needs", marks=pytest.mark.skipif(not NO_GPU, reason="has a GPU")),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(recipe, capsys, options, message):
    assert main(["train", str(recipe()), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("asr: error: " + message) and captured.err.count("\n") == 1


def test_steps_that_do_not_fit_into_memory_are_one_line(recipe, capsys, monkeypatch):
    def measure(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nmany more lines")

    monkeypatch.setattr("asr.training.plan.measure", measure)
    assert main(["train", str(recipe()), "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert "out of memory with data.batch_seconds=" in error and error.count("\n") == 1


@pytest.mark.parametrize("limit", [3.0, 50.0, 119.0, 120.0, 500.0, 5000.0])
def test_the_largest_number_that_fits_is_found_by_few_trials(limit):
    tried = []
    found = largest_fitting(lambda x: not tried.append(x) and x <= limit, 120.0, 1000.0)
    assert min(limit, 1000.0) / 1.05 < found <= min(limit, 1000.0)
    assert len(tried) <= 12


def test_where_nothing_fits_nothing_is_found():
    assert largest_fitting(lambda x: False, 120.0, 1000.0) == 0


def test_a_corpus_known_by_its_totals(settings):
    durations = spread_durations(100.6, 28539, 24.5)
    assert durations.sum() / 3600 == pytest.approx(100.6, rel=1e-4)
    assert len(durations) == 28539 and 24.4 < durations.max() < 24.6 and durations.min() > 0
    config = parse_config(settings(data={"batch_seconds": 400.0}))
    what = plan(config, durations, 29, throughput=1000, source="somewhere")
    assert what.steps_per_epoch >= 100.6 * 3600 / 400
    assert "somewhere" in what.lines()[-1]
    with pytest.raises(ConfigError, match="do not agree with 2 s"):
        spread_durations(1.0, 10, 2.0)


def test_the_memory_that_is_estimated_grows_with_the_batch(settings):
    config = parse_config(settings())
    sizes = [estimated_memory(config, 7, Shape(rows, 4.0)) for rows in (1, 2, 3)]
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0]) and sizes[1] > sizes[0]
    half = parse_config(settings(trainer={"precision": "bf16-mixed"}))
    more = parse_config(settings(objectives={"ctc": 1.0, "auto_encoder": 0.1}))
    assert estimated_memory(more, 7, Shape(2, 4.0)) > sizes[1]
    assert estimated_memory(half, 7, Shape(1000, 4.0)) < 0.6 * estimated_memory(config, 7, Shape(1000, 4.0))


def test_a_search_on_a_gpu_stays_below_its_memory(settings, monkeypatch):
    """The search itself, with a GPU that is made up: 1 MB for each second of audio, 100 MB in all."""
    config = parse_config(settings())
    durations = np.linspace(1.0, 5.0, 200, dtype=np.float32)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (100e6, 100e6))
    monkeypatch.setattr("asr.training.measure.measure", lambda config, module, shape, steps: Step(shape.padded))

    class Step:
        def __init__(self, padded):
            self.memory = padded * 1e6

    found = find_batch(config, durations, 7)
    assert 80 < found <= 97  # a batch is a little smaller than its bound
    assert find_batch(config, durations, 7, most=20.0) == 20.0


def test_vocabulary_of_a_corpus(recipe, settings, tones: Path):
    assert corpus(parse_config(settings()))[1] == 6  # blank, space, a to d
    assert corpus(parse_config(settings(text={"tokenizer": "bpe", "vocab_size": 40})))[1] == 40
