"""Reading CSV and TSV files with named columns (Common Voice's among them) as manifest rows, and writing them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from asr.config import nearest
from asr.corpus.manifest import PathWriter, Utterance, manifest_row
from asr.corpus.rows import base_folder
from asr.files import opened, replacing
from asr.types import ManifestError, UsageError

# key of a manifest -> other tools' names of the column, the likeliest first; in the order of the fields of `Columns`
_NAMES: dict[str, tuple[str, ...]] = {
    "audio_filepath": (
        *("audio_filepath", "wav_filename", "audio_path", "audio_file", "path", "wav", "audio", "file", "filename"),
        *("file_name", "filepath"),
    ),
    "text": ("text", "transcript", "sentence", "transcription", "wrd", "txt", "normalized_text"),
    "id": ("id", "utt_id", "utterance_id", "key"),
    "speaker": ("speaker", "spk_id", "speaker_id", "client_id", "spk"),
}
_NUMBERS = ("duration", "offset", "channel")
REQUIRED_COLUMNS = ("audio", "text")


@dataclass(frozen=True)
class Columns:
    """Names of the columns with audio, text, id and speaker; "" to find a column by its usual names."""

    audio: str = ""
    text: str = ""
    id: str = ""
    speaker: str = ""

    def keys(self, columns: Sequence[str], place: str, required: Collection[str] = REQUIRED_COLUMNS) -> dict[str, str]:
        """column -> its key in a manifest, which is `original_NAME` if another column takes the key NAME.

        Raises UsageError if a chosen column is missing, ManifestError if a required one is not found.
        """
        keys: dict[str, str] = {}
        lowered = {column.lower(): column for column in reversed(columns)}
        for field, (key, usual) in zip(fields(self), _NAMES.items(), strict=True):
            chosen = getattr(self, field.name)
            if chosen and chosen not in columns:
                raise UsageError(f"{place}: no column '{chosen}'{nearest(chosen, columns)}")
            column = chosen or next((lowered[name] for name in usual if name in lowered), "")
            if column:
                keys[column] = key
            elif field.name in required:
                raise ManifestError(
                    f"{place}: no column for the {field.name} (found: {', '.join(columns)}): the first line must name "
                    f"the columns; choose one with --{field.name}-column"
                )
        for column in columns:
            if column not in keys:
                key = column.lower() if column.lower() in (*_NUMBERS, "split") else column
                keys[column] = f"original_{key}" if key in keys.values() else key
        return {column: keys[column] for column in columns}


BY_USUAL_NAMES = Columns()


def table_rows(
    path: Path,
    text: str,
    *,
    columns: Columns = BY_USUAL_NAMES,
    clips: bool = False,
    required: Collection[str] = REQUIRED_COLUMNS,
    notes: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Manifest rows of `text`, a CSV or TSV table with a header; unrecognized columns are kept as they are.

    The separator is detected in the header. Fields of tab-separated files are taken literally, except that a field in
    quotes with all inner quotes doubled is unquoted. With `clips` (Common Voice) audio is in `clips/` beside the file.
    The header and each skipped line give an empty row, so that row numbers are line numbers. Raises ManifestError,
    UsageError.
    """
    separator = max("\t,;|", key=text.partition("\n")[0].count)
    folder = Path(base_folder(path), "clips" if clips else "")
    try:
        records = _records(text, separator)
        line, header = next(records, (1, []))
        header = [column.strip() for column in header]
        if len(set(header)) != len(header):
            raise ManifestError(f"{path}:{line}: two columns have the same name: rename one")
        keys = columns.keys(header, f"{path}:{line}", required)
        if notes is not None:
            notes += unused_times(keys.values(), f"{path}:{line}")
        previous = 0
        for line, record in records:
            if len(record) != len(header):
                raise ManifestError(
                    f"{path}:{line}: {len(record)} fields, but the header has {len(header)}: quote fields that contain "
                    "the separator"
                )
            yield from ({} for _ in range(line - previous - 1))
            previous = line
            yield _row(dict(zip(keys.values(), record, strict=True)), folder, {"split": path.stem} if clips else {})
    except csv.Error as error:
        raise ManifestError(f"{path}: not a table ({error}): save it as CSV or TSV in UTF-8") from error


def _row(cells: dict[str, str], folder: Path, defaults: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {key: value for key, value in cells.items() if value or key == "text"}
    for key in _NUMBERS:
        with suppress(ValueError):  # the manifest rejects what is not a number, with its key
            if key in row:
                row[key] = int(row[key]) if key == "channel" else float(row[key])
    if "audio_filepath" in row:
        row["audio_filepath"] = str(folder / row["audio_filepath"])
    return {**defaults, **row}


def unused_times(keys: Iterable[str], place: str) -> list[str]:
    """A note if columns look like the times of a window but lack the names that a manifest uses."""
    if "offset" in keys:
        return []
    times = [key for key in keys if key.lower().replace("_time", "") in ("start", "end", "begin", "onset", "stop")]
    note = f"{place}: {', '.join(times)}: not used: windows of a recording need 'offset' and 'duration' (seconds)"
    return [note] if times else []


def is_common_voice(path: Path) -> bool:
    """Whether the header is that of a Common Voice table."""
    with suppress(ManifestError), opened(path, ManifestError) as file:
        header = file.readline().decode("utf-8-sig", "replace").splitlines() or [""]
        return {"client_id", "path", "sentence"} <= set(header[0].split("\t"))
    return False


def write_table(path: Path, manifest: Sequence[Utterance], separator: str) -> None:
    """Write CSV (",") or TSV ("\\t") with a header, atomically; audio paths are as in manifests, nested values JSON."""
    header = list(dict.fromkeys(key for utterance in manifest for key in manifest_row(utterance, "")))
    relative = PathWriter(path.parent)
    rows = (manifest_row(utterance, relative(utterance.audio_filepath)) for utterance in manifest)
    lines = chain([header], ([_text(row.get(column, "")) for column in header] for row in rows))
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        if separator == "\t":
            file.writelines("\t".join(map(_literal, line)) + "\n" for line in lines)
        else:
            csv.writer(file, delimiter=separator, lineterminator="\n").writerows(lines)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> str:
    """A field of a tab-separated file: without tabs and line ends, and quoted if reading would remove its quotes."""
    text = " ".join(text.splitlines()).replace("\t", " ")
    return '"' + text.replace('"', '""') + '"' if text != _unquoted(text) else text


def _unquoted(text: str) -> str:
    inner = text[1:-1]
    if len(text) < 2 or not (text.startswith('"') and text.endswith('"')) or '"' in inner.replace('""', ""):
        return text
    return inner.replace('""', '"')


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of each non-empty line."""
    if separator == "\t":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, [_unquoted(field) for field in line.split("\t")]
        return
    csv.field_size_limit(1 << 24)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    for record in reader:
        if any(record):
            yield reader.line_num, record
