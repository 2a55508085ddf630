"""End-to-end CTC speech recognition: `asr.load("model.asr").transcribe("a.wav").text`.

Importing it loads neither torch nor numpy; loading a model does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asr.types import VERSION, AsrError, Classification, Failure, Hypothesis, Transcript, Word

if TYPE_CHECKING:
    from pathlib import Path

    from asr.recognition.classifier import Classifier
    from asr.recognition.recognizer import Recognizer

__version__ = VERSION

_LAZY = {"Classifier": "asr.recognition.classifier", "Recognizer": "asr.recognition.recognizer"}  # they import torch

__all__ = [
    "AsrError",
    "Classification",
    "Classifier",
    "Failure",
    "Hypothesis",
    "Recognizer",
    "Transcript",
    "Word",
    "__version__",
    "load",
]


def load(path: str | Path, device: str = "auto", threads: int | None = None, **decoding: Any) -> Recognizer:
    """Open a model file, or a bundled model by its name (`asr models` lists them).

    `device` is auto, cpu or cuda; `threads` limits PyTorch's CPU threads. `decoding` sets fields of
    asr.decoding.make.DecodingConfig, the decoding options of `asr transcribe`: lm="words.lm", hotwords=["ada"],
    nbest=5, decoder="greedy". The default decoder is the beam search or, for models trained without CTC, "attention".
    Hotwords and words of a language model that the model cannot spell cause a warning. Raises ModelFileError for a file
    that is not a model of this package, UsageError for an unavailable device or contradictory options, LMError.

    A classifier is opened as a Classifier: `asr.load("words.asr").classify("a.wav").label`.
    """
    from asr.model.checkpoint import read_metadata
    from asr.model.config import CLASSIFICATION
    from asr.recognition.recognizer import Recognizer

    if not decoding and read_metadata(path)["task"] == CLASSIFICATION:
        from asr.recognition.classifier import Classifier

        return Classifier.load(path, device=device, threads=threads)
    return Recognizer.load(path, device=device, threads=threads, **decoding)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'asr' has no attribute '{name}'")
