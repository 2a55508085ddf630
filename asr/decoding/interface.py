"""What every decoder does: emissions to hypotheses, whole or as they come."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from asr.types import Hypothesis

OOV = ("allow", "penalize", "forbid")  # what becomes of words that the language model or lexicon does not have
OOV_ALIASES = {"penalise": "penalize"}  # older spellings, still accepted


class Decoder(Protocol):
    """Emissions to text. One that can decode several utterances at once has `decode_many`, as BeamSearch."""

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """Hypotheses of one utterance, best first, from (time, vocab) natural log-probabilities; never empty."""
        ...


class DecodingStream(Protocol):
    """`feed` any number of times, then `finish`; in the end the hypotheses of all frames decoded together."""

    def feed(self, log_probs: Any) -> None:
        """Go on with frames (time, vocab), natural log-probabilities. Raises EmissionError."""
        ...

    def stable(self) -> str:
        """The words so far that will not change, whatever follows."""
        ...

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        """The hypotheses, best first."""
        ...


def begin_stream(decoder: Decoder) -> DecodingStream:
    """The decoder's own stream where it has one; otherwise frames are kept and decoded at the end."""
    begin = getattr(decoder, "stream", None)
    stream: DecodingStream = _Joined(decoder) if begin is None else begin()
    return stream


class _Joined:
    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.blocks: list[np.ndarray] = []

    def feed(self, log_probs: Any) -> None:
        self.blocks.append(log_probs)

    def stable(self) -> str:
        return ""

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        return self.decoder.decode(np.concatenate(self.blocks))[: max(nbest, 1)]
