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
    `label_smoothing` is the share of the uniform distribution over the vocabulary in the target (Szegedy et al., 2016).
    """
    targets = with_end(tokens, counts)
    return functional.cross_entropy(
        log_probs.transpose(1, 2), targets, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing
    )


def padded_tokens(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """The tokens of a batch (batch, longest) int64, padded with 0, and their numbers (batch,)."""
    parts = batch.tokens.to(torch.int64).split(batch.token_lengths.tolist())
    tokens = nn.utils.rnn.pad_sequence(list(parts), batch_first=True).to(device, non_blocking=True)
    return tokens, batch.token_lengths.to(device, non_blocking=True)


class AttentionObjective(nn.Module):
    """Objective `attention`: the model's decoder, given the true tokens before each token (teacher forcing).

    The sum over tokens and ends is divided by the number of target tokens, like `ctc_loss`, so that weights of the two
    compare as in papers that average over utterances (Kim et al., 2017, "Joint CTC-attention"). `attention_accuracy` is
    the share of tokens and ends that were predicted correctly.
    """

    @dataclass(frozen=True)
    class Options:
        """`label_smoothing`: see `attention_loss`. `scheduled_sampling`: the probability, in training, that the decoder
        gets a token drawn from its own output instead of the true previous token (Bengio et al., 2015).
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
        self.decode = model.decoder.forward  # only the method, so that the decoder is no submodule
        self.options = options

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        tokens, counts = padded_tokens(batch, outputs.states.device)
        sampling = self.options.scheduled_sampling if self.training else 0.0
        log_probs = self.decode(outputs.states, outputs.lengths, tokens, sampling)
        total = attention_loss(log_probs, tokens, counts, self.options.label_smoothing)
        targets = with_end(tokens, counts)
        correct = ((log_probs.argmax(dim=-1) == targets).sum() / (targets >= 0).sum()).float()
        # DDP waits for the gradients of the output layer even if no objective uses it.
        unused = 0.0 * outputs.log_probs[:, :1].sum()
        return ObjectiveLoss(total / counts.sum().clamp(min=1) + unused, means={"attention_accuracy": correct})
