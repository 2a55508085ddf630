"""Speech Commands: the official sets, the 12-class task, and the twin that is synthesized offline."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import audio_bytes, write_files

from asr.corpus.labels import label_of
from asr.corpus.manifest import Manifest
from asr.recipe.run import main
from asr.training.config import read_config
from asr.types import UsageError

FOLDER = Path(__file__).parents[2] / "recipes" / "speech_commands"


def test_the_sets_follow_the_lists_or_the_hash_of_the_speaker(
    recipe_module: Callable, arguments: Callable, tmp_path: Path
) -> None:
    prepare = recipe_module("speech_commands", "prepare")
    speakers = [f"{number:08x}" for number in range(60)]
    words = ("bed", "go", "no")
    names = [f"{word}/{speaker}_nohash_{i}.wav" for word in words for speaker in speakers for i in range(2)]
    files = {name: audio_bytes(name, seconds=0.05) for name in names}
    files["_background_noise_/hum.wav"] = audio_bytes("hum", seconds=20.0)
    official = write_files(tmp_path / "official", files)
    data = tmp_path / "data"
    prepare.prepare(arguments(prepare, data, "--unpacked", str(official)))
    sets = {name: list(Manifest.read(data / f"{name}.jsonl")) for name in ("train", "dev", "test")}
    assert sum(map(len, sets.values())) == len(names)
    assert all(
        label_of(row) == row.text == Path(row.audio_filepath).parent.name for rows in sets.values() for row in rows
    )
    by_set = {name: {row.speaker for row in rows} for name, rows in sets.items()}
    assert sum(map(len, by_set.values())) == len(set().union(*by_set.values())) == 60
    for name, found in by_set.items():
        assert all(prepare.which_set(speaker) == name for speaker in found)

    for name, rows in sets.items():
        twelve = list(Manifest.read(data / f"{name}-12.jsonl"))
        counts = Counter(map(label_of, twelve))
        commands = sum(row.text in ("go", "no") for row in rows)
        assert counts["go"] + counts["no"] == commands
        assert counts["unknown"] == min(round(0.1 * commands), len(rows) - commands)
        assert counts["silence"] == round(0.1 * commands)
    silences = [row for name in sets for row in Manifest.read(data / f"{name}-12.jsonl") if label_of(row) == "silence"]
    spans = {"train": (0, 16), "dev": (16, 18), "test": (18, 20)}
    for row in silences:
        low, high = spans[row.split.removesuffix("-12")]
        assert low <= row.offset <= row.offset + row.duration <= high + 1e-6

    chosen = names[3]
    (official / "testing_list.txt").write_text(chosen + "\n", encoding="utf-8")
    (official / "validation_list.txt").write_text(names[0] + "\n", encoding="utf-8")
    prepare.prepare(arguments(prepare, data, "--unpacked", str(official)))
    assert [row.id for row in Manifest.read(data / "test.jsonl")] == [chosen.removesuffix(".wav").replace("/", "-")]
    assert len(Manifest.read(data / "train.jsonl")) == len(names) - 2


def test_configurations_differ_in_what_they_say(recipe_module: Callable) -> None:
    configs = {path.stem: read_config(path) for path in FOLDER.glob("*.yaml")}
    assert len({config.output for config in configs.values()}) == len(configs) == 7
    for cell in ("rnn", "lstm", "gru"):
        model = configs[cell].model
        assert (model.cell, model.layers, model.bidirectional) == (cell, 1, False)  # type: ignore[attr-defined]
        assert configs[cell].classification.pooling == "last"


def test_the_twin_from_nothing_to_a_table(
    recipe_module: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install -e '.[demo]'")
    prepare = recipe_module("speech_commands", "prepare")
    monkeypatch.setattr(recipe_module("speech_commands", "synthesized"), "WORDS", ["yes", "no", "seven"])
    monkeypatch.chdir(tmp_path)
    argv = ["--config", "synthesized", "--clips", "16", "--output", "run", "trainer.max_epochs=8"]
    argv += ["model.hidden_size=32", "model.layers=1", "optimizer.lr=0.01", "features.n_mels=20"]
    assert main(FOLDER, prepare, argv) == 0, capsys.readouterr().err
    sets = {name: list(Manifest.read(f"data/speech_commands/synthesized/{name}.jsonl")) for name in ("train", "test")}
    assert len(sets["train"]) == 48 and Counter(map(label_of, sets["train"])) == {"yes": 16, "no": 16, "seven": 16}
    assert not {row.speaker for row in sets["train"]} & {row.speaker for row in sets["test"]}
    summary = json.loads(Path("run/results/test/labels/summary.json").read_text("utf-8"))
    assert summary["utterances"] == len(sets["test"]) and summary["accuracy"]["rate"] > 0.7
    out = capsys.readouterr().out
    assert "balanced accuracy" in out and f"{summary['accuracy']['rate']:.2%}" in out
    with pytest.raises(UsageError, match="--clips"):
        recipe_module("speech_commands", "synthesized").synthesize(tmp_path, 0, 1)
