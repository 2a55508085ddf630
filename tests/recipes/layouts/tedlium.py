"""TED-LIUM release 3: legacy/train only links to the training talks in data/{stm,sph}; legacy/{dev,test} hold files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from archives import audio_bytes

TRAIN = """\
{talk} 1 {talk} 0.50 2.00 <o,f0,female> it 's a<sil> great(2) year and i don 't {{BREATH}} know ({talk}-1)
{talk} 1 {talk} 2.00 3.50 <o,f0,female> they 'd 've said so 'cause <unk> was there ({talk}-2)
{talk} 1 {talk} 3.50 4.90 <o,f0,female> a clean segment ({talk}-3)
"""
HELD_OUT = """\
;; LABEL "o" "Overall" "Overall results"
{talk} 1 inter_segment_gap 0 0.50 <o,,unknown> ignore_time_segment_in_scoring
{talk} 1 {talk} 0.50 2.00 <o,f0,male> that 's what <unk> said
{talk} 1 {talk} 2.00 4.20 <o,f0,male> the end
"""


def files() -> dict[str, bytes]:
    found = {}
    for place, talks in {
        "data": ("911Mothers_2010W", "AlGore_2006"),
        "legacy/dev": ("AlGore_2009",),
        "legacy/test": ("AimeeMullins_2009P",),
    }.items():
        for talk in talks:
            found[f"{place}/sph/{talk}.sph"] = audio_bytes(talk, "NIST", seconds=5.0)
            found[f"{place}/stm/{talk}.stm"] = (TRAIN if place == "data" else HELD_OUT).format(talk=talk).encode()
    return {f"TEDLIUM_release-3/{name}": content for name, content in found.items()}


def write_archive(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in ("sph", "stm"):
            link = tarfile.TarInfo(f"TEDLIUM_release-3/legacy/train/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, f"../../data/{name}"
            tar.addfile(link)
        for name, data in {
            **content,
            "TEDLIUM_release-3/LM/europarl.en.gz": b"",
            "TEDLIUM_release-3/README": b"",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make(folder: Path) -> list[str]:
    return ["--archive", str(write_archive(folder / "TEDLIUM_release-3.tgz", files())), "--no-checksum"]
