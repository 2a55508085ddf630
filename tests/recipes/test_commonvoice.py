"""Common Voice: the alphabet is confirmed, the test set stays as it is, and what is left out of training is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import write_files
from layouts import commonvoice as layout

from asr.corpus.manifest import Manifest
from asr.types import ManifestError, UsageError

ALL = ("--alphabet", "all")


@pytest.fixture
def prepared(recipe_module: Callable, arguments: Callable, tmp_path: Path) -> Callable[..., list[str]]:
    """`prepared(files, *arguments, name="train")`: the texts of a set."""
    prepare = recipe_module("commonvoice", "prepare")

    def run(files: dict[str, bytes], *argv: str, name: str = "train") -> list[str]:
        folder = write_files(tmp_path / f"release{len(list(tmp_path.iterdir()))}", files)
        prepare.prepare(arguments(prepare, tmp_path / "data", "--unpacked", str(folder), *argv))
        return [u.text for u in Manifest.read(tmp_path / "data" / f"{name}.jsonl")]

    return run


def test_an_alphabet_is_shown_and_confirmed(
    prepared: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proposal = tmp_path / "data" / "alphabet.txt"
    with pytest.raises(UsageError, match=r"alphabet\.txt lists the characters .* then use --alphabet"):
        prepared(layout.files())
    assert "11 characters after the normalizer basic; the rarest: " in capsys.readouterr().err
    rows = dict(line.split("\t") for line in proposal.read_text(encoding="utf-8").splitlines())
    assert rows["a"] == "2" and rows["ŷ"] == "1" and '"' not in rows and "," not in rows
    kept = proposal.read_text(encoding="utf-8").replace("ŷ\t1\n", "")
    proposal.write_text(kept, encoding="utf-8")
    assert prepared(layout.files(), "--alphabet", str(proposal)) == ['Mae "hi" yma.']
    err = capsys.readouterr().err
    assert "left out of training: 1 clips with 'ŷ' (U+0177)" in err
    assert "note: 1 sentences are in train and in dev, e.g. 'Bore da, ffrind!'" in err
    assert "left out of training: 1 clips with a sentence of the dev or test set" in err


def test_the_test_set_stays_as_it_is(prepared: Callable) -> None:
    assert prepared(layout.files(), *ALL, name="test") == ["Hwyl fawr, 2 waith."]
    assert prepared(layout.files(), *ALL, name="dev") == ["Nos da.", "Bore da, ffrind!"]


def test_training_on_all_validated_clips(prepared: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    texts = prepared(layout.files(), *ALL, "--train", "validated")
    assert sorted(texts) == ["Diolch yn fawr.", 'Mae "hi" yma.', "Tŷ bach twt."]
    err = capsys.readouterr().err
    for reason in ("1 clips without a majority of votes", "1 clips with digits", "4 clips of speakers of the dev or"):
        assert f"left out of training: {reason}" in err
    assert "Dim 3 ci." in prepared(layout.files(), *ALL, "--train", "validated", "--digits", "keep")


def test_releases_without_durations_or_with_several_languages(prepared: Callable, tmp_path: Path) -> None:
    files = layout.files()
    old = {name: content for name, content in files.items() if "clip_durations" not in name}
    prepared(old, *ALL)
    assert [round(u.duration, 1) for u in Manifest.read(tmp_path / "data" / "dev.jsonl")] == [0.8, 0.8]
    both = files | {name.replace("/cy/", "/ga/"): content for name, content in files.items()}
    with pytest.raises(
        UsageError, match=r"expected one folder of a language with train\.tsv, found cy, ga: use --lang"
    ):
        prepared(both, *ALL)
    assert prepared(both, *ALL, "--language", "ga")
    with pytest.raises(UsageError, match="found none"):
        prepared({"clips/a.mp3": b""}, *ALL)


def test_half_a_release(prepared: Callable) -> None:
    files = layout.files()
    lost = f"{layout.FOLDER}/clips/common_voice_cy_dev0001.mp3"
    with pytest.raises(
        ManifestError, match=r"dev\.tsv: 1 of its 2 clips are not in clips/, e\.g\. common_voice_cy_dev0"
    ):
        prepared({name: content for name, content in files.items() if name != lost}, *ALL)
    table = f"{layout.FOLDER}/test.tsv"
    twice = files[table] + files[table].split(b"\n")[1] + b"\n"
    with pytest.raises(ManifestError, match=r"the clip common_voice_cy_test0000\.mp3 occurs twice"):
        prepared(files | {table: twice}, *ALL)
    with pytest.raises(ManifestError, match=r"validated\.tsv"):
        prepared({n: c for n, c in files.items() if "validated.tsv" not in n}, *ALL, "--train", "validated")
