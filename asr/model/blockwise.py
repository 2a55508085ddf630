"""Local functions of a sequence that arrives in blocks: the features and front ends of streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class EncoderStream(Protocol):
    """The states of one utterance whose features arrive in blocks: joined, those of the whole utterance."""

    def feed(self, features: Tensor) -> Tensor:
        """Features (frames, mels) -> the states (frames', width) that became final, possibly none."""

    def finish(self) -> Tensor:
        """The remaining states (frames', width)."""


class Blockwise:
    """Applies `function` to a sequence in blocks: the outputs, joined, are those of the whole sequence.

    function: (n, ...) -> (outputs, width). Output t depends on inputs t * stride - reach[0] to t * stride + reach[1];
    inputs outside the sequence must have no effect or count as zeros. `begin` is an empty sequence of inputs, which
    gives their shape, type and device.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], stride: int, reach: tuple[int, int], begin: Tensor, width: int
    ) -> None:
        self.function, self.stride, self.width = function, stride, width
        self.outputs_before, self.inputs_after = -(-reach[0] // stride), reach[1]
        self.held = begin
        self.origin = self.returned = 0  # the output at which `held` begins, and the number of outputs returned so far

    def feed(self, x: Tensor) -> Tensor:
        """Inputs (n, ...) -> the outputs (n', width) whose inputs are now complete."""
        self.held = torch.cat([self.held, x])
        return self._outputs((self.origin * self.stride + len(self.held) - 1 - self.inputs_after) // self.stride + 1)

    def finish(self) -> Tensor:
        """The remaining outputs: the sequence has ended."""
        return self._outputs(None)

    def _outputs(self, end: int | None) -> Tensor:
        if not len(self.held) or (end is not None and end <= self.returned):
            return self.held.new_zeros(0, self.width)
        outputs = self.function(self.held)
        new = outputs[self.returned - self.origin : None if end is None else end - self.origin]
        self.returned += len(new)
        complete = self.origin + len(self.held) // self.stride
        origin = max(self.origin, min(self.returned - self.outputs_before, complete))
        self.held, self.origin = self.held[(origin - self.origin) * self.stride :], origin
        return new
