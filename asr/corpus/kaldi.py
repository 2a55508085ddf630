"""Reading and writing Kaldi data directories (wav.scp, text, utt2spk, segments and the like)."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from asr.corpus.manifest import Utterance, full_path
from asr.files import read_text, write_text
from asr.types import AudioError, ManifestError


def read_kaldi(folder: Path, notes: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Manifest rows of a Kaldi directory, in the order of its utterances.

    Relative audio paths start at the current folder, as in Kaldi, or else at the directory itself. The channel is taken
    from the segments, from reco2file_and_channel (unless the recording has only one), or from the command in wav.scp.
    `utt2lang` and `spk2gender` become `lang` and `gender`; unused files are listed in `notes`. Raises ManifestError
    with file and line for commands in wav.scp that do more than unpack a file, audio without text or text without
    audio, unknown recordings or channels, and extra columns.
    """
    _channel_count.cache_clear()  # the files may have changed
    audio = _recordings(folder)
    extracted = {name for name, row in audio.items() if "channel" in row}
    _add_channels(folder / "reco2file_and_channel", audio)
    texts = _table(folder / "text", may_be_empty=True)
    listed = folder / "segments"
    if listed.exists():
        windows = dict(_windows(listed, audio, extracted))
    else:
        windows, listed = audio, folder / "wav.scp"
    for name, (line, _) in texts.items():
        if name not in windows:
            raise ManifestError(f"{folder / 'text'}:{line}: utterance '{name}' is not in {listed}: {_REMEDY}")
    if missing := next((name for name in windows if name not in texts), None):
        raise ManifestError(f"{listed}: utterance '{missing}' has no line in {folder / 'text'}: {_REMEDY}")
    speakers = _values(folder / "utt2spk", windows)
    genders, languages = _values(folder / "spk2gender"), _values(folder / "utt2lang")
    if notes is not None:
        unused = sorted(entry.name for entry in folder.iterdir() if entry.name not in _USED and entry.name[0] != ".")
        notes += [f"{folder}: not used: {', '.join(unused)}"] if unused else []
        paths = {str(row["audio_filepath"]) for row in windows.values() if "offset" in row and "channel" not in row}
        if mixed := sorted(path for path in paths if _channel_count(path) > 1):
            notes.append(f"{listed}: no channel given for recordings with several ({mixed[0]}): they will be mixed")
    for name, window in windows.items():
        speaker = speakers.get(name, name)
        row = {"id": name, **window, "text": texts[name][1]}
        if speaker != name:  # Kaldi names an unknown speaker after the utterance
            row["speaker"] = speaker
        if name in languages:
            row["lang"] = languages[name]
        if speaker in genders:
            row["gender"] = genders[speaker]
        yield row


_OPTIONAL = ("segments", "reco2file_and_channel", "spk2gender", "utt2lang")
_USED = frozenset(("wav.scp", "text", "utt2spk", "spk2utt", *_OPTIONAL))
_REMEDY = "add it, or remove the other (utils/fix_data_dir.sh)"


def write_kaldi(folder: Path, manifest: Sequence[Utterance]) -> list[str]:
    """Write a Kaldi directory with absolute audio paths, sorted as Kaldi requires (LC_ALL=C).

    It has segments if any utterance is a window of a recording. A single channel becomes a recording of its own,
    extracted by a sox command, and a line in reco2file_and_channel. Returns the keys that are lost because Kaldi has no
    file for them (split, and all others but lang and gender). Raises ManifestError for ids with spaces, which Kaldi
    cannot express.
    """
    segmented = any(utterance.segment for utterance in manifest)
    files: dict[str, dict[str, str]] = {"text": {}, "utt2spk": {}, **({"segments": {}} if segmented else {})}
    recordings: dict[str, str] = {}  # name -> entry of wav.scp
    names: dict[tuple[str, int | None], str] = {}  # (path, channel) -> name, of segmented recordings
    channels: dict[str, str] = {}
    lost: set[str] = set()
    for utterance in manifest:
        name, speaker = utterance.id, utterance.speaker or utterance.id
        for kind, value in (("id", name), ("speaker", speaker)):
            if any(c.isspace() for c in value):
                raise ManifestError(f"utterance '{name}': a Kaldi {kind} cannot have spaces ('{value}'): rename it")
        files["text"][name] = utterance.text
        files["utt2spk"][name] = speaker
        lost |= {*utterance.extra, *(["split"] if utterance.split else [])}
        for file, key, owner in (("utt2lang", "lang", name), ("spk2gender", "gender", speaker)):
            if key in utterance.extra:
                files.setdefault(file, {})[owner] = "_".join(str(utterance.extra[key]).split())
        path, channel = full_path(utterance.audio_filepath), utterance.channel
        recording = name
        if segmented:
            known = names.get((path, channel))
            recording = names[path, channel] = known or _recording_name(path, channel, recordings)
            end = round(utterance.offset + utterance.duration, 6)
            files["segments"][name] = f"{recording} {utterance.offset:.10g} {end:.10g}"
        recordings[recording] = path if channel is None else f"sox {shlex.quote(path)} -t wav - remix {channel + 1} |"
        if channel is not None:
            channels[recording] = f"{'_'.join(Path(path).stem.split())} {_letter(channel)}"
    files["wav.scp"] = recordings
    if channels:
        files["reco2file_and_channel"] = channels
    by_speaker: dict[str, list[str]] = {}
    for name, speaker in files["utt2spk"].items():
        by_speaker.setdefault(speaker, []).append(name)
    files["spk2utt"] = {speaker: " ".join(sorted(names, key=str.encode)) for speaker, names in by_speaker.items()}
    for file, table in files.items():
        lines = (f"{key} {table[key]}".rstrip() + "\n" for key in sorted(table, key=str.encode))
        write_text(folder / file, "".join(lines))
    for file in {*_OPTIONAL} - files.keys():
        (folder / file).unlink(missing_ok=True)  # a file left by an earlier conversion would not match
    return sorted(lost - {"lang", "gender"})


