"""Sentences for language models: text files, gzip, stdin, or the transcripts of a JSONL manifest."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from asr.lm.arpa import open_bytes
from asr.lm.tables import LMError


def read_sentences(paths: Iterable[str | Path], normalize: Callable[[str], str] = str) -> Iterator[str]:
    """The lines of text files (UTF-8, plain or gzip, `-` for stdin), or the `text` of manifest rows, normalized.

    A file is a manifest when its name says .jsonl or its first line is a JSON object. Raises LMError with file, line.
    """
    for path in paths:
        if str(path) == "-":
            yield from _sentences("stdin", sys.stdin.buffer, normalize)
            continue
        try:
            with open_bytes(path) as file:
                yield from _sentences(str(path), file, normalize)
        except (EOFError, zlib.error) as error:
            raise LMError(f"{path}: the gzip data is cut off or damaged ({error})") from error
        except OSError as error:
            raise LMError(f"{path}: cannot be read: {error.strerror or error}") from error


def _sentences(name: str, file: BinaryIO, normalize: Callable[[str], str]) -> Iterator[str]:
    manifest = name.removesuffix(".gz").endswith(".jsonl")
    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise LMError(f"{name}:{number}: not UTF-8 text ({error.reason} at byte {error.start})") from None
        if number == 1 and not manifest and text.lstrip().startswith("{"):
            manifest = _is_object(text)
        if manifest:
            if not text.strip():
                continue
            text = _transcript(text, f"{name}:{number}")
        yield normalize(text)


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
