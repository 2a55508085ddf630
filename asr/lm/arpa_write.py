"""Writing ARPA files, plain or gzip: whole or not at all."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr.files import replacing
from asr.lm.tables import LMError, NGramTable, NGramTables

_ROWS = 100_000


def write_arpa(path: str | Path, model: NGramTables) -> None:
    """Write a model as an ARPA file, gzip where the name ends in .gz; numbers read back exactly. Raises LMError."""
    with replacing(path, LMError) as partial, partial.open("wb") as raw:
        if Path(path).suffix == ".gz":
            # without name and time the same model is the same file
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                _write(packed, model)  # type: ignore[arg-type]
        else:
            _write(raw, model)


def _write(file: BinaryIO, model: NGramTables) -> None:
    counts = "".join(f"ngram {k}={n}\n" for k, n in enumerate(model.counts, 1))
    file.write(f"\\data\\\n{counts}".encode())
    words = list(model.words)
    for k, table in enumerate(model.tables, 1):
        file.write(f"\n\\{k}-grams:\n".encode())
        for piece in _rows(table, words, with_backoff=k < model.order):
            file.write(piece.encode("utf-8"))
    file.write(b"\n\\end\\\n")


def _rows(table: NGramTable, words: list[str], with_backoff: bool) -> Iterator[str]:
    for start in range(0, len(table.logp), _ROWS):
        part = slice(start, start + _ROWS)
        columns = [_numbers(table.logp[part])]
        spelled = [[words[i] for i in column] for column in table.words[part].T.tolist()]
        columns.append([" ".join(row) for row in zip(*spelled, strict=True)])
        if with_backoff:
            columns.append(_numbers(table.backoff[part]))
        yield "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True))


def _numbers(values: np.ndarray) -> list[str]:
    """The shortest decimals that read back as the same float32."""
    distinct, which = np.unique(values, return_inverse=True)
    shown = [_shortest(value) for value in distinct]
    return [shown[i] for i in which.tolist()]


def _shortest(value: np.float32) -> str:
    if value == 0:
        return "0"  # never "-0", which to KenLM means something else
    return np.format_float_positional(value, trim="-")