def _recording_name(path: str, channel: int | None, taken: dict[str, str]) -> str:
    """The file name without extension, plus the channel; if that is taken, the whole path."""
    ending = "" if channel is None else f"-{_letter(channel)}"
    name = "_".join(Path(path).stem.split()) + ending
    return name if name not in taken else "_".join(path.lstrip("/").replace("/", "_").split()) + ending


def _table(path: Path, *, may_be_empty: bool = False) -> dict[str, tuple[int, str]]:
    """key -> (line number, rest of the line)."""
    table: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(read_text(path, ManifestError).split("\n"), start=1):
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        if not key:
            continue
        if key in table:
            raise ManifestError(f"{path}:{number}: '{key}' is already on line {table[key][0]}: remove one")
        if not rest and not may_be_empty:
            raise ManifestError(f"{path}:{number}: '{key}' has no value: complete or remove the line")
        table[key] = (number, rest.strip())
    return table


def _values(path: Path, keys: Collection[str] = ()) -> dict[str, str]:
    """A table of two columns, {} if there is none; with `keys`, it must have a line for each of these and no others."""
    table = _table(path) if path.exists() else {}
    for key, (line, value) in table.items():
        if len(value.split()) > 1:
            raise ManifestError(f"{path}:{line}: unexpected third column '{value.split()[1]}': remove it")
        if keys and key not in keys:
            raise ManifestError(f"{path}:{line}: '{key}' is in none of the other files: {_REMEDY}")
    if table and (missing := next((key for key in keys if key not in table), None)):
        raise ManifestError(f"{path}: no line for '{missing}': {_REMEDY}")
    return {key: value for key, (_, value) in table.items()}


def _recordings(folder: Path) -> dict[str, dict[str, Any]]:
    """name -> audio_filepath, and channel if a command extracts one."""
    rows: dict[str, dict[str, Any]] = {}
    for name, (line, entry) in _table(folder / "wav.scp").items():
        file, channel = parse_entry(entry, f"{folder / 'wav.scp'}:{line}")
        path = Path(file)
        rows[name] = {"audio_filepath": str(path.absolute() if path.exists() else folder.absolute() / path)}
        if channel is not None:
            rows[name]["channel"] = channel
    return rows


