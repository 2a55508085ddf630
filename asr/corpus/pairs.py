"""Reading a folder of recordings with a text file beside each (`x.wav` and `x.txt`) as manifest rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.files import read_text, walk
from asr.types import ManifestError

AUDIO = frozenset((".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".webm", ".aac", ".sph", ".aiff", ".aif"))
TEXT = (".txt", ".lab")
_NAMED = 5  # unreadable folders and broken links that are reported one by one
# Names of folders that are sets, not speakers, and our names for those sets.
SETS = {
    "train": "train", "training": "train",
    "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "eval": "dev",
    "test": "test", "testing": "test",
}  # fmt: skip


def is_pairs(folder: Path) -> bool:
    """Whether some recording in `folder` or below has a text beside it."""
    return any(next(_pairs(below, names), None) for below, names in walk(folder))


def read_pairs(folder: Path, notes: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """A row for each recording with a text, the lines of which are joined.

    The path of a recording's folder below `folder` is the speaker, except that a first folder named like a set (train,
    dev, valid, test) is the split; `train/anna/x.wav` has both. Recordings without a text, texts without a recording,
    and empty texts are counted in `notes`. Raises ManifestError for a text that is not UTF-8.
    """
    problems: list[str] = []
    alone = silent = unheard = 0
    for below, names in walk(folder, problems):
        pairs = list(_pairs(below, names))
        alone += sum(Path(name).suffix.lower() in AUDIO for name in names) - len(pairs)
        unheard += sum(Path(name).suffix.lower() in TEXT for name in names) - len(pairs)
        place = below.relative_to(folder).parts
        split = SETS.get(place[0].lower(), "") if place else ""
        where = {"split": split, "speaker": "/".join(place[1:] if split else place)}
        for audio, text_file in pairs:
            text = " ".join(read_text(text_file, ManifestError).split())
            silent += not text
            if text:
                yield {"audio_filepath": str(audio.absolute()), "text": text} | {k: v for k, v in where.items() if v}
    if notes is not None:
        notes += problems[:_NAMED]
        counts = {"recordings without a text": alone, "texts without a recording": unheard, "empty texts": silent}
        notes += [f"{folder}: left out: {count} {what}" for what, count in counts.items() if count]


def _pairs(folder: Path, names: list[str]) -> Iterator[tuple[Path, Path]]:
    texts = {Path(name).stem: folder / name for name in names if Path(name).suffix.lower() in TEXT}
    for name in names:
        if Path(name).suffix.lower() in AUDIO and Path(name).stem in texts:
            yield folder / name, texts[Path(name).stem]
