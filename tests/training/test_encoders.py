"""The seam for models: an encoder of one's own goes through training, model file and transcription without a change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import asr
from asr.__main__ import main
from asr.audio.features import FeatureConfig
from asr.audio.read import read
from asr.config import from_dict, to_dict
from asr.model import encoders
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model, read_metadata
from asr.model.config import ModelConfig, RecurrentConfig
from asr.model.streaming import AcousticStream
from asr.training.config import parse_config
from asr.training.dataset import Batch
from asr.training.objectives import build_objective
from asr.training.run import train
from asr.types import ConfigError, ModelFileError


@dataclass(frozen=True)
class ThreeFrameConfig(ModelConfig):
    encoder: str = "three_frames"
    width: int = 8


class ThreeFrameEncoder(nn.Module):
    """A linear layer over every three frames, the last one filled up with zeros."""

    stride = 3

    def __init__(self, config: ThreeFrameConfig, n_mels: int) -> None:
        super().__init__()
        self.output_size = config.width
        self.linear = nn.Linear(3 * n_mels, config.width)

    def output_length(self, frames: int) -> int:
        return -(-frames // 3)

    def initialize(self) -> None:
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        valid = torch.arange(features.size(1))[None, :] < lengths[:, None]
        features = features * valid[:, :, None]
        features = nn.functional.pad(features, (0, 0, 0, -features.size(1) % 3))
        stacked = features.reshape(len(features), features.size(1) // 3, -1)
        return torch.tanh(self.linear(stacked)), (lengths + 2) // 3


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.ENCODERS, "three_frames", ThreeFrameEncoder)


def test_an_encoder_of_ones_own_is_trained_saved_loaded_and_transcribes(
    registered: None, settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    values = settings(trainer={"max_epochs": 1}) | {"model": {"encoder": "three_frames", "width": 12}}
    result = train(parse_config(values))
    assert read_metadata(result.model_path)["model"] == {
        "encoder": "three_frames",
        "self_conditioning": [],
        "width": 12,
    }
    recognizer = asr.load(result.model_path, decoder="greedy")
    assert recognizer.frame_seconds == pytest.approx(0.03)
    [emissions] = recognizer.emissions([torch.randn(16000).numpy() * 0.1])
    assert len(emissions) == recognizer.acoustic_model.output_length(16000) == 34
    recognizer.acoustic_model.row_multiple = 8
    assert np.allclose(
        recognizer.emissions([np.ones(16000)] * 2)[1], recognizer.emissions([np.ones(16000)])[0], atol=1e-4
    )
    audio = Path(values["data"]["dev"]).parent / "dev000.wav"
    assert recognizer.transcribe(audio).duration > 0


def test_a_latency_controlled_model_is_trained_on_running_averages_and_streams(
    settings: Callable[..., dict[str, Any]], tones: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"encoder": "latency-controlled", "chunk": 10, "chunk_lookahead": 5}
    result = train(parse_config(settings(model=model, features={"normalize": "none"}, trainer={"max_epochs": 2})))
    recognizer = asr.load(result.model_path, decoder="greedy")
    mean = recognizer.acoustic_model.encoder.feature_norm.running_mean
    assert mean.isfinite().all() and float(mean.mean()) < -1  # of log-mel energies, not of normalized ones
    audio = tones / "dev000.wav"
    samples = read(audio).samples
    stream = AcousticStream(recognizer.acoustic_model)
    parts = [*(stream.feed(part) for part in torch.from_numpy(samples).split(1000)), stream.finish()]
    assert np.allclose(torch.cat(parts), recognizer.emissions([samples])[0], atol=1e-4)
    assert recognizer.transcribe(audio).duration > 0
    assert main(["info", str(result.model_path)]) == 0
    shown = capsys.readouterr().out
    parameters = sum(p.numel() for p in load_model(result.model_path).model.parameters())
    assert f"{parameters:,}" in shown  # without the running statistics of batch norm
    assert "latency-controlled: frontend conv" in shown and "bidirectional True" in shown and "zoneout 0" not in shown


@pytest.mark.parametrize("encoder", ["recurrent-convolutional", "recurrent-attention", "latency-controlled"])
def test_objectives_look_inside_all_encoders(encoder: str) -> None:
    sizes = {"hidden_size": 8, "layers": 2, "subsampling_channels": 2, "self_conditioning": [1]}
    model = AcousticModel(from_dict(ModelConfig, {"encoder": encoder, **sizes}), FeatureConfig(n_mels=20), 6).train()
    model.keep_layers = True
    objectives = [build_objective(name, {"layers": [1]}, model) for name in ("intermediate_ctc", "stability")]
    lengths = torch.tensor([15000, 9000])
    batch = Batch(torch.randn(2, 15000) * 0.1, lengths, torch.tensor([1, 2, 5]), torch.tensor([2, 1]), [0, 1])
    outputs = model.outputs(batch.waveforms, lengths)
    for objective in objectives:
        loss = objective.train()(outputs, batch).loss
        assert loss.isfinite() and loss > 0
        loss.backward(retain_graph=True)


def test_options_are_read_by_the_dataclass_of_their_encoder(registered: None) -> None:
    config = from_dict(ModelConfig, {"encoder": "three_frames", "width": 5}, "model")
    assert config == ThreeFrameConfig(width=5)
    assert to_dict(config) == {"encoder": "three_frames", "self_conditioning": [], "width": 5}
    assert from_dict(ModelConfig, {"layers": 2}, "model") == RecurrentConfig(layers=2)
    with pytest.raises(ConfigError, match=r"unknown configuration key 'model\.layers'"):
        from_dict(ModelConfig, {"encoder": "three_frames", "layers": 5}, "model")
    with pytest.raises(ConfigError, match=r"model.encoder: no encoder 'recurent' \(did you mean 'recurrent'\?\)"):
        from_dict(ModelConfig, {"encoder": "recurent"}, "model")
    with pytest.raises(ConfigError, match="no encoder 'nothing'"):
        encoders.build_encoder(ModelConfig("nothing"), 20)


def test_a_model_of_an_encoder_that_is_not_there_is_one_line(
    registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asr.audio.features import FeatureConfig
    from asr.model.acoustic import AcousticModel
    from asr.model.checkpoint import save_model
    from asr.text.tokenizer import CharTokenizer

    tokenizer = CharTokenizer(["", " ", "a"])
    path = save_model(
        tmp_path / "m.asr", AcousticModel(ThreeFrameConfig(), FeatureConfig(), tokenizer.vocab_size), tokenizer, "none"
    )
    assert load_model(path).model_config == ThreeFrameConfig()
    monkeypatch.delitem(encoders.ENCODERS, "three_frames")
    with pytest.raises(ModelFileError, match=r"m\.asr: .*no encoder 'three_frames'"):
        load_model(path)
