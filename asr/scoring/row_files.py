"""Rows with named fields as texts: JSON lines, JSON documents, CSV and TSV tables."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asr.corpus.rows import default_id, path_id
from asr.corpus.tables import table_rows
from asr.scoring.texts import Line, TextsError
from asr.types import ManifestError

Row = tuple[str, dict[str, Any]]  # where it stands, and its fields


def jsonl_rows(path: str, content: str) -> list[Row]:
    """The objects of a JSONL file. Raises TextsError."""
    lines = enumerate(content.split("\n"), start=1)
    return [(f"{path}:{n}", _object(_parsed(line, f"{path}:{n}"), f"{path}:{n}")) for n, line in lines if line.strip()]


def json_rows(path: str, content: str) -> tuple[list[Row], bool]:
    """The rows of a JSON file, and whether it is one text without an id: what Whisper and its like write.

    Read are JSON lines, a list of objects, an object with `text`, one of texts by id. Raises TextsError.
    """
    first, _, more = content.strip().partition("\n")
    if more and _is_object(first):
        return jsonl_rows(path, content), False
    document = _parsed(content, path, per_line=False)
    if isinstance(document, list):
        return [
            (f"{path}: item {i}", _object(row, f"{path}: item {i}")) for i, row in enumerate(document, start=1)
        ], False
    document = _object(document, path)
    named = not {"text", "pred_text", "error"}.isdisjoint(document)
    if document and not named and all(isinstance(text, str) for text in document.values()):
        return [(f"{path}: '{name}'", {"id": name, "text": text}) for name, text in document.items()], False
    if not named:
        raise TextsError(f"{path}: no 'text' in it (it has: {', '.join(document) or 'nothing'}): give JSON lines")
    bare = document.get("id") is None and document.get("audio_filepath") is None
    return [(path, {**document, "id": stem(path)} if bare else document)], bare


def csv_rows(path: str, content: str) -> tuple[list[Row], bool]:
    """The rows of a table with a header, and whether it is one text in stretches of time, as in Whisper's tsv.

    The text and the id, or the path of the audio, are found by the usual names of their columns. Raises TextsError.
    """
    try:
        table = list(enumerate(table_rows(Path(path), content, required=()), start=1))
    except ManifestError as error:
        raise TextsError(str(error)) from error
    rows = [(f"{path}:{number}", row) for number, row in table if row]
    if rows and not any({"text", "pred_text"} & row.keys() for _, row in rows):
        raise TextsError(
            f"{path}: no column for the text (found: {', '.join(rows[0][1])}): call one 'text', the first line must "
            "name the columns (--format kaldi for lines of an id and a text)"
        )
    if any("id" in row or "audio_filepath" in row for _, row in rows):
        return rows, False
    if rows and all({"start", "end"} <= row.keys() for _, row in rows):
        text = " ".join(row["text"] for _, row in rows)
        return [(path, {"id": stem(path), "text": text})], True
    if rows:
        raise TextsError(f"{path}: no column for the id (found: {', '.join(rows[0][1])}): call one 'id'")
    return [], False


def stem(path: str) -> str:
    """The name of a file without folders and extensions."""
    return Path(path.removesuffix(".gz")).stem


def row_lines(path: str, rows: Sequence[Row], hypotheses: bool, text_needed: bool = True) -> list[Line]:
    """The texts of rows: `text` or, of hypotheses, `pred_text` where any row has it. Raises TextsError."""
    key = "pred_text" if hypotheses and any("pred_text" in row for _, row in rows) else "text"
    if hypotheses and rows and not any({key, "error"} & row.keys() for _, row in rows):
        raise TextsError(f"{path}: no row has a 'text' (the first has: {', '.join(rows[0][1]) or 'nothing'})")
    names = [_name(row, where, default_id) for where, row in rows]
    repeated = {name for name, uses in Counter(names).items() if uses > 1}
    lines = []
    for (where, row), name in zip(rows, names, strict=True):
        if name in repeated and row.get("id") is None:  # files of one name in several folders
            name = _name(row, where, path_id)
        text = row.get(key)
        if text is not None and not isinstance(text, str):
            raise TextsError(f"{where}: '{key}' must be a string, found {json.dumps(text)[:40]}")
        if text is None and not hypotheses and text_needed:
            raise TextsError(f"{where}: the row has no 'text' (it has: {', '.join(row) or 'nothing'})")
        lines.append(
            Line(
                name,
                text,
                speaker=str(row.get("speaker") or ""),
                duration=_number(row, "duration", where),
                snr=_number(row, "snr", where),
                audio_filepath=_audio(row.get("audio_filepath"), path),
                offset=_number(row, "offset", where) or 0.0,
                segment=row.get("offset") is not None,
                channel=row["channel"] if isinstance(row.get("channel"), int) else None,
                words=_words(row.get("words")) if hypotheses else (),
            )
        )
    return lines


def _parsed(text: str, where: str, per_line: bool = True) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at {'' if per_line else f'line {error.lineno}, '}column {error.colno}"
        hint = "one whole JSON object per line" if per_line else "mend it, or give JSON lines"
        raise TextsError(f"{where}: not valid JSON ({reason}): {hint}") from error


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TextsError(f"{where}: not a JSON object: one whole JSON object per line")
    return value


def _name(row: dict[str, Any], where: str, made: Callable[[dict[str, Any]], str]) -> str:
    name = row.get("id")
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    if isinstance(name, str) and name.strip():
        return name
    if name is not None:
        raise TextsError(f"{where}: 'id' must be a name, found {json.dumps(name)[:40]}")
    path = row.get("audio_filepath")
    if not isinstance(path, str) or not path:
        raise TextsError(f"{where}: the row has neither 'id' nor 'audio_filepath' to pair it by")
    offset = _number(row, "offset", where)
    return made(
        {
            "audio_filepath": path,
            "segment": offset is not None,
            "offset": offset,
            "channel": row.get("channel"),
        }
    )


def _number(row: dict[str, Any], key: str, where: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TextsError(f"{where}: '{key}' must be a number, found {json.dumps(value)[:40]}")
    return float(value)


def _audio(path: Any, texts_path: str) -> str:
    """The path as it can be opened from here: relative ones start at the file's folder."""
    if not isinstance(path, str) or not path or path == "-":
        return ""
    return str(Path(texts_path).parent / Path(path).expanduser())


def _words(rows: Any) -> tuple[tuple[str, float, float, float], ...]:
    try:
        return tuple((str(w["word"]), float(w["start"]), float(w["end"]), float(w["confidence"])) for w in rows or ())
    except (TypeError, KeyError, ValueError):  # words of another tool in a shape of its own: times are a bonus
        return ()
