"""The english recipe: corpora of several layouts become one training set, with dev and test sets of other speakers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from asr.config import from_dict
from asr.corpus.manifest import Manifest, Utterance, write_manifest
from asr.model.checkpoint import read_metadata
from asr.model.config import ModelConfig
from asr.recipe.run import main
from asr.training.config import read_config
from asr.types import ManifestError, UsageError

FOLDER = Path(__file__).parents[2] / "recipes" / "english"


def rows(speakers: int, name: str = "s", text: str = "It's number one", split: str = "") -> list[Utterance]:
    return [
        Utterance(f"{name}{s}-{i}", f"audio/{name}{s}-{i}.wav", 1.5, text, speaker=f"{name}{s}", split=split)
        for s in range(speakers)
        for i in range(3)
    ]


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """Manifests as they may lie about: by split in a folder, one for a corpus, splits in the rows, a single speaker."""
    root = tmp_path / "corpora"
    for path, content in {
        "books/train-clean-100.jsonl": rows(20),
        "books/dev-clean.jsonl": rows(2, "d"),
        "books/test-clean.jsonl": rows(3, "t"),
        "many.jsonl": rows(50),
        "learners.jsonl": rows(12, split="train") + rows(1, "t", split="test"),
        "single/all.jsonl": [replace(row, speaker="") for row in rows(1)],
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_manifest(root / path, content)
    return root


def speakers(path: Path) -> set[str]:
    return {utterance.speaker for utterance in Manifest.read(path)}


def test_sets_of_all_and_of_each_corpus(
    recipe_module: Callable, arguments: Callable, corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, data = recipe_module("english", "prepare"), tmp_path / "data"
    args = arguments(prepare, data, "--manifests", str(corpora))
    prepare.prepare(args)
    assert sorted(path.name for path in data.glob("*.jsonl")) == [
        *("dev-books.jsonl", "dev-learners.jsonl", "dev-many.jsonl", "dev.jsonl"),
        *("test-books.jsonl", "test-learners.jsonl", "test-many.jsonl", "test.jsonl", "train.jsonl"),
    ]
    sets = {name: speakers(data / f"{name}.jsonl") for name in ("train", "dev", "test")}
    in_train = {c: sum(s.startswith(f"{c}-") for s in sets["train"]) for c in ("books", "many", "learners")}
    assert in_train == {"books": 20, "many": 46, "learners": 11}
    for name in ("dev", "test"):
        assert sets[name] == set().union(*(speakers(path) for path in data.glob(f"{name}-*.jsonl")))
    assert speakers(data / "dev-books.jsonl") == {"books-d0", "books-d1"}  # the corpus's own sets stay as they are
    assert speakers(data / "test-learners.jsonl") == {"learners-t0"}
    split = [speakers(data / f"{name}-many.jsonl") for name in ("dev", "test")] + [sets["train"]]
    assert [len(names) for names in split[:2]] == [2, 2] and len(set().union(*split)) == sum(map(len, split))

    train = list(Manifest.read(data / "train.jsonl"))
    assert len(train) == 20 * 3 + 46 * 3 + 11 * 3 + 3
    assert {u.split for u in train} == {"train"} and {u.text for u in train} == {"It's number one"}
    assert {u.speaker for u in train if u.id.startswith("single-")} == {""}
    assert {Path(u.audio_filepath).resolve().parent for u in train} == {Path("audio").resolve()}
    table = capsys.readouterr().err.splitlines()
    assert table[-1].split() == ["all", "0.10", "0.01", "0.01"]

    before = {path.name: path.read_bytes() for path in data.iterdir()}
    (corpora / "many.jsonl").unlink()
    prepare.prepare(args)
    assert not (data / "dev-many.jsonl").exists()
    write_manifest(corpora / "many.jsonl", rows(50))
    prepare.prepare(args)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before  # the same choice every time


def test_text_that_is_no_english_in_letters(
    recipe_module: Callable, arguments: Callable, corpora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, data = recipe_module("english", "prepare"), tmp_path / "data"
    odd = [Utterance("x", "audio/x.wav", 1.5, "Room 5, naïve"), Utterance("y", "audio/y.wav", 1.5, "...")]
    write_manifest(corpora / "many.jsonl", [*rows(50), *odd])
    prepare.prepare(arguments(prepare, data, "--manifests", str(corpora)))
    skipped = (data / "skipped.tsv").read_text(encoding="utf-8").splitlines()
    assert skipped[1:] == ["many-x\tnot a to z, apostrophe and space: 5ï", "many-y\tthe text is empty"]
    assert "left out: 2 utterances" in capsys.readouterr().err
    assert not {"many-x", "many-y"} & {u.id for u in Manifest.read(data / "train.jsonl")}

    write_manifest(corpora / "many.jsonl", rows(50, text="Über allen Gipfeln"))
    with pytest.raises(ManifestError, match=r"150 of 150 utterances are not English .*many-s0-0: .*: ü") as error:
        prepare.prepare(arguments(prepare, data, "--manifests", str(corpora)))
    assert "\n" not in str(error.value)


def test_nothing_to_read_and_nobody_to_hold_out(recipe_module: Callable, arguments: Callable, tmp_path: Path) -> None:
    prepare, data, here = recipe_module("english", "prepare"), tmp_path / "data", tmp_path / "here"
    here.mkdir()
    with pytest.raises(UsageError, match="Use --manifests DIR"):
        prepare.prepare(arguments(prepare, data))
    with pytest.raises(UsageError, match="contains no manifests"):
        prepare.prepare(arguments(prepare, data, "--manifests", str(here)))
    write_manifest(here / "single.jsonl", rows(1))
    with pytest.raises(UsageError, match=r"there is no dev set: none of single has one, or at least 10 speakers"):
        prepare.prepare(arguments(prepare, data, "--manifests", str(here)))


def test_the_recipe_prepares_several_folders_and_notices_changes(
    recipe_module: Callable,
    corpora: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare = recipe_module("english", "prepare")
    monkeypatch.chdir(tmp_path)
    command = ["--manifests", "corpora/books", "--manifests", "corpora/single", "--steps", "prepare,tokenizer"]
    assert main(FOLDER, prepare, command) == 0
    assert "char, " in capsys.readouterr().err
    assert {u.id.partition("-")[0] for u in Manifest.read("data/english/train.jsonl")} == {"books", "single"}
    assert main(FOLDER, prepare, command) == 0
    assert capsys.readouterr().err.count("up to date") == 2
    write_manifest(corpora / "books" / "train-clean-100.jsonl", rows(21))
    assert main(FOLDER, prepare, command) == 0
    assert "[prepare] up to date" not in capsys.readouterr().err


def test_configurations() -> None:
    usual, large = (read_config(FOLDER / f"{name}.yaml") for name in ("recipe", "3000h"))
    bundled = from_dict(ModelConfig, read_metadata("english-14h")["model"], "model")
    assert usual.model == bundled  # what is trained here can take its place
    for config in (usual, large):
        assert config.objectives == {"ctc": 1.0, "consistency": 0.2} and config.view_time_masks == 2.5
        widths = (config.model.hidden_size, config.model.projection, config.model.subsampling_channels * 20)
        assert not any(width % 128 for width in widths)
    assert usual.output != large.output and usual.data.train == large.data.train
