"""CSV and TSV files with named columns, Common Voice's among them, read as manifest rows and written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from asr.config import nearest
from asr.corpus.manifest import PathWriter, Utterance, full_path
from asr.corpus.rows import base_folder
from asr.files import opened, read_text, replacing
from asr.types import ManifestError, UsageError

# our key: what other tools call the column, the likeliest first
_NAMES: dict[str, tuple[str, ...]] = {
    "audio_filepath": (
        *("audio_filepath", "wav_filename", "audio_path", "audio_file", "path", "wav", "audio", "file", "filename"),
        *("file_name", "filepath"),
    ),
    "text": ("text", "transcript", "sentence", "transcription", "wrd", "txt", "normalized_text"),
    "id": ("id", "utt_id", "utterance_id", "key"),
    "speaker": ("speaker", "spk_id", "speaker_id", "client_id", "spk"),
}
NEEDED = ("audio", "text")
_NUMBERS = ("duration", "offset", "channel")
_BASE = ("id", "audio_filepath", "duration", "text")


@dataclass(frozen=True)
class Columns:
    """Names of the columns that hold audio, text, id and speaker; "" to find them by their usual names."""

    audio: str = ""
    text: str = ""
    id: str = ""
    speaker: str = ""

    def mapping(self, present: Sequence[str], place: str, needed: Collection[str] = NEEDED) -> dict[str, str]:
        """column -> our key; raises UsageError for a named column that is not there, ManifestError for a needed one."""
        chosen: dict[str, str] = {}
        for field, key in zip(fields(self), ("audio_filepath", "text", "id", "speaker"), strict=True):
            asked = getattr(self, field.name)
            if asked and asked not in present:
                raise UsageError(f"{place}: no column '{asked}'{nearest(asked, present)}")
            lowered = {column.lower(): column for column in reversed(present)}
            column = asked or next((lowered[name] for name in _NAMES[key] if name in lowered), "")
            if column:
                chosen[column] = key
            elif field.name in needed:
                raise ManifestError(
                    f"{place}: no column for the {field.name} (found: {', '.join(present)}): name it with "
                    f"--{field.name}-column, the first line must name the columns"
                )
        return chosen

    def rename(self, row: dict[str, Any], place: str) -> dict[str, Any]:
        """`row` with our keys."""
        chosen = self.mapping(list(row), place)
        kept = {f"original_{key}" if key in chosen.values() else key: row[key] for key in row if key not in chosen}
        return {**{chosen[column]: row[column] for column in row if column in chosen}, **kept}


BY_USUAL_NAMES = Columns()


def read_table(
    path: Path, *, columns: Columns = BY_USUAL_NAMES, clips: bool = False, notes: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Manifest rows of a CSV or TSV file with a header; columns without a meaning for us are kept as they are.

    The separator is found in the header. Fields of tab-separated files are taken literally, except that one in quotes
    with all quotes inside doubled is unquoted. With `clips` (Common Voice) audio lies in `clips/` beside the file. An
    empty row stands for each header or skipped line, so that row numbers are line numbers. Raises ManifestError,
    UsageError.
    """
    yield from table_rows(path, read_text(path, ManifestError), columns=columns, clips=clips, notes=notes)


