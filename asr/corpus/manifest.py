"""Manifests: JSON lines with NeMo's keys, kept so compactly that a million rows cost a few megabytes."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from asr.corpus.rows import RowStore, base_folder, default_id, parse_row, path_id
from asr.files import replacing
from asr.types import AudioError, ManifestError

_LEVELS_UP = 2  # how far "../" a manifest may point before an absolute path is the safer one


@dataclass(frozen=True)
class Utterance:
    """One row. `audio_filepath` can be opened as it stands; `duration` and `offset` are seconds.

    `segment` is true where the row has an offset: the utterance is then the window [offset, offset +
    duration) of a longer recording, otherwise the whole file, whatever its manifest says of its length.
    `window` says what to read.
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


class Manifest(Sequence[Utterance]):
    """A validated, read-only list of utterances.

    Rows stay in the file as JSON and are read one at a time when asked for; in memory are only their
    positions and durations (NumPy arrays, 20 bytes a row), so that forked workers share and spawned workers
    copy next to nothing. A file that changes while in use is noticed and an error.

    `durations` is float32 seconds, one per row; `sha256` the hash of the content. A row without `id` is
    called by its file name, offset and channel; where that is not unique, by its path; where that repeats,
    with ~2, ~3 in file order.
    """

    def __init__(self, store: RowStore, durations: np.ndarray, sha256: str) -> None:
        self._store = store
        self.durations = durations
        self.sha256 = sha256
        self._rows: np.ndarray | None = None  # for a selection: the store's row of each of ours
        self._probed: np.ndarray | None = None  # float64 seconds read from audio headers, NaN where the row says it
        self._by_path: np.ndarray | None = None  # whether the row is called by its path
        self._numbered: dict[int, str] = {}

    @classmethod
    def read(
        cls,
        paths: str | Path | Sequence[str | Path],
        *,
        require_text: bool = True,
        bad_rows: list[ManifestError] | None = None,
        content: bytes | None = None,
    ) -> Manifest:
        """Read and validate one manifest, or several as one: files, gzip among them, pipes, `-` for stdin.

        A byte order mark, any line ends and blank lines are accepted. Where a row lacks `duration`, its audio file's
        header is read. Raises ManifestError with file, line and remedy for anything malformed, and for an id that two
        rows bear. With `require_text` false a row may lack `text`, which is then "". With a list for `bad_rows`
        malformed rows are left out and their errors go there, unless no row is good. With `content`, what was read from
        the pipe `paths`, nothing is opened.
        """
        names = [paths] if isinstance(paths, str | Path) else list(paths)
        if not names:
            raise ManifestError("no manifest given")
        store = RowStore()
        for name in names:
            if content is None:
                store.open(str(name))
            else:
                store.hold(content, str(name))
        manifest = cls._from_store(store, require_text, bad_rows)
        if not len(manifest):
            raise ManifestError(f"{manifest.path}: the manifest has no rows")
        return manifest

    @classmethod
    def from_utterances(cls, utterances: Iterable[Utterance]) -> Manifest:
        """A manifest held in memory (at the size of its JSON), validated like one from a file."""
        return cls.from_rows((manifest_row(u, str(Path(u.audio_filepath).absolute())) for u in utterances), "")

    @classmethod
    def from_rows(cls, rows: Iterable[dict[str, Any]], path: str) -> Manifest:
        """A manifest held in memory, of rows as they would stand in a manifest `path`; an empty row is a blank line."""
        lines = (json.dumps(row, ensure_ascii=False).encode("utf-8") if row else b"" for row in rows)
        store = RowStore()
        store.hold(b"\n".join(lines), path)
        return cls._from_store(store, require_text=True)

    @property
    def path(self) -> str:
        """The file it was read from (several: joined by ", "); "" for one made of utterances."""
        return ", ".join(source.path for source in self._store.sources)

    def __len__(self) -> int:
        return len(self.durations)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> Manifest: ...
    def __getitem__(self, index: int | slice) -> Utterance | Manifest:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"utterance {index} of {len(self)}")
        row = self._row(index % len(self))
        fields = self._parse(row)
        fields["id"] = self._id(row, fields)
        source = self._store.source(row)
        fields["audio_filepath"] = _resolve(fields["audio_filepath"], source.folder)
        if "duration" not in fields:
            assert self._probed is not None
            fields["duration"] = float(self._probed[row])
        return Utterance(**fields)

    def __iter__(self) -> Iterator[Utterance]:
        return (self[i] for i in range(len(self)))

    def select(self, indices: Sequence[int] | np.ndarray) -> Manifest:
        """The utterances at these positions (or where a mask is true), in this order, over the same file."""
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        rows = chosen if self._rows is None else self._rows[chosen]
        digest = hashlib.sha256(self.sha256.encode() + chosen.tobytes()).hexdigest()
        selection = Manifest(self._store, self.durations[chosen], digest)
        selection._rows = rows
        selection._probed, selection._by_path, selection._numbered = (
            self._probed,
            self._by_path,
            self._numbered,
        )
        return selection

    def where(self, index: int) -> str:
        """ "file:line" of an utterance, for messages."""
        return self._store.where(self._row(index))

    def _row(self, index: int) -> int:
        return index if self._rows is None else int(self._rows[index])

    def _parse(self, row: int) -> dict[str, Any]:
        return parse_row(self._store.line(row), require_text=False)

    def _id(self, row: int, fields: dict[str, Any]) -> str:
        if "id" in fields:
            return fields["id"]
        if self._by_path is None or not self._by_path[row]:
            return default_id(fields)
        return self._numbered.get(row) or path_id(fields)

    @classmethod
    def _from_store(cls, store: RowStore, require_text: bool, bad_rows: list[ManifestError] | None = None) -> Manifest:
        rows, durations, id_hashes, unnamed = array("q"), array("f"), array("q"), array("b")
        probed: dict[int, float] = {}
        bad: list[ManifestError] = []
        for i, (path, line_number, line) in enumerate(store.scan()):
            try:
                fields = parse_row(line, require_text=require_text)
                if "duration" not in fields:
                    fields["duration"] = probed[len(rows)] = _probe_duration(fields, path)
            except ManifestError as error:
                bad.append(ManifestError(f"{path}:{line_number}: {error}"))
                if bad_rows is None:
                    raise bad[0] from error
                continue
            rows.append(i)
            durations.append(fields["duration"])
            unnamed.append("id" not in fields)
            id_hashes.append(hash(fields.get("id") or default_id(fields)))
        if bad and not rows:
            raise bad[0]
        if bad:
            store.keep(np.array(rows, dtype=np.int64))
        manifest = cls(store, np.array(durations, dtype=np.float32), store.sha256())
        if probed:
            manifest._probed = np.full(len(durations), np.nan)
            manifest._probed[list(probed)] = list(probed.values())
        clashes = manifest._make_ids_unique(np.array(id_hashes, dtype=np.int64), np.array(unnamed, dtype=bool))
        if clashes and bad_rows is None:
            raise next(iter(clashes.values()))
        if bad_rows is not None:
            bad_rows += [*bad, *clashes.values()]
        return manifest.select([i for i in range(len(manifest)) if i not in clashes]) if clashes else manifest

    def _make_ids_unique(self, id_hashes: np.ndarray, unnamed: np.ndarray) -> dict[int, ManifestError]:
        """Give longer ids to rows without their own where short ones repeat; return what is wrong with the other rows.

        Hashes stand for the ids, since a million Python strings would cost more than everything else here.
        """
        repeated = repeats(id_hashes)
        if not len(repeated):
            return {}
        self._by_path = np.zeros(len(unnamed), dtype=bool)
        self._by_path[repeated] = unnamed[repeated]
        for row in map(int, np.flatnonzero(self._by_path)):
            id_hashes[row] = hash(self._id(row, self._parse(row)))
        repeated = repeats(id_hashes)
        repeated = repeated[np.argsort(unnamed[repeated], kind="stable")]  # ids that are written come first
        first: dict[str, int] = {}
        count: dict[str, int] = {}
        clashes: dict[int, ManifestError] = {}
        for row in map(int, repeated):
            name = self._id(row, self._parse(row))
            if name not in first:
                first[name], count[name] = row, 1
            elif unnamed[row]:
                count[name] += 1
                self._numbered[row] = f"{name}~{count[name]}"
            else:
                here, there = self._store.where(row), self._store.where(first[name])
                clashes[row] = ManifestError(f"{here}: the id '{name}' is that of {there} already: rename one")
        return clashes


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a JSONL manifest, atomically: a reader sees the old file or the complete new one.

    Audio paths are written relative to the manifest's folder where the file lies below it or at most two
    levels up and across, so that a corpus can be moved as a whole; otherwise absolute.
    """
    target = Path(path)
    written = PathWriter(target.parent)
    with replacing(target) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for utterance in utterances:
            row = manifest_row(utterance, written(utterance.audio_filepath))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


class PathWriter:
    """Audio paths as a manifest in `folder` should write them; folders are looked up once."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.abspath(folder)  # noqa: PTH100
        self._real_folder = os.path.realpath(folder)
        self._known: dict[str, str] = {}

    def __call__(self, audio_filepath: str) -> str:
        parent, name = os.path.split(audio_filepath)
        if parent not in self._known:
            self._known[parent] = self._relative(str(Path(full_path(audio_filepath)).parent))
        return os.path.join(self._known[parent], name).replace(os.sep, "/")  # noqa: PTH118

    def _relative(self, parent: str) -> str:
        if parent == self._folder:
            return ""
        if parent.startswith(self._folder.rstrip(os.sep) + os.sep):
            return os.path.relpath(parent, self._folder)
        try:  # "../" climbs from where a folder really is, not from the link that led there
            relative = os.path.relpath(os.path.realpath(parent), self._real_folder)
            together = os.path.commonpath([os.path.realpath(parent), self._real_folder])
        except ValueError:  # another drive, on Windows
            return parent
        climbs = Path(relative).parts.count(os.pardir)
        return relative if climbs <= _LEVELS_UP and together != os.path.dirname(together) else parent  # noqa: PTH120