def _add_channels(listed: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Add the channels of reco2file_and_channel to recordings that have several."""
    for name, (line, rest) in (_table(listed) if listed.exists() else {}).items():
        _, _, letter = rest.rpartition(" ")
        if len(rest.split()) != 2:
            raise ManifestError(f"{listed}:{line}: expected 'RECORDING FILE CHANNEL'")
        if name not in rows:
            raise ManifestError(f"{listed}:{line}: recording '{name}' is not in wav.scp: {_REMEDY}")
        row = rows[name]
        if "channel" not in row and _channel_count(row["audio_filepath"]) != 1:
            if letter.isdecimal():  # ambiguous: from 0 as in segments, or from 1 as in NIST's files
                raise ManifestError(f"{listed}:{line}: channel '{letter}' is ambiguous: write a letter, A is the first")
            row["channel"] = _channel(letter, row["audio_filepath"], f"{listed}:{line}")


def _letter(channel: int) -> str:
    return chr(ord("A") + channel) if channel < 26 else str(channel)


def _channel(name: str, path: str, place: str) -> int:
    """The channel, from 0, that a letter (A is the first) or a number from 0 stands for."""
    if len(name) == 1 and "A" <= name.upper() <= "Z":
        channel = ord(name.upper()) - ord("A")
    elif name.isdecimal() and name.isascii():
        channel = int(name)
    else:
        raise ManifestError(f"{place}: the channel '{name}' is neither a letter nor a number from 0")
    channels = _channel_count(path)
    if channel >= channels > 0:
        raise ManifestError(f"{place}: there is no channel '{name}': {path} has {channels} (0 or A is the first)")
    return channel


@cache
def _channel_count(path: str) -> int:
    """The number of channels of a file, 0 if it cannot be read, which is an error only when the audio is needed."""
    from asr.audio.read import channel_count

    try:
        return channel_count(path)
    except AudioError:
        return 0


def _windows(path: Path, audio: dict[str, dict[str, Any]], extracted: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, (line, rest) in _table(path).items():
        try:
            columns = rest.split()
            channel = columns.pop() if len(columns) == 4 else None
            recording, start, end = columns
            offset, stop = float(start), float(end)
        except ValueError as error:
            raise ManifestError(
                f"{path}:{line}: expected 'UTTERANCE RECORDING START END [CHANNEL]', times in seconds"
            ) from error
        if recording not in audio:
            raise ManifestError(f"{path}:{line}: recording '{recording}' is not in wav.scp: {_REMEDY}")
        row: dict[str, Any] = {**audio[recording], "offset": offset}
        if channel is not None and not (recording in extracted and channel == "0"):
            if recording in extracted:
                raise ManifestError(f"{path}:{line}: channel '{channel}', but wav.scp gives only one: write 0")
            row["channel"] = _channel(channel, row["audio_filepath"], f"{path}:{line}")
        if stop != -1:  # Kaldi's "to the end"
            if stop <= offset:
                raise ManifestError(f"{path}:{line}: the end ({end} s) is not after the start ({start} s): correct it")
            row["duration"] = round(stop - offset, 6)
        yield name, row


# Commands in wav.scp that only unpack a file, with the options that do not change the samples. Other options (trim,
# speed, ...) change the audio, and reading the file itself would be silently wrong.
_COMMANDS: dict[str, dict[str, tuple[str, ...]]] = {  # program -> option -> values that it accepts
    "cat": {},
    "flac": dict.fromkeys(("--stdout", "--decode", "--silent", "--totally-silent", "-c", "-d", "-s"), ()),
    "sph2pipe": {"-p": (), "-f": ("wav", "rif"), "-c": ("1", "2")},
    "sox": {
        **dict.fromkeys(("-V0", "-V1", "-S", "-q", "-G"), ()),
        **{"-t": ("wav", "wavpcm", "flac", "mp3", "sph", "ogg"), "-b": ("16",), "-e": ("signed", "signed-integer")},
    },
}


def parse_entry(entry: str, place: str) -> tuple[str, int | None]:
    """(path, channel from 0, or None) of an entry such as `x.wav`, `flac -cds x.flac |`, `sph2pipe -c 2 x.sph |`.

    Raises ManifestError, beginning with `place`, for any other command and for positions in archives.
    """
    if entry.endswith("|"):
        unpacked = _command(entry[:-1])
        if unpacked is None:
            raise ManifestError(f"{place}: '{_cut(entry)}' is a command: write its output to a file and name that here")
        return unpacked
    archive, _, position = entry.rpartition(":")
    if archive and position.isdigit() and not Path(entry).exists():
        raise ManifestError(f"{place}: '{_cut(entry)}' is inside a Kaldi archive: copy it to a file (wav-copy)")
    return entry, None


def _command(command: str) -> tuple[str, int | None] | None:
    """The file that a command reads, and the channel; None unless every word of it is understood."""
    try:
        program, *words = shlex.split(command)
    except ValueError:  # an open quote, or an empty command
        return None
    program = Path(program).name
    if any(c in command for c in "|;&<>$`*?") or program not in _COMMANDS:
        return None
    if program == "flac":  # -cds is -c -d -s
        words = [
            part for word in words for part in ([f"-{c}" for c in word[1:]] if word[:1] == "-" != word[1:2] else [word])
        ]
    channel: int | None = None
    if program == "sox" and len(words) > 2 and words[-2] == "remix":
        if not words[-1].isdecimal() or words[-1] == "0":
            return None
        channel, words = int(words[-1]) - 1, words[:-2]
    files, options = [], set()
    while words:
        word = words.pop(0)
        if values := _COMMANDS[program].get(word):
            if not words or words[0] not in values:
                return None
            channel = int(words[0]) - 1 if word == "-c" else channel
            del words[0]
        elif word in _COMMANDS[program]:
            options.add(word)
        elif word.startswith("-") and word != "-":
            return None
        else:
            files.append(word)
    if program == "sox" and files[-1:] == ["-"]:
        files.pop()
    encodes = program == "flac" and not options & {"-d", "--decode"}
    return (files[0], channel) if len(files) == 1 and files[0] != "-" and not encodes else None


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:40] + " ... " + text[-15:]
