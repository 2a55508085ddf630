"""Reading files of references and hypotheses in all supported formats, and their speakers."""

from __future__ import annotations

import html
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.corpus.rows import default_id, path_id
from asr.corpus.tables import table_rows
from asr.files import read_text
from asr.scoring.nist_files import TRN_LINE, read_ctm, read_stm, read_trn
from asr.scoring.pairing import Line, TextFile, TextFileError, first_words, look_like_ids, with_first_word_as_id
from asr.types import ManifestError, UsageError, Word

PlacedRow = tuple[str, dict[str, Any]]  # "file:line" for messages, and the fields of the row
FORMATS = ("trn", "stm", "ctm", "jsonl", "json", "csv", "kaldi", "srt", "vtt", "txt")
_UNSUPPORTED = ("textgrid", "eaf", "trs", "xml", "html", "ass", "ssa", "lrc", "ttml", "sbv", "mlf", "rttm")
_SUFFIXES = {f".{name}": name for name in FORMATS} | {".ndjson": "jsonl", ".tsv": "csv"}
_SUFFIXES |= {f".{name}": "" for name in _UNSUPPORTED}
# XML and HTML, TextGrid, MLF, ASS, RTTM, LRC and Whisper's log, Audacity's labels
_FOREIGN = re.compile(
    r"\s*(<\?xml|<!DOCTYPE|<html|<tt\b|File type = \"ooTextFile|#!MLF!#|\[Script Info\]"
    r"|SPEAKER \S+ \S+ [\d.]+ [\d.]+ <NA>"
    r"|\[\d+:\d\d|\d+\.\d+[\t ,;]+\d+\.\d+[\t ,;])",
    re.IGNORECASE,
)
_CUE = re.compile(r"\s*(?:\d+:)?\d+:\d\d[.,]\d{1,3}\s*-->\s*(?:\d+:)?\d+:\d\d[.,]\d{1,3}")
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+|\*)"
_STM_LINE = re.compile(rf"\S+\s+\S+\s+\S+\s+{_NUMBER}\s+{_NUMBER}(?:\s|$)")
_CTM_LINE = re.compile(rf"\S+\s+\S+\s+{_NUMBER}\s+{_NUMBER}\s+\S+(?:\s+[-+.\deENA]+(?:\s+\S+)*)?\s*$")
_TEXT_COLUMNS = {"text", "transcript", "sentence", "transcription", "pred_text"}
_NAME_COLUMNS = {"id", "utt_id", "utterance_id", "key", "path", "audio_filepath", "wav_filename", "file", "start"}


