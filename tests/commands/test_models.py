"""Bundled models, found by name wherever a model is taken; `asr models`, and `asr average`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import asr
from asr.__main__ import main
from asr.model.averaging import average_models
from asr.model.checkpoint import BUNDLED, ENGLISH, find_model, load_model, read_metadata, save_model
from asr.text.tokenizer import CharTokenizer
from asr.types import ModelFileError

FORMAT1 = Path(__file__).parents[1] / "model" / "format1.asr"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_list_says_what_a_model_is_for_and_its_license(capsys: Captured) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    for text in ("english-14h", "27.7 MB", "CC BY 4.0", "LibriSpeech", "VCTK", "fine-tuning", "not a transcriber"):
        assert text in out
    assert main(["models", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(BUNDLED)
    assert all(Path(row["path"]).stat().st_size == row["bytes"] for row in rows)


def test_bundled_models_are_part_of_the_wheel_and_have_a_page() -> None:
    root = Path(__file__).parents[2]
    config = (root / "pyproject.toml").read_text(encoding="utf-8")
    assert '"asr.model" = ["*.asr"]' in config
    for name, bundled in BUNDLED.items():
        assert bundled.path.parent == root / "asr" / "model"
        page = (root / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert bundled.license in page and all(data in page for data in bundled.data)


def test_a_name_stands_for_a_model_in_python_and_in_commands(
    write_audio: Callable[..., Path], folder: Path, capsys: Captured
) -> None:
    audio = [write_audio(folder / f"{name}.wav", 0.5) for name in "ab"]
    assert main(["transcribe", *map(str, audio), "-m", ENGLISH, "--decoder", "greedy"]) == 0
    captured = capsys.readouterr()
    texts = [json.loads(line)["text"] for line in captured.out.splitlines()]
    assert captured.err.count("not a transcriber") == 1 and "57 % WER" in captured.err
    assert asr.load(ENGLISH, decoder="greedy").transcribe(audio[0]).text == texts[0]
    assert main(["info", ENGLISH]) == 0
    assert "english-14h.asr (27.7 MB" in capsys.readouterr().out
    (folder / "text.txt").write_text("ab\n", encoding="utf-8")
    assert main(["lm", "train", "text.txt", "-o", "words.lm", "-m", ENGLISH, "--order", "1"]) == 0


def test_a_file_of_the_name_comes_first_and_a_folder_does_not(folder: Path, capsys: Captured) -> None:
    (folder / ENGLISH).mkdir()
    assert find_model(ENGLISH) == BUNDLED[ENGLISH].path
    (folder / ENGLISH).rmdir()
    shutil.copy(FORMAT1, ENGLISH)
    assert read_metadata(ENGLISH)["tensors"]["output.bias"] == [8]
    assert main(["info", ENGLISH, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"]["bytes"] == FORMAT1.stat().st_size


@pytest.mark.parametrize("name", ["english", "english-14H", ""])
def test_an_unknown_name_is_one_line_with_the_names_that_exist(name: str, capsys: Captured) -> None:
    if name:
        with pytest.raises(ModelFileError, match=r"english-14h"):
            asr.load(name)
    assert main(["info", name]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and (not name or f"{name}: no such file" in error)


def test_an_average_is_the_mean_of_the_weights_in_full_and_in_half(folder: Path, capsys: Captured) -> None:
    file = load_model(FORMAT1)
    states = []
    for number, name in enumerate(("a.asr", "b.asr", "c.asr")):
        with torch.no_grad():
            for parameter in file.model.parameters():
                parameter += 0.5 * number
        states.append({k: v.clone() for k, v in file.model.state_dict().items()})
        training = {"name": name, "dev_wer": 0.1, "confidence": {}, "train_longest": 3.0}
        save_model(name, file.model, file.tokenizer, file.normalizer, training, half=name == "c.asr")
    assert Path("c.asr").stat().st_size < Path("b.asr").stat().st_size
    assert main(["average", "a.asr", "b.asr", "c.asr", "-o", "mean.asr"]) == 0
    mean = load_model("mean.asr")
    for name, tensor in mean.model.state_dict().items():
        assert torch.allclose(tensor, sum(state[name] for state in states) / 3, atol=2e-3)  # c.asr is rounded
    assert {k: v for k, v in mean.training.items() if k != "averaged"} == {"name": "a.asr", "train_longest": 3.0}
    assert [entry["file"] for entry in mean.training["averaged"]] == ["a.asr", "b.asr", "c.asr"]
    assert main(["average", "a.asr", "b.asr", "-o", "mean.asr"]) == 2 and "--force" in capsys.readouterr().err
    assert main(["average", "mean.asr", "-o", "half.asr", "--half"]) == 0
    for name, tensor in load_model("half.asr").model.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, mean.model.state_dict()[name].half().float())


def test_what_cannot_be_averaged_is_refused_with_the_difference(tiny_model: Path, capsys: Captured) -> None:
    file = load_model(FORMAT1)
    other = CharTokenizer([*file.tokenizer.labels[:-1], "ü"])
    for tokenizer, normalizer, message in (
        (other, file.normalizer, "their tokenizers differ"),
        (file.tokenizer, "none@1", "the normalizer is basic@1 in one and none@1 in the other"),
    ):
        save_model("other.asr", file.model, tokenizer, normalizer)
        with pytest.raises(ModelFileError, match=message):
            average_models([FORMAT1, "other.asr"])
    assert main(["average", str(FORMAT1), str(tiny_model), "-o", "mean.asr"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is 2 in one and 4 in the other" in error and not Path("mean.asr").exists()
    with torch.no_grad():
        file.model.output.bias += 1e6
    with pytest.raises(ModelFileError, match="half precision cannot hold"):
        save_model("half.asr", file.model, file.tokenizer, "none", half=True)
    assert not Path("half.asr").exists()
