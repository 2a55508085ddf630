"""Training that begins from a model: what is taken from it, what is refused, freezing, resume without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.__main__ import main
from asr.audio.features import FeatureConfig
from asr.corpus.download import file_digest
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model, read_metadata, save_model
from asr.model.config import RecurrentConfig
from asr.text.tokenizer import CharTokenizer
from asr.training.callbacks import SaveOnInterrupt
from asr.training.checkpoints import model_weights, read_checkpoint
from asr.training.config import parse_config
from asr.training.initial import InitialModel
from asr.training.process import Interrupted
from asr.training.run import train
from asr.types import ConfigError, ModelFileError

Settings = Callable[..., dict[str, Any]]
FORMAT1 = Path(__file__).parents[1] / "model" / "format1.asr"
SHAPE = RecurrentConfig(hidden_size=24, layers=1, subsampling_channels=4, dropout=0.3, norm="batch")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model of the shape that the runs on the tones have, with their alphabet, in half precision."""
    torch.manual_seed(3)
    tokenizer = CharTokenizer(["", " ", *"abcd"])
    model = AcousticModel(SHAPE, FeatureConfig(n_mels=24), tokenizer.vocab_size)
    training = {"name": "before", "train_hours": 1.5}
    return save_model(tmp_path / "base.asr", model, tokenizer, "basic@1", training, half=True)