def table_rows(
    path: Path,
    text: str,
    *,
    columns: Columns = BY_USUAL_NAMES,
    clips: bool = False,
    needed: Collection[str] = NEEDED,
    notes: list[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of `read_table` from the text of a table; `needed` are the columns that must be there."""
    separator = max("\t,;|", key=text.partition("\n")[0].count)
    try:
        records = _records(io.StringIO(text, newline=""), separator)
        yield from _rows(path, records, columns, clips, needed, [] if notes is None else notes)
    except csv.Error as error:
        raise ManifestError(f"{path}: not a table ({error}): save it as CSV or TSV in UTF-8") from error


def unused_times(keys: Iterable[str], place: str) -> list[str]:
    """A note where columns look like the times of a window, but are not called what a manifest calls them."""
    if "offset" in keys:
        return []
    times = [key for key in keys if key.lower().replace("_time", "") in ("start", "end", "begin", "onset", "stop")]
    named = f"{place}: {', '.join(times)}: not used: say 'offset' and 'duration' (seconds) for windows of a recording"
    return [named] if times else []


def is_common_voice(path: Path) -> bool:
    """Whether the header is that of a Common Voice table."""
    with suppress(ManifestError), opened(path, ManifestError) as file:
        header = file.readline().decode("utf-8-sig", "replace").splitlines() or [""]
        return {"client_id", "path", "sentence"} <= set(header[0].split("\t"))
    return False


def write_table(path: Path, manifest: Sequence[Utterance], separator: str) -> None:
    """Write CSV (",") or TSV ("\\t") with a header, atomically; audio paths as in a manifest, nested values as JSON."""
    present: dict[str, None] = dict.fromkeys(_BASE)
    for utterance in manifest:
        present |= dict.fromkeys(_cells(utterance, ""))
    written = PathWriter(path.parent)
    _write(path, list(present), (_cells(u, written(u.audio_filepath)) for u in manifest), separator)


def write_common_voice(path: Path, manifest: Sequence[Utterance]) -> None:
    """Write a Common Voice table: `path` is relative to `clips/` beside it where the audio lies there, else absolute.

    Raises ManifestError for windows and single channels of recordings, which such a table cannot express.
    """
    clips = path.absolute().parent / "clips"
    extra: dict[str, None] = {}
    named = False
    for utterance in manifest:
        if utterance.segment or utterance.channel is not None:
            raise ManifestError(f"utterance '{utterance.id}': Common Voice has whole files only: cut the audio first")
        extra |= dict.fromkeys(utterance.extra)
        named |= utterance.id != Path(utterance.audio_filepath).stem

    def row(utterance: Utterance) -> dict[str, Any]:
        audio = Path(full_path(utterance.audio_filepath))
        shown = audio.relative_to(clips) if audio.is_relative_to(clips) else audio
        own = {"client_id": utterance.speaker, "path": str(shown), "sentence": utterance.text, "id": utterance.id}
        return {**utterance.extra, **own}

    header = ["client_id", "path", "sentence", *extra, *(["id"] if named else [])]
    _write(path, header, map(row, manifest), "\t")


def _cells(utterance: Utterance, audio_filepath: str) -> dict[str, Any]:
    cells: dict[str, Any] = {key: getattr(utterance, key) for key in _BASE}
    cells["audio_filepath"] = audio_filepath
    if utterance.segment:
        cells["offset"] = utterance.offset
    for key in ("speaker", "split", "channel"):
        if getattr(utterance, key) not in ("", None):
            cells[key] = getattr(utterance, key)
    return {**cells, **utterance.extra}


def _write(path: Path, header: list[str], rows: Iterator[dict[str, Any]], separator: str) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        if separator == "\t":
            lines = ("\t".join(_literal(_text(row.get(column, ""))) for column in header) for row in rows)
            file.write("\t".join(map(_literal, header)) + "\n")
            file.writelines(line + "\n" for line in lines)
        else:
            writer = csv.writer(file, delimiter=separator, lineterminator="\n")
            writer.writerow(header)
            writer.writerows([_text(row.get(column, "")) for column in header] for row in rows)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _literal(text: str) -> str:
    """As a field of a tab-separated file: without tabs and line ends; quoted where reading would take quotes off."""
    text = " ".join(text.splitlines()).replace("\t", " ")
    return '"' + text.replace('"', '""') + '"' if text != _unquoted(text) else text


def _unquoted(text: str) -> str:
    inner = text[1:-1]
    if len(text) < 2 or not (text.startswith('"') and text.endswith('"')) or '"' in inner.replace('""', ""):
        return text
    return inner.replace('""', '"')


def _records(file: Any, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of each line that has any."""
    if separator == "\t":
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, [_unquoted(field) for field in line.rstrip("\r\n").split("\t")]
        return
    csv.field_size_limit(1 << 24)
    reader = csv.reader(file, delimiter=separator, strict=True)
    for record in reader:
        if any(record):
            yield reader.line_num, record


def _rows(
    path: Path,
    records: Iterator[tuple[int, list[str]]],
    columns: Columns,
    clips: bool,
    needed: Collection[str],
    notes: list[str],
) -> Iterator[dict[str, Any]]:
    at, header = next(records, (0, []))
    header = [column.strip() for column in header]
    if len(set(header)) != len(header):
        raise ManifestError(f"{path}:{at}: a column name stands twice: rename one")
    renamed = columns.mapping(header, f"{path}:{max(at, 1)}", needed)
    keys = [
        renamed.get(column, column.lower() if column.lower() in (*_NUMBERS, "split") else column) for column in header
    ]
    keys = [
        f"original_{key}" if keys.count(key) > 1 and column not in renamed else key
        for key, column in zip(keys, header, strict=True)
    ]
    notes += unused_times(keys, f"{path}:{at}")
    folder = Path(base_folder(path), "clips" if clips else "")
    done = 0
    for number, record in records:
        if len(record) != len(header):
            raise ManifestError(
                f"{path}:{number}: {len(record)} fields, the header has {len(header)}: quote what holds the separator"
            )
        row: dict[str, Any] = {key: value for key, value in zip(keys, record, strict=True) if value or key == "text"}
        for key in _NUMBERS:
            with suppress(ValueError):  # what is no number is refused as a manifest's row is, by name
                if key in row:
                    row[key] = int(row[key]) if key == "channel" else float(row[key])
        if "audio_filepath" in row:
            row["audio_filepath"] = str(folder / row["audio_filepath"])
        if clips:
            row.setdefault("split", path.stem)
        yield from ({} for _ in range(number - done - 1))
        done = number
        yield row
