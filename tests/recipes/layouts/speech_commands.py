"""Speech Commands: a folder for each word, recordings called by a hash of their speaker, the official lists, noise."""

from __future__ import annotations

from pathlib import Path

from archives import audio_bytes, write_tar


def make(folder: Path) -> list[str]:
    names = [f"{word}/{number:08x}_nohash_0.wav" for word in ("bed", "no", "yes") for number in range(12)]
    files = {f"./{name}": audio_bytes(name, seconds=0.5) for name in names}
    files |= {"./_background_noise_/tap.wav": audio_bytes("tap", seconds=12.0), "./README.md": b"", "./LICENSE": b""}
    files["./validation_list.txt"] = "".join(f"{name}\n" for name in names[::6]).encode()
    files["./testing_list.txt"] = "".join(f"{name}\n" for name in names[1::6]).encode()
    return ["--archive", str(write_tar(folder / "speech_commands_v0.02.tar.gz", files)), "--no-checksum"]
