"""Reads corpora in other people's formats as manifests, and writes manifests in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from asr.corpus.kaldi import read_kaldi, write_kaldi
from asr.corpus.librispeech import is_librispeech, read_librispeech
from asr.corpus.manifest import Manifest, write_manifest
from asr.corpus.tables import BY_USUAL_NAMES, Columns, is_common_voice, read_table, write_common_voice, write_table
from asr.text.normalize import normalizer as normalizer_named
from asr.types import AudioError, ManifestError, UsageError

SOURCES = ("jsonl", "kaldi", "librispeech", "csv", "tsv", "commonvoice")
TARGETS = ("jsonl", "kaldi", "csv", "tsv", "commonvoice")
_CHUNK = 2048


def read_corpus(
    source: str | Path,
    kind: str = "",
    *,
    columns: Columns = BY_USUAL_NAMES,
    normalizer: str = "none",
    unreadable: list[str] | None = None,
) -> Manifest:
    """A corpus of any of SOURCES (`kind`, "" to tell by its looks) as a manifest in memory, texts normalized.

    Durations that are not given are read from the audio files' headers. Files that cannot be read are an AudioError,
    or, with a list for `unreadable`, left out and described there. Raises ManifestError and UsageError in one line.
    """
    path = Path(source)
    rows = _rows(path, kind or source_kind(path), columns)
    normalize = normalizer_named(normalizer)
    normalized = ({**row, "text": normalize(row["text"])} if isinstance(row.get("text"), str) else row for row in rows)
    manifest = Manifest.from_rows(_with_durations(normalized, unreadable), str(path))
    if not len(manifest):
        raise ManifestError(f"{path}: {'none of its audio can be read' if unreadable else 'holds no utterances'}")
    return manifest


def write_corpus(target: str | Path, manifest: Manifest, kind: str = "") -> None:
    """Write `manifest` as one of TARGETS (`kind`, "" to tell by the name); files are replaced as a whole."""
    path = Path(target)
    kind = kind or target_kind(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "kaldi":
        write_kaldi(path, manifest)
    elif kind == "commonvoice":
        write_common_voice(path, manifest)
    elif kind in ("csv", "tsv"):
        write_table(path, manifest, "," if kind == "csv" else "\t")
    else:
        write_manifest(path, manifest)


def source_kind(path: Path) -> str:
    """Which of SOURCES is there; raises UsageError where that cannot be told, ManifestError where nothing is."""
    if path.is_dir():
        if (path / "wav.scp").exists():
            return "kaldi"
        if is_librispeech(path):
            return "librispeech"
        tables = sorted(file.name for file in path.glob("*.tsv") if is_common_voice(file))
        if tables:
            raise UsageError(f"{path}: a Common Voice folder: name one of its tables ({', '.join(tables)})")
        raise UsageError(f"{path}: neither a Kaldi directory (wav.scp) nor a LibriSpeech folder (*.trans.txt)")
    if not path.exists():
        raise ManifestError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        return "commonvoice" if is_common_voice(path) else "tsv"
    kind = {".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl"}.get(suffix)
    if kind is None:
        raise UsageError(f"{path}: cannot tell its format by its name: say --from {'|'.join(SOURCES)}")
    return kind


def target_kind(path: Path) -> str:
    """Which of TARGETS a name means: by its extension, a folder for Kaldi."""
    kinds = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl", "": "kaldi"}
    kind = "kaldi" if path.is_dir() else kinds.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: cannot tell the format by the name: say --to {'|'.join(TARGETS)}")
    return kind


def _rows(path: Path, kind: str, columns: Columns) -> Iterator[dict[str, Any]]:
    if kind in ("kaldi", "librispeech"):
        if not path.is_dir():
            raise UsageError(f"{path}: --from {kind} needs a folder")
        return read_kaldi(path) if kind == "kaldi" else read_librispeech(path)
    if kind == "jsonl":
        return _json_rows(path, columns)
    if kind in ("csv", "tsv", "commonvoice"):
        return read_table(path, columns=columns, clips=kind == "commonvoice")
    raise UsageError(f"unknown format '{kind}': one of {', '.join(SOURCES)}")


def _json_rows(path: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    """Rows of JSON lines, or of one JSON array, with other tools' keys renamed to ours."""
    folder = path.absolute().parent
    for number, row in enumerate(_json_values(path), start=1):
        if not isinstance(row, dict):
            raise ManifestError(f"{path}: value {number} is not a JSON object")
        if not row:
            yield row
            continue
        renamed = columns.rename(row, f"{path}:{number}")
        if isinstance(renamed.get("audio_filepath"), str):
            renamed["audio_filepath"] = str(folder / renamed["audio_filepath"])
        yield renamed


def _json_values(path: Path) -> Iterator[Any]:
    """The elements of an array, or the value of each line, {} for a blank one."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            is_array = file.read(4096).lstrip().startswith("[")
            file.seek(0)
            if is_array:
                yield from json.load(file)
                return
            for line in file:
                number += 1
                yield json.loads(line) if line.strip() else {}
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 (byte {error.start}): save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        at = f"{path}:{number or error.lineno}"
        raise ManifestError(f"{at}: not valid JSON ({error.msg} at column {error.colno})") from error


def _with_durations(rows: Iterator[dict[str, Any]], unreadable: list[str] | None) -> Iterator[dict[str, Any]]:
    """Rows with `duration`, from the audio headers where missing; unreadable ones become empty and are described."""
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        while chunk := list(islice(rows, _CHUNK)):
            for row, found in zip(chunk, pool.map(_duration, chunk), strict=True):
                if not isinstance(found, str):
                    yield row if found is None else {**row, "duration": found}
                elif unreadable is None:
                    raise AudioError(found)
                else:
                    unreadable.append(found)
                    yield {}


def _duration(row: dict[str, Any]) -> float | str | None:
    """Seconds of a row that does not say, None where nothing is to do, or what went wrong."""
    from asr.audio.read import probe

    path = row.get("audio_filepath")
    if row.get("duration") is not None or not isinstance(path, str):
        return None
    offset = row.get("offset")
    start = offset if isinstance(offset, int | float) else 0.0
    try:
        length = probe(path).duration
    except AudioError as error:
        return str(error)
    if length <= start:
        return f"{path}: the offset {start:g} s lies beyond its end ({length:g} s)"
    return round(length - start, 6) if start else length
