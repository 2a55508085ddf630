"""yesno: recordings at 8 kHz that are called what they say."""

from __future__ import annotations

from pathlib import Path

from archives import audio_bytes, write_tar


def make(folder: Path) -> list[str]:
    names = ["_".join(f"{number:08b}") for number in (0, 31, 90, 127, 129, 200, 254, 255)]
    files = {f"waves_yesno/{name}.wav": audio_bytes(name, seconds=2.0, rate=8000) for name in names}
    files |= {"waves_yesno/README": b"yes and no", "waves_yesno/README~": b"", "waves_yesno/.gitignore": b""}
    return ["--archive", str(write_tar(folder / "waves_yesno.tar.gz", files)), "--no-checksum"]
