"""Multilingual LibriSpeech: mls_polish_opus/train/{audio/SPEAKER/BOOK/*.opus, transcripts.txt, segments.txt}."""

from __future__ import annotations

from pathlib import Path

import soundfile
from archives import noise, write_tar


def opus(name: str, folder: Path) -> bytes:
    path = folder / "scratch.opus"
    soundfile.write(path, noise(name), 16000, format="OGG", subtype="OPUS")
    return path.read_bytes()


def files(folder: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for split, speakers in {"train": ("6892", "8758"), "dev": ("6758",), "test": ("1889",)}.items():
        place = f"mls_polish_opus/{split}"
        names = [f"{speaker}_8338_{i:06d}" for speaker in speakers for i in range(3)]
        for name in names:
            found[f"{place}/audio/{'/'.join(name.split('_')[:2])}/{name}.opus"] = opus(name, folder)
        found[f"{place}/transcripts.txt"] = "".join(f"{name}\ti zaczynają\n" for name in names).encode()
        times = "".join(f"{name}\thttp://www.archive.org/x.mp3\t401.76\t402.56\n" for name in names)
        found[f"{place}/segments.txt"] = times.encode()
        if split == "train":
            for i in range(6):
                found[f"{place}/limited_supervision/1hr/{i}/handles.txt"] = f"{names[i]}\n".encode() if i < 3 else b""
            found[f"{place}/limited_supervision/9hr/handles.txt"] = f"{names[4]}\n".encode()
    header = (
        " SPEAKER   |   GENDER   | PARTITION  |  MINUTES   |  BOOK ID   |             TITLE              | CHAPTER\n"
    )
    return found | {"mls_polish_opus/metainfo.txt": header.encode(), "mls_polish_opus/README": b"MLS\n"}


def make(folder: Path) -> list[str]:
    return ["--archive", str(write_tar(folder / "mls_polish_opus.tar.gz", files(folder))), "--no-checksum"]
