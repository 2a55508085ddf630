"""AISHELL-1: characters without spaces, archives of speakers inside the archive, halves of the corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import write_files
from layouts import aishell as layout

from asr.corpus.archive import extract
from asr.corpus.manifest import Manifest
from asr.types import ManifestError, UsageError

TRANSCRIPT = "data_aishell/transcript/aishell_transcript_v0.8.txt"


@pytest.fixture
def official(tmp_path: Path) -> dict[str, bytes]:
    (tmp_path / "scratch").mkdir()
    return layout.files(tmp_path / "scratch")


def test_texts_and_sets(
    recipe_module: Callable,
    arguments: Callable,
    official: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare, data = recipe_module("aishell", "prepare"), tmp_path / "data"
    root = write_files(tmp_path / "corpus", official)
    prepare.prepare(arguments(prepare, data, "--unpacked", str(root)))
    sets = {name: list(Manifest.read(data / f"{name}.jsonl")) for name in ("train", "dev", "test")}
    assert {name: sorted({u.speaker for u in rows}) for name, rows in sets.items()} == {
        "train": ["S0002", "S0003"],
        "dev": ["S0724"],
        "test": ["S0764"],
    }
    assert [u.text for u in sets["test"]] == ["而对楼市成交抑制", "作用最大的T恤限购"]
    assert "left out: 1 recordings without a transcript" in capsys.readouterr().err
    assert not list(root.rglob("*.wav")) and len(list(data.rglob("*.wav"))) == 9  # the corpus stays as it is

    for archive in (root / "data_aishell" / "wav").glob("*.tar.gz"):  # as other toolkits leave it
        extract(archive, archive.parent)
        archive.unlink()
    prepare.prepare(arguments(prepare, tmp_path / "again", "--unpacked", str(root / "data_aishell")))
    assert [u.text for u in Manifest.read(tmp_path / "again" / "test.jsonl")] == [u.text for u in sets["test"]]
    assert not list((tmp_path / "again").rglob("*.wav"))


def test_half_a_corpus(
    recipe_module: Callable, arguments: Callable, official: dict[str, bytes], tmp_path: Path
) -> None:
    prepare = recipe_module("aishell", "prepare")

    def run(content: dict[str, bytes], name: str) -> None:
        folder = write_files(tmp_path / name, content)
        prepare.prepare(arguments(prepare, tmp_path / f"{name}-data", "--unpacked", str(folder)))

    with pytest.raises(ManifestError, match=r"2 transcripts have no recording, e\.g\. BAC009S0724W0122"):
        run({name: data for name, data in official.items() if "S0724" not in name}, "half")
    with pytest.raises(UsageError, match="name the folder data_aishell"):
        run({"data_aishell/wav/README": b""}, "wrong")
    with pytest.raises(ManifestError, match=r"v0\.8\.txt:9: 'BAC009S0002W0122' occurs twice"):
        run(official | {TRANSCRIPT: official[TRANSCRIPT] + b"BAC009S0002W0122 \xe8\x80\x8c\n"}, "twice")
    with pytest.raises(ManifestError, match=r"v0\.8\.txt:1: 'BAC1' has no text"):
        run(official | {TRANSCRIPT: b"BAC1 \n"}, "empty")
