"""Tiny archives and recordings for the fixtures in `layouts`: one file per recipe, `make(folder) -> arguments`."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import soundfile


def noise(name: str, seconds: float = 0.8, rate: int = 16000) -> np.ndarray:
    """(time,) float64 of quiet noise, another one for each name."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.1, int(seconds * rate)).clip(-1, 1)


def audio_bytes(name: str, format: str = "WAV", seconds: float = 0.8, rate: int = 16000) -> bytes:
    """A mono recording of noise as a file of a format that libsndfile writes (WAV, FLAC, OGG, MP3, NIST)."""
    content = io.BytesIO()
    soundfile.write(content, noise(name, seconds, rate), rate, format=format)
    return content.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """An archive packed as its name says: .tar, .tar.gz, .tgz, .tar.bz2."""
    packing = {"tar": "w", "bz2": "w:bz2"}.get(path.name.rsplit(".", 1)[-1], "w:gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, packing) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """The same, not packed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