def read_texts(path: str, *, hypotheses: bool = False, format: str | None = None) -> TextFile:
    """Read a file of texts, plain or gzipped; `-` is stdin. Without `format`, suffix and content decide.

    trn: `text (id)` per line; stm: segments with times, both with sclite's markup. ctm: words with times, a text per
    recording. jsonl, json, csv (tsv): `text` or, for `hypotheses`, `pred_text` if the rows have it; `id`, or one
    derived from `audio_filepath`. kaldi: an id, then the text. srt, vtt, and Whisper's json and tsv: one text, named
    after the file. txt: a text per line, paired by line number; empty lines are empty texts. Raises TextFileError,
    also for files of other kinds, and UsageError for an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown format '{format}' of {path} (valid: {', '.join(FORMATS)})")
    content = read_text(path, TextFileError)
    kind = format or _format_of(path, content)
    if kind in _ROW_READERS:
        rows, whole = _ROW_READERS[kind](path, content)
        predicted = any("pred_text" in row for _, row in rows)
        texts = TextFile(path, _row_lines(path, rows, hypotheses), predicted=predicted, whole=whole)
    else:
        texts = _READERS[kind](path, content)
    if not texts.lines:
        raise TextFileError(f"{path}: no texts in it")
    [(name, uses)] = Counter(line.id for line in texts.lines).most_common(1)
    if uses > 1:
        raise TextFileError(f"{path}: the id '{name}' occurs twice: every utterance needs its own")
    return replace(texts, format=kind, chosen=format is not None)


def with_speakers(texts: TextFile, source: str) -> TextFile:
    """The texts with speakers from `source`: "prefix" for the id up to its first - or _ (sclite's spu_id), else a file.

    The file is JSONL with `id` and `speaker`, from which durations and audio paths are taken too, or has an id and a
    speaker per line (Kaldi's utt2spk). Raises TextFileError if it has none of the ids.
    """
    if source == "prefix":
        return replace(texts, lines=tuple(replace(x, speaker=re.split("[-_]", x.id)[0]) for x in texts.lines))
    known = _speakers(source)
    if not any(line.id in known for line in texts.lines):
        raise TextFileError(f"{source}: none of its ids is in {texts.path} (e.g. '{texts.lines[0].id}')")
    return replace(texts, lines=tuple(_completed(line, known.get(line.id, line)) for line in texts.lines))


def _completed(line: Line, about: Line) -> Line:
    new: dict[str, Any] = {"speaker": about.speaker or line.speaker}
    new |= {key: getattr(about, key) for key in ("duration", "snr") if getattr(line, key) is None}
    if about.audio_filepath and not line.audio_filepath:
        new |= {key: getattr(about, key) for key in ("audio_filepath", "offset", "segment", "channel")}
    return replace(line, **new)


def _speakers(path: str) -> dict[str, Line]:
    content = read_text(path, TextFileError)
    if _shape(content) == "jsonl":
        return {line.id: line for line in _row_lines(path, _jsonl_rows(path, content)[0], False, text_needed=False)}
    rows = {number: row.split() for number, row in enumerate(content.splitlines(), start=1) if row.strip()}
    for number, fields in rows.items():
        if len(fields) != 2:
            raise TextFileError(f"{path}:{number}: expected an id and a speaker, found {len(fields)} words")
    return {name: Line(name, None, speaker=speaker) for name, speaker in rows.values()}


def _format_of(path: str, content: str) -> str:
    """The format by suffix or else by content. Raises TextFileError for formats that are not supported."""
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    known = _SUFFIXES.get(suffix)
    if "\0" in content or _FOREIGN.match(content) or known == "":  # no text has NUL characters
        kind = "a file of this kind" if known or not suffix else suffix.lstrip(".")
        raise TextFileError(
            f"{path}: {kind} is not supported: convert it to {', '.join(FORMATS[:-1])} or txt (--format says "
            "which of these a file is, whatever its name)"
        )
    shape = _shape(content)
    return shape if known is None or (known == "txt" and shape != "kaldi") else known


def _shape(content: str) -> str:
    """The format that the content suggests."""
    rows = [row for row in content.split("\n") if row.strip() and not row.startswith(";;")]
    if not rows:
        return "txt"
    first = rows[0].strip()
    if first.startswith("{") and first.endswith("}") and '"' in first:
        return "jsonl"
    if first in ("{", "[") or re.match(r"[\[{]\s*[\"{]", first):
        return "json"
    if first.startswith("WEBVTT"):
        return "vtt"
    if any(_CUE.match(row) for row in rows[:3]):
        return "srt"
    # A txt read as trn fails on its first line, but a trn read as txt would have its ids scored as correct words.
    if all(TRN_LINE.match(row) for row in rows):
        return "trn"
    for name, pattern in (("stm", _STM_LINE), ("ctm", _CTM_LINE)):
        times = [match.groups() for row in rows if (match := pattern.match(row))]
        if len(times) == len(rows) and any("." in time for pair in times for time in pair):  # digits may be words
            return name
    separator = max("\t,;|", key=first.count)
    columns = {column.strip().strip('"').lower() for column in first.split(separator)}
    if columns & _TEXT_COLUMNS and columns & _NAME_COLUMNS and all(separator in row for row in rows):
        return "csv"
    return "kaldi" if look_like_ids(first_words(_lines(content))) == "yes" else "txt"


def _lines(content: str, keep_empty: bool = False) -> tuple[Line, ...]:
    """A text per line, named by its line number."""
    texts = enumerate(content.removesuffix("\n").split("\n") if content else [], start=1)
    return tuple(Line(str(number), text.strip()) for number, text in texts if keep_empty or text.strip())


def _read_subtitles(path: str, content: str) -> TextFile:
    """The words of SubRip or WebVTT cues as one text, without times, styles and notes."""
    captions: list[str] = []
    for block in re.split(r"\n\s*\n", content):
        rows = block.strip().split("\n")
        at = next((i for i, row in enumerate(rows) if _CUE.match(row)), len(rows))
        captions += rows[at + 1 :]
    text = " ".join(html.unescape(re.sub(r"<[^<>]*>|\{\\[^{}]*\}", "", " ".join(captions))).split())
    return TextFile(path, (Line(_stem(path), text),) if content.strip() else (), whole=True)


def _jsonl_rows(path: str, content: str) -> tuple[list[PlacedRow], bool]:
    """The objects of a JSONL file; False, as each is a text of its own."""
    lines = enumerate(content.split("\n"), start=1)
    places = [(f"{path}:{number}", line) for number, line in lines if line.strip()]
    return [(where, _object(_parsed(line, where), where)) for where, line in places], False


def _json_rows(path: str, content: str) -> tuple[list[PlacedRow], bool]:
    """The rows of a JSON file, and whether it is one text without an id, as Whisper writes.

    Accepts JSON lines, a list of objects, an object with `text`, and an object of texts by id. Raises TextFileError.
    """
    first, _, more = content.strip().partition("\n")
    with suppress(ValueError, RecursionError):
        if more and isinstance(json.loads(first), dict):
            return _jsonl_rows(path, content)
    document = _parsed(content, path, per_line=False)
    if isinstance(document, list):
        items = [(f"{path}: item {i}", item) for i, item in enumerate(document, start=1)]
        return [(where, _object(item, where)) for where, item in items], False
    document = _object(document, path)
    named = not {"text", "pred_text", "error"}.isdisjoint(document)
    if document and not named and all(isinstance(text, str) for text in document.values()):
        return [(f"{path}: '{name}'", {"id": name, "text": text}) for name, text in document.items()], False
    if not named:
        raise TextFileError(f"{path}: no 'text' in it (it has: {', '.join(document) or 'nothing'}): give JSON lines")
    bare = document.get("id") is None and document.get("audio_filepath") is None
    return [(path, {**document, "id": _stem(path)} if bare else document)], bare


def _csv_rows(path: str, content: str) -> tuple[list[PlacedRow], bool]:
    """The rows of a table with a header, and whether they are the segments of one text, as in Whisper's tsv.

    The columns of the text and of the id or audio path are found by their usual names. Raises TextFileError.
    """
    try:
        table = list(enumerate(table_rows(Path(path), content, required=()), start=1))
    except ManifestError as error:
        raise TextFileError(str(error)) from error
    rows = [(f"{path}:{number}", row) for number, row in table if row]
    if rows and not any({"text", "pred_text"} & row.keys() for _, row in rows):
        raise TextFileError(
            f"{path}: no column for the text (found: {', '.join(rows[0][1])}): the first line must name the columns, "
            "one of them 'text' (--format kaldi for lines of an id and a text)"
        )
    if any("id" in row or "audio_filepath" in row for _, row in rows):
        return rows, False
    if rows and all({"start", "end"} <= row.keys() for _, row in rows):
        text = " ".join(row["text"] for _, row in rows)
        return [(path, {"id": _stem(path), "text": text})], True
    if rows:
        raise TextFileError(f"{path}: no column for the id (found: {', '.join(rows[0][1])}): name one 'id'")
    return [], False


def _stem(path: str) -> str:
    """The name of a file without folders and extensions."""
    return Path(path.removesuffix(".gz")).stem


def _row_lines(path: str, rows: Sequence[PlacedRow], hypotheses: bool, *, text_needed: bool = True) -> tuple[Line, ...]:
    """The texts of rows: `text` or, for hypotheses, `pred_text` if any row has it. Raises TextFileError."""
    key = "pred_text" if hypotheses and any("pred_text" in row for _, row in rows) else "text"
    if hypotheses and rows and not any({key, "error"} & row.keys() for _, row in rows):
        raise TextFileError(f"{path}: no row has a 'text' (the first has: {', '.join(rows[0][1]) or 'nothing'})")
    names = [_name(row, where, default_id) for where, row in rows]
    repeated = {name for name, uses in Counter(names).items() if uses > 1}
    lines = []
    for (where, row), default in zip(rows, names, strict=True):
        name = default
        if name in repeated and row.get("id") is None:  # files of one name in several folders
            name = _name(row, where, path_id)
        text = row.get(key)
        if text is not None and not isinstance(text, str):
            raise TextFileError(f"{where}: '{key}' must be a string, found {json.dumps(text)[:40]}")
        if text is None and not hypotheses and text_needed:
            raise TextFileError(f"{where}: the row has no 'text' (it has: {', '.join(row) or 'nothing'})")
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
    return tuple(lines)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TextFileError(f"{where}: not a JSON object: one whole JSON object per line")
    return value


def _parsed(text: str, where: str, per_line: bool = True) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at {'' if per_line else f'line {error.lineno}, '}column {error.colno}"
        hint = "one whole JSON object per line" if per_line else "correct it, or give JSON lines"
        raise TextFileError(f"{where}: not valid JSON ({reason}): {hint}") from error


def _name(row: dict[str, Any], where: str, make_id: Callable[[dict[str, Any]], str]) -> str:
    name = row.get("id")
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    if isinstance(name, str) and name.strip():
        return name
    if name is not None:
        raise TextFileError(f"{where}: 'id' must be a name, found {json.dumps(name)[:40]}")
    path = row.get("audio_filepath")
    if not isinstance(path, str) or not path:
        raise TextFileError(f"{where}: the row has neither 'id' nor 'audio_filepath' to pair it by")
    offset = _number(row, "offset", where)
    return make_id({**row, "segment": offset is not None, "offset": offset, "channel": row.get("channel")})


def _number(row: dict[str, Any], key: str, where: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TextFileError(f"{where}: '{key}' must be a number, found {json.dumps(value)[:40]}")
    return float(value)


def _audio(path: Any, texts_path: str) -> str:
    """The path as it can be opened from here: relative ones start at the file's folder."""
    if not isinstance(path, str) or not path or path == "-":
        return ""
    return str(Path(texts_path).parent / Path(path).expanduser())


def _words(rows: Any) -> tuple[Word, ...]:
    with suppress(TypeError, KeyError, ValueError):  # words in another tool's format count as without times
        return tuple(
            Word(str(w["word"]), float(w["start"]), float(w["end"]), float(w["confidence"])) for w in rows or ()
        )
    return ()


_READERS = {
    "trn": read_trn,
    "stm": read_stm,
    "ctm": read_ctm,
    "srt": _read_subtitles,
    "vtt": _read_subtitles,
    "txt": lambda path, content: TextFile(path, _lines(content, keep_empty=True), numbered=True),
    "kaldi": lambda path, content: with_first_word_as_id(TextFile(path, _lines(content))),
}
_ROW_READERS = {"jsonl": _jsonl_rows, "json": _json_rows, "csv": _csv_rows}
