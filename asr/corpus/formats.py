"""Reading corpora in other tools' formats as manifests, and writing manifests in them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from asr.audio.members import file_of
from asr.corpus.kaldi import read_kaldi, write_kaldi
from asr.corpus.manifest import Manifest, Utterance, audio_seconds, write_manifest
from asr.corpus.pairs import is_pairs, read_pairs
from asr.corpus.rows import base_folder
from asr.corpus.tables import (
    BY_USUAL_NAMES,
    Columns,
    is_common_voice,
    table_rows,
    unused_times,
    write_table,
)
from asr.files import read_text, walk
from asr.text.normalize import normalizer as normalizer_named
from asr.types import AudioError, ManifestError, UsageError

SOURCES = ("jsonl", "kaldi", "librispeech", "pairs", "csv", "tsv", "commonvoice")
TARGETS = ("jsonl", "kaldi", "csv", "tsv")
_CHUNK = 2048


def read_corpus(
    source: str | Path,
    kind: str = "",
    *,
    columns: Columns = BY_USUAL_NAMES,
    normalizer: str = "none",
    unreadable: list[str] | None = None,
    notes: list[str] | None = None,
) -> Manifest:
    """A corpus of any of SOURCES (`kind`, "" to detect it) as a manifest in memory, with normalized texts.

    Missing durations are read from the headers of the audio files. Audio that cannot be read raises AudioError or, with
    a list for `unreadable`, is left out and described there. Unused parts of the corpus are described in `notes`.
    Raises ManifestError and UsageError.
    """
    path = Path(source)
    kind = kind or source_kind(path)
    notes = [] if notes is None else notes
    normalize = normalizer_named(normalizer)
    rows = _rows(path, kind, columns, notes)
    normalized = ({**row, "text": normalize(row["text"])} if isinstance(row.get("text"), str) else row for row in rows)
    manifest = Manifest.from_rows(_with_durations(normalized, unreadable), str(path))
    folder = path.absolute() if path.is_dir() else Path(base_folder(path), "clips" if kind == "commonvoice" else "")
    if not len(manifest):
        if not unreadable:
            raise ManifestError(f"{path}: no utterances in it")
        hint = _path_hint(unreadable[0].partition(": ")[0], folder)
        raise ManifestError(f"{path}: none of its audio can be read, the first is {unreadable[0]}{hint}")
    if not any(_exists(utterance.audio_filepath) for utterance in manifest):
        first = manifest[0].audio_filepath
        notes.append(f"{path}: none of its audio exists here, the first is {first}{_path_hint(first, folder)}")
    return manifest


def _exists(path: str | Path) -> bool:
    return os.path.exists(file_of(str(path)))  # noqa: PTH110 - a path may be too long for Path.exists


def _path_hint(audio: str, folder: Path) -> str:
    """A hint that says where relative audio paths start, and whether they start at the current folder instead."""
    if not Path(audio).is_relative_to(folder):
        return ""
    written = Path(audio).relative_to(folder)
    here = f"; {written} is in the current folder: move the table there" if _exists(written) else ""
    return f" (relative paths start at {folder}{here})"


def write_corpus(target: str | Path, manifest: Sequence[Utterance], kind: str = "") -> list[str]:
    """Write `manifest` as one of TARGETS (`kind`, "" to go by the name), replacing files atomically.

    Returns the keys that the format cannot express.
    """
    path = Path(target)
    kind = kind or target_kind(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "kaldi":
        return write_kaldi(path, manifest)
    if kind in ("csv", "tsv"):
        write_table(path, manifest, "," if kind == "csv" else "\t")
    else:
        write_manifest(path, manifest)
    return []


def source_kind(path: Path) -> str:
    """Which of SOURCES `path` is. Raises UsageError if that is unclear, ManifestError if it does not exist."""
    if path.is_dir():
        if (path / "wav.scp").exists():
            return "kaldi"
        if is_librispeech(path):
            return "librispeech"
        tables = sorted(file.name for file in path.glob("*.tsv") if is_common_voice(file))
        if tables:
            raise UsageError(f"{path}: a Common Voice folder: give one of its tables ({', '.join(tables)})")
        if is_pairs(path):
            return "pairs"
        raise UsageError(
            f"{path}: neither a Kaldi directory (wav.scp), nor a LibriSpeech folder (*.trans.txt), nor recordings with "
            "texts beside them (x.wav and x.txt)"
        )
    if not path.exists() and str(path) != "-":
        raise ManifestError(f"{path}: no such file or folder")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix == ".tsv":
        return "commonvoice" if is_common_voice(path) else "tsv"
    kind = {".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl"}.get(suffix)
    if kind is None:
        raise UsageError(f"{path}: cannot tell the format by the name: give --from {'|'.join(SOURCES)}")
    return kind


def target_kind(path: Path) -> str:
    """Which of TARGETS a file name stands for, by its extension; a folder stands for Kaldi."""
    kinds = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl", "": "kaldi"}
    kind = "kaldi" if path.is_dir() else kinds.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: cannot tell the format by the name: give --to {'|'.join(TARGETS)}")
    return kind


def _rows(path: Path, kind: str, columns: Columns, notes: list[str]) -> Iterator[dict[str, Any]]:
    if kind in ("kaldi", "librispeech", "pairs"):
        if not path.is_dir():
            raise UsageError(f"{path}: --from {kind} needs a folder")
        if kind == "librispeech":
            return read_librispeech(path)
        return read_kaldi(path, notes) if kind == "kaldi" else read_pairs(path, notes)
    if kind == "jsonl":
        return _json_rows(path, columns, notes)
    if kind in ("csv", "tsv", "commonvoice"):
        text = read_text(path, ManifestError)
        return table_rows(path, text, columns=columns, clips=kind == "commonvoice", notes=notes)
    raise UsageError(f"unknown format '{kind}': one of {', '.join(SOURCES)}")


def _json_rows(path: Path, columns: Columns, notes: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of JSON lines, or of one JSON array, with other tools' keys renamed to ours."""
    folder = Path(base_folder(path))
    unchecked, silent = True, 0
    for number, row in enumerate(_json_values(path), start=1):
        if not isinstance(row, dict):
            raise ManifestError(f"{path}: value {number} is not a JSON object")
        if not row:
            yield row
            continue
        if is_lhotse(row):
            silent += row.get("supervisions") == []
            yield from read_cut(row, folder, f"{path}:{number}")
            continue
        keys = columns.keys(list(row), f"{path}:{number}")
        renamed = {keys[column]: value for column, value in row.items()}
        notes += unused_times(renamed, f"{path}:{number}") if unchecked else []
        unchecked = False
        if isinstance(renamed.get("audio_filepath"), str):
            renamed["audio_filepath"] = str(folder / renamed["audio_filepath"])
        yield renamed
    if silent:
        notes.append(f"{path}: left out: {silent} cut{'s' * (silent != 1)} without a supervision")


