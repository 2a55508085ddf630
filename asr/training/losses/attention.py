"""The cross-entropy of the attention decoder: the objective `attention`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.acoustic import AcousticModel, Outputs
from asr.model.decoder import with_end
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss
from asr.types import ConfigError


def attention_loss(log_probs: Tensor, tokens: Tensor, counts: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each next token, and of the end, summed over the batch (nats).

    log_probs: (batch, steps, vocab) natural log of the decoder; tokens: (batch, steps - 1) padded, counts: (batch,).
    With `label_smoothing` e, a target counts as (1 - e) of itself and e of the uniform distribution over the
    vocabulary (Szegedy et al., 2016).
    """
    targets = with_end(tokens, counts)
    return functional.cross_entropy(
        log_probs.transpose(1, 2), targets, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing
    )


def padded_tokens(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """The tokens of a batch (batch, most) int64, padded with 0, and how many each utterance has (batch,)."""
    parts = batch.tokens.to(torch.int64).split(batch.token_lengths.tolist())
    tokens = nn.utils.rnn.pad_sequence(list(parts), batch_first=True).to(device, non_blocking=True)
    return tokens, batch.token_lengths.to(device, non_blocking=True)


class AttentionObjective(nn.Module):
    """Objective `attention`: the decoder of the model, taught with the tokens before each one.

    The sum over tokens and ends is divided by the number of target tokens, as `ctc_loss` divides its own, so that the
    weights of both mean what they do where each is a mean over utterances (Kim et al., 2017, "Joint CTC-attention").
    `attention_accuracy` is the share of tokens and ends that were the most likely ones.
    """

    @dataclass(frozen=True)
    class Options:
        """`label_smoothing`: see `attention_loss`; `scheduled_sampling`: the probability that the decoder is given a
        token drawn from its own output in place of the one before (Bengio et al., 2015), in training only.
        """

        label_smoothing: float = 0.0
        scheduled_sampling: float = 0.0

        def __post_init__(self) -> None:
            for name in ("label_smoothing", "scheduled_sampling"):
                if not 0.0 <= getattr(self, name) < 1.0:
                    raise ValueError(f"{name} must lie in [0, 1), found {getattr(self, name):g}")

    def __init__(self, model: AcousticModel, options: Options = Options()) -> None:
        super().__init__()
        if model.decoder is None:
            raise ConfigError(
                "objectives: attention trains a decoder, and the model has none: set model.decoder, for example "
                "{attention: location}"
            )
        self.decode = model.decoder.forward  # the method alone: the decoder would become a part of this module
        self.options = options

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        tokens, counts = padded_tokens(batch, outputs.states.device)
        sampling = self.options.scheduled_sampling if self.training else 0.0
        log_probs = self.decode(outputs.states, outputs.lengths, tokens, sampling)
        total = attention_loss(log_probs, tokens, counts, self.options.label_smoothing)
        with torch.no_grad():
            targets = with_end(tokens, counts)
            right = ((log_probs.argmax(dim=-1) == targets).sum() / (targets >= 0).sum()).float()
        # Where no objective reads the output layer, DDP waits for its gradients all the same.
        unused = 0.0 * outputs.log_probs[:, :1].sum()
        return ObjectiveLoss(total / counts.sum().clamp(min=1) + unused, means={"attention_accuracy": right})
