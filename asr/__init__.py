"""End-to-end CTC speech recognition: `asr.load("model.asr").transcribe("a.wav").text`.

Importing it loads neither torch nor numpy; loading a model does.
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
    """Open a model file, or a bundled model by its name (`asr models` lists them).

    `device` is auto, cpu or cuda, `threads` caps PyTorch's threads on the CPU. `decoding` sets fields of
    asr.decoding.make.DecodingConfig, the decoding options of `asr transcribe`: lm="words.lm", hotwords=["ada"],
    nbest=5, decoder="greedy"; the default is the beam search, for models trained without CTC "attention". Words of a
    language model and hotwords that the model cannot spell cause a warning. Raises ModelFileError for a file that is
    not a model of this package, UsageError for a device that does not exist or contradictory options, LMError.
    """
    from asr.recognition.recognizer import Recognizer

    return Recognizer.load(path, device=device, threads=threads, **decoding)


def __getattr__(name: str) -> Any:
    if name == "Recognizer":  # imports torch
        from asr.recognition.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module 'asr' has no attribute '{name}'")
