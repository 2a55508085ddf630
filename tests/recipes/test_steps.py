"""The steps of a recipe: done once, skipped while their inputs stay the same, done again for the right reason."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import asr
import asr.recipe.results
import asr.recipe.steps
from asr.corpus.manifest import Utterance, write_manifest
from asr.files import Stamp, differences
from asr.lm.ngram import NGramLM
from asr.recipe.corpus import Corpus
from asr.recipe.results import evaluate_all, results_table
from asr.recipe.run import main
from asr.training.config import TrainConfig
from asr.training.process import Interrupted
from asr.training.run import TrainResult

RECIPE = """
name: toy
output: exp/toy
data:
  train: data/toy/train.jsonl
  dev: data/toy/dev.jsonl
  test: {one: data/toy/one.jsonl, two: data/toy/two.jsonl}
trainer: {max_epochs: 3}
"""

ARPA = """\\data\\
ngram 1=5

\\1-grams:
-0.9 <unk>
-0.9 <s>
-0.9 </s>
-0.3 a
-0.3 b

\\end\\
"""


@dataclass
class Toy:
    """A recipe whose preparation, training and evaluation are recorded instead of done."""

    folder: Path
    source: Path
    calls: list[str] = field(default_factory=list)
    resumed: list[bool] = field(default_factory=list)
    interrupt: bool = False
    text: str = "a b c"
    unreadable: int = 0
    CORPUS: Corpus = field(default_factory=lambda: Corpus("toys", 2.0, "none", "http://localhost", 0.5, set_hours={}))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--size", type=int, default=1)

    def sources(self, args: argparse.Namespace) -> list[Path]:
        return [self.source]

    def prepare(self, args: argparse.Namespace) -> None:
        self.calls.append("prepare")
        for path in (path for path in args.manifests if path.stem != "unmade"):
            write_manifest(path, [Utterance(f"{path.stem}-0", "a.wav", 1.0, self.text)])

    def train(self, config: TrainConfig, resume: str = "auto") -> Any:
        self.calls.append("train")
        output = Path(config.output)
        self.resumed.append((output / "last.ckpt").exists())
        assert resume == "auto" and Path(config.text.tokenizer_file).is_file()
        (output / "last.ckpt").write_text("a checkpoint", encoding="utf-8")
        if self.interrupt:
            raise Interrupted(signal.SIGTERM)
        (output / "model.asr").write_text(f"model {len(self.calls)}", encoding="utf-8")
        return TrainResult(output / "model.asr", {"dev/wer": 0.25}, "dev WER 25.00%", 3, 60.0)

    def evaluate(self, recognizer: object, manifest: str) -> Any:
        self.calls.append(f"evaluate {Path(manifest).stem}")
        rates = {"rate": 0.125, "interval_95": [0.1, 0.15], "substitutions": 1, "deletions": 2, "insertions": 3}
        summary = {
            "utterances": 7,
            "unreadable": self.unreadable,
            "wer": rates | {"reference_length": 48},
            "cer": rates,
        }

        def write(folder: Path, extra: dict) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "summary.json").write_text("{}", encoding="utf-8")

        return SimpleNamespace(summary=lambda: summary, write=write, warnings=(), failures=())

    def run(self, *argv: str) -> tuple[int, list[str]]:
        """The exit status, and what was done this time."""
        self.calls.clear()
        return main(self.folder, self, argv), list(self.calls)


ALL = ["prepare", "train", "evaluate one", "evaluate two"]
EVALUATE = ["evaluate one", "evaluate two"]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    folder = tmp_path / "recipes" / "toy"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "wide.yaml").write_text("extends: recipe.yaml\nmodel: {hidden_size: 8}\n", encoding="utf-8")
    (folder / "prepare.py").write_text("# the preparation\n", encoding="utf-8")
    source = tmp_path / "source.tar"
    source.write_text("archive", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    toy = Toy(folder, source)
    monkeypatch.setattr(asr.recipe.steps, "train", toy.train)
    monkeypatch.setattr(asr.recipe.results, "evaluate", toy.evaluate)
    monkeypatch.setattr(asr, "load", lambda path, decoder: SimpleNamespace(decoder=decoder))
    return toy


def test_a_dry_run_says_what_would_be_done_and_does_nothing(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(Path().rglob("*"))
    assert toy.run("--dry-run") == (0, [])
    assert sorted(Path().rglob("*")) == before
    shown = capsys.readouterr().out
    assert "500 MB" in shown and "prepare   to do: not done yet" in shown and "train     to do: after prepare" in shown
    assert "2 hours at most" in shown and "on one H100" in shown

    toy.run()
    capsys.readouterr()
    assert toy.run("--dry-run") == (0, [])
    assert "to do:" not in capsys.readouterr().out
    assert toy.run("--dry-run", "model.layers=5") == (0, [])
    shown = capsys.readouterr().out
    assert "train     to do: model.layers changed" in shown and "prepare   up to date" in shown
    assert "evaluate  to do: after train" in shown
    assert toy.run() == (0, [])  # nothing was changed by planning


def test_everything_once_and_then_nothing(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    assert toy.run() == (0, ALL)
    first = capsys.readouterr()
    assert toy.run() == (0, [])
    second = capsys.readouterr()
    assert first.out == second.out
    lines = first.out.splitlines()
    assert lines[1].split()[:4] == ["one", "greedy", "7", "12.50%"] and lines[2].startswith("two")
    assert "exp/toy/model.asr" in lines[-2] and lines[-1].startswith("transcribe with: asr transcribe")
    assert [line for line in second.err.splitlines() if "up to date" not in line] == [
        "[average] nothing to do (averaging.kind is ema)",
        "[lm] nothing to do (lm.order is 0)",
    ]


def test_every_test_set_is_decoded_by_every_decoder_of_the_model(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[str, str]] = []

    class Decoding:
        def __init__(self, path: Path, decoder: str) -> None:
            self.decoder = decoder

        def decode_with(self, config: Any) -> None:
            self.decoder = config.decoder

    def evaluate(recognizer: Decoding, manifest: str) -> Any:
        used.append((Path(manifest).stem, recognizer.decoder))
        return toy.evaluate(recognizer, manifest)

    monkeypatch.setattr(asr, "load", Decoding)
    monkeypatch.setattr(asr.recipe.results, "evaluate", evaluate)
    assert toy.run("model.decoder={}", "objectives={ctc: 0.3, attention: 0.7}")[0] == 0
    assert used == [(name, decoder) for name in ("one", "two") for decoder in ("greedy", "joint", "attention")]
    used.clear()
    assert toy.run("model.decoder={}", "objectives={attention: 1}", "task=attention")[0] == 0
    assert used == [("one", "attention"), ("two", "attention")]


def test_changed_source_prepares_again_but_trains_only_on_other_data(toy: Toy) -> None:
    toy.run()
    toy.source.write_text("another archive", encoding="utf-8")
    assert toy.run() == (0, ["prepare"])
    toy.source.write_text("a third archive", encoding="utf-8")
    toy.text = "other words"
    assert toy.run() == (0, ALL)
    assert toy.resumed == [False, False]
    assert (Path("exp/toy/previous-1") / "last.ckpt").exists()  # the earlier run is not lost
    assert not list(Path("exp/toy/previous-1").glob("steps"))


def test_changed_code_or_argument_of_the_preparation(toy: Toy) -> None:
    toy.run()
    assert toy.run("--size", "2") == (0, ["prepare"])
    (toy.folder / "prepare.py").write_text("# changed\n", encoding="utf-8")
    assert toy.run("--size", "2") == (0, ["prepare"])
    Path("data/toy/dev.jsonl").unlink()
    assert toy.run("--size", "2") == (0, ["prepare"])


@pytest.mark.parametrize("override", ["model.layers=2", "optimizer.lr=0.1", "seed=7", "text.normalizer=none"])
def test_settings_that_change_the_model(toy: Toy, override: str) -> None:
    toy.run()
    assert toy.run(override) == (0, ["train", *EVALUATE])
    assert toy.resumed == [False, False]
    assert toy.run(override) == (0, [])


@pytest.mark.parametrize("override", ["data.workers=1", "trainer.devices=2", "checkpoint_minutes=1", "name=x"])
def test_settings_that_do_not(toy: Toy, override: str) -> None:
    toy.run()
    assert toy.run(override) == (0, [])


def test_longer_training_goes_on_from_the_checkpoint(toy: Toy) -> None:
    toy.run()
    assert toy.run("trainer.max_epochs=9") == (0, ["train", *EVALUATE])
    assert toy.resumed == [False, True]


def test_interrupted_training_is_resumed(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.interrupt = True
    assert toy.run() == (128 + signal.SIGTERM, ["prepare", "train"])
    assert "the same command continues" in capsys.readouterr().err
    toy.interrupt = False
    assert toy.run() == (0, ["train", *EVALUATE])
    assert toy.resumed == [False, True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("step", "rest"),
    [("prepare", ALL), ("tokenizer", ALL[1:]), ("train", ALL[1:]), ("evaluate one", EVALUATE), ("table", EVALUATE)],
)
def test_a_signal_in_any_step_stops_the_recipe_and_the_same_command_goes_on(
    toy: Toy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: str,
    rest: list[str],
    number: signal.Signals,
) -> None:
    functions = {"prepare": (toy, "prepare"), "tokenizer": (asr.recipe.steps, "training_symbols")}
    functions |= {"train": (asr.recipe.steps, "train"), "evaluate one": (asr.recipe.results, "evaluate")}
    functions |= {"table": (Stamp, "write")}
    owner, name = functions[step]
    original = getattr(owner, name)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if step != "table" or args[0].path.name == "evaluate.json":
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        assert toy.run()[0] == 128 + number
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == "toy: stopped; everything is saved, the same command continues from here"
    assert toy.run() == (0, rest)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_is_at_work(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("exp/toy").mkdir(parents=True)
    Path("exp/toy/.lock").write_text("another-host 4711\n", encoding="utf-8")
    assert toy.run() == (1, ["prepare"])
    assert "exp/toy is in use by process 4711 on another-host" in capsys.readouterr().err
    Path("exp/toy/.lock").unlink()
    assert toy.run() == (0, ALL[1:])
    assert not list(Path.cwd().rglob(".lock"))


def test_interrupted_training_with_other_settings_starts_afresh(toy: Toy) -> None:
    toy.interrupt = True
    toy.run()
    toy.interrupt = False
    assert toy.run("model.layers=2")[1] == ["train", *EVALUATE]
    assert toy.resumed == [False, False]


def test_changed_test_set_only_evaluates(toy: Toy) -> None:
    toy.run()
    write_manifest("data/toy/two.jsonl", [Utterance("two-0", "a.wav", 1.0, "changed")])
    assert toy.run() == (0, EVALUATE)


def test_moved_data_is_the_same_data(toy: Toy) -> None:
    toy.run()
    Path("data").rename("elsewhere")
    assert toy.run("--data", "elsewhere/toy") == (0, ["prepare"])  # the arguments are others, the content is not


def test_unreadable_test_audio_is_a_failure(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.unreadable = 1
    assert toy.run() == (1, ALL)
    assert toy.run() == (1, [])
    out, err = capsys.readouterr()
    assert "WER" in out and "2 recordings of the test sets cannot be read" in err


def test_run_of_the_train_command_is_continued(toy: Toy) -> None:
    Path("exp/toy").mkdir(parents=True)
    Path("exp/toy/last.ckpt").write_text("made by asr train", encoding="utf-8")
    assert toy.run() == (0, ALL)
    assert toy.resumed == [True]


def test_force_and_choice_of_steps(toy: Toy) -> None:
    toy.run()
    assert toy.run("--force", "prepare") == (0, ["prepare"])
    assert toy.run("--force", "train") == (0, ["train", *EVALUATE])
    assert toy.resumed == [False, False]
    assert toy.run("--steps", "evaluate,prepare", "--force", "prepare,evaluate") == (0, ["prepare", *EVALUATE])


def test_data_and_output_elsewhere(toy: Toy, tmp_path: Path) -> None:
    status, done = toy.run("model.layers=2", "--data", str(tmp_path / "d"), "--output", "there", "seed=2")
    assert (status, done) == (0, ALL)
    assert sorted(p.name for p in (tmp_path / "d").glob("*.jsonl")) == [
        f"{n}.jsonl" for n in ("dev", "one", "train", "two")
    ]
    assert (tmp_path / "there" / "model.asr").exists() and not Path("exp").exists()


def test_configurations_of_a_recipe(toy: Toy) -> None:
    assert toy.run("--config", "wide") == (0, ALL)
    assert (
        json.loads(Path("exp/toy/steps/train.json").read_text(encoding="utf-8"))["inputs"]["model"]["hidden_size"] == 8
    )
    assert toy.run("--config", str(toy.folder / "wide.yaml")) == (0, [])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config", "wid"], "this recipe has: recipe, wide"),
        (["--steps", "trian"], "no step 'trian'"),
        (["--force", "all"], "no step 'all'"),
        (["model.layer=3"], "did you mean 'layers'"),
        (["layers"], "not of the form key=value"),
        (["--steps", "train"], "run the earlier steps first"),
        (["data.dev=elsewhere/dev.jsonl"], "elsewhere/dev.jsonl"),
        (["data.dev=data/toy/unmade.jsonl"], "unmade.jsonl, which this recipe does not prepare"),
    ],
)
def test_mistakes_are_one_line(toy: Toy, argv: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, done = toy.run(*argv)
    assert status in (1, 2) and "train" not in done
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("toy: error: ") and message in error


def test_a_model_to_begin_from_counts_by_its_content(toy: Toy, tmp_path: Path) -> None:
    from asr.model.checkpoint import load_model, save_model

    start = tmp_path / "start.asr"
    file = load_model(Path(__file__).parents[1] / "model" / "format1.asr")
    save_model(start, file.model, file.tokenizer, file.normalizer, {"name": "first"})
    assert toy.run(f"init={start}") == (0, ALL)
    assert toy.run(f"init={start}") == (0, [])
    save_model(start, file.model, file.tokenizer, file.normalizer, {"name": "second"})
    assert toy.run(f"init={start}")[1][0] == "train"
    (Path("exp/toy") / "config.yaml").write_text(f"init: {start}\nfeatures: {{n_mels: 16}}\nmodel: {{}}\n")
    start.unlink()  # what was trained stands
    assert toy.run("--steps", "train", f"init={start}")[0] == 0


def test_other_ranks_only_train(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.run("--steps", "prepare,tokenizer")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert toy.run() == (0, ["train"])
    assert not Path("exp/toy/steps/train.json").exists()


def test_average_again_after_training(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    from asr.audio.features import FeatureConfig
    from asr.model.acoustic import AcousticModel
    from asr.model.checkpoint import load_model, save_model
    from asr.model.config import RecurrentConfig
    from asr.text.tokenizer import train_char

    def make(value: float) -> AcousticModel:
        model = AcousticModel(RecurrentConfig(hidden_size=4, layers=1), FeatureConfig(), 4)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        return model

    def train(config: TrainConfig, resume: str = "auto") -> Any:
        toy.calls.append("train")
        output = Path(config.output)
        (output / "checkpoints").mkdir(exist_ok=True)
        for epoch, (wer, value) in enumerate([(0.3, 8.0), (0.1, 1.0), (0.2, 3.0)]):
            state = {f"model.{k}": v for k, v in make(value).state_dict().items()}
            torch.save({"state_dict": state}, output / "checkpoints" / f"epoch{epoch:03d}-wer{wer:.4f}.ckpt")
        save_model(output / "model.asr", make(4.0), train_char(["ab"]), "basic", {"dev_wer": 0.1})
        return TrainResult(output / "model.asr", {"dev/wer": 0.1}, "dev WER 10.00%", 3, 60.0)

    monkeypatch.setattr(asr.recipe.steps, "train", train)
    kind = "averaging.kind=last_k"
    assert toy.run(kind, "averaging.last_k=3") == (0, ALL)
    assert toy.run(kind, "averaging.last_k=3") == (0, [])
    assert toy.run(kind, "averaging.last_k=2") == (0, EVALUATE)
    file = load_model("exp/toy/model.asr")
    assert all(torch.allclose(p, torch.tensor(2.0)) for p in file.model.parameters())  # the best two
    assert file.training["checkpoints"] == ["epoch001-wer0.1000.ckpt", "epoch002-wer0.2000.ckpt"]
    assert toy.run(kind, "averaging.last_k=2") == (0, [])


def test_stamp_reasons(tmp_path: Path) -> None:
    stamp, output = Stamp(tmp_path / "s" / "stamp.json"), tmp_path / "result"
    inputs = {"a": {"b": 1, "c": (1, 2)}, "d": "x"}
    assert stamp.why(inputs) == "not done yet"
    stamp.write(inputs, finished=False)
    assert stamp.why(inputs) == "was interrupted"
    stamp.write(inputs)
    assert stamp.why(inputs) == ""
    assert "is missing" in stamp.why(inputs, [output])
    output.touch()
    assert stamp.why(inputs, [output]) == ""
    assert stamp.why({"a": {"b": 2, "c": (1, 2)}, "d": "x"}) == "a.b changed"
    assert stamp.why({"a": {"b": 2, "c": (1, 2)}}) == "a.b changed and 1 more"
    stamp.path.write_text("{damaged", encoding="utf-8")
    assert stamp.why(inputs) == "not done yet"


def test_differences_names_every_entry() -> None:
    assert differences({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [2], "d": 0}}) == ["b.c", "b.d"]
    assert differences({"a": {}}, {"a": 1}) == ["a"]
    assert differences({}, {}) == []


def test_the_table_leads_with_the_rate_of_the_task() -> None:
    counts = {"interval_95": [0.1, 0.3], "substitutions": 1, "deletions": 2, "insertions": 3}
    row = {"set": "test", "decoding": "greedy", "utterances": 7}
    row |= {
        "wer": {"rate": 0.5, "reference_length": 12, **counts},
        "cer": {"rate": 0.25, "reference_length": 24, **counts},
    }

    def table(*task: str) -> list[list[str]]:
        return [line.split() for line in results_table([row], *task).splitlines()]

    interval = ["95", "%", "interval", "sub", "del", "ins"]
    assert table()[0] == ["test", "set", "decoder", "utterances", "WER", *interval, "words", "CER"]
    assert table("ctc-characters")[0] == ["test", "set", "decoder", "utterances", "CER", *interval, "characters", "WER"]
    assert " ".join(table("ctc-characters")[1]) == "test greedy 7 25.00% 10.00% to 30.00% 1 2 3 24 50.00%"
    assert table("ctc-phones")[0] == ["test", "set", "decoder", "utterances", "PER", *interval, "phones"]
    assert table("ctc-phones")[1][3] == "50.00%"
    assert table("ctc-spaced")[0] == ["test", "set", "decoder", "utterances", "CER", *interval, "characters"]


def test_each_row_is_of_its_own_decoder(tiny_model: Path, write_audio: Any, tmp_path: Path) -> None:
    sets = {}
    for name in ("one", "two"):
        audio = write_audio(tmp_path / f"{name}.wav", seconds=3.0)
        sets[name] = str(tmp_path / f"{name}.jsonl")
        write_manifest(Path(sets[name]), [Utterance(name, str(audio), 3.0, "a b")])
    (tmp_path / "lm.arpa").write_text(ARPA, encoding="utf-8")
    NGramLM.read(tmp_path / "lm.arpa").write_binary(tmp_path / "words.lm")

    def rows(*names: str) -> dict[tuple[str, str], Any]:
        places = [(name, decoding) for name in names for decoding in ("greedy", "beam+lm")]
        folders = {place: tmp_path / "_".join(place) for place in places}
        found = evaluate_all(tiny_model, sets, folders, tmp_path / "words.lm")
        return {(row["set"], row["decoding"]): row["cer"] for row in found}

    together = rows("one", "two")
    assert together == rows("two", "one")
    for name in sets:  # or the order would not matter
        assert together[name, "greedy"] != together[name, "beam+lm"]


def test_settings_that_an_older_version_did_not_have_change_nothing(toy: Toy) -> None:
    toy.run()
    path = Path("exp/toy/steps/train.json")
    stamp = json.loads(path.read_text(encoding="utf-8"))
    del stamp["inputs"]["model"]["zoneout"], stamp["inputs"]["view_time_masks"]
    stamp["inputs"]["model"]["layer_norm"] = stamp["inputs"]["model"].pop("norm") == "layer"
    path.write_text(json.dumps(stamp), encoding="utf-8")
    assert toy.run() == (0, [])
    assert toy.run("model.zoneout=0.1") == (0, ["train", *EVALUATE])
