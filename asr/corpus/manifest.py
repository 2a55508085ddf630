"""Manifests: JSON lines with NeMo's keys, indexed compactly, so that a million rows take 30 megabytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from asr.corpus.rows import Source, default_id, parse_row, path_id
from asr.files import replacing
from asr.types import AudioError, ManifestError

_LEVELS_UP = 2  # how far "../" may climb before an absolute path is safer


@dataclass(frozen=True)
class Utterance:
    """One row. `audio_filepath` can be opened as it is; `duration` and `offset` are in seconds.

    `segment` is true if the row has an offset: the utterance is then the window [offset, offset + duration) of a longer
    recording, otherwise the whole file, even if the manifest's duration differs. `window` says what to read.
    """

    id: str
    audio_filepath: str
    duration: float
    text: str
    offset: float = 0.0
    speaker: str = ""
    split: str = ""
    channel: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    segment: bool = False

    @property
    def window(self) -> tuple[float, float | None]:
        """(offset, duration) for asr.audio.read.read; a duration of None reads to the end of the file."""
        return (self.offset, self.duration) if self.segment or self.offset else (0.0, None)


# What a manifest keeps of each row. `naming`: 0 for the row's own id or its file name, 1 for its path, n above 1 for
# its path with "~n". `duration`: in seconds, of the row or, if it has none, of its audio.
_INDEX = np.dtype(
    [("position", "<i8"), ("line", "<i4"), ("source", "<u2"), ("naming", "<i4"), ("duration", "<f8")], align=False
)
_PACKED = struct.Struct("<qiHid")  # the same layout


class Manifest(Sequence[Utterance]):
    """A validated, read-only list of utterances.

    Rows stay in the file as JSON and are parsed one at a time on access. Only their positions and durations are in
    memory (NumPy arrays, 30 bytes a row), so that forked workers share them and spawned workers copy next to nothing.
    A file that changes while in use is detected and raises ManifestError.

    `durations` is float32 seconds, one per row. `sha256` is the hash of the uncompressed content: for a plain file,
    what `sha256sum` prints. A row without `id` is named by its file name, offset and channel; if that is not unique, by
    its path; if that is not unique either, with ~2, ~3 appended in file order.
    """

    def __init__(self, sources: Sequence[Source], index: np.ndarray, sha256: str) -> None:
        self._sources = sources
        self._index = index
        self.durations = index["duration"].astype(np.float32)
        self.sha256 = sha256

    @classmethod
    def read(
        cls,
        paths: str | Path | Sequence[str | Path],
        *,
        require_text: bool = True,
        bad_rows: list[ManifestError] | None = None,
        content: bytes | None = None,
    ) -> Manifest:
        """Read and validate one manifest, or several as one: plain or gzipped files, pipes, `-` for stdin.

        A byte order mark, any line ends and blank lines are accepted. If a row lacks `duration`, it is read from the
        header of the audio file. Raises ManifestError with file, line and remedy for anything malformed, and for an id
        shared by two rows. With `require_text` false a row may lack `text`, which is then "". With a list for
        `bad_rows`, malformed rows are left out and their errors appended to it, unless no row is good. `content` is
        what was already read from the pipe `paths`; nothing is opened then.
        """
        names = [paths] if isinstance(paths, str | Path) else list(paths)
        if not names:
            raise ManifestError("no manifest given")
        for name in names:
            if Path(name).is_dir():
                raise ManifestError(f"{name}: a folder, not a manifest: run 'asr data convert {name} NEW.jsonl'")
        manifest = cls._index_rows([Source(str(name), content) for name in names], require_text, bad_rows)
        if not len(manifest):
            raise ManifestError(f"{manifest.path}: the manifest has no rows")
        return manifest

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]], path: str) -> Manifest:
        """A manifest in memory from rows as they would appear in the file `path`; an empty row is a blank line."""
        lines = (json.dumps(row, ensure_ascii=False).encode("utf-8") if row else b"" for row in rows)
        return cls._index_rows([Source(path, b"\n".join(lines))], require_text=True)

    @property
    def path(self) -> str:
        """The file it was read from; several are joined by ", "."""
        return ", ".join(self.paths)

    @property
    def paths(self) -> list[str]:
        """The files it was read from."""
        return [source.path for source in self._sources]

    @property
    def files(self) -> np.ndarray:
        """For each utterance, the index in `paths` of its file, (utterances,) int64."""
        return self._index["source"].astype(np.int64)

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> Manifest: ...
    def __getitem__(self, index: int | slice) -> Utterance | Manifest:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"utterance {index} of {len(self)}")
        row = self._index[index]
        fields = self._fields(row)
        folder = self._sources[row["source"]].folder
        return Utterance(
            **{
                **fields,
                "id": _id(fields, row["naming"]),
                "audio_filepath": _resolve(fields["audio_filepath"], folder),
                "duration": float(row["duration"]),
            }
        )

    def __iter__(self) -> Iterator[Utterance]:
        return (self[i] for i in range(len(self)))

    def select(self, indices: Sequence[int] | np.ndarray) -> Manifest:
        """The utterances at these positions (or where a mask is true), in this order."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        digest = hashlib.sha256(self.sha256.encode() + chosen.tobytes()).hexdigest()
        return Manifest(self._sources, self._index[chosen], digest)

    def another(self, index: int, draw: random.Random) -> int:
        """The position of another utterance drawn at random, of another speaker if 20 draws find one.

        Raises IndexError if there is no other utterance.
        """
        if len(self) < 2:
            raise IndexError("a manifest of one utterance has no other")
        speaker = self[index].speaker
        for _ in range(20):
            other = (index + 1 + draw.randrange(len(self) - 1)) % len(self)
            if not speaker or self[other].speaker != speaker:
                break
        return other

    def where(self, index: int) -> str:
        """ "file:line" of an utterance, for messages."""
        row = self._index[index]
        return f"{self._sources[row['source']].path}:{row['line']}"

    def _fields(self, row: np.void) -> dict[str, Any]:
        return parse_row(self._sources[row["source"]].row(int(row["position"])), require_text=False)

    @classmethod
    def _index_rows(
        cls, sources: Sequence[Source], require_text: bool, bad_rows: list[ManifestError] | None = None
    ) -> Manifest:
        index, id_hashes, unnamed = bytearray(), array("q"), array("b")
        bad: list[ManifestError] = []
        for number, source in enumerate(sources):
            for position, line, row in source.rows():
                try:
                    fields = parse_row(row, require_text=require_text)
                    if "duration" not in fields:
                        path = _resolve(fields["audio_filepath"], source.folder)
                        fields["duration"] = audio_seconds(path, fields.get("offset", 0.0))
                except (ManifestError, AudioError) as error:
                    no_duration = "the row has no 'duration' and it cannot be read from the audio: "
                    prefix = no_duration if isinstance(error, AudioError) else ""
                    bad.append(ManifestError(f"{source.path}:{line}: {prefix}{error}"))
                    if bad_rows is None:
                        raise bad[0] from error
                    continue
                index += _PACKED.pack(position, line, number, 0, fields["duration"])
                unnamed.append("id" not in fields)
                id_hashes.append(hash(_id(fields)))
        if bad and not index:
            raise bad[0]
        digests = [source.digest for source in sources]
        sha256 = digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(digests)).hexdigest()
        manifest = cls(sources, np.frombuffer(index, dtype=_INDEX), sha256)
        clashes = manifest._make_ids_unique(np.array(id_hashes, dtype=np.int64), np.array(unnamed, dtype=bool))
        if clashes and bad_rows is None:
            raise next(iter(clashes.values()))
        if bad_rows is not None:
            bad_rows += [*bad, *clashes.values()]
        return manifest.select([i for i in range(len(manifest)) if i not in clashes]) if clashes else manifest

    def _make_ids_unique(self, id_hashes: np.ndarray, unnamed: np.ndarray) -> dict[int, ManifestError]:
        """Lengthen the derived ids that repeat; return errors for rows whose own ids repeat.

        Ids are compared by hash, since a million Python strings would cost more than everything else here.
        """
        naming = self._index["naming"]
        repeated = repeats(id_hashes)
        naming[repeated] = unnamed[repeated]
        for i in map(int, np.flatnonzero(naming)):
            id_hashes[i] = hash(_id(self._fields(self._index[i]), naming[i]))
        repeated = repeats(id_hashes)
        repeated = repeated[np.argsort(unnamed[repeated], kind="stable")]  # rows with an id of their own come first
        first: dict[str, int] = {}
        count: Counter[str] = Counter()
        clashes: dict[int, ManifestError] = {}
        for i in map(int, repeated):
            name = _id(self._fields(self._index[i]), naming[i])
            count[name] += 1
            if first.setdefault(name, i) == i:
                continue
            if unnamed[i]:
                naming[i] = count[name]
            else:
                here, there = self.where(i), self.where(first[name])
                clashes[i] = ManifestError(f"{here}: the id '{name}' is already used in {there}: rename one")
        return clashes


