"""LJ Speech 1.1: one folder of WAV files at 22,050 Hz and metadata.csv, with `|` between columns and no quoting."""

from __future__ import annotations

from pathlib import Path

from archives import audio_bytes, write_tar


def make(folder: Path) -> list[str]:
    names = [f"LJ{chapter:03d}-{i:04d}" for chapter in range(1, 6) for i in (1, 2)]
    files = {f"LJSpeech-1.1/wavs/{name}.wav": audio_bytes(name, rate=22050) for name in names}
    rows = [f'{name}|In "{i}" Mr. Smith|in "one" mister smith\n' for i, name in enumerate(names)]
    files["LJSpeech-1.1/metadata.csv"] = "".join(rows).encode()
    return ["--archive", str(write_tar(folder / "LJSpeech-1.1.tar.bz2", files)), "--no-checksum"]
