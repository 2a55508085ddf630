"""AN4: headerless big-endian samples, and transcriptions of the official sets."""

from __future__ import annotations

from pathlib import Path

from archives import noise, write_tar


def make(folder: Path) -> list[str]:
    files: dict[str, bytes] = {}
    for split, speakers in (("train", [f"{sex}{x}aa" for sex in "fm" for x in "abcdef"]), ("test", ["ftst"])):
        lines = []
        for speaker in speakers:
            name = f"an1-{speaker}-b"
            where = "an4test_clstk" if split == "test" else "an4_clstk"
            files[f"an4/wav/{where}/{speaker}/{name}.raw"] = (noise(speaker) * 32767).astype(">i2").tobytes()
            lines.append(f"<s> U M SIX </s> ({name})\n")
        files[f"an4/etc/an4_{split}.transcription"] = "".join(lines).encode()
    return ["--archive", str(write_tar(folder / "an4_raw.bigendian.tar.gz", files)), "--no-checksum"]