def _id(fields: dict[str, Any], naming: int = 0) -> str:
    """The id of a row: its own, or one derived from its file name or path (see `_INDEX`)."""
    if "id" in fields:
        return fields["id"]
    return (path_id(fields) if naming else default_id(fields)) + (f"~{naming}" if naming > 1 else "")


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a JSONL manifest, atomically: a reader sees the old file or the complete new one.

    Audio paths are written relative to the manifest's folder if the audio is below it or below one of its two closest
    parents, so that a corpus can be moved as a whole, and otherwise as absolute paths.
    """
    target = Path(path)
    written = PathWriter(target.parent)
    with replacing(target) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for utterance in utterances:
            row = manifest_row(utterance, written(utterance.audio_filepath))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


class PathWriter:
    """Converts audio paths to the form for a manifest in `folder`; each parent is resolved only once."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(full_path(str(folder)))
        self._known: dict[str, Path] = {}

    def __call__(self, audio_filepath: str) -> str:
        parent, name = os.path.split(audio_filepath)
        if parent not in self._known:
            self._known[parent] = self._relative(Path(full_path(audio_filepath)).parent)
        return (self._known[parent] / name).as_posix()

    def _relative(self, parent: Path) -> Path:
        if parent.is_relative_to(self._folder):
            return parent.relative_to(self._folder)
        here = self._folder.resolve()  # "../" leads up from the real folder, not from a link to it
        try:
            relative = Path(os.path.relpath(parent.resolve(), here))
        except ValueError:  # another drive, on Windows
            return parent
        climbs = relative.parts.count(os.pardir)
        return relative if climbs <= _LEVELS_UP and climbs < len(here.parts) - 1 else parent  # never up to the root


