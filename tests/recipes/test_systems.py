"""Every configuration in recipes/an4/systems says what it is, and takes a training step."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.config import to_dict
from asr.corpus.manifest import Manifest
from asr.training.config import TrainConfig, read_config
from asr.training.data import make_tokenizer
from asr.training.dataset import Batch
from asr.training.module import SpeechModule

SYSTEMS = sorted((Path(__file__).parents[2] / "recipes" / "an4" / "systems").glob("*.yaml"))
TINY = {"hidden_size": 8, "subsampling_channels": 2, "projection": 8}  # where the system has it
TEXTS = ("ab ba", "b")


def tiny(path: Path) -> TrainConfig:
    model = read_config(path).model
    values = to_dict(model)
    small = [f"model.{f.name}={TINY[f.name]}" for f in fields(model) if f.name in TINY and values[f.name]]
    return read_config(path, ["features.n_mels=20", *small])


def test_each_has_a_heading_and_a_folder_of_its_own() -> None:
    assert len(SYSTEMS) > 10
    for path in SYSTEMS:
        assert path.read_text(encoding="utf-8").startswith("# "), path
        assert read_config(path).output == f"exp/an4-{path.stem}"


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_it_takes_a_training_step(
    path: Path, tmp_path: Path, noise: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"audio_filepath": f"{text}.wav", "duration": 1.0, "text": text} for text in TEXTS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    manifest = Manifest.read(tmp_path / "rows.jsonl")
    config = tiny(path)
    tokenizer = make_tokenizer(config.text, manifest)
    torch.manual_seed(1)
    module = SpeechModule(config, tokenizer, manifest, manifest).train()
    monkeypatch.setattr(module, "log", lambda *_, **__: None)  # there is no trainer
    waveforms = torch.zeros(2, 16000)
    for row, seconds in enumerate((1.0, 0.7)):
        waveforms[row, : round(16000 * seconds)] = torch.from_numpy(noise(seconds, row))
    tokens = [tokenizer.encode(text) for text in TEXTS]
    lengths = torch.tensor([len(encoded) for encoded in tokens])
    ids = torch.tensor([number for encoded in tokens for number in encoded])
    batch = Batch(waveforms, torch.tensor([16000, 11200]), ids, lengths, [0, 1])

    begun = copy.deepcopy(module.state_dict())
    before = [p.detach().clone() for p in module.parameters()]
    first = module.training_step(batch, 0).detach()
    module.load_state_dict(begun)
    torch.manual_seed(2)
    loss = module.training_step(batch, 0)
    assert torch.equal(loss, first)  # as a resumed run repeats it
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    torch.optim.AdamW(module.parameters(), lr=0.01).step()
    moved = [not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    with torch.no_grad():
        log_probs, frames = module.model.eval()(waveforms, batch.lengths)
    assert torch.isfinite(log_probs).all() and frames.tolist() == [
        module.model.output_length(n) for n in (16000, 11200)
    ]
