"""Cross-entropy of classes, with weights for rare ones and with mixup."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.acoustic import AcousticModel, Outputs
from asr.text.tokenizer import LabelSet
from asr.training.dataset import Batch
from asr.training.losses.objective import ObjectiveLoss
from asr.types import ConfigError


@dataclass
class MixedBatch(Batch):
    """A batch of mixed waveforms: `shares` (batch,) of each utterance, and the rest of its `partners` (batch,)."""

    partners: Tensor | None = None
    shares: Tensor | None = None


class ClassificationObjective(nn.Module):
    """Objective `classification`: cross-entropy in nats per utterance, a weighted mean if classes have weights.

    Mixup (Zhang et al., 2018, "mixup: beyond empirical risk minimization") mixes pairs of waveforms, the shorter one
    padded with silence, and their losses in shares drawn from Beta(alpha, alpha).
    """

    @dataclass(frozen=True)
    class Options:
        """`class_weights`: `none`, `balanced` (inversely proportional to a class's utterances, with a mean of 1 over
        all utterances), or weights by label (default 1). `mixup` > 0: the alpha of mixup.
        """

        class_weights: str | dict[str, float] = "none"
        mixup: float = 0.0

        def __post_init__(self) -> None:
            if isinstance(self.class_weights, str) and self.class_weights not in ("none", "balanced"):
                raise ValueError(f"class_weights: none, balanced or a weight by label, found '{self.class_weights}'")
            if isinstance(self.class_weights, dict) and not all(weight >= 0 for weight in self.class_weights.values()):
                raise ValueError("class_weights must not be negative")
            if self.mixup < 0:
                raise ValueError(f"mixup must not be negative, found {self.mixup:g}")

    def __init__(self, model: AcousticModel, options: Options) -> None:
        super().__init__()
        self.options = options
        self.weights: Tensor
        self.register_buffer("weights", torch.ones(model.vocab_size), persistent=False)

    def prepare(self, symbols: LabelSet) -> None:
        """Set the weights of the classes. Raises ConfigError for a weight of an unknown label."""
        chosen = self.options.class_weights
        if chosen == "balanced":
            counts = torch.tensor(symbols.counts or [1] * symbols.vocab_size, dtype=torch.float32)
            self.weights = counts.sum() / (len(counts) * counts)
        elif isinstance(chosen, dict):
            if unknown := set(chosen) - set(symbols.labels):
                raise ConfigError(f"objectives.classification.class_weights: no class '{min(unknown)}'")
            self.weights = torch.tensor([chosen.get(label, 1.0) for label in symbols.labels])

    def mixed(self, batch: Batch) -> Batch:
        """The batch after mixup, which draws from torch's generator; the same batch without mixup."""
        if not self.options.mixup or len(batch) < 2:
            return batch
        partners = torch.randperm(len(batch))
        alpha = torch.full((len(batch),), self.options.mixup)
        shares = torch.distributions.Beta(alpha, alpha).sample()
        shares = torch.maximum(shares, 1 - shares)  # the first label stays the main one
        ours = shares.to(batch.waveforms.device)[:, None]
        waveforms = ours * batch.waveforms + (1 - ours) * batch.waveforms[partners.to(batch.waveforms.device)]
        lengths = torch.maximum(batch.lengths, batch.lengths[partners])
        return MixedBatch(
            **vars(replace(batch, waveforms=waveforms, lengths=lengths)), partners=partners, shares=shares
        )

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        log_probs, targets = outputs.log_probs[:, 0], batch.tokens
        losses, weights = self._losses(log_probs, targets)
        if isinstance(batch, MixedBatch) and batch.partners is not None and batch.shares is not None:
            partners, shares = batch.partners.to(targets.device), batch.shares.to(targets.device)
            others, other_weights = self._losses(log_probs, targets[partners])
            losses = shares * losses + (1 - shares) * others
            weights = shares * weights + (1 - shares) * other_weights
        correct = (log_probs.argmax(dim=1) == targets).float().mean()
        return ObjectiveLoss(losses.sum() / weights.sum().clamp(min=1e-8), means={"accuracy": correct})

    def _losses(self, log_probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted loss of each utterance (batch,), and its weight."""
        weights = self.weights[targets]
        return weights * functional.nll_loss(log_probs, targets, reduction="none"), weights
