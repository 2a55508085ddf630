"""Functions of neighborhoods of a sequence that comes in blocks: the features and front ends of streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class EncoderStream(Protocol):
    """The states of one utterance whose features come in blocks; all of them are those of the whole utterance."""

    def feed(self, features: Tensor) -> Tensor:
        """Features (frames, mels) -> the states (frames', width), possibly none, that are final since the last call."""

    def finish(self) -> Tensor:
        """The rest of the states (frames', width)."""


class Blockwise:
    """`function` over a sequence in blocks: the outputs, joined, are those of the whole sequence.

    function: (n, ...) -> (outputs, width), of which output t depends on inputs t * stride - reach[0] to
    t * stride + reach[1], and those outside the sequence are zeros to it or not there at all. `begin` is a sequence of
    no inputs, which says what kind they are of.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], stride: int, reach: tuple[int, int], begin: Tensor, width: int
    ) -> None:
        self.function, self.stride, self.width = function, stride, width
        self.before, self.after = -(-reach[0] // stride), reach[1]  # the former in outputs
        self.held = begin
        self.origin = self.given = 0  # of outputs: the one that the inputs held begin at, and those already given

    def feed(self, x: Tensor) -> Tensor:
        """Inputs (n, ...) -> outputs (n', width) whose inputs are complete."""
        self.held = torch.cat([self.held, x])
        return self._outputs((self.origin * self.stride + len(self.held) - 1 - self.after) // self.stride + 1)

    def finish(self) -> Tensor:
        """The outputs that are left, now that the sequence is at its end."""
        return self._outputs(None)

    def _outputs(self, end: int | None) -> Tensor:
        if not len(self.held) or (end is not None and end <= self.given):
            return self.held.new_zeros(0, self.width)
        outputs = self.function(self.held)
        found = outputs[self.given - self.origin : None if end is None else end - self.origin]
        self.given += len(found)
        origin = max(self.origin, min(self.given - self.before, self.origin + len(self.held) // self.stride))
        self.held, self.origin = self.held[(origin - self.origin) * self.stride :], origin
        return found
