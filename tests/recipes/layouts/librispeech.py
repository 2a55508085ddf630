"""LibriSpeech: an archive for each split, and transcripts by chapter."""

from __future__ import annotations

from pathlib import Path

from archives import audio_bytes, write_tar


def make(folder: Path) -> list[str]:
    for number, split in enumerate(("train-clean-100", "dev-clean", "test-clean", "test-other"), start=1):
        chapter = f"LibriSpeech/{split}/{number}/10{number}"
        stem = f"{number}-10{number}"
        files = {f"{chapter}/{stem}-{i:04d}.flac": audio_bytes(f"{stem}{i}", "FLAC") for i in range(2)}
        text = "".join(f"{stem}-{i:04d} IT'S A SENTENCE\n" for i in range(2))
        write_tar(folder / f"{split}.tar.gz", {**files, f"{chapter}/{stem}.trans.txt": text.encode()})
    return ["--archive", str(folder), "--no-checksum"]