def _json_values(path: Path) -> Iterator[Any]:
    """The elements of an array, or the value of each line, {} for a blank one."""
    text, place = read_text(path, ManifestError), ""
    try:
        if text.lstrip().startswith("["):
            yield from json.loads(text)
            return
        for number, line in enumerate(io.StringIO(text), start=1):
            place = f"{path}:{number}"
            yield json.loads(line) if line.strip() else {}
    except json.JSONDecodeError as error:
        place = place or f"{path}:{error.lineno}"
        raise ManifestError(f"{place}: not valid JSON ({error.msg} at column {error.colno})") from error


def _with_durations(rows: Iterator[dict[str, Any]], unreadable: list[str] | None) -> Iterator[dict[str, Any]]:
    """Rows with `duration`, read from audio headers where missing; rows of unreadable audio become empty."""
    from tqdm import tqdm

    bar: dict[str, Any] = {"desc": "reading", "unit": " rows", "leave": False, "disable": None}
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool, tqdm(**bar) as progress:
        while chunk := list(islice(rows, _CHUNK)):
            for row, duration in zip(chunk, pool.map(_duration, chunk), strict=True):
                progress.update()
                if not isinstance(duration, str):
                    yield row if duration is None else {**row, "duration": duration}
                elif unreadable is None:
                    raise AudioError(duration)
                else:
                    unreadable.append(duration)
                    yield {}


def _duration(row: dict[str, Any]) -> float | str | None:
    """The missing duration of a row in seconds, None if it is not missing, or an error message."""
    path, offset = row.get("audio_filepath"), row.get("offset")
    if row.get("duration") is not None or not isinstance(path, str):
        return None
    try:
        return audio_seconds(path, offset if isinstance(offset, int | float) else 0.0)
    except AudioError as error:
        return str(error)


_READ = ("id", "recording_id", "start", "duration", "channel", "text", "alignment")  # keys of a supervision


def is_lhotse(row: dict[str, Any]) -> bool:
    """Whether a JSON object is a cut, recording or supervision of lhotse."""
    return bool({"supervisions", "sources", "recording_id"} & row.keys()) and "audio_filepath" not in row


