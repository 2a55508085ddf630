"""The AN4 preparation on a tiny archive in the official layout."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.corpus.archive import ArchiveError
from asr.corpus.manifest import Manifest
from asr.model.config import RecurrentConfig
from asr.training.config import read_config
from asr.training.initial import InitialModel


def test_splits_texts_and_samples(
    recipe_module: Callable, arguments: Callable, an4_archive: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    archive, samples = an4_archive
    prepare = recipe_module("an4", "prepare")
    prepare.prepare(arguments(prepare, tmp_path / "data", "--archive", str(archive), "--no-checksum"))
    sets = {name: list(Manifest.read(tmp_path / "data" / f"{name}.jsonl")) for name in ("train", "dev", "test")}

    speakers = {name: {u.speaker for u in utterances} for name, utterances in sets.items()}
    assert speakers["test"] == {"ftst"}
    assert len(speakers["dev"]) == 8 and not speakers["dev"] & speakers["train"]
    assert {s[0] for s in speakers["dev"]} == {"f", "m"}
    assert {"mzzz", "mzzz2"} <= speakers["train"]  # the same person twice: never on both sides
    assert sorted(u.id for utterances in sets.values() for u in utterances) == sorted(samples)
    for name, utterances in sets.items():
        for u in utterances:
            assert u.split == name
            assert u.text == ("yes" if u.id.startswith("an0") else "u m six")
            read, rate = soundfile.read(u.audio_filepath, dtype="int16")
            np.testing.assert_array_equal(read, samples[u.id])
            assert rate == 16000 and u.duration == len(read) / rate


def test_choice_of_dev_speakers_is_fixed(recipe_module: Callable) -> None:
    prepare = recipe_module("an4", "prepare")
    names = [f"f{i}x" for i in range(20)] + [f"m{i}x" for i in range(60)]
    chosen = prepare.choose_dev_speakers(names, 8)
    assert chosen == prepare.choose_dev_speakers(reversed(names), 8)
    assert sum(name.startswith("f") for name in chosen) == 2 and len(chosen) == 8


def test_transcription_marks_and_malformed_lines(recipe_module: Callable) -> None:
    prepare = recipe_module("an4", "prepare")
    text = "<s> GO </s> (a-x-b)\n\nRUBOUT G M (b-x-b)\n<s> ++UH++ <sil> ONE </s> (c-x-b)\n"
    assert prepare.read_transcription(text, "here") == {"a-x-b": "go", "b-x-b": "rubout g m", "c-x-b": "one"}
    with pytest.raises(ArchiveError, match="here:2"):
        prepare.read_transcription("GO (a)\nGO a\n", "here")


def test_other_archives_are_refused_in_one_line(recipe_module: Callable, arguments: Callable, tmp_path: Path) -> None:
    prepare = recipe_module("an4", "prepare")
    archive = tmp_path / "other.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("something/else.raw")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"\0\1\0\1"))
    with pytest.raises(ArchiveError, match="not the AN4 archive") as error:
        prepare.prepare(arguments(prepare, tmp_path / "data", "--archive", str(archive), "--no-checksum"))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "data").glob("*.jsonl"))


def test_a_recording_that_is_missing_is_named(
    recipe_module: Callable, arguments: Callable, add_file: Callable, tmp_path: Path
) -> None:
    prepare = recipe_module("an4", "prepare")
    archive = tmp_path / "short.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        add_file(tar, "an4/wav/an4_clstk/fash/an1-fash-b.raw", b"\0\1" * 800)
        add_file(tar, "an4/etc/an4_train.transcription", b"<s> GO </s> (an1-fash-b)\n<s> NO </s> (an2-fash-b)\n")
        add_file(tar, "an4/etc/an4_test.transcription", b"")
    with pytest.raises(ArchiveError, match="an2-fash-b"):
        prepare.prepare(arguments(prepare, tmp_path / "data", "--archive", str(archive), "--no-checksum"))


def test_the_configuration_for_long_recordings_changes_augmentation_only() -> None:
    folder = Path(__file__).parents[2] / "recipes" / "an4"
    usual, long = (read_config(folder / f"{name}.yaml") for name in ("ctc", "long"))
    assert long.augment == replace(usual.augment, silence=0.5, join=0.5, join_up_to=4)
    assert (long.data, long.model, long.text, long.optimizer) == (usual.data, usual.model, usual.text, usual.optimizer)
    assert long.output != usual.output


def test_the_configuration_for_fine_tuning_fits_the_bundled_model() -> None:
    config = read_config(Path(__file__).parents[2] / "recipes" / "an4" / "finetune.yaml")
    initial = InitialModel.read(config.init, config.model, config.features)
    assert initial.record["name"] == "english-14h" and initial.record["hours"] == 14.48
    assert config.model == RecurrentConfig(hidden_size=384, layers=4, dropout=0.35)
    assert config.output == "exp/an4-finetune" and config.optimizer.schedule == "cosine"
