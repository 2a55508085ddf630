"""VoxForge: an archive for each submission; two kinds of prompts, wav or flac, named and anonymous speakers."""

from __future__ import annotations

from pathlib import Path

from archives import audio_bytes, write_tar

PEOPLE = ("Aaron-20080318-kdl", "aaron-20090101-abc", "Bea-20080318-xyz", "Cy-20100809-ibc", "anonymous-20080425-cdo")


def make(folder: Path) -> list[str]:
    for number, name in enumerate(PEOPLE):
        kind = "flac" if number == 2 else "wav"
        files = {f"{name}/{kind}/b{i:04d}.{kind}": audio_bytes(f"{name}{i}", kind.upper()) for i in (1, 2)}
        original = "b0001 His slim hands.\nb0002 Lord \u201cFitzhugh\u201d! \nb0003 not recorded\n"
        capitals = "".join(f"{name}/mfc/b{i:04d} HIS SLIM HANDS\n" for i in (1, 2))
        if number != 3:
            files[f"{name}/etc/prompts-original"] = original.encode("cp1252" if number == 1 else "utf-8")
        files[f"{name}/etc/PROMPTS"] = capitals.encode()
        files |= {f"{name}/LICENSE": b"GPL 3", f"{name}/etc/README": b"User Name:x"}
        write_tar(folder / f"{name}.tgz", files)
    return ["--archive", str(folder)]
