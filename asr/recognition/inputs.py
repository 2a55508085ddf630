"""What to transcribe: files, folders, globs, manifests and stdin as recordings, each with a name for its outputs."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.types import Failure, ManifestError, UsageError

if TYPE_CHECKING:
    from asr.corpus.manifest import Utterance

# What is taken from a folder; a file that is named itself may be called anything.
_SUFFIXES = """
    .wav .wave .flac .ogg .oga .opus .mp3 .m4a .aac .mp4 .mkv .mov .webm .wma .aif .aiff .aifc .au .snd .caf
    .sph .w64 .rf64 .amr .3gp .ac3 .mka .mpga .mp2
"""
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())
MANIFEST_SUFFIXES = frozenset([".jsonl", ".json"])
STDIN = "-"


@dataclass(frozen=True)
class Recording:
    """Something to transcribe. `source` is a path, the bytes of a file, a file object or `(samples, rate)`.

    `offset` and `duration` (seconds; None: to the end) cut a window out of it; `channel` None leaves the choice
    to the caller. `id` names it in results; as a relative path without suffix it also names the output files.
    """

    source: Any
    id: str = ""
    audio_filepath: str = ""
    offset: float = 0.0
    duration: float | None = None
    channel: str | int | None = None


def as_recording(source: Any) -> Recording:
    """The Recording for a path, bytes, file object, `(samples, rate)` pair or manifest row."""
    if isinstance(source, Recording):
        return source
    if isinstance(source, str | Path):
        return Recording(source, id=Path(source).stem, audio_filepath=str(source))
    if hasattr(source, "window") and hasattr(source, "audio_filepath"):
        return _of_utterance(source)
    if not isinstance(source, bytes | tuple) and isinstance(getattr(source, "name", None), str):
        return Recording(source, id=Path(source.name).stem, audio_filepath=source.name)
    return Recording(source, id="audio")


def find_recordings(arguments: Sequence[str]) -> list[Recording | Failure]:
    """Expand command-line inputs in the order given; what a folder or glob holds comes sorted by path.

    Folders are searched recursively for audio files, hidden ones left out; a file found twice is taken once. Ids
    are unique: the path without suffix below the folder that all inputs share, or the id of a manifest row. An
    input that leads to no recording becomes a Failure, and so does a malformed manifest row. Raises ManifestError
    for a manifest without a usable row, UsageError for stdin named twice.
    """
    if list(arguments).count(STDIN) > 1:
        raise UsageError("stdin ('-') can be read only once")
    found: list[Recording | Failure] = []
    anchors: list[str] = []
    seen: set[str] = set()
    for argument in arguments:
        if argument == STDIN:
            found.append(Recording(sys.stdin.buffer, id="stdin", audio_filepath=STDIN))
            continue
        path = Path(argument)
        if path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file():
            found.extend(_of_manifest(path))
            continue
        anchors.append(_anchor(argument))
        files = list(_files(argument))
        if not files:
            found.append(_nothing(argument))
        for file in files:
            if (name := os.path.abspath(file)) not in seen:  # noqa: PTH100 - must not follow links
                seen.add(name)
                found.append(Recording(file, audio_filepath=str(file)))
    return _named(found, anchors)


def is_single(arguments: Sequence[str]) -> bool:
    """Whether the inputs are one recording by their form: a script's output must not hang on a folder's content."""
    if len(arguments) != 1:
        return False
    [argument] = arguments
    path = Path(argument)
    if path.exists():
        return not path.is_dir() and path.suffix.lower() not in MANIFEST_SUFFIXES
    return argument == STDIN or not glob.has_magic(argument)


def _files(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if path.is_dir():
        yield from _in_folder(path)
    elif path.exists() or not glob.has_magic(
        argument
    ):  # a missing file fails where it is read, with the reader's words
        yield path
    else:
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207 - absolute patterns
            yield from _in_folder(Path(match)) if Path(match).is_dir() else [Path(match)]


def _in_folder(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield Path(parent) / name


def _nothing(argument: str) -> Failure:
    if glob.has_magic(argument) and not Path(argument).exists():
        return Failure(argument, argument, f"{argument}: no file matches")
    return Failure(
        argument,
        argument,
        f"{argument}: no audio files in this folder (looked for .wav, .flac, .mp3, .ogg and others)",
    )


def _of_manifest(path: Path) -> list[Recording | Failure]:
    from asr.corpus.manifest import Manifest

    bad_rows: list[ManifestError] = []
    manifest = Manifest.read(path, require_text=False, bad_rows=bad_rows)
    failures = [Failure(str(path), "", str(error)) for error in bad_rows]
    return [*map(_of_utterance, manifest), *failures]


def _of_utterance(utterance: Utterance) -> Recording:
    offset, duration = utterance.window
    return Recording(
        utterance.audio_filepath, utterance.id, utterance.audio_filepath, offset, duration, utterance.channel
    )


def _anchor(argument: str) -> str:
    """The folder below which this input's files are named."""
    path = Path(argument)
    if path.is_dir():
        return os.path.abspath(path)  # noqa: PTH100
    if glob.has_magic(argument) and not path.exists():
        fixed = re.split(r"[*?\[]", argument)[0]
        path = Path(fixed or ".") if fixed.endswith(("/", os.sep)) or not fixed else Path(fixed).parent
        return os.path.abspath(path)  # noqa: PTH100
    return os.path.abspath(path.parent)  # noqa: PTH100


def _named(found: list[Recording | Failure], anchors: Sequence[str]) -> list[Recording | Failure]:
    """Give every file an id unique in this run: where the path without suffix is not, its suffix or a number."""
    try:
        base = os.path.commonpath(anchors) if anchors else ""
    except ValueError:  # different drives on Windows
        base = ""
    stems = [item.id or _relative_stem(item.audio_filepath, base) for item in found]
    uses = Counter(stems)
    taken = {stem for stem, count in uses.items() if count == 1}
    named: list[Recording | Failure] = []
    for item, stem in zip(found, stems, strict=True):
        if isinstance(item, Failure):
            named.append(item)
            continue
        name = stem
        if uses[stem] > 1:
            name += Path(item.audio_filepath).suffix if not item.id else ""
            plain, number = name, 2
            while name in taken:
                name, number = f"{plain}~{number}", number + 1
            taken.add(name)
        named.append(replace(item, id=name))
    return named


def _relative_stem(path: str, base: str) -> str:
    absolute = Path(os.path.abspath(path))  # noqa: PTH100
    relative = absolute.relative_to(base) if base and absolute.is_relative_to(base) else Path(*absolute.parts[1:])
    return relative.with_suffix("").as_posix()
