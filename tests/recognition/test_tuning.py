"""Tuning on a development set: what is chosen, what is kept, what is refused; the command as users run it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import asr
from asr.corpus.manifest import Manifest, Utterance, manifest_row
from asr.decoding.beam.search import BeamSearch
from asr.lm.files import read_tuned
from asr.lm.ngram import NGramLM
from asr.recognition.tuning import Trial, Tuning, cached_emissions, refuse_test_set, table, tune, write_tuning
from asr.types import AsrError, UsageError

LABELS = ["", " ", *"abcde"]
ARPA = """\
\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.3
-1.0\t</s>
-0.6\tcab\t-0.2
-1.2\tbad
-1.2\tbed

\\2-grams:
-0.2\t<s> cab
-0.3\tcab bed
-1.5\tcab bad

\\end\\
"""


@pytest.fixture
def lm(tmp_path: Path) -> Path:
    path = tmp_path / "words.arpa"
    path.write_text(ARPA, encoding="utf-8")
    return path


def emissions_of(text: str, unsure: dict[str, str], frames: int = 2) -> np.ndarray:
    """Emissions of `text` in which the letters of `unsure` lose narrowly against another one."""
    rows = []
    for letter in text:
        row = np.full(len(LABELS), 0.002)
        row[LABELS.index(letter)] = 0.9
        if letter in unsure:
            row[LABELS.index(letter)], row[LABELS.index(unsure[letter])] = 0.44, 0.46
        blank = np.full(len(LABELS), 0.01)
        blank[0] = 0.9
        rows += [row] * frames + [blank]
    probabilities = np.array(rows)
    return np.log(probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)


def test_finds_weights_that_mend_what_the_language_model_knows(lm: Path) -> None:
    search = BeamSearch(LABELS, NGramLM.read(lm))
    utterances = [emissions_of("cab bed", {"e": "a"}), emissions_of("cab bed cab", {"e": "a"}), emissions_of("cab", {})]
    tuning = tune(search, utterances, ["cab bed", "cab bed cab", "cab"], "none")
    without = [trial for trial in tuning.trials if trial.alpha == 0]
    assert min(trial.errors for trial in without) == 2  # "bad" twice
    assert tuning.best.errors == min(trial.errors for trial in tuning.trials) == 0
    assert tuning.best.alpha > 0
    assert tuning.wer(without[0]) == without[0].errors / 6
    decoder = search.reweighted(alpha=tuning.best.alpha, beta=tuning.best.beta, beam_width=tuning.best.beam_width)
    assert [best[0].text for best in decoder.decode_many(utterances)] == ["cab bed", "cab bed cab", "cab"]
    narrower = [t for t in tuning.trials if t.beam_width < tuning.best.beam_width and t.errors == 0]
    # one smaller width was enough, too
    assert len([t for t in narrower if (t.alpha, t.beta) == (tuning.best.alpha, tuning.best.beta)]) == 1


def test_bounds_and_a_fixed_width_are_kept(lm: Path) -> None:
    search = BeamSearch(LABELS, NGramLM.read(lm))
    tuning = tune(
        search, [emissions_of("cab", {})], ["cab"], "none", alphas=(0.5, 1.0), betas=(0.0, 1.0), beam_width=10
    )
    assert {trial.beam_width for trial in tuning.trials} == {10}
    assert all(0.5 <= t.alpha <= 1.0 and 0.0 <= t.beta <= 1.0 for t in tuning.trials)
    # all are equally good: the choice is the middle
    assert abs(tuning.best.alpha - 0.75) < 0.1 and abs(tuning.best.beta - 0.5) < 0.2


def test_nothing_to_tune_on(lm: Path) -> None:
    search = BeamSearch(LABELS, NGramLM.read(lm))
    with pytest.raises(AsrError, match="no utterance"):
        tune(search, [], [], "none")
    with pytest.raises(AsrError, match="references are empty"):
        tune(search, [emissions_of("cab", {})], [""], "none")


@pytest.mark.parametrize("split", ["test", "TEST", "test-clean"])
def test_a_test_set_is_refused(split: str) -> None:
    rows = [Utterance("a", "a.wav", 1.0, "x", split="dev"), Utterance("b", "b.wav", 1.0, "x", split=split)]
    with pytest.raises(UsageError, match=r"b belongs to the split .*development"):
        refuse_test_set(Manifest.from_rows([manifest_row(row, row.audio_filepath) for row in rows], ""))
    refuse_test_set(Manifest.from_rows([manifest_row(rows[0], "a.wav")], ""))


@pytest.mark.parametrize("name", ["test.jsonl", "Test-clean.jsonl", "test_2.jsonl"])
def test_a_file_named_as_a_test_set_is_refused_unless_its_rows_say_else(name: str, tmp_path: Path) -> None:
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "x", "id": "a"}
    for path, split in ((tmp_path / "testimony.jsonl", None), (tmp_path / name, "dev"), (tmp_path / name, None)):
        path.write_text(json.dumps(row | ({"split": split} if split else {})) + "\n", encoding="utf-8")
        if path.name == name and not split:
            with pytest.raises(UsageError, match=rf"{name}: named like a test set, .*'split'.*development"):
                refuse_test_set(Manifest.read(path))
        else:
            refuse_test_set(Manifest.read(path))


def test_report(tmp_path: Path) -> None:
    trials = (Trial(0, 0, 64, 9), Trial(1, 0, 64, 3), Trial(0, 1, 64, 5), Trial(1, 1, 64, 4), Trial(1, 0, 16, 3))
    tuning = Tuning(trials, trials[4], 60, 7)
    assert table(tuning).splitlines()[1].split() == ["1.000", "0.000", "16", "5.00%", "3", "chosen"]
    assert len(table(tuning, most=2).splitlines()) == 3
    write_tuning(tuning, tmp_path, "title")
    rows = (tmp_path / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "alpha,beta,beam_width,errors,wer" and rows[2] == "1,0,64,3,0.05000" and len(rows) == 6
    assert (tmp_path / "surface.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def dev(tmp_path: Path, write_audio: Callable[..., Path]) -> Path:
    rows = []
    for i, seconds in enumerate((0.9, 1.4, 0.6)):
        write_audio(tmp_path / f"{i}.wav", seconds, seed=i)
        rows.append(
            {"audio_filepath": f"{i}.wav", "duration": seconds, "text": "cab bed", "split": "dev", "id": f"u{i}"}
        )
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_emissions_are_the_models_and_kept(
    tiny_model: Path, dev: Path, tmp_path: Path, write_audio: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = asr.load(tiny_model)
    decoder = recognizer.decoder
    manifest = Manifest.read(dev)
    first, _ = cached_emissions(recognizer, tiny_model, manifest, tmp_path / "kept")
    assert recognizer.decoder is decoder
    for array, utterance in zip(first, manifest, strict=True):
        assert array is not None
        text = decoder.decode(array)[0].text
        assert text == recognizer.transcribe(utterance.audio_filepath).text != ""

    def fail(*arguments: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(recognizer.acoustic_model, "outputs", fail)
    second, _ = cached_emissions(recognizer, tiny_model, Manifest.read(dev), tmp_path / "kept")
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    write_audio(tmp_path / "1.wav", 1.4, seed=9)
    with pytest.raises(AssertionError, match="the model ran"):
        cached_emissions(recognizer, tiny_model, Manifest.read(dev), tmp_path / "kept")


def test_unreadable_audio_has_no_emissions(tiny_model: Path, dev: Path, tmp_path: Path) -> None:
    (tmp_path / "1.wav").write_bytes(b"no audio")
    for _ in range(2):  # computed, then read back
        found, failures = cached_emissions(asr.load(tiny_model), tiny_model, Manifest.read(dev), tmp_path / "kept")
        assert [array is None for array in found] == [False, True, False]
        assert list(failures) == ["u1"] and "1.wav" in failures["u1"]


def test_command(
    tiny_model: Path, dev: Path, lm: Path, tmp_path: Path, asr_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments = ("lm", "tune", dev, "-m", tiny_model, "--lm", lm)
    done = asr_command(*arguments, "--json", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    tuned = read_tuned(lm)
    assert tuned is not None
    assert (tuned.alpha, tuned.beta, tuned.beam_width) == (values["alpha"], values["beta"], values["beam_width"])
    assert {"surface.png", "trials.csv", "emissions.npy"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert NGramLM.read(lm).tuned == tuned
    dev.write_text(dev.read_text(encoding="utf-8").replace('"dev"', '"test"'), encoding="utf-8")
    refused = asr_command(*arguments)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "development set" in refused.stderr
    wrong = asr_command(*arguments, "--alpha", "3:1")
    assert wrong.returncode == 2 and "3 is not below 1" in wrong.stderr
