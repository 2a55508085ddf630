"""End-to-end CTC speech recognition: `asr.load("model.asr").transcribe("a.wav").text`.

Importing this loads neither torch nor numpy; they come with the first model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asr.types import VERSION, AsrError, Failure, Hypothesis, Transcript, Word

if TYPE_CHECKING:
    from pathlib import Path

    from asr.recognition.recognizer import Recognizer

__version__ = VERSION

__all__ = ["AsrError", "Failure", "Hypothesis", "Recognizer", "Transcript", "Word", "__version__", "load"]


def load(path: str | Path, device: str = "auto", threads: int | None = None, **decoding: Any) -> Recognizer:
    """Open a model file; `device` is auto, cpu or cuda, `threads` caps PyTorch's threads on the CPU.

    `decoding` are the fields of asr.decoding.make.DecodingConfig, as the options of `asr transcribe`: lm="words.lm",
    hotwords=["ada"], nbest=5, decoder="greedy"; the default is the beam search. What a language model or hotwords have
    that the model cannot spell is a warning. Raises ModelFileError for a file that is not a model of ours, UsageError
    for a device that is not there and options that do not go together, LMError.
    """
    from asr.recognition.recognizer import Recognizer

    return Recognizer.load(path, device=device, threads=threads, **decoding)


def __getattr__(name: str) -> Any:
    if name == "Recognizer":  # imports torch
        from asr.recognition.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module 'asr' has no attribute '{name}'")
