"""Files of references and hypotheses: trn, JSONL or plain text, and what is known of their speakers."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.corpus.rows import default_id, path_id
from asr.scoring.texts import Line, Texts, TextsError
from asr.types import UsageError

FORMATS = ("trn", "jsonl", "txt")
_TRN = re.compile(r"(.*?)\s*\(([^()\s]+)\)\s*$", re.DOTALL)
_TRN_MARKUP = {"{": "alternatives", "}": "alternatives", "@": "an empty alternative"}
_SUFFIXES = {".trn": "trn", ".jsonl": "jsonl", ".json": "jsonl"}


def read_texts(path: str, *, hypotheses: bool = False, format: str | None = None) -> Texts:
    """Read a file of texts; `-` is stdin. The format is that given, that of the suffix, or what the content shows.

    trn: `text (id)` per line, lines that begin with `;;` are comments. jsonl: `text` and, of `hypotheses`, `pred_text`
    if the rows have it; `id`, or one made of `audio_filepath`. txt: a text per line, empty lines are empty texts, to
    be paired by line number. Raises TextsError, or UsageError for an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown format '{format}' of {path} (valid: {', '.join(FORMATS)})")
    content = _content(path)
    format = format or _SUFFIXES.get(Path(path).suffix.lower()) or _looks_like(content)
    predicted = False
    if format == "jsonl":
        rows = _json_rows(path, content)
        predicted = any("pred_text" in row for _, row in rows)
        lines = _unique(list(_jsonl(path, rows, hypotheses)), path)
    elif format == "trn":
        lines = _unique(list(_trn(path, content)), path)
    else:
        texts = content.removesuffix("\n").split("\n") if content else []
        lines = [Line(str(number), text.strip()) for number, text in enumerate(texts, start=1)]
    if not lines:
        raise TextsError(f"{path}: no texts in it")
    return Texts(path, format, tuple(lines), numbered=format == "txt", predicted=predicted)


def with_speakers(texts: Texts, source: str) -> Texts:
    """The texts with speakers from `source`: "prefix" for the id up to its first - or _ (sclite's spu_id), else a file.

    The file is JSONL with `id` and `speaker`, whose durations and audio paths are taken too, or has lines of two
    words, id and speaker (Kaldi's utt2spk). Raises TextsError where it knows none of the ids.
    """
    if source == "prefix":
        return replace(texts, lines=tuple(replace(x, speaker=re.split("[-_]", x.id)[0]) for x in texts.lines))
    known = _speakers(source)
    if not any(line.id in known for line in texts.lines):
        raise TextsError(f"{source}: none of its ids is in {texts.path} (e.g. '{texts.lines[0].id}')")
    return replace(texts, lines=tuple(_completed(line, known.get(line.id)) for line in texts.lines))


def _completed(line: Line, about: Line | None) -> Line:
    if about is None:
        return line
    line = replace(
        line,
        speaker=about.speaker or line.speaker,
        duration=about.duration if line.duration is None else line.duration,
        snr=about.snr if line.snr is None else line.snr,
    )
    if line.audio_filepath or not about.audio_filepath:
        return line
    return replace(
        line,
        audio_filepath=about.audio_filepath,
        offset=about.offset,
        segment=about.segment,
        channel=about.channel,
    )


def _speakers(path: str) -> dict[str, Line]:
    content = _content(path)
    if _looks_like(content) == "jsonl":
        return {line.id: line for line in _jsonl(path, _json_rows(path, content), False, text_needed=False)}
    known = {}
    for number, row in enumerate(content.splitlines(), start=1):
        fields = row.split()
        if len(fields) not in (0, 2):
            raise TextsError(f"{path}:{number}: expected an id and a speaker, found {len(fields)} words")
        if fields:
            known[fields[0]] = Line(fields[0], None, speaker=fields[1])
    return known


def _content(path: str) -> str:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise TextsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TextsError(f"{path}: not UTF-8 but UTF-16: save the file as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TextsError(f"{path}:{line}: not UTF-8: save the file as UTF-8") from error
    return text.replace("\r\n", "\n")


def _looks_like(content: str) -> str:
    """The format of a file whose name does not say it."""
    rows = [row for row in content.split("\n") if row.strip() and not row.startswith(";;")]
    if rows and rows[0].lstrip().startswith("{") and rows[0].rstrip().endswith("}") and '"' in rows[0]:
        return "jsonl"
    # a txt read as trn would fail on its first line; a trn read as txt would score its ids as words that are right
    return "trn" if rows and all(_TRN.match(row) for row in rows) else "txt"


def _trn(path: str, content: str) -> Iterator[Line]:
    for number, row in enumerate(content.split("\n"), start=1):
        if not row.strip() or row.startswith(";;"):
            continue
        match = _TRN.match(row)
        if not match:
            raise TextsError(f"{path}:{number}: no utterance id: a line of a trn file ends in (id)")
        text, name = match.groups()
        for word in text.split():
            if word in _TRN_MARKUP:
                raise TextsError(
                    f"{path}:{number}: '{word}' marks {_TRN_MARKUP[word]} in trn, which are not read here: "
                    "choose one wording, or score with sclite"
                )
        yield Line(name, text.strip())


def _json_rows(path: str, content: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers."""
    lines = enumerate(content.split("\n"), start=1)
    return [(number, _json_object(line, f"{path}:{number}")) for number, line in lines if line.strip()]


def _jsonl(
    path: str, rows: list[tuple[int, dict[str, Any]]], hypotheses: bool, text_needed: bool = True
) -> Iterator[Line]:
    key = "pred_text" if hypotheses and any("pred_text" in row for _, row in rows) else "text"
    names = [_name(row, f"{path}:{number}", default_id) for number, row in rows]
    repeated = {name for name, uses in Counter(names).items() if uses > 1}
    for (number, row), name in zip(rows, names, strict=True):
        where = f"{path}:{number}"
        if name in repeated and row.get("id") is None:  # files of one name in several folders
            name = _name(row, where, path_id)
        text = row.get(key)
        if text is not None and not isinstance(text, str):
            raise TextsError(f"{where}: '{key}' must be a string, found {json.dumps(text)[:40]}")
        if text is None and not hypotheses and text_needed:
            raise TextsError(f"{where}: the row has no 'text' (it has: {', '.join(row) or 'nothing'})")
        yield Line(
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


def _json_object(row: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(row)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise TextsError(f"{where}: not valid JSON ({reason}): one whole JSON object per line") from error
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


def _unique(lines: list[Line], path: str) -> list[Line]:
    seen: set[str] = set()
    for line in lines:
        if line.id in seen:
            raise TextsError(f"{path}: the id '{line.id}' occurs twice: every utterance needs its own")
        seen.add(line.id)
    return lines
