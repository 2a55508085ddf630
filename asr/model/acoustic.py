"""The acoustic model: waveform -> log-mel features -> subsampling -> recurrent layers -> log-probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from asr.audio.features import FeatureConfig, LogMel, frame_count
from asr.model.config import ModelConfig
from asr.model.recurrent import RecurrentStack
from asr.model.subsampling import ConvSubsampling, subsampled_length

FeatureAugment = Callable[[Tensor, Tensor], Tensor]


def output_length(samples: int, features: FeatureConfig, model: ModelConfig) -> int:
    """Frames that an acoustic model of this shape emits for `samples` samples at `features.rate`.

    Needs no model; CTC feasibility is decided with it before training.
    """
    return subsampled_length(frame_count(samples, features), model.subsampling)


class AcousticModel(nn.Module):
    """Stacked recurrent CTC acoustic model (Graves et al., 2006; Hannun et al., 2014) over raw waveforms.

    Index 0 of the vocabulary is the CTC blank.
    """

    def __init__(self, config: ModelConfig, features: FeatureConfig, vocab_size: int) -> None:
        super().__init__()
        if vocab_size < 2:
            raise ValueError(f"a vocabulary holds the blank and at least one symbol, found {vocab_size} entries")
        self.config = config
        self.feature_config = features
        self.vocab_size = vocab_size
        self.features = LogMel(features)
        self.subsampling = ConvSubsampling(features.n_mels, config.subsampling, config.subsampling_channels)
        self.recurrent = RecurrentStack(config, self.subsampling.output_size)
        self.output = nn.Linear(self.recurrent.output_size, vocab_size)

    @property
    def frame_seconds(self) -> float:
        """Seconds of audio per output frame."""
        return self.features.hop_seconds * self.config.subsampling

    def output_length(self, samples: int) -> int:
        """Output frames for `samples` samples at the model's rate."""
        return output_length(samples, self.feature_config, self.config)

    def forward(
        self, waveforms: Tensor, lengths: Tensor, augment: FeatureAugment | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of each utterance, the same alone and in any padded batch.

        waveforms: (batch, samples) float32 at the model's rate, in [-1, 1], padded at the end with anything;
        lengths: (batch,) int64, samples of each; augment: applied to (features, frame lengths) in training.
        Returns log-probs (batch, frames, vocab) float32, natural logarithm, and their lengths (batch,) int64.
        """
        with torch.no_grad():
            features, frames = self.features(waveforms, lengths)
            if augment is not None:
                features = augment(features, frames)
        return self.recognize(features, frames)

    def recognize(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives, from features (batch, frames, mels) and their lengths (batch,)."""
        x, frames = self.subsampling(features, frames)
        logits = self.output(self.recurrent(x, frames))
        # Half precision would round the log-probabilities that CTC sums over thousands of frames.
        with torch.autocast(logits.device.type, enabled=False):
            return torch.log_softmax(logits.float(), dim=-1), frames
