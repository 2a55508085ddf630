"""Multilingual LibriSpeech: sets, the official lists of a few hours, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import write_files
from layouts import mls as layout

from asr.audio.read import read
from asr.corpus.manifest import Manifest
from asr.types import ManifestError, UsageError


@pytest.fixture
def official(tmp_path: Path) -> dict[str, bytes]:
    (tmp_path / "scratch").mkdir()
    return layout.files(tmp_path / "scratch")


def test_sets_and_limited_supervision(
    recipe_module: Callable, arguments: Callable, official: dict[str, bytes], tmp_path: Path
) -> None:
    prepare = recipe_module("mls", "prepare")
    corpus = write_files(tmp_path / "corpus", official)

    def train(name: str, *argv: str) -> list[str]:
        prepare.prepare(arguments(prepare, tmp_path / name, "--unpacked", str(corpus), *argv))
        return [u.id for u in Manifest.read(tmp_path / name / "train.jsonl")]

    everything = train("all")
    assert everything == [f"{speaker}_8338_{i:06d}" for speaker in (6892, 8758) for i in range(3)]
    assert train("10min", "--limited", "10min") == everything[:1]
    assert train("1h", "--limited", "1h") == everything[:3]
    assert train("10h", "--limited", "10h") == [*everything[:3], everything[4]]
    [first, *_] = Manifest.read(tmp_path / "all" / "dev.jsonl")
    assert (first.text, first.speaker, first.duration) == ("i zaczynają", "6758", 0.8)
    assert read(first.audio_filepath).samples.shape == (12800,)  # the times in segments.txt are those of the file


def test_what_is_missing_is_named(
    recipe_module: Callable, arguments: Callable, official: dict[str, bytes], tmp_path: Path
) -> None:
    prepare = recipe_module("mls", "prepare")

    def run(content: dict[str, bytes], *argv: str) -> None:
        folder = write_files(tmp_path / f"corpus{len(list(tmp_path.iterdir()))}", content) / "mls_polish_opus"
        prepare.prepare(arguments(prepare, tmp_path / "data", "--unpacked", str(folder), *argv))

    def without(what: str) -> dict[str, bytes]:
        return {name: content for name, content in official.items() if what not in name}

    texts = "mls_polish_opus/dev/transcripts.txt"
    with pytest.raises(ManifestError, match=r"dev: 1 transcripts have no recording, e\.g\. 6758_8338_000001: unpack"):
        run(without("6758_8338_000001"))
    with pytest.raises(ManifestError, match=r"test.segments\.txt"):
        run(without("test/segments.txt"))
    with pytest.raises(ManifestError, match=r"transcripts\.txt:4: '6758_8338_000000' occurs twice"):
        run(official | {texts: official[texts] + official[texts]})
    with pytest.raises(ManifestError, match=r"transcripts\.txt:1: expected 2 columns, found 1"):
        run(official | {texts: b"6758_8338_000000 i\n"})
    with pytest.raises(UsageError, match="not the folder mls_german_opus"):
        run(official, "--language", "german")
    with pytest.raises(UsageError, match="limited_supervision/1hr/0"):
        run(without("limited_supervision"), "--limited", "10min")
