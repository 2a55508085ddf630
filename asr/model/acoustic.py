"""The acoustic model: waveform -> log-mel features -> encoder -> log-probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.audio.features import FeatureConfig, LogMel, frame_count
from asr.model.conditioning import SelfConditioning
from asr.model.config import ModelConfig
from asr.model.decoder import AttentionDecoder
from asr.model.encoders import build_encoder, encoder_shape
from asr.model.shapes import fast_rows

FeatureAugment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def output_length(samples: int, features: FeatureConfig, model: ModelConfig) -> int:
    """Frames that an acoustic model of this shape emits for `samples` samples at `features.rate`.

    Builds no model: CTC feasibility is checked with it before training.
    """
    return encoder_shape(model, features.n_mels).output_length(frame_count(samples, features))


@dataclass(frozen=True)
class Outputs:
    """What a model computes for a batch, for the training objectives.

    log_probs: (batch, frames, vocab) float32, natural logarithm; of a classifier (batch, 1, classes)
    lengths: (batch,) int64, frames of each row of `states`
    states: (batch, frames, width), from the encoder
    features, feature_lengths: (batch, feature frames, mels) and (batch,), the encoder's input
    clean: the features before augmentation, one view of each utterance
    layers: with `keep_layers`, the output (batch, frames, width) of each encoder layer before self-conditioning, and
        its lengths (batch,)
    """

    log_probs: Tensor
    lengths: Tensor
    states: Tensor
    features: Tensor
    feature_lengths: Tensor
    clean: Tensor | None = None
    layers: tuple[tuple[Tensor, Tensor], ...] = ()


class AcousticModel(nn.Module):
    """CTC acoustic model (Graves et al., 2006) over raw waveforms: an encoder and a linear layer over the vocabulary.

    Index 0 of the vocabulary is the CTC blank. An attention `decoder`, if configured, reads the same states as the
    linear layer; `outputs` does not run it. Batches are filled up with empty rows to a multiple of `row_multiple`
    before the encoder; None stands for the multiple that is fast on the device.
    """

    row_multiple: int | None = None
    keep_layers = False  # whether `outputs` keeps the output of each encoder layer, for objectives that need it

    def __init__(self, config: ModelConfig, features: FeatureConfig, vocab_size: int) -> None:
        super().__init__()
        if vocab_size < 2:
            raise ValueError(f"a vocabulary holds the blank and at least one symbol, found {vocab_size} entries")
        self.config = config
        self.feature_config = features
        self.vocab_size = vocab_size
        self.features = LogMel(features)
        self.encoder = build_encoder(config, features.n_mels)
        self.output = nn.Linear(self.encoder.output_size, vocab_size)
        sizes = getattr(self.encoder, "layer_sizes", ())
        self.conditioning = SelfConditioning(config.self_conditioning, sizes, self.encoder.output_size, vocab_size)
        self.decoder: AttentionDecoder | None = None
        if config.decoder is not None:
            self.decoder = AttentionDecoder(config.decoder, self.encoder.output_size, vocab_size)

    @property
    def stride(self) -> int:
        """Samples of audio per output frame."""
        return self.feature_config.hop_samples * self.encoder.stride

    @property
    def frame_seconds(self) -> float:
        """Seconds of audio per output frame."""
        return self.features.hop_seconds * self.encoder.stride

    def output_length(self, samples: int) -> int:
        """Output frames for `samples` samples at the model's rate."""
        return self.encoder.output_length(frame_count(samples, self.feature_config))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of each utterance, the same alone and in any padded batch.

        waveforms: (batch, samples) float32 at the model's rate, in [-1, 1]; the padding at the end may be anything
        lengths: (batch,) int64, samples of each utterance
        Returns log-probs (batch, frames, vocab) float32, natural logarithm, and their lengths (batch,) int64.
        """
        outputs = self.outputs(waveforms, lengths)
        return outputs.log_probs, outputs.lengths

    def outputs(self, waveforms: Tensor, lengths: Tensor, augment: FeatureAugment | None = None) -> Outputs:
        """`forward` with its intermediate results; `augment` changes the features and their lengths in training."""
        with torch.no_grad():
            features, frames = self.features(waveforms, lengths)
            clean = features
            if augment is not None:
                features, frames = augment(features, frames)
        return replace(self.recognize(features, frames), clean=clean)

    def recognize(self, features: Tensor, frames: Tensor) -> Outputs:
        """`outputs` from features (batch, frames, mels) and their lengths (batch,)."""
        rows = len(features)
        missing = -rows % (self.row_multiple or fast_rows(features.device))
        padded, padded_frames = features, frames
        if missing:  # `pad` copies even if there is nothing to add
            padded = functional.pad(features, (0, 0, 0, 0, 0, missing))
            padded_frames = functional.pad(frames, (0, missing))
        layers: list[tuple[Tensor, Tensor]] = []

        def after_layer(number: int, x: Tensor, lengths: Tensor) -> Tensor:
            if self.keep_layers:
                layers.append((x[:rows], lengths[:rows]))
            return self.conditioning(number, x, self.output)

        hooked = self.keep_layers or self.config.self_conditioning
        states, lengths = self.encoder(padded, padded_frames, *([after_layer] if hooked else []))
        states, lengths = states[:rows], lengths[:rows]
        logits = self.logits(states, lengths)
        # In half precision, rounding errors would add up in the sums of CTC over thousands of frames.
        with torch.autocast(logits.device.type, enabled=False):
            log_probs = torch.log_softmax(logits.float(), dim=-1)
        return Outputs(log_probs, lengths, states, features, frames, layers=tuple(layers))

    def head(self, width: int) -> nn.Module | None:
        """The layer that turns inner states of this width into logits: the output layer, or that of self-conditioning.

        None if there is none.
        """
        heads = dict(self.conditioning.heads.items())
        return self.output if width == self.encoder.output_size else heads.get(str(width))

    def symbol_weights(self) -> list[tuple[nn.Parameter, int]]:
        """The weights that belong to single symbols of the vocabulary, each with its dimension of symbols."""
        rows = [*self.output.parameters(), *self.conditioning.heads.parameters()]
        return [(p, 0) for p in rows] + [(p, 1) for p in self.conditioning.feedback.parameters()]

    def logits(self, states: Tensor, lengths: Tensor) -> Tensor:
        """The output layer: states (batch, frames, width) and their lengths -> logits (batch, frames, vocab)."""
        return self.output(states)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Rename the tensors of models from before there was a choice of encoders."""
        for old, new in (("subsampling.", "encoder.subsampling."), ("recurrent.", "encoder.")):
            for key in [key for key in state_dict if key.startswith(prefix + old)]:
                state_dict[prefix + new + key.removeprefix(prefix + old)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
