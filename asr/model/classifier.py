"""The classifier: features and encoder of an acoustic model, pooling over time, a linear layer over classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.audio.features import FeatureConfig
from asr.model.acoustic import AcousticModel
from asr.model.config import ModelConfig, Pool
from asr.model.encoders import Encoder
from asr.model.padding import valid_frames
from asr.text.tokenizer import LabelSet, Tokenizer

ATTENTION_SIZE = 128  # hidden units of attention pooling


class Pooling(nn.Module):
    """States (batch, frames, width) and their lengths -> one vector (batch, width) per utterance, whatever the padding.

    `mean` is the mean over frames. `attention` is a weighted mean with weights softmax(v . tanh(W h)) (Yang et al.,
    2016, "Hierarchical attention networks for document classification"). `last` is the state after the whole utterance
    was read: of the backward half of a bidirectional layer, that of the first frame.
    """

    def __init__(self, kind: Pool, encoder: Encoder) -> None:
        super().__init__()
        self.kind = kind
        self.backward_size = getattr(encoder, "backward_size", 0)
        if kind == "attention":
            layers = nn.Linear(encoder.output_size, ATTENTION_SIZE), nn.Tanh(), nn.Linear(ATTENTION_SIZE, 1, bias=False)
            self.score = nn.Sequential(*layers)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """A row of length 0 gives finite but meaningless values."""
        if self.kind == "last":
            place = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, states.size(2))
            last = states.gather(1, place)[:, 0]
            if not self.backward_size:
                return last
            return torch.cat([last[:, : -self.backward_size], states[:, 0, -self.backward_size :]], dim=1)
        valid = valid_frames(lengths, states.size(1))
        if self.kind == "attention":
            scores = self.score(states)[..., 0].float().masked_fill(~valid, -1e4)
            weights = torch.softmax(scores, dim=1) * valid
        else:
            weights = valid / lengths[:, None].clamp(min=1)
        return (weights[:, :, None] * states.float()).sum(dim=1)  # in half precision, rounding errors would add up


class Classifier(AcousticModel):
    """Names the class of an utterance: `outputs` has log-probabilities (batch, 1, classes), one frame per utterance."""

    def __init__(self, config: ModelConfig, features: FeatureConfig, classes: int, pooling: Pool = "mean") -> None:
        super().__init__(config, features, classes)
        self.pooling = Pooling(pooling, self.encoder)

    def logits(self, states: Tensor, lengths: Tensor) -> Tensor:
        return self.output(self.pooling(states, lengths))[:, None]


def build_model(config: ModelConfig, features: FeatureConfig, symbols: Tokenizer, pooling: Pool) -> AcousticModel:
    """A classifier for a set of labels, a CTC model for any other tokenizer."""
    if isinstance(symbols, LabelSet):
        return Classifier(config, features, symbols.vocab_size, pooling)
    return AcousticModel(config, features, symbols.vocab_size)
