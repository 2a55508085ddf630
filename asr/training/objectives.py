"""The registry of objectives: named losses over a batch's outputs, whose weighted sum a training step minimizes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.acoustic import AcousticModel, Outputs
from asr.training.dataset import Batch


@dataclass(frozen=True)
class CTCLoss:
    """`loss`, nats per target token, is `total` by `tokens`. `infeasible` counts utterances without an alignment."""

    loss: Tensor
    total: Tensor
    tokens: Tensor
    infeasible: Tensor


def ctc_loss(log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> CTCLoss:
    """CTC loss of a batch, summed over its utterances and divided once by its number of target tokens.

    log_probs: (batch, frames, vocab) natural log, blank 0; lengths: (batch,) frames; tokens: concatenated (sum of
    token_lengths,) or padded (batch, max tokens); token_lengths: (batch,). Both lengths should be on the CPU: reading
    them from a GPU waits for all the work queued on it.

    The mean over utterances of loss per length, PyTorch's `reduction="mean"`, weights short utterances most; this does
    not. An utterance with fewer frames than its tokens need contributes zero and is counted.
    """
    device = log_probs.device
    if device.type == "mps":  # PyTorch has no CTC kernel for Apple GPUs
        warnings.warn("CTC loss runs on the CPU: PyTorch has no CTC kernel for Apple GPUs", stacklevel=2)
        device = torch.device("cpu")
    with torch.autocast(device.type, enabled=False):
        # int64 targets choose the native kernel; cuDNN's fails on some shapes.
        losses = functional.ctc_loss(
            log_probs.to(device).float().transpose(0, 1),
            tokens.to(device, torch.int64),
            lengths.to("cpu", torch.int64),
            token_lengths.to("cpu", torch.int64),
            blank=0,
            reduction="none",
            zero_infinity=True,
        )
        infeasible = ((losses == 0) & (token_lengths.to(device, non_blocking=True) > 0)).sum()
        count = token_lengths.sum().clamp(min=1).to(device, non_blocking=True)
        total = losses.sum()
        return CTCLoss(total / count, total.detach(), count, infeasible)


def blank_share(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Share of valid frames whose most likely symbol is the blank: 1.0 means that no text is recognized."""
    valid = _valid(log_probs, lengths)
    blank = (log_probs.argmax(dim=-1) == 0) & valid
    return blank.sum() / valid.sum().clamp(min=1)


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
        total = divergences.masked_fill(~_valid(log_probs, lengths), 0.0).sum()
        return total / token_lengths.sum().clamp(min=1).to(total.device, non_blocking=True)


def _valid(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """(batch, frames): which frames of (batch, frames, vocab) are not padding."""
    return torch.arange(log_probs.size(1), device=lengths.device)[None, :] < lengths[:, None]


@dataclass(frozen=True)
class ObjectiveLoss:
    """What an objective makes of a batch: its `loss`, and what else an epoch logs, by name, as `sums` and `means`.

    Sums over the rows of two views are halved before they are logged.
    """

    loss: Tensor
    sums: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)


class CTCObjective(nn.Module):
    """Objective `ctc` (Graves et al., 2006), on the log-probabilities of the output layer."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.output_length = model.output_length  # the method alone: the model would become a part of this module

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        lengths = torch.tensor([self.output_length(samples) for samples in batch.lengths.tolist()])
        result = ctc_loss(outputs.log_probs, lengths, batch.tokens, batch.token_lengths)
        with torch.no_grad():
            blank = blank_share(outputs.log_probs, outputs.lengths)
        return ObjectiveLoss(result.loss, {"infeasible": result.infeasible}, {"blank_share": blank})


class ConsistencyObjective(nn.Module):
    """Objective `consistency` (CR-CTC): see `consistency_loss`."""

    views = 2

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        return ObjectiveLoss(consistency_loss(outputs.log_probs, outputs.lengths, batch.token_lengths))


# Modules made for the acoustic model. Parameters of their own are trained, but are not part of the model file. One with
# a class attribute `views` of 2 gets outputs and batch with two views of each utterance (see SpeechModule).
OBJECTIVES: dict[str, Any] = {"ctc": CTCObjective, "consistency": ConsistencyObjective}
