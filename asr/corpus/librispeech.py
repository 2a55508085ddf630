"""The folder layout of LibriSpeech: SPLIT/SPEAKER/CHAPTER/ with audio and one *.trans.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.types import ManifestError

_EXTENSIONS = (".flac", ".wav", ".ogg", ".opus", ".mp3")


def is_librispeech(folder: Path) -> bool:
    """Whether transcripts of this layout lie in `folder` or up to four levels below."""
    return any(next(folder.glob(f"{'*/' * depth}*.trans.txt"), None) for depth in range(5))


def read_librispeech(folder: Path) -> Iterator[dict[str, Any]]:
    """Manifest rows of everything below `folder`, which may be the whole corpus, a split, a speaker or a chapter.

    Speaker and split are read from ids and folder names. Raises ManifestError with file and line for a transcript
    without audio, and for audio without a transcript.
    """
    transcripts = sorted(folder.rglob("*.trans.txt"))
    if not transcripts:
        raise ManifestError(f"{folder}: no *.trans.txt below: not a LibriSpeech folder")
    for transcript in transcripts:
        chapter = transcript.absolute().parent
        audio = {file.stem: file for file in sorted(chapter.iterdir()) if file.suffix.lower() in _EXTENSIONS}
        split = chapter.parent.parent.name
        for number, line in enumerate(_lines(transcript), start=1):
            name, _, text = line.strip().partition(" ")
            if not name:
                continue
            if name not in audio:
                raise ManifestError(
                    f"{transcript}:{number}: no audio '{name}.flac' beside it: unpack the archive again"
                )
            row = {"id": name, "audio_filepath": str(audio.pop(name)), "text": text.strip()}
            yield {**row, "speaker": name.partition("-")[0], "split": split}
        if audio:
            raise ManifestError(f"{next(iter(audio.values()))}: no line in {transcript.name}: unpack the archive again")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 (byte {error.start}): unpack the archive again") from error
