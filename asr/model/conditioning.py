"""Self-conditioning: the CTC posteriors of inner layers are fed to the layers above."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from asr.types import ConfigError


class SelfConditioning(nn.Module):
    """Adds a linear map of each frame's CTC posteriors to the output of some layers of an encoder.

    For a layer's output x, the next layer gets x + W softmax(V x + c) (Nozaki & Komatsu, 2021, "Relaxing the
    conditional independence assumption of CTC-based ASR by conditioning on intermediate predictions", arXiv
    2104.02724). V and c are the model's output layer, or a separate one for layers whose width is not that of the
    states. Layers of the same width share all weights. W needs no bias: posteriors sum to 1. `sizes` are the widths of
    all layers.
    """

    def __init__(self, layers: Sequence[int], sizes: Sequence[int], output_size: int, vocab_size: int) -> None:
        super().__init__()
        check_layers(layers, len(sizes) - 1, "model.self_conditioning")
        self.layers = frozenset(layers)
        widths = sorted({sizes[number - 1] for number in layers})
        self.heads = nn.ModuleDict({str(w): nn.Linear(w, vocab_size) for w in widths if w != output_size})
        self.feedback = nn.ModuleDict({str(w): nn.Linear(vocab_size, w, bias=False) for w in widths})

    def forward(self, number: int, x: Tensor, output: nn.Module) -> Tensor:
        """The output (batch, frames, width) of layer `number` as the next layer gets it.

        `output` is the model's output layer.
        """
        if number not in self.layers:
            return x
        width = str(x.size(-1))
        head = dict(self.heads.items()).get(width, output)
        return x + self.feedback[width](torch.softmax(head(x), dim=-1))


def check_layers(layers: Sequence[int], last: int, where: str) -> None:
    """Raise ConfigError for a layer outside 1 to `last`."""
    for number in layers:
        if not 1 <= number <= last:
            valid = f"valid are layers from 1 to {last}" if last > 0 else "this encoder has no valid layer"
            raise ConfigError(f"{where}: layer {number} cannot be chosen: {valid}")
