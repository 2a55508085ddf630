"""The commands with a classifier: transcribe, evaluate with its report, compare, info, average, and what refuses it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.__main__ import main

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classified")


@pytest.fixture
def manifest(place: Path, write_audio: Callable[..., Path]) -> Path:
    """Ten utterances of five speakers with labels and without texts."""
    path = place / "test.jsonl"
    if not path.exists():
        rows = []
        for i in range(10):
            write_audio(place / f"{i}.wav", 0.4 + 0.02 * i, seed=i)
            label = ("bird", "cat", "dog")[i % 3]
            rows.append({"audio_filepath": f"{i}.wav", "id": f"u{i}", "label": label, "speaker": f"s{i // 2}"})
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines_of(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_transcribe_prints_label_and_probability(
    tiny_classifier: Path, manifest: Path, place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["transcribe", str(place / "0.wav"), "-m", str(tiny_classifier)]) == 0
    label, probability = capsys.readouterr().out.rstrip("\n").split("\t")
    assert main(["transcribe", str(place / "0.wav"), "-m", str(tiny_classifier), "--json"]) == 0
    [row] = lines_of(capsys.readouterr().out)
    assert row["label"] == label and f"{row['probability']:.4f}" == probability
    assert next(iter(row["probabilities"])) == label
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert main(["transcribe", str(manifest), "-m", str(tiny_classifier)]) == 0
    rows = lines_of(capsys.readouterr().out)
    assert [r["id"] for r in rows] == [f"u{i}" for i in range(10)] and rows[0]["label"] == label
    argv = ["transcribe", str(manifest), "-m", str(tiny_classifier), "-o", str(tmp_path), "-f", "txt,json", "--resume"]
    assert main(argv) == main(argv) == 0
    assert (tmp_path / "u0.txt").read_text("utf-8") == f"{label}\t{probability}\n"
    assert "10 already done" in capsys.readouterr().err


def test_evaluate_compare_and_the_report(
    tiny_classifier: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    argv = ["evaluate", str(manifest), "-m", str(tiny_classifier)]
    assert main([*argv, "--tables", "-o", str(tmp_path / "a"), "--html", str(page), "--audio", "2"]) == 0
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "a" / "summary.json").read_text("utf-8"))
    rows = lines_of((tmp_path / "a" / "predictions.jsonl").read_text("utf-8"))
    right = sum(row["pred_label"] == row["label"] for row in rows)
    assert summary["accuracy"]["rate"] == right / 10 and summary["interval_over"] == "speakers"
    assert f"accuracy          {right / 10:7.2%}" in out and "class \\ found" in out and "recall" in out
    assert (tmp_path / "a" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    text = page.read_text("utf-8")
    assert text.count("<audio") == min(2, 10 - right) and "http" not in text.replace("http-equiv", "")
    assert all(f"<td>{row['id']}</td>" in text for row in rows if row["pred_label"] != row["label"])
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == summary["accuracy"]

    best = tmp_path / "best.jsonl"  # another classifier, always right, that has nothing for one utterance
    best.write_text("".join(json.dumps(row | {"pred_label": row["label"]}) + "\n" for row in rows[1:]), "utf-8")
    assert main(["compare", str(manifest), str(tmp_path / "a" / "predictions.jsonl"), str(best), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["accuracy_b"] == 0.9 and found["missing_b"] == ["u0"] and "no label for 1 utterances" in captured.err
    assert found["difference"] == pytest.approx(0.9 - right / 10)
    assert main(["compare", str(manifest), str(best), str(best)]) == 0
    assert "A and B are right about the same utterances" in capsys.readouterr().out


def test_unreadable_audio_counts_as_wrong(
    tiny_classifier: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"audio_filepath": str(manifest.parent / "0.wav"), "duration": 0.4, "label": "cat"}]
    rows.append({"audio_filepath": "gone.wav", "duration": 1.0, "label": "dog"})
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert main(["evaluate", str(path), "-m", str(tiny_classifier), "-o", str(tmp_path / "out"), "--json"]) == 1
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["unreadable"] == 1 and summary["not_classified"] == [0, 0, 1] and "gone.wav" in captured.err


def test_info_and_average(tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tiny_classifier)]) == 0
    out = capsys.readouterr().out
    assert "classification, pooling mean" in out and "3: bird 3, cat 2, dog 2" in out and "tokenizer" not in out
    mean = tmp_path / "mean.asr"
    assert main(["average", str(tiny_classifier), str(tiny_classifier), "-o", str(mean)]) == 0
    assert main(["info", str(mean), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["bird", "cat", "dog"]


def test_the_data_commands_take_labels_for_texts(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(manifest)]) == 0, capsys.readouterr().out
    recipe = tmp_path / "words.yaml"
    recipe.write_text(f"task: classification\ndata: {{train: {manifest}, dev: {manifest}}}\n", encoding="utf-8")
    main(["data", "check", "--config", str(recipe)])
    assert "empty text" not in capsys.readouterr().out
    assert main(["data", "shard", str(manifest), "-o", str(tmp_path / "shards")]) == 0
    assert '"label": "bird"' in (tmp_path / "shards" / "index.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["align", "0.wav", "some words", "-m", "MODEL"], "a classifier (3 classes), but this needs a recognizer"),
        (["calibrate", "text.jsonl", "-m", "MODEL"], "a classifier (3 classes), but this needs a recognizer"),
        (["lm", "tune", "text.jsonl", "-m", "MODEL", "--lm", "x.lm"], "a classifier (3 classes)"),
        (["data", "check", "text.jsonl", "--model", "MODEL"], "a classifier (3 classes)"),
        (["transcribe", "0.wav", "-m", "MODEL", "--beam-width", "5"], "--beam-width is for recognizers"),
        (["transcribe", "0.wav", "-m", "MODEL", "--nbest", "2"], "--nbest is for recognizers"),
        (["evaluate", "test.jsonl", "-m", "MODEL", "--normalizer", "none"], "--normalizer is for recognizers"),
        (["evaluate", "test.jsonl", "-m", "CTC"], "the row has no 'text'"),
        (["evaluate", "other.jsonl", "-m", "MODEL"], "other.jsonl:1: the label 'cow' is none of the 3 classes"),
        (["evaluate", "text.jsonl", "-m", "MODEL"], "text.jsonl:1: the row has no 'label'"),
        (["compare", "test.jsonl", "found.jsonl", "text.jsonl"], "text.jsonl: has no labels"),
        (["compare", "test.jsonl", "found.jsonl", "found.jsonl", "--cer"], "--cer is for recognizers"),
    ],
)
def test_what_refuses_which_model(
    argv: list[str],
    message: str,
    tiny_classifier: Path,
    tiny_model: Path,
    manifest: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    (place / "x.lm").write_text("\\data\\\n", encoding="utf-8")
    row = {"audio_filepath": "0.wav", "duration": 0.4}
    for name, more in (
        ("text", {"text": "a"}),
        ("other", {"label": "cow"}),
        ("found", {"id": "u0", "pred_label": "cat"}),
    ):
        (place / f"{name}.jsonl").write_text(json.dumps(row | more) + "\n", encoding="utf-8")
    names = {"MODEL": str(tiny_classifier), "CTC": str(tiny_model)}
    assert main([names.get(word, word) for word in argv]) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_the_command_line_in_a_process_of_its_own(
    tiny_classifier: Path, manifest: Path, place: Path, asr_command: Command
) -> None:
    done = asr_command("transcribe", place / "0.wav", "-m", tiny_classifier)
    assert done.returncode == 0 and done.stdout.split("\t")[0] in ("bird", "cat", "dog"), done.stderr
