"""TED-LIUM 3: the texts of its segments, which of them are used, windows of talks, links in the archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import write_files
from layouts import tedlium as layout

from asr.audio.read import read
from asr.corpus.archive import ArchiveError
from asr.corpus.manifest import Manifest
from asr.types import ManifestError, UsageError


def test_segments(recipe_module: Callable, arguments: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    prepare, data = recipe_module("tedlium", "prepare"), tmp_path / "data"
    prepare.prepare(arguments(prepare, data, *layout.make(tmp_path)))
    assert not list(data.rglob("*.gz")) and not (data / "TEDLIUM_release-3" / "legacy" / "train").exists()
    train, dev, test = (list(Manifest.read(data / f"{name}.jsonl")) for name in ("train", "dev", "test"))
    assert [u.text for u in train] == ["it's a great year and i don't know", "a clean segment"] * 2
    assert "left out: 2 training segments with <unk>" in capsys.readouterr().err
    assert [u.text for u in dev] == ["that's what <unk> said", "the end"]
    assert [(u.offset, u.duration, u.speaker) for u in test] == [
        (0.5, 1.5, test[0].speaker),
        (2.0, 2.2, test[1].speaker),
    ]
    audio = read(train[0].audio_filepath, offset=train[0].offset, duration=train[0].duration)
    assert audio.samples.shape == (24000,)


def test_words_that_were_divided_are_joined(recipe_module: Callable) -> None:
    clean = recipe_module("tedlium", "prepare").clean
    assert clean("they 'd 've said we 're all it 's") == "they'd've said we're all it's"
    assert clean("rock 'n roll 'cause don 't tell 'em") == "rock 'n roll 'cause don't tell 'em"
    assert clean("{NOISE} uh<sil> the(2) end {BREATH}") == "uh the end"


def test_legacy_train_as_files_and_half_a_corpus(recipe_module: Callable, arguments: Callable, tmp_path: Path) -> None:
    prepare = recipe_module("tedlium", "prepare")
    official = {name.replace("/data/", "/legacy/train/"): content for name, content in layout.files().items()}

    def run(content: dict[str, bytes], name: str) -> list[str]:
        folder = write_files(tmp_path / name, content)
        prepare.prepare(arguments(prepare, tmp_path / f"{name}-data", "--unpacked", str(folder)))
        return [u.id for u in Manifest.read(tmp_path / f"{name}-data" / "train.jsonl")]

    assert run(official, "files")[0] == "911Mothers_2010W-1-0.50"
    with pytest.raises(ManifestError, match=r"AlGore_2009\.sph: missing, but .*AlGore_2009\.stm describes it"):
        run({name: content for name, content in official.items() if "AlGore_2009.sph" not in name}, "half")
    with pytest.raises(ManifestError, match=r"dev: 1 talks have no stm, e\.g\. AlGore_2006: unpack the archive again"):
        run(official | {"TEDLIUM_release-3/legacy/dev/sph/AlGore_2006.sph": b""}, "spare")
    with pytest.raises(UsageError, match=r"contains no stm/\*\.stm: name the folder TEDLIUM_release-3"):
        run({"TEDLIUM_release-3/doc/README": b""}, "wrong")
    stm = "TEDLIUM_release-3/legacy/dev/stm/AlGore_2009.stm"
    with pytest.raises(ManifestError, match=r"a segment begins at 9 s, after the end of .*AlGore_2009\.sph \(5 s\)"):
        run(official | {stm: b"AlGore_2009 1 AlGore_2009 9 10 <o,f0,male> late\n"}, "late")


def test_an_archive_that_was_cut_off_in_a_recording(
    recipe_module: Callable, arguments: Callable, tmp_path: Path
) -> None:
    prepare = recipe_module("tedlium", "prepare")
    half = tmp_path / "half.tgz"
    half.write_bytes(layout.write_archive(tmp_path / "all.tgz", layout.files()).read_bytes()[:30000])
    with pytest.raises(ArchiveError, match=r"half\.tgz: damaged or incomplete archive"):
        prepare.prepare(arguments(prepare, tmp_path / "data", "--archive", str(half), "--no-checksum"))
