"""The model on a GPU computes what it does on the CPU, alone and in any batch, in float32 and nearly so in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import asr
from asr.audio.features import FeatureConfig
from asr.model.acoustic import AcousticModel
from asr.model.config import RecurrentConfig
from asr.training.losses.ctc import ctc_loss

VOCAB = 12


def made(device: str, cell: str = "lstm", width: int = 128, **options: object) -> AcousticModel:
    """A model with the same weights on every device; 128 is the least width for which cuDNN has its fast kernels."""
    torch.manual_seed(1)
    config = RecurrentConfig(cell=cell, hidden_size=width, layers=2, dropout=0.0, **options)  # type: ignore[arg-type]
    model = AcousticModel(config, FeatureConfig(), VOCAB)
    model.encoder.initialize()
    return model.to(device)


def utterances(rows: int, device: str) -> tuple[Tensor, Tensor]:
    lengths = torch.linspace(16000, 7000, rows).long()
    generator = torch.Generator().manual_seed(2)
    waveforms = 0.1 * torch.randn(rows, 16000, generator=generator)
    loudness = 1 + torch.sin(torch.arange(16000) / 700)
    return (waveforms * loudness).to(device), lengths


def loss_of(model: AcousticModel, rows: int, device: str) -> Tensor:
    waveforms, lengths = utterances(rows, device)
    tokens = torch.tensor([[1, 2, 3, 4, 5, 1, 2]] * rows, device=device)
    outputs = model.outputs(waveforms, lengths)
    frames = torch.tensor([model.output_length(n) for n in lengths.tolist()])
    return ctc_loss(outputs.log_probs, frames, tokens, torch.full((rows,), 7)).loss


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"projection": 64, "norm": "none"},
        {"bidirectional": False, "lookahead": 5},
        {"norm": "batch", "residual": True, "time_reduction": (2,), "zoneout": 1e-30},
    ],
)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "rnn-relu", "ligru"])
def test_log_probabilities_and_gradients_are_the_cpus(device: str, cell: str, options: dict[str, object]) -> None:
    if device == "cpu" and options:
        pytest.skip("on the CPU once for each cell")
    here, reference = made(device, cell, **options), made("cpu", cell, **options)
    with torch.no_grad():
        found, frames = here(*utterances(5, device))
        expected, expected_frames = reference(*utterances(5, "cpu"))
    assert frames.tolist() == expected_frames.tolist()
    for row, count in enumerate(frames.tolist()):
        torch.testing.assert_close(found[row, :count].cpu(), expected[row, :count], atol=2e-4, rtol=0)
    here.train(), reference.train()
    losses = loss_of(here, 5, device), loss_of(reference, 5, "cpu")
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)
    for loss in losses:
        loss.backward()
    for (name, mine), theirs in zip(here.named_parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        largest = float(theirs.grad.abs().max())
        assert float((mine.grad.cpu() - theirs.grad).abs().max()) <= 2e-3 * largest + 1e-6, name


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_alone_as_in_a_batch(device: str, cell: str) -> None:
    model = made(device, cell).eval()
    waveforms, lengths = utterances(8, device)
    with torch.no_grad():
        together, frames = model(waveforms, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, count = model(waveforms[row : row + 1, :length], lengths[row : row + 1])
            assert int(count) == int(frames[row])
            torch.testing.assert_close(alone[0], together[row, : int(count)], atol=1e-4, rtol=0)


@pytest.mark.skipif(not hasattr(AcousticModel, "row_multiple"), reason="batches are not filled up")
@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_rows_that_fill_a_batch_up_change_nothing(device: str, rows: int) -> None:
    model, reference = made(device), made(device)
    if device == "cpu":
        model.row_multiple = 8  # on CUDA of itself
    reference.row_multiple = 1
    seen: list[int] = []
    model.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))  # type: ignore[attr-defined]
    outputs, expected = (m.outputs(*utterances(rows, device)) for m in (model, reference))
    assert seen == [-(-rows // 8) * 8]
    assert len(outputs.log_probs) == len(outputs.states) == len(outputs.lengths) == rows
    for row, count in enumerate(expected.lengths.tolist()):
        torch.testing.assert_close(outputs.log_probs[row, :count], expected.log_probs[row, :count], atol=1e-4, rtol=0)
    losses = loss_of(model, rows, device), loss_of(reference, rows, device)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)
    for loss in losses:
        loss.backward()
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert float((mine.grad - theirs.grad).abs().max()) <= 2e-3 * float(theirs.grad.abs().max()) + 1e-6


def test_bfloat16_hears_nearly_the_same(device: str) -> None:
    model = made(device).eval()
    waveforms, lengths = utterances(8, device)
    with torch.no_grad():
        exact, frames = model(waveforms, lengths)
        with torch.autocast(device, torch.bfloat16):
            half, _ = model(waveforms, lengths)
    assert half.dtype == torch.float32
    for row, count in enumerate(frames.tolist()):
        assert float((half[row, :count] - exact[row, :count]).abs().max()) < 0.15
        assert abs(float(half[row, :count].exp().sum(-1).mean()) - 1) < 1e-4


def test_transcripts_are_the_cpus(device: str, tiny_model: Path, noise) -> None:
    clips = [(noise(seconds, seed), 16000) for seed, seconds in enumerate((0.3, 1.0, 1.7, 2.9, 0.8))]
    here, reference = (asr.load(tiny_model, device=d, decoder="greedy") for d in (device, "cpu"))
    waveforms = [samples for samples, _ in clips]
    for found, expected in zip(here.emissions(waveforms), reference.emissions(waveforms), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-2)  # the weights of its last layer are 40 times too large
    results = [[t.text for t in model.transcribe_many(clips)] for model in (here, reference)]
    assert results[0] == results[1] and any(results[0])
