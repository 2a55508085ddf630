"""Fast shapes: rows that fill up a batch cost and count nothing, and widths without fast kernels are named."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.audio.augment import AugmentConfig, spec_augment
from asr.audio.features import FeatureConfig
from asr.decoding.greedy import GreedyDecoder
from asr.model import shapes
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model
from asr.model.config import ModelConfig, RecurrentConfig
from asr.model.encoders import encoder_shape
from asr.recognition.acoustics import Acoustics
from asr.recognition.recognizer import Recognizer
from asr.training.dataset import Batch
from asr.training.objectives import OBJECTIVES

SMALL = RecurrentConfig(hidden_size=12, layers=2, subsampling_channels=4, dropout=0.0)
CONFIGS = [
    SMALL,
    replace(SMALL, cell="gru", projection=7, subsampling=8),
    replace(SMALL, cell="rnn", bidirectional=False, norm="none"),
    replace(SMALL, cell="ligru", norm="batch", residual=True, subsampling=2, time_reduction=(2,)),
]


@pytest.fixture
def eights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches on the CPU get a multiple of 8 rows, as on a GPU."""
    monkeypatch.setitem(shapes.ROWS, "cpu", 8)


def rows_seen(encoder: torch.nn.Module) -> list[int]:
    """The rows of each batch that `encoder` is called with from now on."""
    seen: list[int] = []
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    return seen


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.cell)
@pytest.mark.parametrize("views", [1, 2])
def test_loss_gradients_and_outputs_are_those_without_filling(config: ModelConfig, views: int) -> None:
    torch.manual_seed(3)
    features = FeatureConfig(n_mels=20)
    plain = AcousticModel(config, features, vocab_size=6)
    plain.encoder.initialize()
    filled = copy.deepcopy(plain)
    filled.row_multiple = 8
    lengths = torch.tensor([16000, 9000, 12345])
    waveforms = torch.randn(3, 16000) * 0.1 * (torch.arange(16000)[None, :] < lengths[:, None])
    batch = Batch(waveforms, lengths, torch.tensor([1, 2, 2, 5, 3, 4]), torch.tensor([3, 1, 2]), [0, 1, 2])
    masks = AugmentConfig(time_masks=2, frequency_masks=2, frequency_mask_width=5)

    def augment(features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        features, frames = features.repeat(views, 1, 1), frames.repeat(views)
        return spec_augment(features, frames, masks, [(1, row) for row in range(len(features))]), frames

    results = []
    for model in (plain, filled):
        seen = rows_seen(model.encoder)
        outputs = model.outputs(waveforms, lengths, augment)
        names = ["ctc", "consistency"] if views == 2 else ["ctc"]
        losses = [OBJECTIVES[name](model)(outputs, batch.repeated(views)) for name in names]
        torch.stack([loss.loss for loss in losses]).sum().backward()
        results.append((outputs, losses, [p.grad for p in model.parameters()], seen))
    (expected, losses, gradients, before), (found, filled_losses, filled_gradients, after) = results
    assert (before, after) == ([3 * views], [8])
    assert torch.equal(expected.lengths, found.lengths) and torch.equal(expected.features, found.features)
    assert expected.states.shape == found.states.shape
    torch.testing.assert_close(found.log_probs, expected.log_probs, atol=1e-5, rtol=0)
    for a, b in zip(losses, filled_losses, strict=True):
        torch.testing.assert_close(b.loss, a.loss, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(b.means | b.sums, a.means | a.sums)
    for a, b in zip(gradients, filled_gradients, strict=True):
        assert torch.isfinite(b).all()
        assert (b - a).abs().max() <= 1e-5 * a.abs().max()  # float32, summed in another order


def test_transcription_runs_full_batches_and_emits_the_same(
    tiny_model: Path, noise: Callable[..., np.ndarray], eights: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = load_model(tiny_model, "cpu")
    recognizer = Recognizer(file, GreedyDecoder(file.tokenizer, file.model.frame_seconds))
    seen = rows_seen(recognizer.acoustic_model.encoder)
    waveforms = [noise(1.0 + 0.05 * n, n) for n in range(11)]
    emissions = recognizer.emissions(waveforms)
    assert seen == [16]
    alone = Acoustics(load_model(tiny_model, "cpu"))
    alone.model.row_multiple = 1
    for waveform, log_probs in zip(waveforms, emissions, strict=True):
        np.testing.assert_allclose(log_probs, alone.emissions([waveform])[0], atol=1e-3)
    batches: list[int] = []
    whole = recognizer.acoustics.emissions_or_errors
    monkeypatch.setattr(
        recognizer.acoustics, "emissions_or_errors", lambda samples, *_: batches.append(len(samples)) or whole(samples)
    )
    recordings = [(noise(1.0, n), 16000) for n in range(30)]
    assert len(list(recognizer.transcribe_many(recordings, batch_seconds=12.5))) == 30
    assert batches == [8, 8, 8, 6]


def test_a_waveform_too_long_for_a_filled_batch_goes_through_alone(
    tiny_model: Path, noise: Callable[..., np.ndarray], eights: None
) -> None:
    acoustics = Acoustics(load_model(tiny_model, "cpu"))

    def short_of_memory(_: Any, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    acoustics.model.encoder.register_forward_pre_hook(short_of_memory)
    results = acoustics.emissions_or_errors([noise(1.0), noise(2.0)])
    assert all(isinstance(result, np.ndarray) for result in results)
    assert acoustics.model.row_multiple is None


@pytest.mark.parametrize(
    ("options", "precision", "lines"),
    [
        ({"hidden_size": 640}, "bf16-mixed", []),
        ({"hidden_size": 1024, "projection": 512}, "16-mixed", []),
        ({"hidden_size": 320}, "bf16-mixed", ["hidden_size 320: about 3 times slower than 384 on this GPU"]),
        ({"hidden_size": 1280}, "bf16-true", ["hidden_size 1280: about 3 times slower than 1024 on this GPU"]),
        (
            {"projection": 500},
            "bf16-mixed",
            ["projection 500: layers up to a third slower than with 512 on this GPU"],
        ),
        (
            {"subsampling_channels": 24},
            "bf16-mixed",
            [
                "subsampling_channels 24: the first layer, whose input is 24 x 20 = 480 wide, "
                "is up to a third slower than with 512 on this GPU"
            ],
        ),
        ({"cell": "gru", "hidden_size": 320}, "bf16-mixed", ["cell gru: about 3 times slower than lstm on this GPU"]),
        ({"cell": "rnn", "hidden_size": 320}, "bf16-mixed", []),
        ({"cell": "ligru"}, "32-true", ["cell ligru: a loop over frames, for which GPUs have no fast kernel"]),
        ({"zoneout": 0.1}, "32-true", ["zoneout: a loop over frames, for which GPUs have no fast kernel"]),
        (
            {"subsampling_channels": 16, "subsampling": 4, "time_reduction": (1,), "residual": True},
            "bf16-mixed",
            [],
        ),
        (
            {"hidden_size": 320},
            "32-true",
            [
                "float32 has no fast LSTM kernels: set trainer.precision=bf16-mixed",
                "hidden_size 320: about 3 times slower than 384 on this GPU with trainer.precision=bf16-mixed",
            ],
        ),
    ],
)
def test_what_misses_the_fast_kernels_is_named(options: dict[str, Any], precision: str, lines: list[str]) -> None:
    assert encoder_shape(RecurrentConfig(**options), 80).slow_shapes(precision) == lines  # type: ignore[attr-defined]
