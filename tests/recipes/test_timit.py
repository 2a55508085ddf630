"""TIMIT: which sentences are in which set, in either case; what is missing is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import write_files
from layouts import timit as layout

from asr.corpus.manifest import Manifest
from asr.types import ManifestError, UsageError


@pytest.fixture(scope="module")
def official() -> dict[str, bytes]:
    return layout.files()


def test_sets_and_phones(
    recipe_module: Callable, arguments: Callable, official: dict[str, bytes], tmp_path: Path
) -> None:
    prepare, data = recipe_module("timit", "prepare"), tmp_path / "data"
    prepare.prepare(arguments(prepare, data, "--unpacked", str(write_files(tmp_path / "cd", official))))
    sets = {name: list(Manifest.read(data / f"{name}.jsonl")) for name in ("train", "dev", "test")}
    assert {name: len({u.speaker for u in rows}) for name, rows in sets.items()} == {"train": 3, "dev": 50, "test": 24}
    assert not {u.speaker for u in sets["dev"]} & {u.speaker for u in sets["test"]}
    assert len(prepare.PHONES) == 61
    for rows in sets.values():
        assert not [u.id for u in rows if "-sa" in u.id]
        assert {(u.text, round(u.duration, 3)) for u in rows} == {(layout.PHONES, 0.8)}
    assert [u.id for u in sets["train"]][:2] == ["fcjf0-si1000", "fcjf0-sx0"]


def test_lower_case_and_the_folder_itself(
    recipe_module: Callable, arguments: Callable, official: dict[str, bytes], tmp_path: Path
) -> None:
    prepare = recipe_module("timit", "prepare")
    lower = {name.lower(): content for name, content in official.items()}
    lower["timit/train/dr1/fcjf0/si1000.wav.wav"] = b"a copy that some have"
    folders = [write_files(tmp_path / "upper", official) / "TIMIT", write_files(tmp_path / "lower", lower)]
    found = []
    for i, folder in enumerate(folders):
        prepare.prepare(arguments(prepare, tmp_path / f"data{i}", "--unpacked", str(folder)))
        found.append([(u.id, u.text) for u in Manifest.read(tmp_path / f"data{i}" / "train.jsonl")])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("SI1001.PHN", r"SI1001\.WAV: no SI1001\.PHN beside it: unpack TIMIT again"),
        ("MDAB0/", r"TEST: no sentences of the speaker 'mdab0'"),
        ("/TEST/", r"contains no folders TRAIN and TEST"),
    ],
)
def test_half_a_corpus(
    recipe_module: Callable,
    arguments: Callable,
    official: dict[str, bytes],
    tmp_path: Path,
    lost: str,
    message: str,
) -> None:
    prepare = recipe_module("timit", "prepare")
    half = write_files(tmp_path / "cd", {name: data for name, data in official.items() if lost not in name})
    with pytest.raises((ManifestError, UsageError), match=message):
        prepare.prepare(arguments(prepare, tmp_path / "data", "--unpacked", str(half)))
    assert not list((tmp_path / "data").glob("*.jsonl"))


def test_unknown_phones_and_no_place(recipe_module: Callable, arguments: Callable, tmp_path: Path) -> None:
    prepare = recipe_module("timit", "prepare")
    (tmp_path / "a.phn").write_text("0 100 h#\n100 200 schwa\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"a\.phn:2: expected START END PHONE"):
        list(prepare.read_phones(tmp_path / "a.phn"))
    with pytest.raises(UsageError, match="the LDC sells it"):
        prepare.prepare(arguments(prepare, tmp_path / "data"))
