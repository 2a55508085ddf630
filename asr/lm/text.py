"""Sentences for language models: text files, gzip, pipes, stdin, or the transcripts of a JSONL manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from asr.files import read_lines
from asr.lm.tables import LMError


def read_sentences(paths: Iterable[str | Path], normalize: Callable[[str], str] = str) -> Iterator[str]:
    """The lines of text files (UTF-8, plain or gzip, `-` for stdin), or the `text` of manifest rows, normalized.

    A file is a manifest when its name says .jsonl or its first line is a JSON object. Raises LMError with file, line.
    """
    for path in paths:
        name = "stdin" if str(path) == "-" else str(path)
        manifest = name.removesuffix(".gz").endswith(".jsonl")
        for number, text in enumerate(read_lines(path, LMError), 1):
            if number == 1 and not manifest and text.lstrip().startswith("{"):
                manifest = _is_object(text)
            if not manifest:
                yield normalize(text)
            elif text.strip():
                yield normalize(_transcript(text, f"{name}:{number}"))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _transcript(row: str, where: str) -> str:
    try:
        values = json.loads(row)
    except ValueError as error:
        raise LMError(f"{where}: not JSON: {error}") from None
    text = values.get("text") if isinstance(values, dict) else None
    if not isinstance(text, str):
        raise LMError(f"{where}: the row has no 'text' that is a string")
    return text
