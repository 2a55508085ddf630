"""Reconstruction of the features from an inner layer of the encoder: the objective `auto_encoder`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.acoustic import AcousticModel, Outputs
from asr.model.conditioning import check_layers
from asr.model.padding import valid_frames
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss

_PROBE = 1024  # feature frames


class AutoEncoderObjective(nn.Module):
    """Objective `auto_encoder`: reconstructs the features before SpecAugment from a layer that saw the masked ones.

    Each state predicts its feature frames. The loss is the mean squared error over valid frames and mel bands; with
    features normalized per utterance, predicting their mean costs about 1. The reconstruction layers are trained with
    the model but are not part of its file. After Kurata & Audhkhasi (2019, "Multi-task CTC training with auxiliary
    feature reconstruction for end-to-end speech recognition", Interspeech), who reconstruct the input itself.
    """

    needs_layers = True

    @dataclass(frozen=True)
    class Options:
        """`layer` to reconstruct from (from 1; 0: the middle one); `hidden` ReLU units in between (0: none)."""

        layer: int = 0
        hidden: int = 0

        def __post_init__(self) -> None:
            if self.hidden < 0:
                raise ValueError(f"hidden must be 0 (none) or a width, found {self.hidden}")

    def __init__(self, model: AcousticModel, options: Options) -> None:
        super().__init__()
        sizes = model.encoder.layer_sizes
        self.layer = options.layer or (len(sizes) + 1) // 2
        check_layers([self.layer], len(sizes), "objectives.auto_encoder")
        self.mels = model.feature_config.n_mels
        self.stride = layer_strides(model)[self.layer - 1]
        width, hidden, target = sizes[self.layer - 1], options.hidden, self.stride * self.mels
        parts = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, target)] if hidden else []
        self.decoder = nn.Sequential(*parts) if parts else nn.Linear(width, target)

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        x, lengths = outputs.layers[self.layer - 1]
        assert outputs.clean is not None
        reconstructed = self.decoder(x).float().reshape(len(x), x.size(1) * self.stride, self.mels)
        views = len(x) // len(outputs.clean)
        clean = outputs.clean.repeat(views, 1, 1)
        clean = functional.pad(clean, (0, 0, 0, reconstructed.size(1) - clean.size(1)))
        frames = torch.minimum(outputs.feature_lengths, lengths * self.stride)
        valid = valid_frames(frames, reconstructed.size(1))
        errors = (reconstructed - clean).square().mean(dim=-1)
        return ObjectiveLoss(errors.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1))


def layer_strides(model: AcousticModel) -> list[int]:
    """The stride of each layer of the encoder in feature frames, found by a trial run."""
    strides = []

    def after_layer(number: int, x: Tensor, lengths: Tensor) -> Tensor:
        strides.append(round(_PROBE / x.size(1)))
        return x

    training = model.training
    with torch.no_grad():
        model.eval()  # draws no random numbers and leaves running statistics alone
        model.encoder(torch.zeros(1, _PROBE, model.feature_config.n_mels), torch.tensor([_PROBE]), after_layer)
        model.train(training)
    return strides
