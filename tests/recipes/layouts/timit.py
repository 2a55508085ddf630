"""TIMIT: TIMIT/TRAIN/DR1/FCJF0/SI1027.WAV (NIST SPHERE), .PHN and .TXT, in some copies in lower case."""

from __future__ import annotations

import runpy
from pathlib import Path

from archives import audio_bytes, write_files

TRAIN = ("fcjf0", "mdac0", "mkls0")
PHONES = "h# sh iy q axr pau tcl en h#"


def speakers() -> dict[str, tuple[str, ...]]:
    """By folder. All of the recipe's dev and test speakers are needed, and one more is in neither set."""
    recipe = runpy.run_path(str(Path(__file__).parents[3] / "recipes" / "timit" / "prepare.py"))
    return {"train": TRAIN, "test": (*sorted(recipe["DEV"] | recipe["CORE"]), "mabc0")}


def files(upper: bool = True) -> dict[str, bytes]:
    found = {}
    for split, names in speakers().items():
        for i, speaker in enumerate(names):
            for sentence in ("sa1", f"sx{i}", f"si{i + 1000}")[: 3 if split == "train" else 2]:
                stem = f"timit/{split}/dr{i % 8 + 1}/{speaker}/{sentence}"
                phones = PHONES.split()
                rows = "".join(f"{100 * k} {100 * k + 100} {phone}\n" for k, phone in enumerate(phones))
                content = {"wav": audio_bytes(stem, "NIST"), "phn": rows.encode(), "txt": b"0 900 She had.\n"}
                found |= {f"{stem}.{suffix}": data for suffix, data in content.items()}
    return {name.upper() if upper else name: content for name, content in found.items()}


def make(folder: Path) -> list[str]:
    return ["--unpacked", str(write_files(folder / "LDC93S1", files()))]
