"""VCTK 0.92: no folder at the top of the zip; p315 has no text, p280 no second microphone; a speaker is called s5."""

from __future__ import annotations

from pathlib import Path

from archives import audio_bytes, write_zip


def make(folder: Path) -> list[str]:
    files: dict[str, bytes] = {"README.txt": b"VCTK", "speaker-info.txt": b"ID  AGE  GENDER  ACCENTS\n"}
    for speaker in ("p225", "p226", "p227", "p280", "p315", "s5"):
        for i in (1, 2):
            name = f"{speaker}_{i:03d}"
            if speaker != "p315":
                files[f"txt/{speaker}/{name}.txt"] = b"Please call Stella.\n"
            for mic in ("mic1",) if speaker == "p280" else ("mic1", "mic2"):
                sound = audio_bytes(name + mic, "FLAC", rate=48000)
                files[f"wav48_silence_trimmed/{speaker}/{name}_{mic}.flac"] = sound
    return ["--archive", str(write_zip(folder / "VCTK-Corpus-0.92.zip", files)), "--no-checksum"]