def test_the_weights_are_the_models_and_the_record_says_so(
    settings: Settings, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {"optimizer": {"lr": 0.0}, "freeze_epochs": 1}  # is learned, not even statistics
    values = settings(init=str(base), **nothing, trainer={"max_epochs": 1, "limit_train_batches": 1})
    del values["features"]  # taken from the model
    path = train(parse_config(values)).model_path
    assert "beginning from base.asr: its encoder and its output layer" in capsys.readouterr().err
    found = load_model(path)
    for name, tensor in load_model(base).model.state_dict().items():
        assert torch.equal(tensor, found.model.state_dict()[name]), name
    assert found.feature_config == FeatureConfig(n_mels=24)
    assert found.model_config == replace(SHAPE, dropout=0.1)  # the recipe's
    record = {"file": "base.asr", "sha256": file_digest(base), "name": "before", "normalizer": "basic@1", "hours": 1.5}
    assert found.training["init"] == record and found.normalizer == "basic@2"
    assert main(["info", str(path)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["init"] == f"base.asr: before, 1.5 h of speech, basic@1 (sha256 {record['sha256']})"


def test_with_another_tokenizer_the_symbols_that_both_have_keep_their_rows(base: Path) -> None:
    initial = InitialModel.read(str(base), SHAPE, FeatureConfig(n_mels=24))
    tokenizer = CharTokenizer(["", " ", *"xBéa"])
    model = AcousticModel(SHAPE, FeatureConfig(n_mels=24), tokenizer.vocab_size)
    before, theirs = ({k: v.clone() for k, v in m.output.state_dict().items()} for m in (model, initial.file.model))
    assert initial.copy_to(model, tokenizer).endswith("its encoder and 4 of 6 rows of the output layer")
    for name, ours in model.output.state_dict().items():
        for new, old in ((0, 0), (1, 1), (3, 3), (5, 2)):  # blank, space, b in the other case, a
            assert torch.equal(ours[new], theirs[name][old])
        for new in (2, 4):
            assert torch.equal(ours[new], before[name][new])
    for name, tensor in initial.file.model.encoder.state_dict().items():  # type: ignore[attr-defined]
        assert torch.equal(tensor, model.encoder.state_dict()[name])  # type: ignore[attr-defined]


def test_a_model_of_the_old_format_is_a_start_too(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    values = settings(init=str(FORMAT1), trainer={"max_epochs": 1, "limit_train_batches": 1})
    values["features"] = {"n_mels": 16}
    values["model"] = {}
    found = load_model(train(parse_config(values)).model_path)
    assert found.model_config == load_model(FORMAT1).model_config
    assert found.training["init"]["name"] is None and found.training["init"]["hours"] is None
    assert main(["info", str(Path(values["output"]) / "model.asr")]) == 0
    assert f"format1.asr: basic@1 (sha256 {file_digest(FORMAT1)})" in capsys.readouterr().out


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    original = SaveOnInterrupt.on_train_batch_end

    def stop(self: SaveOnInterrupt, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == steps:
            self.signals.received = 15
        original(self, trainer, *arguments)

    monkeypatch.setattr(SaveOnInterrupt, "on_train_batch_end", stop)


def test_frozen_slowed_and_resumed_without_the_model_equals_unbroken(
    settings: Settings, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted while the encoder is frozen and after; by then the model that it began from is damaged, or gone."""
    sections = {"init": str(base), "freeze_epochs": 1, "encoder_lr_factor": 0.25, "trainer": {"max_epochs": 2}}
    values = settings("broken", **sections)
    unbroken = load_model(train(parse_config(settings("unbroken", **sections))).model_path)
    initial = load_model(base).model.state_dict()
    for steps in (3, 11):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            stop_after(patch, steps)
            train(parse_config(values))
        saved = read_checkpoint(tmp_path / "broken" / "last.ckpt")
        assert saved["global_step"] == steps
        weights, optimizer = model_weights(saved), saved["optimizer_states"][0]
        assert not torch.equal(weights["output.weight"], initial["output.weight"])
        learned = [name for name in weights if "encoder" in name and not torch.equal(weights[name], initial[name])]
        slowed = [p for group in optimizer["param_groups"][2:] for p in group["params"]]
        assert bool(learned) == (steps == 11)
        assert all((p in optimizer["state"]) == (steps == 11) for p in slowed)
        rates = [group["lr"] for group in optimizer["param_groups"]]
        assert rates[2:] == pytest.approx([0.25 * rates[0]] * 2) and rates[0] == rates[1] > 0
        if steps == 3:
            base.write_bytes(base.read_bytes()[:100])
        else:
            base.unlink()
    resumed = load_model(train(parse_config(values)).model_path)
    assert resumed.training["init"] == unbroken.training["init"]
    for name, tensor in unbroken.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    with pytest.raises(ModelFileError, match=r"base\.asr: cannot read"):  # afresh needs it
        train(parse_config(values), resume="never")


def test_a_run_from_nothing_is_not_resumed_as_one_from_a_model(settings: Settings, base: Path) -> None:
    values = settings(trainer={"max_epochs": 1, "limit_train_batches": 1})
    train(parse_config(values))
    with pytest.raises(ConfigError, match=r"init=nothing, this configuration says base\.asr"):
        train(parse_config(values | {"init": str(base)}))
    with pytest.raises(ConfigError, match=r"encoder_lr_factor=1\.0, this configuration says 0\.5"):
        train(parse_config(values | {"encoder_lr_factor": 0.5}))


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("features", {"rate": 8000}, "features.rate is 8000 here and 16000 in the model"),
        ("features", {"n_mels": 24, "normalize": "none"}, "features.normalize is none here and utterance in the model"),
        ("model", {"hidden_size": 32}, "model.hidden_size is 32 here and 24 in the model"),
        (
            "model",
            {"layers": 2, "cell": "gru"},
            "model.cell is gru here and lstm in the model; model.layers is 2 here",
        ),
    ],
)
def test_contradictions_name_both_values(
    settings: Settings, base: Path, section: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(settings(init=str(base)) | {section: values})
    assert message in str(error.value)
    assert "\n" not in str(error.value) and str(base) in str(error.value)
    with pytest.raises(ConfigError, match=r"is 32 here and 24 in the model"):  # replaced after the recipe was read
        InitialModel.read(str(base), replace(SHAPE, hidden_size=32), FeatureConfig(n_mels=24))


def test_damaged_missing_and_senseless_starts_are_refused_in_one_line(settings: Settings, base: Path) -> None:
    content = base.read_bytes()
    config = parse_config(settings(init=str(base)))
    base.write_bytes(content[:-50])
    with pytest.raises(ModelFileError, match="cut short"):
        train(config)
    base.write_bytes(content[:50])
    with pytest.raises(ModelFileError, match="not an asr-ctc model file"):
        parse_config(settings(init=str(base)))
    with pytest.raises(ModelFileError, match="english-14h"):
        parse_config(settings(init="english"))
    for changes, message in (
        ({"freeze_epochs": 1}, "set init"),
        ({"freeze_epochs": -1}, "freeze_epochs must not be negative"),
        ({"encoder_lr_factor": -1.0}, "encoder_lr_factor must not be negative"),
        ({"init": 3}, "init: expected text"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_config(settings(**changes))


def test_the_command_takes_it_as_an_override(
    settings: Settings, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "tones.yaml"
    recipe.write_text(json.dumps(settings(trainer={"max_epochs": 1, "limit_train_batches": 1})), encoding="utf-8")
    assert main(["train", str(recipe), f"init={base}"]) == 0
    assert read_metadata(tmp_path / "run" / "model.asr")["training"]["init"]["name"] == "before"
    for epochs, name in ((2, "run"), (3, "elsewhere")):  # `init` is not read again: by now it has another shape
        file = load_model(FORMAT1)
        save_model(base, file.model, file.tokenizer, file.normalizer)
        more = [f"trainer.max_epochs={epochs}", f"output={tmp_path / name}", "--resume"]
        assert main(["train", str(recipe), f"init={base}", *more, str(tmp_path / "run" / "last.ckpt")]) == 0
        assert read_metadata(tmp_path / name / "model.asr")["training"]["init"]["name"] == "before"
    assert main(["train", str(recipe), f"init={base}", "trainer.max_epochs=2"]) == 0
    assert main(["train", str(recipe), f"init={base}", "--resume", "never"]) == 2
    assert "features.n_mels is 24 here and 16 in the model" in capsys.readouterr().err
    assert main(["train", str(recipe), f"init={base}", "features.rate=8000", "--resume", "never"]) == 2
    assert "features.rate is 8000 here and 16000 in the model" in capsys.readouterr().err
