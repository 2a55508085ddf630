"""CTC at inner layers of the encoder: the objective `intermediate_ctc`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from asr.model.acoustic import AcousticModel, Outputs
from asr.model.conditioning import check_layers
from asr.training.dataset import Batch
from asr.training.losses.ctc import ctc_loss
from asr.training.losses.objective import ObjectiveLoss


class IntermediateCTCObjective(nn.Module):
    """Objective `intermediate_ctc`: the mean of the CTC losses of inner layers (Lee & Watanabe, 2021, "Intermediate
    loss regularization for CTC-based speech recognition", arXiv 2102.03216).

    The output layer of the model reads layers as wide as the encoder's states. Other layers are read by the heads of
    self-conditioning, or by a linear layer of this objective. The paper weights CTC by 1 - w, so its w = 0.3 is
    w / (1 - w) = 0.43 here.
    """

    needs_layers = True

    @dataclass(frozen=True)
    class Options:
        """`layers` are numbers from 1; by default those of `model.self_conditioning`, or else the middle layer."""

        layers: tuple[int, ...] = ()

    def __init__(self, model: AcousticModel, options: Options) -> None:
        super().__init__()
        sizes = model.encoder.layer_sizes
        self.layers = options.layers or model.config.self_conditioning or ((len(sizes) + 1) // 2,)
        check_layers(self.layers, len(sizes) - 1, "objectives.intermediate_ctc")
        widths = {sizes[number - 1] for number in self.layers}
        own = sorted(width for width in widths if model.head(width) is None)
        self.heads = nn.ModuleDict({str(width): nn.Linear(width, model.vocab_size) for width in own})
        self.model_head, self.output_length = model.head, model.output_length  # methods: the model is no submodule

    def forward(self, outputs: Outputs, batch: Batch) -> ObjectiveLoss:
        at_the_end = torch.tensor([self.output_length(samples) for samples in batch.lengths.tolist()])
        losses = []
        for number in self.layers:
            x, lengths = outputs.layers[number - 1]
            head = self.model_head(x.size(-1)) or self.heads[str(x.size(-1))]
            logits = head(x)
            with torch.autocast(logits.device.type, enabled=False):
                log_probs = torch.log_softmax(logits.float(), dim=-1)
            # With as many frames as the output, lengths are the same, and need not be read from a GPU.
            lengths = at_the_end if x.size(1) == outputs.log_probs.size(1) else lengths
            losses.append(ctc_loss(log_probs, lengths, batch.tokens, batch.token_lengths).loss)
        return ObjectiveLoss(torch.stack(losses).mean())
