"""Configuration: typos are errors that name the nearest key, files extend one another, overrides are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.config import to_dict
from asr.training.checkpoints import check_resume
from asr.training.config import parse_config, read_config
from asr.types import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "unknown configuration key 'modle' (did you mean 'model'?)"),
        ({"model": {"hiden_size": 3}}, "'model.hiden_size' (did you mean 'hidden_size'?)"),
        ({"trainer": {"max_epoch": 3}}, "'trainer.max_epoch' (did you mean 'max_epochs'?)"),
        ({"trainer": {"gradient_clip_val": 1.0}}, "set optimizer.gradient_clip"),
        ({"model": {"cell": "lsmt"}}, "'lsmt' is not one of lstm, gru, rnn, rnn-relu, ligru (did you mean 'lstm'?)"),
        ({"model": {"hidden_size": "big"}}, "model.hidden_size: expected a whole number, found 'big'"),
        ({"model": {"hidden_size": 0}}, "hidden_size must be at least 1"),
        ({"model": {"dropout": 1.0}}, "dropout must lie in [0, 1)"),
        ({"model": {"bidirectional": 1}}, "model.bidirectional: expected true or false"),
        ({"model": 3}, "model: expected a mapping"),
        ({"optimizer": {"betas": [0.9]}}, "expected 2 values, found 1"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr: expected a number, found nan"),
        ({"optimizer": {"lr": -1}}, "optimizer: lr must not be negative"),
        ({"optimizer": {"betas": [0.9, 1.5]}}, "optimizer: betas must lie in [0, 1)"),
        ({"averaging": {"ema_decay": 2}}, "averaging: ema_decay must lie in [0, 1)"),
        ({"averaging": {"last_k": 0}}, "averaging: last_k must be at least 1"),
        ({"seed": -1}, "seed must lie in [0, 2^32)"),
        ({"optimizer": {"sync_every": 0}}, "optimizer: sync_every must be at least 1"),
        ({"trainer": {"accumulate_grad_batches": 0}}, "trainer.accumulate_grad_batches: must be at least 1"),
        ({"seed": 1.5}, "seed: expected a whole number, found 1.5"),
        ({"seed": True}, "seed: expected a whole number, found True"),
        ({"name": 2024}, "name: expected text, found 2024; put it in quotes"),
        ({"data": None}, "data: expected a mapping, found None"),
        ({"output": "$NOT_SET/x"}, "output: the environment variable NOT_SET is not set"),
        ({"data": {"train": ["a", "${NOT_SET}/b"]}}, "data.train[1]: the environment variable NOT_SET is not set"),
        ({"data": {"dev": "$NOT_SET"}}, "data.dev: the environment variable NOT_SET is not set"),
        ({"output": "~nobody-9/x"}, "output: there is no home directory ~nobody-9"),
        ({"trainer": {"max_epochs": "ten"}}, "trainer.max_epochs: expected a whole number or null, found 'ten'"),
        ({"trainer": {"max_epochs": 1.5}}, "trainer.max_epochs: expected a whole number"),
        ({"trainer": {"max_epochs": [3]}}, "trainer.max_epochs: expected a whole number"),
        ({"trainer": {"max_time": 3600}}, "trainer.max_time: expected text or a mapping or null, found 3600"),
        ({"trainer": {"precision": "bf17"}}, "trainer.precision: expected 64 or 32 or 16"),
        ({"trainer": {"detect_anomaly": "maybe"}}, "trainer.detect_anomaly: expected true or false"),
    ],
)
def test_mistakes_are_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(values)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_extend_and_overrides_win(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: {layers: 5, hidden_size: 100}\nseed: 3\n", encoding="utf-8")
    top = tmp_path / "top.yaml"
    top.write_text("extends: base.yaml\nmodel: {hidden_size: 200}\n", encoding="utf-8")
    config = read_config(top, ["optimizer.lr=3e-4", "model.bidirectional=false", "data.test.clean=a.jsonl"])
    assert (config.model.layers, config.model.hidden_size, config.seed) == (5, 200, 3)
    assert (config.optimizer.lr, config.model.bidirectional) == (3e-4, False)
    assert config.data.test == {"clean": "a.jsonl"}


def test_a_configuration_survives_being_written_and_read() -> None:
    config = parse_config(
        {"augment": {"speed": [0.9, 1.1]}, "trainer": {"max_epochs": 7}, "data": {"train": ["a", "b"]}}
    )
    assert parse_config(to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1", "x.yaml:2: not valid YAML"),
        ("- 1\n", "is a mapping"),
        ("extends: x.yaml\n", "leads back to this file"),
    ],
)
def test_broken_files_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert message in str(error.value)


def test_missing_file_and_malformed_override(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "e.yaml").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="key=value"):
        read_config(tmp_path / "e.yaml", ["model.layers"])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.delenv("NOT_SET", raising=False)
    return tmp_path


def test_home_and_variables_in_every_setting_that_names_a_file_are_expanded(home: Path) -> None:
    values = {
        "name": "~ and $SCRATCH are text here",
        "output": "~/run",
        "data": {"train": ["~/a.jsonl", "$SCRATCH/b.jsonl"], "dev": "${SCRATCH}/dev.jsonl", "test": {"t": "~/t.jsonl"}},
        "text": {"tokenizer_file": "~/tokenizer.json"},
        "augment": {"noise_dir": "~/noise", "reverb_dir": "$SCRATCH/rooms"},
        "lm": {"file": "~/words.lm", "text": "~/more.txt"},
    }
    config = parse_config(values)
    assert config.name == values["name"]
    assert config.output == f"{home}/run"
    assert config.data.train == (f"{home}/a.jsonl", "/scratch/me/b.jsonl")
    assert (config.data.dev, config.data.test) == ("/scratch/me/dev.jsonl", {"t": f"{home}/t.jsonl"})
    assert config.text.tokenizer_file == f"{home}/tokenizer.json"
    assert (config.augment.noise_dir, config.augment.reverb_dir) == (f"{home}/noise", "/scratch/me/rooms")
    assert (config.lm.file, config.lm.text) == (f"{home}/words.lm", f"{home}/more.txt")
    assert parse_config({"output": "cost$5/~/x"}).output == "cost$5/~/x"
    assert parse_config({}).text.tokenizer_file == ""


def test_a_base_configuration_may_lie_at_home(home: Path) -> None:
    (home / "base.yaml").write_text("seed: 5\n", encoding="utf-8")
    (home / "sub").mkdir()
    (home / "sub/top.yaml").write_text("extends: ~/base.yaml\n", encoding="utf-8")
    assert read_config(home / "sub/top.yaml").seed == 5


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max_epochs", "1e2", 100),
        ("max_epochs", "100.0", 100),
        ("max_epochs", "'100'", 100),
        ("max_epochs", "null", None),
        ("accumulate_grad_batches", "4e0", 4),
        ("limit_train_batches", "1e2", 100),
        ("limit_train_batches", "1e-1", 0.1),
        ("limit_train_batches", "1.0", 1.0),
        ("limit_train_batches", "1", 1),
        ("val_check_interval", "1e3", 1000),
        ("val_check_interval", "0.5", 0.5),
        ("devices", "0,1", "0,1"),
        ("devices", "[0, 1]", [0, 1]),
        ("devices", "auto", "auto"),
        ("precision", "16", 16),
        ("precision", "bf16-mixed", "bf16-mixed"),
        ("max_time", "00:12:00:00", "00:12:00:00"),
        ("max_time", "{hours: 1}", {"hours": 1}),
        ("deterministic", "warn", "warn"),
        ("benchmark", "true", True),
    ],
)
def test_trainer_settings_have_the_types_that_lightning_declares(
    tmp_path: Path, key: str, text: str, value: object
) -> None:
    (tmp_path / "e.yaml").write_text("", encoding="utf-8")
    found = read_config(tmp_path / "e.yaml", [f"trainer.{key}={text}"]).trainer[key]
    assert (found, type(found)) == (value, type(value))


def test_numbers_become_what_the_field_declares(tmp_path: Path) -> None:
    (tmp_path / "n.yaml").write_text(
        "seed: 1e3\nmodel: {layers: 3.0, hidden_size: '64'}\noptimizer: {lr: 1e-3, betas: [9e-1, 0]}\n",
        encoding="utf-8",
    )
    config = read_config(tmp_path / "n.yaml")
    found = (config.seed, config.model.layers, config.model.hidden_size, config.optimizer.lr, config.optimizer.betas)
    assert found == (1000, 3, 64, 1e-3, (0.9, 0.0))
    assert [type(value) for value in found[:4]] == [int, int, int, float]


def test_a_run_from_when_norm_was_layer_norm_is_resumed_with_the_same_norm() -> None:
    saved = {"config": {"model": {"layer_norm": False, "layers": 3}}}
    check_resume(Path("last.ckpt"), saved, parse_config({"model": {"layer_norm": False}}))
    with pytest.raises(ConfigError, match=r"trained with model\.norm=none, this configuration says layer"):
        check_resume(Path("last.ckpt"), saved, parse_config({}))
    with pytest.raises(ConfigError, match=r"trained with model\.residual=False, this configuration says True"):
        check_resume(Path("last.ckpt"), saved, parse_config({"model": {"layer_norm": False, "residual": True}}))
