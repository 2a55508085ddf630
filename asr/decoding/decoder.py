"""What every decoder does, and how one is chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from asr.errors import UsageError
from asr.transcript import Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

DECODERS = ("greedy", "beam", "flashlight", "pyctcdecode")
AVAILABLE = ("greedy",)


class Tokenizer(Protocol):
    """What a decoder needs of a tokenizer. `labels[0]` is the blank; the ids it is given never hold it."""

    labels: list[str]

    @property
    def vocab_size(self) -> int: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]: ...


class Decoder(Protocol):
    """Emissions to text."""

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """Hypotheses of one utterance, best first, from (time, vocab) natural log-probabilities; never empty."""
        ...


def check_available(name: str) -> None:
    """Raise UsageError, naming what there is, for a decoder that this version does not have."""
    if name not in AVAILABLE:
        raise UsageError(f"decoder '{name}' is not in this version (available: {', '.join(AVAILABLE)})")


def make_decoder(name: str, tokenizer: Tokenizer, frame_seconds: float) -> Decoder:
    """The decoder called `name`; raises UsageError as `check_available` does."""
    check_available(name)
    from asr.decoding.greedy import GreedyDecoder

    return GreedyDecoder(tokenizer, frame_seconds)
