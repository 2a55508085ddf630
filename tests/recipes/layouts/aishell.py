"""AISHELL-1: data_aishell.tgz has one transcript, and an archive per speaker: wav/S0002.tar.gz with train/S0002/*."""

from __future__ import annotations

from pathlib import Path

from archives import audio_bytes, write_tar

SPEAKERS = {"S0002": "train", "S0003": "train", "S0724": "dev", "S0764": "test"}
TEXTS = ("而 对 楼市 成交 抑制", "作用 最 大 的 \uff34 恤 限 购")


def files(folder: Path) -> dict[str, bytes]:
    """Of the outer archive; `folder` is for scratch."""
    found, rows = {}, []
    for speaker, split in SPEAKERS.items():
        names = [f"BAC009{speaker}W{i:04d}" for i in range(122, 122 + len(TEXTS))]
        rows += [f"{name} {text}\n" for name, text in zip(names, TEXTS, strict=True)]
        audio = {f"{split}/{speaker}/{name}.wav": audio_bytes(name) for name in names}
        if speaker == "S0003":
            audio[f"{split}/{speaker}/BAC009{speaker}W0999.wav"] = audio_bytes("none")  # 325 have no transcript
        found[f"data_aishell/wav/{speaker}.tar.gz"] = write_tar(folder / f"{speaker}.tar.gz", audio).read_bytes()
    return found | {"data_aishell/transcript/aishell_transcript_v0.8.txt": "".join(rows).encode()}


def make(folder: Path) -> list[str]:
    return ["--archive", str(write_tar(folder / "data_aishell.tgz", files(folder))), "--no-checksum"]
