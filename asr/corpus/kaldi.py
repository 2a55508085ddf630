"""Kaldi data directories: wav.scp, text, utt2spk and segments, read and written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.corpus.manifest import Manifest, full_path
from asr.files import write_text
from asr.types import ManifestError


def read_kaldi(folder: Path) -> Iterator[dict[str, Any]]:
    """Manifest rows of a Kaldi directory, in the order of its utterances.

    Relative audio paths are taken from the current folder, as Kaldi does, or else from the directory itself. Raises
    ManifestError with file and line: commands in wav.scp, audio without text or text without audio, unknown recordings.
    """
    audio = {name: _audio_path(folder, line, path) for name, (line, path) in _table(folder / "wav.scp").items()}
    texts = _table(folder / "text", may_be_empty=True)
    speakers = _table(folder / "utt2spk") if (folder / "utt2spk").exists() else {}
    if (folder / "segments").exists():
        windows = dict(_windows(folder / "segments", audio))
        listed = folder / "segments"
    else:
        windows = {name: {"audio_filepath": path} for name, path in audio.items()}
        listed = folder / "wav.scp"
    for name, (line, _) in texts.items():
        if name not in windows:
            raise ManifestError(f"{folder / 'text'}:{line}: utterance '{name}' is not in {listed}: {_MEND}")
    for name, window in windows.items():
        if name not in texts:
            raise ManifestError(f"{listed}: utterance '{name}' has no line in {folder / 'text'}: {_MEND}")
        speaker = speakers.get(name, (0, name))[1]
        row = {"id": name, **window, "text": texts[name][1]}
        yield row if speaker == name else {**row, "speaker": speaker}  # Kaldi's way to say that it is not known


_MEND = "add it, or remove the other (utils/fix_data_dir.sh)"


def write_kaldi(folder: Path, manifest: Manifest) -> None:
    """Write a Kaldi directory with absolute audio paths, sorted as Kaldi wants it (LC_ALL=C).

    With segments where any utterance is a window of a recording. What Kaldi has no file for (split, other keys) is
    lost. Raises ManifestError for what it cannot express: ids with spaces, and single channels of a recording.
    """
    segmented = any(utterance.segment for utterance in manifest)
    files: dict[str, dict[str, str]] = {"text": {}, "utt2spk": {}, **({"segments": {}} if segmented else {})}
    recordings: dict[str, str] = {}  # name -> path
    names: dict[str, str] = {}  # the other way round, of segmented recordings
    for utterance in manifest:
        name, speaker = utterance.id, utterance.speaker or utterance.id
        for kind, value in (("id", name), ("speaker", speaker)):
            if any(c.isspace() for c in value):
                raise ManifestError(f"utterance '{name}': a Kaldi {kind} cannot hold spaces ('{value}'): rename it")
        if utterance.channel is not None:
            raise ManifestError(
                f"utterance '{name}': Kaldi reads single channels by a command only: split the audio first"
            )
        files["text"][name] = utterance.text
        files["utt2spk"][name] = speaker
        path = full_path(utterance.audio_filepath)
        if segmented:
            if path not in names:
                names[path] = _recording_name(path, recordings)
                recordings[names[path]] = path
            end = round(utterance.offset + utterance.duration, 6)
            files["segments"][name] = f"{names[path]} {utterance.offset:.10g} {end:.10g}"
        else:
            recordings[name] = path
    files["wav.scp"] = recordings
    by_speaker: dict[str, list[str]] = {}
    for name, speaker in files["utt2spk"].items():
        by_speaker.setdefault(speaker, []).append(name)
    files["spk2utt"] = {speaker: " ".join(sorted(names, key=_bytes)) for speaker, names in by_speaker.items()}
    for file, table in files.items():
        lines = (f"{key} {table[key]}".rstrip() + "\n" for key in sorted(table, key=_bytes))
        write_text(folder / file, "".join(lines))
    if not segmented:
        (folder / "segments").unlink(missing_ok=True)  # of an earlier conversion, it would not fit


def _bytes(name: str) -> bytes:
    return name.encode("utf-8")


def _recording_name(path: str, taken: dict[str, str]) -> str:
    """The file name without extension where it is free, else the whole path."""
    name = "_".join(Path(path).stem.split())
    return name if name not in taken else "_".join(path.lstrip("/").replace("/", "_").split())


def _table(path: Path, *, may_be_empty: bool = False) -> dict[str, tuple[int, str]]:
    """key -> (line number, rest of the line)."""
    table: dict[str, tuple[int, str]] = {}
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                key, _, rest = line.strip().replace("\t", " ").partition(" ")
                if not key:
                    continue
                if key in table:
                    raise ManifestError(f"{path}:{number}: '{key}' is already on line {table[key][0]}: remove one")
                if not rest and not may_be_empty:
                    raise ManifestError(f"{path}:{number}: '{key}' stands alone: complete or remove the line")
                table[key] = (number, rest.strip())
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 (byte {error.start}): save the file as UTF-8") from error
    return table


def _audio_path(folder: Path, line: int, written: str) -> str:
    place = f"{folder / 'wav.scp'}:{line}"
    if written.endswith("|"):
        raise ManifestError(f"{place}: '{_cut(written)}' is a command: write its output to a file and name that here")
    path = Path(written)
    archive, _, position = written.rpartition(":")
    if archive and position.isdigit() and not path.exists():
        raise ManifestError(f"{place}: '{_cut(written)}' lies inside a Kaldi archive: copy it to a file (wav-copy)")
    return str(path.absolute() if path.exists() else folder.absolute() / path)


def _windows(path: Path, audio: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, (line, rest) in _table(path).items():
        try:
            recording, start, end = rest.split()[:3]
            offset, stop = float(start), float(end)
        except ValueError as error:
            raise ManifestError(f"{path}:{line}: expected 'UTTERANCE RECORDING START END' in seconds") from error
        if recording not in audio:
            raise ManifestError(f"{path}:{line}: recording '{recording}' is not in wav.scp: {_MEND}")
        row: dict[str, Any] = {"audio_filepath": audio[recording], "offset": offset}
        if stop != -1:  # Kaldi's "to the end"
            if stop <= offset:
                raise ManifestError(f"{path}:{line}: the end ({end} s) is not after the start ({start} s): correct it")
            row["duration"] = round(stop - offset, 6)
        yield name, row


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:40] + " ... " + text[-15:]
