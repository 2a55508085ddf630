"""Output files in a folder that mirrors the inputs: written whole or not at all, never over others unasked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from asr.files import OutputError, write_text
from asr.recognition.writers import WRITERS
from asr.types import Transcript, UsageError


class OutputFolder:
    """Writes transcripts as `folder/<id>.<format>`, one file per format, channels as `<id>.ch0.<format>`.

    An existing file is an OutputError unless `overwrite`. Raises UsageError where the folder cannot be made.
    """

    def __init__(
        self,
        folder: str | Path,
        formats: Sequence[str],
        *,
        overwrite: bool = False,
        writers: Mapping[str, Callable[[Transcript], str]] = WRITERS,
    ) -> None:
        self.folder = Path(folder)
        self.writers = writers
        self.formats = tuple(formats)
        self.overwrite = overwrite
        self._owners: dict[str, str] = {}  # file stem: the recording it belongs to
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot make the output folder: {error.strerror or error}") from error

    def paths(self, recording_id: str, channel: int | None = None) -> list[Path]:
        """The files of one transcript, in the order of the formats."""
        stem, number = _safe(recording_id), 2
        plain = stem
        while self._owners.setdefault(stem, recording_id) != recording_id:  # ids that differ only in odd characters
            stem, number = f"{plain}~{number}", number + 1
        stem += "" if channel is None else f".ch{channel}"
        return [self.folder / f"{stem}.{name}" for name in self.formats]

    def finished(self, recording_id: str, channels: Sequence[int | None] = (None,)) -> bool:
        """Whether every file of these channels is there."""
        return all(path.exists() for channel in channels for path in self.paths(recording_id, channel))

    def existing(self, recording_id: str, channels: Sequence[int | None] = (None,)) -> Path | None:
        """The first file that is in the way, None when there is none or overwriting is allowed."""
        if self.overwrite:
            return None
        paths = (path for channel in channels for path in self.paths(recording_id, channel))
        return next((path for path in paths if path.exists()), None)

    def write(self, transcript: Transcript, recording_id: str, *, only_missing: bool = False) -> None:
        """Write every format; with `only_missing` leave the files that are there. Raises OutputError."""
        for name, path in zip(self.formats, self.paths(recording_id, transcript.channel), strict=True):
            if path.exists() and not self.overwrite:
                if only_missing:
                    continue
                raise exists_error(path)
            write_text(path, self.writers[name](transcript))


def exists_error(path: Path) -> OutputError:
    return OutputError(f"{path}: exists already; --resume skips what is finished, --force overwrites it")


def _safe(recording_id: str) -> str:
    """A relative path that stays inside the folder, whatever an id holds."""
    parts = [part for part in PurePosixPath(recording_id.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    kept = ["".join("_" if ord(c) < 32 or c in ':*?"<>|' else c for c in part) for part in parts]
    return "/".join(kept) or "audio"
