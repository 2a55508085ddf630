"""Consistency regularization of CTC (CR-CTC): the objective `consistency`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from asr.model.acoustic import Outputs
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss, PlainObjective, per_token


def consistency_loss(log_probs: Tensor, lengths: Tensor, token_lengths: Tensor) -> Tensor:
    """How far the frame posteriors of two views of each utterance are apart: consistency regularization of CTC.

    log_probs: (2 * batch, frames, vocab) natural log, the first views of all utterances, then the second ones in the
    same order; lengths, token_lengths: (2 * batch,), both halves alike. With p1, p2 the posteriors of the two views,

        1/2 * sum over utterances and valid frames of [KL(sg(p2) || p1) + KL(sg(p1) || p2)] / number of target tokens

    where sg stops the gradient, so that each view learns from the other (Yao et al., 2024, "CR-CTC: Consistency
    regularization on CTC for improved speech recognition", arXiv 2410.05101). The sum over frames is divided as
    `ctc_loss` divides its own, and both are means over the two views, so that a weight relative to CTC's (0.2 in the
    paper) means what it means there and in icefall. Nats per target token; padding and rows of length 0 count nothing.
    """
    with torch.autocast(log_probs.device.type, enabled=False):
        first, second = log_probs.detach().float().chunk(2)
        targets = torch.cat([second, first])
        divergences = functional.kl_div(log_probs.float(), targets, reduction="none", log_target=True).sum(dim=-1)
        return per_token(divergences, lengths, token_lengths)


class ConsistencyObjective(PlainObjective):
    """Objective `consistency` (CR-CTC): see `consistency_loss`."""

    views = 2

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        return ObjectiveLoss(consistency_loss(outputs.log_probs, outputs.lengths, batch.token_lengths))
