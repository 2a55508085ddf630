"""What to transcribe: files, folders, globs, manifests and stdin as recordings, each with an id for its outputs."""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from os.path import exists, isdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.files import walk
from asr.types import AsrError, Failure, ManifestError, UsageError, in_words

if TYPE_CHECKING:
    import numpy as np

    from asr.corpus.manifest import Utterance

# The suffixes that are searched for in folders; a file that is named explicitly may have any suffix.
_SUFFIXES = """
    .wav .wave .flac .ogg .oga .opus .mp3 .m4a .aac .mp4 .mkv .mov .webm .wma .aif .aiff .aifc .au .snd .caf
    .sph .w64 .rf64 .amr .3gp .ac3 .mka .mpga .mp2
"""
AUDIO_SUFFIXES = frozenset(_SUFFIXES.split())
STDIN = "-"
_MANIFEST_SUFFIXES = (".jsonl", ".json", ".ndjson", ".jsonl.gz", ".json.gz", ".ndjson.gz")


@dataclass(frozen=True)
class Recording:
    """Something to transcribe. `source` is a path, the bytes of a file, a file object or `(samples, rate)`.

    `offset` and `duration` (seconds; None: to the end) select a part of it; with `channel` None the caller chooses.
    `id` names it in results and, as a relative path without suffix, its output files. A `live` recording is headerless
    audio in a file object, recognized as it arrives. `change` alters the samples (time,) that were read, at the model's
    rate: the recording, however long, is then held in memory, and its channels are mixed unless `channel` names one.
    """

    source: Any
    id: str = ""
    audio_filepath: str = ""
    offset: float = 0.0
    duration: float | None = None
    channel: str | int | None = None
    live: bool = False
    change: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def name(self) -> str:
        """Its name in messages."""
        if self.audio_filepath == STDIN:
            return "stdin"
        return self.audio_filepath or self.id or (str(self.source) if isinstance(self.source, str | Path) else "audio")

    def channel_or(self, default: str | int) -> str | int:
        """The recording's own channel, else `default`."""
        return default if self.channel is None else self.channel

    def failure(self, error: Exception) -> Failure:
        """The Failure for an error in processing this recording; its message names the recording once."""
        message = str(error) if isinstance(error, AsrError) else in_words(error)
        prefix = f"{self.name}: "
        return Failure(self.id, self.audio_filepath, prefix + message.removeprefix(prefix))


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


def from_argument(argument: str) -> Recording:
    """The Recording for an argument of a command: a path, or - for stdin."""
    if argument == STDIN:
        return Recording(sys.stdin.buffer, id="stdin", audio_filepath=STDIN)
    return as_recording(argument)


def find_recordings(arguments: Sequence[str]) -> list[Recording | Failure]:
    """Expand command-line inputs in the order given; the files of a folder or glob are sorted by path.

    Folders are searched recursively for audio files, following linked folders and skipping hidden ones; a file that is
    found twice is used once. A pipe may hold audio or a manifest. Ids are unique: the id of a manifest row, or the path
    without suffix, relative to the common folder of all inputs. An input without a recording becomes a Failure, as does
    a malformed manifest row, a broken link, or an unreadable folder. Raises ManifestError for a manifest without a
    usable row, UsageError if stdin is named twice.
    """
    if list(arguments).count(STDIN) > 1:
        raise UsageError("stdin ('-') can be read only once")
    found: list[Recording | Failure] = []
    anchors: list[str] = []
    files: set[str] = set()
    # os.path throughout: Path's methods raise for names that are too long for the file system.
    for argument in arguments:
        if argument == STDIN:
            found.append(from_argument(argument))
        elif is_manifest(argument) and exists(argument) and not isdir(argument):
            found += _of_manifest(argument)
        elif is_pipe(argument):
            found += _of_pipe(argument)
        else:
            anchors.append(_anchor(argument))
            problems: list[str] = []
            matches = _files(argument, problems)
            found += [Failure(name := problem.partition(": ")[0], name, problem) for problem in problems]
            for file in matches:
                if (name := os.path.abspath(file)) not in files:  # unlike realpath, it does not follow links
                    files.add(name)
                    found.append(Recording(file, audio_filepath=str(file)))
    return _named(found, anchors)


def is_single(arguments: Sequence[str], found: Sequence[Recording | Failure] = ()) -> bool:
    """Whether the inputs are a single recording by their form, because output must not depend on a folder's contents.

    The form of a pipe does not tell, so for a pipe it depends on what was `found` in it.
    """
    if len(arguments) != 1:
        return False
    [argument] = arguments
    if is_pipe(argument):
        return not any(isinstance(item, Failure) or isinstance(item.source, str) for item in found)
    if exists(argument):
        return not isdir(argument) and not is_manifest(argument)
    return argument == STDIN or not glob.has_magic(argument)


def is_manifest(argument: str) -> bool:
    """Whether a name has the suffix of a manifest."""
    return argument.lower().endswith(_MANIFEST_SUFFIXES)


