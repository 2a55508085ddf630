"""The interface of all decoders: their input (checked emissions) and output, for whole utterances and streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from asr.types import AsrError, Hypothesis

OOV = ("allow", "penalize", "forbid")  # how to treat words that are not in the language model or lexicon
OOV_ALIASES = {"penalise": "penalize"}  # older spellings, still accepted
TOLERANCE = 0.01  # of log(sum of a row), since emissions may have been stored in half precision


class EmissionError(AsrError, ValueError):
    """An array is not the log-probabilities (time, vocab) that a decoder needs. The message says why."""


def check_emissions(log_probs: Any, width: int | None = None, name: str = "emissions") -> np.ndarray:
    """Return `log_probs` as a contiguous float32 array (time, vocab), or raise EmissionError.

    They must be natural logarithms of probabilities that sum to 1 in each row, with the blank in column 0 and at least
    one row. `width` is the number of labels including the blank. Takes numpy arrays and torch tensors on any device.
    """
    if hasattr(log_probs, "detach"):  # a torch tensor, detected without importing torch
        log_probs = log_probs.detach().float().cpu().numpy()
    array = np.asarray(log_probs)
    if array.ndim != 2:
        hint = "; decode the utterances of a batch one by one" if array.ndim == 3 else ""
        raise EmissionError(f"{name}: expected shape (time, vocab), found {array.shape}{hint}")
    if array.dtype.kind != "f":
        raise EmissionError(f"{name}: expected floating-point log-probabilities, found {array.dtype}")
    if array.shape[0] == 0:
        raise EmissionError(f"{name}: no frames to decode, shape {array.shape}")
    if width is not None and array.shape[1] != width:
        raise EmissionError(
            f"{name}: {array.shape[1]} columns but {width} labels (with the blank): from another model?"
        )
    array = np.ascontiguousarray(array, dtype=np.float32)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        frame = int(np.argmin(finite))
        column = int(np.argmin(np.isfinite(array[frame])))
        raise EmissionError(f"{name}: {array[frame, column]} at frame {frame}, label {column}; all must be finite")
    peak = array.max(axis=1)
    totals = peak + np.log(np.exp(array - peak[:, None]).sum(axis=1))
    frame = int(np.argmax(np.abs(totals)))
    if abs(totals[frame]) > TOLERANCE:
        looks_like_probabilities = array.min() >= 0.0 and np.abs(array.sum(axis=1) - 1.0).max() < TOLERANCE
        hint = (
            "these are probabilities: pass their natural logarithm"
            if looks_like_probabilities
            else "pass the output of log_softmax, not raw scores"
        )
        total = np.exp(min(float(totals[frame]), 80.0))
        raise EmissionError(f"{name}: the probabilities of frame {frame} sum to {total:.4g}, not 1; {hint}")
    return array


@dataclass(frozen=True)
class Encoded:
    """Input of decoders with `reads_states`: CTC emissions (time, vocab) and encoder states (time, width), both
    float32. `before` and `after` count the frames of silence around a window.
    """

    log_probs: np.ndarray
    states: np.ndarray
    before: int = 0
    after: int = 0


class Decoder(Protocol):
    """Turns emissions into text. A decoder that can decode several utterances at once has `decode_many`, like
    BeamSearch; one that also reads encoder states has a true `reads_states`, and takes `Encoded` instead of arrays.
    """

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """Hypotheses of one utterance, best first, from (time, vocab) natural log-probabilities; never empty."""
        ...


class DecodingStream(Protocol):
    """`feed` it any number of times, then `finish`, which gives the same as decoding all frames at once."""

    def feed(self, log_probs: Any) -> None:
        """Continue with frames (time, vocab), natural log-probabilities. Raises EmissionError."""
        ...

    def stable(self) -> str:
        """The words so far that will not change any more."""
        ...

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        """The hypotheses, best first."""
        ...


def reads_states(decoder: Decoder) -> bool:
    """Whether a decoder takes `Encoded` instead of emissions."""
    return bool(getattr(decoder, "reads_states", False))


def begin_stream(decoder: Decoder) -> DecodingStream:
    """The decoder's own stream if it has one, otherwise one that stores the frames and decodes them at the end."""
    begin = getattr(decoder, "stream", None)
    stream: DecodingStream = _WholeStream(decoder) if begin is None else begin()
    return stream


class _WholeStream:
    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.blocks: list[np.ndarray] = []

    def feed(self, log_probs: Any) -> None:
        self.blocks.append(log_probs)

    def stable(self) -> str:
        return ""

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        return self.decoder.decode(np.concatenate(self.blocks))[: max(nbest, 1)]
