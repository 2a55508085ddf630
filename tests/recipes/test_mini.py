"""The mini recipe's speech: sentences from the grammar, spoken by eSpeak NG."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr.corpus.manifest import Manifest
from asr.text.normalize import normalize
from asr.training.config import read_config
from asr.training.initial import InitialModel
from asr.types import UsageError

ROOT = Path(__file__).parents[2]
RUN = ROOT / "recipes" / "mini" / "run.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader", reason="needs eSpeak NG: pip install -e '.[demo]'")
    data = tmp_path_factory.mktemp("mini")
    subprocess.run(
        [sys.executable, RUN, "--data", data, "--utterances", "30", "--steps", "prepare"], cwd=ROOT, check=True
    )
    return data


def test_grammar_makes_different_normalized_sentences(recipe_module: Callable) -> None:
    grammar = recipe_module("mini", "sentences").Grammar(1)
    train = grammar.sentences(1500)
    known = {sentence.text for sentence in train}
    test = grammar.sentences(150, exclude=known)
    assert len(known) == 1500 and not known & {sentence.text for sentence in test}
    words = {word for text in known for word in text.split()}
    assert len(words) >= 500
    assert {word for sentence in test for word in sentence.text.split()} <= words
    assert all(sentence.text == normalize(sentence.text, "basic") for sentence in [*train, *test])
    again = recipe_module("mini", "sentences").Grammar(1)
    assert again.sentences(1500) == train


def test_letter_a_is_spoken_as_a_letter_and_the_article_agrees(recipe_module: Callable) -> None:
    sentences = recipe_module("mini", "sentences").Grammar(3).sentences(800)
    spelled = [s for s in sentences if " is spelled " in s.text]
    assert spelled
    for sentence in spelled:
        word, _, letters = sentence.text.partition(" is spelled ")
        assert letters == " ".join(word)
        assert sentence.spoken.count("[[") == word.count("a")
    for sentence in sentences:
        words = sentence.spoken.split()
        assert not any(a == "a" and b[0] in "aeiou" for a, b in itertools.pairwise(words))


def test_no_voice_is_in_two_sets(recipe_module: Callable, corpus: Path) -> None:
    variants = recipe_module("mini", "synthesize").VARIANTS
    sets = [set(names.split()) for names in variants.values()]
    assert sum(map(len, sets)) == len(set().union(*sets))
    synthesizer = recipe_module("mini", "synthesize").Synthesizer()
    accents = set(recipe_module("mini", "synthesize").ACCENTS.split())
    for voice in [f"en+{v}" for v in set().union(*sets)] + sorted(accents):
        assert len(synthesizer.speak("hello", voice)) > 0.2 * synthesizer.rate


def test_prepared_sets(corpus: Path) -> None:
    sets = {name: list(Manifest.read(corpus / f"{name}.jsonl")) for name in ("train", "dev", "test")}
    assert {name: len(rows) for name, rows in sets.items()} == {"train": 30, "dev": 5, "test": 5}
    for rows in sets.values():
        for row in rows:
            import soundfile

            samples, rate = soundfile.read(row.audio_filepath)
            assert rate == 16000 and samples.ndim == 1
            assert row.duration == len(samples) / rate
            assert 0.5 < row.duration < 10
            assert 0.01 < np.abs(samples).max() < 1.0


def test_the_seed_decides_every_sample(recipe_module: Callable, corpus: Path, tmp_path: Path) -> None:
    command = [sys.executable, RUN, "--utterances", "30", "--data", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True)

    def digest(folder: Path) -> str:
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".jsonl"))
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()

    assert digest(corpus) == digest(tmp_path)
    grammar = recipe_module("mini", "sentences").Grammar
    assert grammar(1).sentences(30) != grammar(2).sentences(30)


def test_both_configurations_are_tested_on_the_same_sentences(
    recipe_module: Callable, arguments: Callable, corpus: Path, tmp_path: Path
) -> None:
    pytest.importorskip("espeakng_loader")
    prepare = recipe_module("mini", "prepare")
    usual, scratch = (read_config(RUN.parent / f"{name}.yaml") for name in ("recipe", "scratch"))
    assert usual.output != scratch.output and usual.data.dev == scratch.data.dev
    names = tuple(Path(path).stem for path in (scratch.data.train, scratch.data.dev, *scratch.data.test.values()))
    assert [*prepare.TRAINING_SETS] == [Path(usual.data.train).stem, names[0]]
    prepare.prepare(arguments(prepare, tmp_path, "--utterances", "5", manifests=names))
    for name, size in ((names[0], 5), ("dev", 1), ("test", 1)):
        texts = [row.text for row in Manifest.read(corpus / f"{name.partition('-')[0]}.jsonl")]
        assert [row.text for row in Manifest.read(tmp_path / f"{name}.jsonl")] == texts[:size]
    with pytest.raises(UsageError, match="--utterances"):
        prepare.prepare(arguments(prepare, tmp_path, "--utterances", "-5"))


def test_the_usual_configuration_begins_from_the_bundled_model() -> None:
    config = read_config(RUN.with_name("recipe.yaml"))
    assert InitialModel.read(config.init, config.model, config.features).record["name"] == "english-14h"
    assert not read_config(RUN.with_name("scratch.yaml")).init


def test_unknown_voices_and_a_missing_package_are_one_line(
    recipe_module: Callable, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = recipe_module("mini", "synthesize")
    for voice in ("xx-nowhere", "en-us+nobody"):
        with pytest.raises(module.SynthesisError, match=voice.replace("+", r"\+")):
            module.Synthesizer().speak("hello", voice)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(module.SynthesisError, match=r"pip install -e '\.\[demo\]'") as error:
        module.Synthesizer()
    assert "\n" not in str(error.value)


def test_the_recipe_from_nothing_to_a_transcript(corpus: Path, tmp_path: Path) -> None:
    """run.py as a user calls it, with a toy model: the table, the model file, and a second call with nothing to do."""
    command = [sys.executable, ROOT / "recipes" / "mini" / "run.py", "--data", tmp_path / "data", "--output", tmp_path]
    command += ["--config", "scratch"]
    command += ["--utterances", "12", "trainer.max_epochs=1", "model.hidden_size=8", "model.layers=1"]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    table, _, rest = first.stdout.partition("model: ")
    assert "WER" in table and "\ntest " in table
    assert rest.splitlines()[0] == str(tmp_path / "model.asr")
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == first.stdout
    assert again.stderr.count("up to date") == 5

    import asr

    transcript = asr.load(tmp_path / "model.asr").transcribe(tmp_path / "data" / "audio" / "test" / "test-0000.wav")
    assert transcript.duration > 0.5