def full_path(path: str) -> str:
    """`path` from the root, without "..", which must not be cut out blindly where a folder is a link."""
    absolute = Path(path).absolute()
    return str(absolute.parent.resolve() / absolute.name if ".." in absolute.parts else absolute)


def manifest_row(utterance: Utterance, audio_filepath: str) -> dict[str, Any]:
    """The utterance as a row of a manifest, under the audio path given."""
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
    return os.path.join(folder, audio_filepath)  # noqa: PTH118 (called for every row; leaves absolute paths alone)


def _probe_duration(fields: dict[str, Any], manifest: str) -> float:
    from asr.audio.read import probe

    try:
        length = probe(_resolve(fields["audio_filepath"], base_folder(manifest))).duration
    except AudioError as error:
        raise ManifestError(f"the row has no 'duration' and it cannot be read from the audio: {error}") from error
    if length < fields.get("offset", 0.0):
        raise ManifestError(
            f"the offset {fields['offset']:g} s lies beyond the end of the audio ({length:g} s): correct it"
        )
    return length - fields.get("offset", 0.0)


def repeats(values: np.ndarray) -> np.ndarray:
    """Positions, ascending, of the values that occur more than once."""
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    is_repeated = np.concatenate(([False], same)) | np.concatenate((same, [False]))
    return np.sort(order[is_repeated[: len(order)]])