def read_cut(cut: dict[str, Any], folder: Path, place: str) -> Iterator[dict[str, Any]]:
    """A manifest row for each supervision of a cut; relative audio paths start at the current folder or `folder`.

    Raises ManifestError, beginning with `place`, for supervisions or recordings alone, and for cuts that are anything
    but a window of one channel, or of all channels, of a file: mixed, padded, or transformed.
    """
    if "supervisions" not in cut:
        raise ManifestError(
            f"{place}: one half of a lhotse corpus: join both halves with 'lhotse cut simple -r RECORDINGS "
            "-s SUPERVISIONS cuts.jsonl.gz' and convert the result"
        )
    recording = cut.get("recording") or {}
    sources = recording.get("sources") or []
    if cut.get("type", "MonoCut") not in ("MonoCut", "MultiCut", "Cut") or len(sources) != 1:
        raise ManifestError(
            f"{place}: a lhotse {cut.get('type', 'cut')} that is not a window of one file: export its audio first"
        )
    if sources[0].get("type") != "file" or recording.get("transforms"):
        what = "a transformed recording" if recording.get("transforms") else f"audio of type '{sources[0].get('type')}'"
        raise ManifestError(f"{place}: {what}: export it to files with lhotse first")
    path = Path(sources[0]["source"])
    audio = str(path.absolute() if path.exists() else folder / path)
    channels = set(sources[0].get("channels") or [0])
    for supervision in cut["supervisions"]:
        channel = supervision.get("channel", 0)
        chosen = set(channel) if isinstance(channel, list) else {channel}
        if chosen != channels and not (len(chosen) == 1 and chosen < channels):
            raise ManifestError(f"{place}: channels {sorted(chosen)} of {sorted(channels)}: give one, or all")
        row: dict[str, Any] = {key: value for key, value in supervision.items() if key not in _READ and value}
        row |= {"id": str(supervision["id"]), "audio_filepath": audio, "text": supervision.get("text") or ""}
        if chosen != channels:
            row["channel"] = min(chosen)
        offset = round(cut.get("start", 0.0) + supervision.get("start", 0.0), 6)
        if (offset, supervision.get("duration")) != (0.0, recording.get("duration")):
            row["offset"] = offset
        yield {**row, "duration": supervision["duration"]}


_EXTENSIONS = (".flac", ".wav", ".ogg", ".opus", ".mp3")


def is_librispeech(folder: Path) -> bool:
    """Whether there are transcripts of LibriSpeech's layout in `folder` or up to four levels below."""
    return any(next(folder.glob(f"{'*/' * depth}*.trans.txt"), None) for depth in range(5))


def read_librispeech(folder: Path) -> Iterator[dict[str, Any]]:
    """Manifest rows of everything below `folder`, which may be the whole corpus, a split, a speaker or a chapter.

    Links to folders are followed. Speaker and split are taken from ids and folder names. Raises ManifestError with file
    and line for a transcript without audio, and for audio without a transcript.
    """
    problems: list[str] = []
    count = 0
    for below, names in walk(folder, problems):
        if problems:
            raise ManifestError(problems[0])
        chapter = below.absolute()
        audio = {Path(name).stem: chapter / name for name in names if Path(name).suffix.lower() in _EXTENSIONS}
        transcripts = [below / name for name in names if name.endswith(".trans.txt")]
        if audio and len(transcripts) != 1:
            raise ManifestError(
                f"{next(iter(audio.values()))}: {len(transcripts) or 'no'} *.trans.txt beside it: {_REMEDY}"
            )
        count += len(transcripts)
        for transcript in transcripts:
            yield from _chapter(transcript, chapter, audio)
    if not count:
        raise ManifestError(f"{folder}: no *.trans.txt below: not a LibriSpeech folder")


def _chapter(transcript: Path, chapter: Path, audio: dict[str, Path]) -> Iterator[dict[str, Any]]:
    split = chapter.parent.parent.name
    for number, line in enumerate(read_text(transcript, ManifestError).split("\n"), start=1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        if name not in audio:
            raise ManifestError(f"{transcript}:{number}: no audio '{name}.flac' beside it: {_REMEDY}")
        row = {"id": name, "audio_filepath": str(audio.pop(name)), "text": text.strip()}
        yield {**row, "speaker": name.partition("-")[0], "split": split}
    if audio:
        raise ManifestError(f"{next(iter(audio.values()))}: no line in {transcript.name}: {_REMEDY}")


_REMEDY = "unpack the archive again"
