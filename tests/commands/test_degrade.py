"""`asr evaluate --degrade`: every condition beside the clean set, in text, JSON, pictures and the report."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import soundfile

import asr
from asr.__main__ import main
from asr.audio.degrade import Degrader, parse_degradations
from asr.corpus.manifest import Manifest
from asr.recognition.evaluation import evaluate
from asr.recognition.robustness import measure
from asr.scoring.edits import paired_bootstrap

PNG = b"\x89PNG"


@pytest.fixture
def test_set(tiny_model, write_audio, tmp_path):
    """Six utterances of six speakers whose references are what the model hears in them."""
    model = asr.load(tiny_model, decoder="greedy")
    rows = []
    for i in range(6):
        path = write_audio(tmp_path / f"{i}.wav", 0.6 + 0.2 * (i % 3), seed=i)
        text = model.transcribe(path).text
        rows.append({"id": f"u{i}", "audio_filepath": path.name, "duration": 0.8, "text": text, "speaker": f"s{i}"})
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_whole_command(test_set, tiny_model, tmp_path, asr_command):
    """In a process of its own, with everything at once: the text, the files, the picture and the report."""
    soundfile.write(tmp_path / "noise.flac", 0.1 * np.random.default_rng(0).standard_normal(48000), 16000)
    (tmp_path / "noises").mkdir()
    (tmp_path / "noise.flac").rename(tmp_path / "noises" / "n.flac")
    conditions = [
        "noise:0",
        "noise:pink:5",
        "noise:babble:5",
        "reverb",
        "speed:1.1",
        "band:8000",
        "mp3:16",
        "gain:-20",
        "clip",
    ]
    done = asr_command(
        "evaluate", test_set, "-m", tiny_model, "--decoder", "greedy", "--noise-dir", tmp_path / "noises",
        "-o", tmp_path / "out", "--html", tmp_path / "r.html", "--degrade", *conditions,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = ["noise:recorded:0", *conditions[1:3], "reverb:0.5", *conditions[4:8], "clip:0.25"]
    table = done.stdout.partition("condition ")[2].splitlines()[1:]
    assert [row.split()[0] for row in table] == ["clean", *names]
    assert table[0].split()[1] == "0.00%" and "WER" in done.stdout
    assert (tmp_path / "out" / "degraded.png").read_bytes().startswith(PNG)
    written = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))["degraded"]
    assert [row["condition"] for row in written] == names
    for row in written:
        folder = tmp_path / "out" / "degraded" / row["condition"].replace(":", "-")
        alone = json.loads((folder / "summary.json").read_text("utf-8"))
        assert alone["wer"]["rate"] == row["rate"] == row["to_clean"]["difference"]
        assert alone["condition"] == row["condition"] and (folder / "hyp.trn").exists()
    found = (tmp_path / "r.html").read_text("utf-8").partition('id="data">')[2].partition("</script>")[0]
    titles = {section["title"]: section for section in json.loads(found)["sections"]}
    assert [row[0] for row in titles["Robustness"]["rows"]] == ["clean", *names]
    assert [group["name"] for group in titles["Robustness"]["groups"]] == ["clean", *names]
    assert len(titles["Speakers"]["rows"]) == 6


def test_json_and_the_same_numbers_in_every_batch_order(test_set, tiny_model, capsys):
    common = ["evaluate", str(test_set), "-m", str(tiny_model), "--decoder", "greedy", "--json"]
    results = []
    for seconds in ("0.1", "100"):
        assert main([*common, "--batch-seconds", seconds, "--degrade", "noise:babble:0", "reverb:1"]) == 0
        captured = capsys.readouterr()
        assert captured.out.count("\n") == 1
        results.append(json.loads(captured.out)["degraded"])
    assert results[0] == results[1]
    babble = results[0][0]
    assert babble["condition"] == "noise:babble:0" and babble["rate_of"] == "WER" and babble["rate"] > 0
    assert babble["interval_over"] == "speakers" and 0 < babble["to_clean"]["p"] < 1


def test_what_the_model_hears_is_the_degraded_waveform_compared_in_pairs(test_set, tiny_model):
    recognizer = asr.load(tiny_model, decoder="greedy")
    manifest = Manifest.read(test_set)
    degradations = parse_degradations(["noise:5", "speed:0.5"])
    degrader = Degrader(degradations, recognizer.rate)
    clean = evaluate(recognizer, manifest)
    found = measure(
        clean, manifest, degradations, degrader, lambda name, change: evaluate(recognizer, manifest, change=change)
    )
    for degradation in degradations:
        evaluation = found.conditions[degradation.name]
        for utterance, result in zip(manifest, evaluation.results, strict=True):
            samples, rate = soundfile.read(utterance.audio_filepath, dtype="float32")
            assert result.text == recognizer.transcribe((degrader(degradation, samples, utterance.id), rate)).text
            assert result.duration == pytest.approx(len(samples) / rate * (2 if degradation.kind == "speed" else 1))
        both = (e.scored.words.errors_and_lengths for e in (clean, evaluation))
        expected = paired_bootstrap(*both)
        assert found.comparisons[degradation.name].interval == expected.interval
    by_characters = measure(
        replace(clean, task="ctc-characters"),
        manifest,
        degradations[:1],
        degrader,
        lambda *_: found.conditions["noise:white:5"],
    )
    [row] = by_characters.summary()
    assert row["rate_of"] == "CER" and row["rate"] == found.conditions["noise:white:5"].cer.rate
    assert row["to_clean"]["difference"] == pytest.approx(row["rate"] - clean.cer.rate)


def test_long_recordings_and_windows_of_them_are_degraded_as_a_whole(tiny_model, write_audio, tmp_path):
    write_audio(tmp_path / "long.wav", 3.0, channels=2)
    rows = [
        {"id": "all", "audio_filepath": "long.wav", "duration": 3.0, "text": "a", "channel": 1},
        {"id": "part", "audio_filepath": "long.wav", "offset": 1.0, "duration": 0.5, "text": "a"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recognizer = asr.load(tiny_model, decoder="greedy")
    recognizer.windows = type(recognizer.windows)(1.0, 0.2)
    heard = {}

    def change(utterance, samples):
        heard[utterance.id] = samples
        return samples[: len(samples) // 2]

    results = evaluate(recognizer, tmp_path / "m.jsonl", change=change).results
    samples, rate = soundfile.read(tmp_path / "long.wav", dtype="float32")
    np.testing.assert_array_equal(heard["all"], samples[:, 1])
    np.testing.assert_allclose(heard["part"], samples[rate : rate * 3 // 2].mean(axis=1), atol=1e-7)
    assert [result.duration for result in results] == [1.5, 0.25]
    assert results[0].text == recognizer.transcribe((samples[: len(samples) // 2, 1], rate)).text


def test_what_cannot_be_read_is_named_once(test_set, tiny_model, capsys):
    (test_set.parent / "2.wav").write_bytes(b"")
    command = ["evaluate", str(test_set), "-m", str(tiny_model), "--decoder", "greedy", "--degrade", "noise:babble:0"]
    assert main(command) == 1
    assert capsys.readouterr().err.count("asr: error: ") == 1


def test_babble_is_of_other_speakers(test_set):
    manifest = Manifest.read(test_set)
    draw = random.Random(0)
    assert {manifest.another(3, draw) for _ in range(60)} == {0, 1, 2, 4, 5}
    rows = [{"audio_filepath": f"{i}.wav", "duration": 1.0, "text": "a", "speaker": "ab"[i == 3]} for i in range(6)]
    two = Manifest.from_rows(rows, "m.jsonl")
    assert {two.another(0, draw) for _ in range(20)} == {3}
    assert {two.another(3, draw) for _ in range(60)} == {0, 1, 2, 4, 5}
    with pytest.raises(IndexError):
        manifest[:1].another(0, draw)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--degrade", "nose:5"], "did you mean 'noise'"),
        (["--degrade", "noise:x"], "'x' is not a number"),
        (["--degrade", "band:44100"], "the model listens at 16000 Hz"),
        (["--degrade", "noise:5", "--noise-dir", "EMPTY"], "--noise-dir: 'EMPTY' holds no recordings"),
        (["--noise-dir", "EMPTY"], "--noise-dir is not used"),
        (["--degrade", "noise:babble:5"], "there is only one"),
    ],
)
def test_bad_input_is_one_line(test_set, tiny_model, tmp_path, capsys, options, message):
    (tmp_path / "EMPTY").mkdir()
    rows = test_set.read_text("utf-8").splitlines()
    one = tmp_path / "one.jsonl"
    one.write_text(rows[0] + "\n", encoding="utf-8")
    options = [option.replace("EMPTY", str(tmp_path / "EMPTY")) for option in options]
    assert main(["evaluate", str(one), "-m", str(tiny_model), "--decoder", "greedy", *options]) == 2
    captured = capsys.readouterr()
    assert message.replace("EMPTY", str(tmp_path / "EMPTY")) in captured.err
    assert captured.err.startswith("asr: error: ") and captured.err.count("\n") == 1 and not captured.out