def full_path(path: str) -> str:
    """`path` from the root and without "..", which must not simply be cut out if a folder is a link."""
    absolute = Path(path).absolute()
    return str(absolute.parent.resolve() / absolute.name if ".." in absolute.parts else absolute)


def manifest_row(utterance: Utterance, audio_filepath: str) -> dict[str, Any]:
    """The utterance as a row of a manifest, with the given audio path."""
    row: dict[str, Any] = {
        "id": utterance.id,
        "audio_filepath": audio_filepath,
        "duration": utterance.duration,
        "text": utterance.text,
    }
    if utterance.segment or utterance.offset:
        row["offset"] = utterance.offset
    for key in ("speaker", "split"):
        if getattr(utterance, key):
            row[key] = getattr(utterance, key)
    if utterance.channel is not None:
        row["channel"] = utterance.channel
    return {**row, **utterance.extra}


def _resolve(audio_filepath: str, folder: str) -> str:
    if audio_filepath.startswith("~"):
        audio_filepath = os.path.expanduser(audio_filepath)  # noqa: PTH111
    return os.path.join(folder, audio_filepath)  # noqa: PTH118 (called for every row; keeps absolute paths)


def audio_seconds(path: str, offset: float) -> float:
    """The seconds of an audio file from `offset` (seconds) to its end, from its header. Raises AudioError."""
    from asr.audio.read import probe

    length = probe(path).duration
    if length <= offset:
        raise AudioError(f"{path}: the offset {offset:g} s is after its end ({length:g} s)")
    return round(length - offset, 6) if offset else length


def repeats(values: np.ndarray) -> np.ndarray:
    """Positions, ascending, of the values that occur more than once."""
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    is_repeated = np.concatenate(([False], same)) | np.concatenate((same, [False]))
    return np.sort(order[is_repeated[: len(order)]])
