"""Against overconfident frame posteriors: the objectives `entropy` and `label_smoothing`."""

from __future__ import annotations

import math

from torch import Tensor

from asr.model.acoustic import Outputs
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss, PlainObjective, per_token


def confidence_penalty(log_probs: Tensor) -> Tensor:
    """KL(p || uniform) = log V - H(p) >= 0 of each frame, in nats: log_probs (..., vocab) natural log -> (...)."""
    return (log_probs.exp() * log_probs).sum(dim=-1) + math.log(log_probs.size(-1))


def smoothing(log_probs: Tensor) -> Tensor:
    """KL(uniform || p) = -log V - mean of log p >= 0 of each frame, in nats: as `confidence_penalty`."""
    return -log_probs.mean(dim=-1) - math.log(log_probs.size(-1))


class EntropyObjective(PlainObjective):
    """Objective `entropy`: log V minus the entropy of the frame posteriors, 0 where all symbols are equally likely.

    It differs by a constant from the confidence penalty -H(p) (Pereyra et al., 2017, "Regularizing neural networks by
    penalizing confident output distributions", arXiv 1701.06548). Like CTC's loss, it is a sum over valid frames
    divided by the number of target tokens.
    """

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        return ObjectiveLoss(per_token(confidence_penalty(outputs.log_probs), outputs.lengths, batch.token_lengths))


class LabelSmoothingObjective(PlainObjective):
    """Objective `label_smoothing`: KL(uniform || p) of the frame posteriors, which label smoothing adds to a
    cross-entropy (Pereyra et al., 2017), added to CTC (after Kim et al., 2018, "Improved training for online end-to-end
    speech recognition systems", arXiv 1711.02212).

    Unlike `entropy`, it grows without bound as a symbol becomes impossible. It is divided in the same way.
    """

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        return ObjectiveLoss(per_token(smoothing(outputs.log_probs), outputs.lengths, batch.token_lengths))