def is_pipe(argument: str) -> bool:
    """Whether a path is a pipe, such as `<(...)`, whose content can be read only once."""
    try:
        return stat.S_ISFIFO(os.stat(argument).st_mode)
    except (OSError, ValueError):
        return False


def _is_pattern(argument: str) -> bool:
    return glob.has_magic(argument) and not exists(argument)


def _files(argument: str, problems: list[str]) -> list[Path]:
    """The files that an argument stands for, each once; if there are none, adds that to `problems`."""
    if isdir(argument):
        found = _in_folder(argument, problems)
        nothing = "no audio files in this folder (looked for .wav, .flac, .mp3, .ogg and others)"
    elif not _is_pattern(argument):
        return [Path(argument)]  # a missing file is reported by the reader
    else:
        matches = [_in_folder(m, problems) if isdir(m) else [Path(m)] for m in dict.fromkeys(_matches(argument))]
        found, nothing = _once(list(chain.from_iterable(matches))), "no file matches"
        problems[:] = dict.fromkeys(problems)
    if not found and not problems:
        problems.append(f"{argument}: {nothing}")
    return found


def _once(paths: list[Path]) -> list[Path]:
    """Each file once, sorted, under its shortest path, preferably one without a linked folder."""
    real = {parent: os.path.realpath(parent) for parent in {path.parent for path in paths}}
    named: dict[tuple[str, str], Path] = {}
    through_link = {parent: path != os.path.abspath(parent) for parent, path in real.items()}
    for path in sorted(paths, key=lambda path: (through_link[path.parent], len(path.parts), path)):
        named.setdefault((real[path.parent], path.name), path)
    return sorted(named.values())


def _in_folder(folder: str, problems: list[str]) -> list[Path]:
    files = (parent / name for parent, names in walk(folder, problems) for name in names)
    return [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]


def _matches(pattern: str) -> Iterator[str]:
    """The matches of a glob. Unlike that of the glob module, `**` cannot loop forever in linked folders."""
    parts = pattern.replace(os.sep, "/").split("/")
    if "**" not in parts:
        yield from glob.glob(pattern)  # absolute patterns
        return
    at = parts.index("**")
    rest = parts[at + 1 :] or ["*"]
    for start in glob.glob("/".join([*parts[:at], ""])) if at else [""]:
        for folder, _ in walk(start or "."):
            yield from _matches("/".join([*([] if folder == Path() else [glob.escape(str(folder))]), *rest]))


def _of_pipe(argument: str) -> list[Recording | Failure]:
    """The rows of a manifest or one recording, whichever the pipe holds; it is opened only once."""
    file = Path(argument).open("rb")  # noqa: SIM115 - the recording is read later
    if file.peek(4).lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"{":
        with file:
            return _of_manifest(argument, file.read())
    return [Recording(file, id=Path(argument).stem, audio_filepath=argument)]


def _of_manifest(path: str, content: bytes | None = None) -> list[Recording | Failure]:
    from asr.corpus.manifest import Manifest

    bad_rows: list[ManifestError] = []
    manifest = Manifest.read(path, require_text=False, bad_rows=bad_rows, content=content)
    failures = [Failure(path, "", str(error)) for error in bad_rows]
    return [*map(_of_utterance, manifest), *failures]


def _of_utterance(utterance: Utterance) -> Recording:
    offset, duration = utterance.window
    return Recording(
        utterance.audio_filepath, utterance.id, utterance.audio_filepath, offset, duration, utterance.channel
    )


def _anchor(argument: str) -> str:
    """The folder relative to which the files of an input are named."""
    if _is_pattern(argument):
        argument = os.path.dirname(re.split(r"[*?\[]", argument)[0])
    elif not isdir(argument):
        argument = os.path.dirname(argument)
    return os.path.abspath(argument or ".")


def _named(found: list[Recording | Failure], anchors: Sequence[str]) -> list[Recording | Failure]:
    """Give every recording a unique id: its path without suffix or, if others share that, with suffix or a number."""
    try:
        base = os.path.commonpath(anchors) if anchors else ""
    except ValueError:  # different drives on Windows
        base = ""
    stems = [item.id or _relative_stem(item.audio_filepath, base) for item in found]
    uses = Counter(stems)
    taken = {stem for stem, count in uses.items() if count == 1}
    named: list[Recording | Failure] = []
    for item, stem in zip(found, stems, strict=True):
        name = stem
        if isinstance(item, Recording) and uses[stem] > 1:
            plain = name = stem if item.id else stem + Path(item.audio_filepath).suffix
            numbers = count(2)
            while name in taken:
                name = f"{plain}~{next(numbers)}"
            taken.add(name)
        named.append(replace(item, id=name) if isinstance(item, Recording) else item)
    return named


def _relative_stem(path: str, base: str) -> str:
    absolute = Path(os.path.abspath(path))
    relative = absolute.relative_to(base) if base and absolute.is_relative_to(base) else Path(*absolute.parts[1:])
    return relative.with_suffix("").as_posix()
