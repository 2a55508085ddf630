"""Configuration: typos are errors that name the nearest key, files extend one another, overrides are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.config import to_dict
from asr.training.config import parse_config, read_config
from asr.types import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "unknown configuration key 'modle' (did you mean 'model'?)"),
        ({"model": {"hiden_size": 3}}, "'model.hiden_size' (did you mean 'hidden_size'?)"),
        ({"trainer": {"max_epoch": 3}}, "'trainer.max_epoch' (did you mean 'max_epochs'?)"),
        ({"trainer": {"gradient_clip_val": 1.0}}, "set optimizer.gradient_clip"),
        ({"model": {"cell": "lsmt"}}, "'lsmt' is not one of lstm, gru, rnn (did you mean 'lstm'?)"),
        ({"model": {"hidden_size": "big"}}, "model.hidden_size: expected int, found 'big'"),
        ({"model": {"hidden_size": 0}}, "hidden_size must be at least 1"),
        ({"model": {"dropout": 1.0}}, "dropout must lie in [0, 1)"),
        ({"model": {"bidirectional": 1}}, "model.bidirectional: expected bool"),
        ({"model": 3}, "model: expected a mapping"),
        ({"optimizer": {"betas": [0.9]}}, "expected 2 values, found 1"),
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
        ("extends: x.yaml\n", "round in a circle"),
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
