"""The one-file model: it comes back as it was, tells about itself without loading, and foreign files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import asr
from asr.audio.features import FeatureConfig
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model, read_metadata, save_model
from asr.model.config import RecurrentConfig
from asr.text.tokenizer import Tokenizer, train_char, train_sentencepiece
from asr.types import ModelFileError

SENTENCES = ["the cat sat on the mat", "a dog ate the hat", "that cat ate a rat"]


def small_model(tokenizer: Tokenizer) -> AcousticModel:
    torch.manual_seed(0)
    config = RecurrentConfig(hidden_size=8, layers=1, subsampling_channels=2, subsampling=2, cell="gru", projection=5)
    return AcousticModel(config, FeatureConfig(n_mels=12, hop_ms=8.0), tokenizer.vocab_size).eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tokenizer = train_char(SENTENCES)
    return save_model(tmp_path / "a" / "m.asr", small_model(tokenizer), tokenizer, "basic", {"dev_wer": 0.1})


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_round_trip(tmp_path: Path, kind: str) -> None:
    tokenizer = train_char(SENTENCES) if kind == "char" else train_sentencepiece(SENTENCES, 30, "bpe")
    model = small_model(tokenizer)
    loaded = load_model(save_model(tmp_path / "m.asr", model, tokenizer, "basic", {"note": "ü"}))
    assert (loaded.model_config, loaded.feature_config) == (model.config, model.feature_config)
    assert loaded.normalizer == "basic@2" and loaded.training == {"note": "ü"}
    for sentence in SENTENCES:
        assert loaded.tokenizer.encode(sentence) == tokenizer.encode(sentence)
    wave = torch.randn(1, 6000) * 0.1
    with torch.no_grad():
        assert torch.equal(loaded.model(wave, torch.tensor([6000]))[0], model(wave, torch.tensor([6000]))[0])
    assert [p.name for p in tmp_path.iterdir()] == ["m.asr"]  # nothing temporary is left


def test_metadata_needs_no_tensors(path: Path) -> None:
    description = read_metadata(path)
    assert description["model"]["cell"] == "gru" and description["training"] == {"dev_wer": 0.1}
    assert description["tensors"]["output.bias"] == [description["vocab_size"]]


def edit_metadata(path: Path, **changes: str) -> None:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize(("written", "read"), [("basic", "basic@1"), ("basic@1", "basic@1"), ("none", "none@1")])
def test_a_model_keeps_the_normalizer_that_it_was_written_with(path: Path, written: str, read: str) -> None:
    """Names without a version are from when there was one."""
    description = read_metadata(path)
    assert description.pop("normalizer") == "basic@2" and description.pop("tensors")
    edit_metadata(path, asr=json.dumps(description | {"normalizer": written}))
    loaded = load_model(path)
    assert loaded.normalizer == read
    again = save_model(path, loaded.model, loaded.tokenizer, loaded.normalizer)
    assert read_metadata(again)["normalizer"] == read


def test_every_foreign_or_damaged_file_is_refused_in_one_line(path: Path, tmp_path: Path) -> None:
    good = path.read_bytes()

    def message(content: bytes | None) -> str:
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelFileError) as error:
            load_model(path)
        text = str(error.value)
        assert "\n" not in text and path.name in text
        return text

    for content in (b"", b"abc", b"RIFF" + bytes(100), b"PK\x03\x04" + bytes(200), bytes(1000)):
        assert "not an asr-ctc model file" in message(content)
    torch.save({"state_dict": {}}, path)
    assert "not an asr-ctc model file" in message(None)
    assert "not an asr-ctc model file" in message(good[:100])
    assert "cut short" in message(good[:-100])
    path.write_bytes(good)
    edit_metadata(path, version="3")
    assert "newer" in message(None) and "pip install -U asr-ctc" in message(None)
    path.write_bytes(good)
    edit_metadata(path, asr="{")
    assert "damaged" in message(None)
    path.write_bytes(good)
    edit_metadata(path, format="other")
    assert "not an asr-ctc model file" in message(None)
    path.write_bytes(good)
    description = read_metadata(path)
    edit_metadata(path, asr=json.dumps(description | {"model": description["model"] | {"new_option": 1}}))
    assert "new_option" in message(None)
    with pytest.raises(ModelFileError, match="No such file"):
        load_model(tmp_path / "none.asr")
    with pytest.raises(ModelFileError, match="directory"):
        load_model(tmp_path)


def test_a_failed_write_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    tokenizer = train_char(SENTENCES)
    with pytest.raises(TypeError):
        save_model(path, small_model(tokenizer), tokenizer, "basic", {"unserializable": object()})
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_a_model_of_an_earlier_format_gives_the_same_text_and_emissions() -> None:
    """format1.asr was written before there was a choice of encoders; what it gave then stands here."""
    recognizer = asr.load(Path(__file__).with_name("format1.asr"), decoder="greedy")
    t = np.arange(32000) / 16000
    wave = (0.3 * np.sin(2 * np.pi * (200 + 600 * t) * t) * np.sin(2 * np.pi * 3 * t) ** 2).astype(np.float32)
    assert recognizer.transcribe((wave, 16000)).text == "ef e e deded"
    [emissions] = recognizer.emissions([wave])
    then = [-5.996548, -3.452153, -6.921870, -8.676520, -3.649311, -0.538212, -1.326268, -2.414495]
    assert emissions[25].tolist() == pytest.approx(then, abs=1e-4)
