"""Connectionist temporal classification: the loss of a batch, and the objective `ctc`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.acoustic import AcousticModel, Outputs
from asr.model.padding import valid_frames
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss


@dataclass(frozen=True)
class CTCLoss:
    """`loss` is `total` / `tokens`, in nats per target token. `infeasible` counts utterances without an alignment."""

    loss: Tensor
    total: Tensor
    tokens: Tensor
    infeasible: Tensor


def ctc_loss(log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> CTCLoss:
    """CTC loss of a batch: the sum over utterances divided by the number of target tokens.

    log_probs: (batch, frames, vocab) natural log, blank 0; lengths: (batch,) frames; tokens: concatenated (sum of
    token_lengths,) or padded (batch, max tokens); token_lengths: (batch,). Both lengths should be on the CPU: reading
    them from a GPU waits for all the work queued there.

    PyTorch's `reduction="mean"` is a mean over utterances of the loss per token, which gives short utterances more
    weight. An utterance with fewer frames than its tokens need contributes zero and is counted as infeasible.
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
    """Share of valid frames whose most likely symbol is the blank; 1.0 means that no text is recognized."""
    valid = valid_frames(lengths, log_probs.size(1))
    blank = (log_probs.argmax(dim=-1) == 0) & valid
    return blank.sum() / valid.sum().clamp(min=1)


class CTCObjective(nn.Module):
    """Objective `ctc` (Graves et al., 2006), on the log-probabilities of the output layer."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.output_length = model.output_length  # only the method, so that the model is no submodule

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        lengths = torch.tensor([self.output_length(samples) for samples in batch.lengths.tolist()])
        result = ctc_loss(outputs.log_probs, lengths, batch.tokens, batch.token_lengths)
        means = {"blank_share": blank_share(outputs.log_probs, outputs.lengths)}
        return ObjectiveLoss(result.loss, {"infeasible": result.infeasible}, means)
