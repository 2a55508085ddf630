"""End-to-end CTC speech recognition: `asr.load("model.asr").transcribe("a.wav").text`.

Importing this loads neither torch nor numpy; they come with the first model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asr.errors import AsrError
from asr.transcript import Failure, Hypothesis, Transcript, Word

if TYPE_CHECKING:
    from pathlib import Path

    from asr.recognizer import Recognizer

__version__ = "0.1.0"  # a test holds it equal to pyproject.toml; reading installed metadata takes 50 ms

__all__ = ["AsrError", "Failure", "Hypothesis", "Recognizer", "Transcript", "Word", "__version__", "load"]


def load(path: str | Path, device: str = "auto", threads: int | None = None) -> Recognizer:
    """Open a model file; `device` is auto, cpu or cuda, `threads` caps PyTorch's threads on the CPU.

    Raises ModelFileError for a file that is not a model of ours, UsageError for a device that is not there.
    """
    from asr.recognizer import Recognizer

    return Recognizer.load(path, device=device, threads=threads)


def __getattr__(name: str) -> Any:
    if name == "Recognizer":  # imports torch
        from asr.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module 'asr' has no attribute '{name}'")
