"""`asr info`: what is in a model file, for people and as JSON, without its tensors."""

from __future__ import annotations

import json

from asr.__main__ import main


def test_it_tells_architecture_features_tokenizer_normalizer_and_training(tiny_model, capsys):
    assert main(["info", str(tiny_model)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["architecture"].startswith(
        "recurrent: frontend conv, subsampling 4, subsampling_channels 4, cell lstm, hidden_size 16, layers 1"
    )
    assert "20 log-mel, 16000 Hz" in rows["features"]
    assert rows["tokenizer"] == "char, 7 entries with the blank"
    assert rows["normalizer"] == "basic@2"
    assert rows["training.dev_wer"] == "0.99"
    assert int(rows["parameters"].replace(",", "")) > 1000


def test_json_counts_the_parameters_of_the_model(tiny_model, capsys):
    from asr.model.checkpoint import load_model

    assert main(["info", str(tiny_model), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    model = load_model(tiny_model).model
    assert described["file"]["parameters"] == sum(tensor.numel() for tensor in model.state_dict().values())
    assert described["file"]["bytes"] == tiny_model.stat().st_size
    assert described["model"]["hidden_size"] == 16
    assert described["tokenizer"]["labels"][:2] == ["", " "]


def test_no_model_is_one_line(tmp_path, capsys):
    (tmp_path / "x.asr").write_text("hello", encoding="utf-8")
    for path in (tmp_path / "x.asr", tmp_path / "nowhere.asr"):
        assert main(["info", str(path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"asr: error: {path}")
        assert error.count("\n") == 1
