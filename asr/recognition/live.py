"""Recognition of a recording that is still being made, with a model that can stream."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from asr.audio.read import AudioStream
from asr.decoding.interface import Decoder, reads_states
from asr.model.streaming import AcousticStream
from asr.recognition.acoustics import Acoustics
from asr.types import ConfigError


def can_stream(acoustics: Acoustics, decoder: Decoder) -> bool:
    """Whether the model and the decoder can recognize a recording as it arrives."""
    if reads_states(decoder):
        return False
    try:
        AcousticStream(acoustics.model)
    except ConfigError:
        return False
    return True


def streamed(acoustics: Acoustics, samples: AudioStream) -> Iterator[np.ndarray]:
    """Log-probabilities (time, vocab), each frame once it is final; blank as long as all samples are the same."""
    stream = AcousticStream(acoustics.model)
    for block in samples:
        yield from _unless_silent(acoustics, stream.feed(torch.from_numpy(block)), samples.silent)
    yield from _unless_silent(acoustics, stream.finish(), samples.silent)


def _unless_silent(acoustics: Acoustics, log_probs: torch.Tensor, silent: bool) -> Iterator[np.ndarray]:
    """The emissions, if there are any; for a constant signal, as many blank ones."""
    if len(log_probs):
        yield acoustics.certain(0, len(log_probs)) if silent else log_probs.cpu().numpy()
