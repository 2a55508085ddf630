"""Recordings of one's own, in every form: sets split by speaker, a configuration that fits, one command for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import soundfile
from archives import noise, write_files
from test_consistency import FOLDERS, TINY

from asr.__main__ import main as asr_main
from asr.corpus.manifest import Manifest, Utterance
from asr.recipe.custom import Collection, collect, configuration
from asr.recipe.run import main
from asr.training.config import parse_config, read_config
from asr.types import ManifestError, UsageError


def folder(root: Path, names: list[str], text: str = "Hello, World!", ending: str = ".txt") -> Path:
    for name in names:
        path = root / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(name), 16000)
        path.with_suffix(ending).write_text(f"{text}\n", encoding="utf-8")
    return root


def sets_of(collected: Collection) -> dict[str, set[str]]:
    return {name: {row.speaker for row in rows} for name, rows in collected.sets.items()}


def test_folders_are_speakers_and_are_held_out_whole(tmp_path: Path) -> None:
    names = [f"{speaker}/{i}" for speaker in ("ann", "bob", "cem", "dora", "eve") for i in range(3)]
    collected = collect(folder(tmp_path, names, ending=".lab"))
    speakers = sets_of(collected)
    assert all(speakers.values()) and not speakers["train"] & (speakers["dev"] | speakers["test"])
    assert not speakers["dev"] & speakers["test"] and sum(map(len, collected.sets.values())) == 15
    assert not any("voices" in note for note in collected.notes)
    assert sets_of(collect(tmp_path)) == speakers  # always the same


def test_a_flat_folder_is_split_by_utterance_which_is_said(tmp_path: Path) -> None:
    folder(tmp_path, [f"a{i}" for i in range(10)])
    (tmp_path / "silent.txt").write_text("no recording", encoding="utf-8")
    (tmp_path / "a0.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "a1.txt").write_text("...\n", encoding="utf-8")
    (tmp_path / "a2.wav").write_bytes(b"no audio")
    collected = collect(tmp_path)
    assert [len(rows) for rows in collected.sets.values()] == [5, 1, 1]
    said = "\n".join(collected.notes)
    for what in ("speakers are not known", "1 texts without a recording", "1 empty texts", "no words", "a2.wav"):
        assert what in said


def test_a_split_that_is_there_is_kept_and_what_is_missing_is_held_out(tmp_path: Path) -> None:
    names = [f"train/{speaker}/{i}" for speaker in "abcd" for i in range(2)] + ["valid/e/0"]
    speakers = sets_of(collect(folder(tmp_path / "corpus", names)))
    assert speakers["dev"] == {"e"} and len(speakers["test"]) == 1 and len(speakers["train"]) == 3
    apart = folder(tmp_path / "apart", ["x/0"])
    speakers = sets_of(collect(tmp_path / "corpus", apart))
    assert speakers == {"train": set("abcd"), "dev": {"e"}, "test": {"x"}}


def test_tables_manifests_and_kaldi_directories(tmp_path: Path) -> None:
    audio = folder(tmp_path / "audio", [f"{speaker}{i}" for speaker in "abcd" for i in range(2)])
    paths = sorted(audio.glob("*.wav"))
    (tmp_path / "t.csv").write_text(
        "path,sentence,speaker\n" + "".join(f"{p},hi there,{p.name[0]}\n" for p in paths), encoding="utf-8"
    )
    rows = [{"audio_filepath": str(p), "text": "hi there", "speaker": p.name[0]} for p in paths]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tables = {
        "wav.scp": "".join(f"{p.stem} {p}\n" for p in paths),
        "text": "".join(f"{p.stem} hi there\n" for p in paths),
        "utt2spk": "".join(f"{p.stem} {p.name[0]}\n" for p in paths),
    }
    write_files(tmp_path / "kaldi", {name: content.encode() for name, content in tables.items()})
    found = [sets_of(collect(tmp_path / name)) for name in ("t.csv", "m.jsonl", "kaldi")]
    assert found[0] == found[1] == found[2] and sum(map(len, found[0].values())) == 4


def test_what_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="texts beside them"):
        collect(tmp_path)
    with pytest.raises(UsageError, match="1 utterance cannot be split into 3 sets"):
        collect(folder(tmp_path / "one", ["a"]))
    gone = '{"audio_filepath": "gone.wav", "duration": 1.0, "text": "a b"}\n'
    (tmp_path / "m.jsonl").write_text(gone, encoding="utf-8")
    with pytest.raises(ManifestError, match="audio files do not exist"):
        collect(tmp_path / "m.jsonl")


def corpus_of(hours: float, text: str) -> Collection:
    rows = [Utterance(f"u{i}", "a.wav", 30.0, text) for i in range(round(hours * 120))]
    return Collection({"train": rows, "dev": rows[:1], "test": rows[:1]})


@pytest.mark.parametrize(("hours", "text"), [(0.7, "six"), (20, "It's six"), (60, "six"), (5, "шесть")])
@pytest.mark.parametrize("memory", [0.0, 80e9])
def test_configurations_are_valid(hours: float, text: str, memory: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    has_bf16 = hours < 1  # the processor
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": has_bf16}, raising=False)
    collected = corpus_of(hours, text)
    config = parse_config(configuration(collected, Path("data/x"), Path("exp/x"), memory))
    assert (config.init == "english-14h") == (text.isascii() and hours <= 50)
    assert config.trainer.get("precision", "32-true") == ("bf16-mixed" if memory or has_bf16 else "32-true")
    assert ("consistency" in config.objectives) == bool(memory and config.init)
    assert config.text.tokenizer == ("bpe" if hours > 50 else "char")
    assert any("starts from" in note for note in collected.notes)


def test_batches_fit_into_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    small, large = (configuration(corpus_of(60, "six"), Path("d"), Path("e"), memory) for memory in (3e9, 80e9))
    assert 30 <= small["data"]["batch_seconds"] < large["data"]["batch_seconds"] == 400
    assert small["trainer"]["precision"] == "16-mixed"


def test_one_command(
    recipe_module: Callable[[str, str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    source = folder(tmp_path / "calls", [f"{speaker}/{i}" for speaker in "abcd" for i in range(2)], "привет")
    prepare = recipe_module("custom", "prepare")
    before = sorted(tmp_path.rglob("*"))
    assert main(FOLDERS["custom"], prepare, ["calls", "--dry-run"]) == 0
    assert "train: data/calls/train.jsonl" in capsys.readouterr().out and sorted(tmp_path.rglob("*")) == before

    assert main(FOLDERS["custom"], prepare, ["calls", *TINY]) == 0
    assert read_config("data/calls/recipe.yaml").output == "exp/calls"
    assert (tmp_path / "exp/calls/results/test/greedy/summary.json").exists()
    rows = [row for name in ("train", "dev", "test") for row in Manifest.read(f"data/calls/{name}.jsonl")]
    assert {Path(row.audio_filepath).resolve() for row in rows} == {p.resolve() for p in source.rglob("*.wav")}

    kept = Path("data/calls/recipe.yaml")
    kept.write_text(kept.read_text("utf-8").replace("seed: 1", "") + "seed: 7\n", encoding="utf-8")
    prepare._derived.cache_clear()
    capsys.readouterr()
    assert main(FOLDERS["custom"], prepare, ["calls", "--dry-run", *TINY]) == 0
    shown = capsys.readouterr().out
    assert "train     to do: seed changed" in shown and "prepare   up to date" in shown  # what the user wrote counts


def test_without_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "calls", [f"{speaker}/{i}" for speaker in "abcd" for i in range(2)])
    assert asr_main(["data", "init", "calls", "-o", "mine"]) == 0
    shown = capsys.readouterr()
    assert "init: english-14h" in shown.out and "asr train mine/recipe.yaml" in shown.err
    assert read_config("mine/recipe.yaml").data.test == {"test": "mine/test.jsonl"}
    assert asr_main(["data", "init", "calls", "-o", "mine"]) == 2
    assert "delete it" in capsys.readouterr().err
