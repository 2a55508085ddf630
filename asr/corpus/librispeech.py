"""The folder layout of LibriSpeech: SPLIT/SPEAKER/CHAPTER/ with audio and one *.trans.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.files import read_text, walk
from asr.types import ManifestError

_EXTENSIONS = (".flac", ".wav", ".ogg", ".opus", ".mp3")


def is_librispeech(folder: Path) -> bool:
    """Whether transcripts of this layout lie in `folder` or up to four levels below."""
    return any(next(folder.glob(f"{'*/' * depth}*.trans.txt"), None) for depth in range(5))


def read_librispeech(folder: Path) -> Iterator[dict[str, Any]]:
    """Manifest rows of everything below `folder`, which may be the whole corpus, a split, a speaker or a chapter.

    Linked folders are followed. Speaker and split are read from ids and folder names. Raises ManifestError with file
    and line for a transcript without audio, and for audio without a transcript.
    """
    problems: list[str] = []
    found = 0
    for below, names in walk(folder, problems):
        if problems:
            raise ManifestError(problems[0])
        chapter = below.absolute()
        audio = {Path(name).stem: chapter / name for name in names if Path(name).suffix.lower() in _EXTENSIONS}
        transcripts = [below / name for name in names if name.endswith(".trans.txt")]
        if audio and len(transcripts) != 1:
            raise ManifestError(
                f"{next(iter(audio.values()))}: {len(transcripts) or 'no'} *.trans.txt beside it: {_MEND}"
            )
        found += len(transcripts)
        for transcript in transcripts:
            yield from _chapter(transcript, chapter, audio)
    if not found:
        raise ManifestError(f"{folder}: no *.trans.txt below: not a LibriSpeech folder")


def _chapter(transcript: Path, chapter: Path, audio: dict[str, Path]) -> Iterator[dict[str, Any]]:
    split = chapter.parent.parent.name
    for number, line in enumerate(read_text(transcript, ManifestError).split("\n"), start=1):
        name, _, text = line.strip().partition(" ")
        if not name:
            continue
        if name not in audio:
            raise ManifestError(f"{transcript}:{number}: no audio '{name}.flac' beside it: {_MEND}")
        row = {"id": name, "audio_filepath": str(audio.pop(name)), "text": text.strip()}
        yield {**row, "speaker": name.partition("-")[0], "split": split}
    if audio:
        raise ManifestError(f"{next(iter(audio.values()))}: no line in {transcript.name}: {_MEND}")


_MEND = "unpack the archive again"
