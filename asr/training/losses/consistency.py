"""Consistency regularization of CTC (CR-CTC): the objective `consistency`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from asr.model.acoustic import Outputs
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss, PlainObjective, per_token


def consistency_loss(log_probs: Tensor, lengths: Tensor, token_lengths: Tensor) -> Tensor:
    """Consistency regularization of CTC: the divergence between the frame posteriors of two views of each utterance.

    log_probs: (2 * batch, frames, vocab) natural log, first views of all utterances before second views in the same
    order; lengths, token_lengths: (2 * batch,), equal halves. With the posteriors p1, p2 of the two views, this is

        1/2 * sum over utterances and valid frames of [KL(sg(p2) || p1) + KL(sg(p1) || p2)] / number of target tokens

    where sg stops the gradient, so that each view learns from the other (Yao et al., 2024, "CR-CTC: Consistency
    regularization on CTC for improved speech recognition", arXiv 2410.05101). Like `ctc_loss`, it is in nats per target
    token and a mean over both views, so that its weight relative to CTC's (0.2 in the paper) has the same meaning as
    there and in icefall. Padding and rows of length 0 are ignored.
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
