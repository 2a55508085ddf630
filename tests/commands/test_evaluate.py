"""`asr evaluate` and its function: every utterance scored once, unreadable ones as empty, names and counts printed."""

from __future__ import annotations

import gzip
import json

import pytest

import asr
from asr.__main__ import main
from asr.corpus.manifest import Manifest
from asr.recognition.evaluation import evaluate
from asr.scoring import score
from asr.types import ConfigError, Failure


@pytest.fixture
def test_set(tiny_model, write_audio, tmp_path):
    """A manifest of eight utterances whose references are what the model hears, with known errors in two of them."""
    model = asr.load(tiny_model)
    rows = []
    for i in range(8):
        path = write_audio(tmp_path / f"{i}.wav", 0.8 + 0.3 * (i % 3), seed=i)
        text = model.transcribe(path).text
        if i == 3:
            text += " bad"  # a deletion
        if i == 5:
            text = " ".join(text.split()[1:])  # an insertion
        rows.append(
            {"id": f"u{i}", "audio_filepath": path.name, "duration": 1.0, "text": text.upper() + ".", "take": i}
        )
    return write_rows(tmp_path / "test.jsonl", rows)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_known_errors_are_counted(test_set, tiny_model):
    seen = []
    result = evaluate(asr.load(tiny_model), test_set, on_result=seen.append)
    words = sum(len(text.split()) for text in result.scored.references)
    assert (result.wer.deletions, result.wer.insertions, result.wer.substitutions) == (1, 1, 0)
    assert result.wer.wer == pytest.approx(2 / words)
    assert result.wer.sentence_errors == 2
    assert result.cer.counts.errors > 0
    assert len(seen) == len(result.results) == 8
    assert [r.id for r in result.results] == [u.id for u in result.utterances] == [f"u{i}" for i in range(8)]
    assert result.scored.normalizer == "basic@2"
    assert result.unknown_share == 0.0
    assert result.real_time_factor > 0


def test_the_result_does_not_depend_on_batches_or_threads(test_set, tiny_model):
    recognizer = asr.load(tiny_model)
    results = [evaluate(recognizer, test_set, batch_seconds=s, workers=w) for s, w in ((1.0, 1), (500.0, 4))]
    assert results[0].scored.hypotheses == results[1].scored.hypotheses


def test_unreadable_audio_counts_as_an_empty_hypothesis(test_set, tiny_model, capsys):
    (test_set.parent / "2.wav").write_bytes(b"")
    (test_set.parent / "6.wav").write_text("not audio", encoding="utf-8")
    result = evaluate(asr.load(tiny_model), test_set)
    assert [isinstance(r, Failure) for r in result.results] == [i in (2, 6) for i in range(8)]
    assert result.scored.hypotheses[2] == result.scored.hypotheses[6] == ""
    assert result.wer.deletions == 1 + len(result.scored.references[2].split()) + len(
        result.scored.references[6].split()
    )

    assert main(["evaluate", str(test_set), "-m", str(tiny_model)]) == 1
    captured = capsys.readouterr()
    assert "8 of 8 utterances, 2 of them unreadable and counted as empty" in captured.out
    assert "asr: error: u2: " in captured.err
    assert "asr: error: u6: " in captured.err


def test_the_report_names_normalizer_counts_and_interval(test_set, tiny_model, capsys):
    assert main(["evaluate", str(test_set), "-m", str(tiny_model)]) == 0
    out = capsys.readouterr().out
    assert "8 of 8 utterances" in out
    assert "normalizer basic@2" in out
    assert "S 0, D 1, I 1, N " in out
    assert "95 % interval" in out
    assert "2 of 8 utterances with an error" in out
    assert "RTF" in out


def test_another_normalizer_changes_both_sides_and_is_named(test_set, tiny_model, capsys):
    assert main(["evaluate", str(test_set), "-m", str(tiny_model), "--normalizer", "librispeech", "--json"]) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["normalizer"] == "librispeech@2"
    assert summary["wer"]["deletions"] + summary["wer"]["insertions"] == 2
    assert summary["unknown_share"] == 1.0  # upper-case references, lower-case alphabet
    assert "outside the model's alphabet" in captured.err
    with pytest.raises(ConfigError):
        evaluate(asr.load(tiny_model), test_set, normalizer="basics")
    assert main(["evaluate", str(test_set), "-m", str(tiny_model), "--normalizer", "basics"]) == 2


def test_foreign_characters_are_counted_and_warned_about_above_a_share(test_set, tiny_model, capsys):
    rows = read_rows(test_set)
    rows[0]["text"] = "a" * 99 + "é"
    for row in rows[1:]:
        row["text"] = "a b"
    write_rows(test_set, rows)
    result = evaluate(asr.load(tiny_model), test_set)
    assert result.unknown_symbols == {"é": 1}
    assert result.unknown_share == pytest.approx(1 / (100 + 7 * 2))
    assert result.warnings == ()
    rows[0]["text"] = "ééé zz a"
    write_rows(test_set, rows)
    main(["evaluate", str(test_set), "-m", str(tiny_model)])
    assert (
        "25.0% of the reference characters are outside the model's alphabet (most often 'é', 'z')"
        in capsys.readouterr().err
    )


def test_files_written_hold_every_utterance_and_score_to_the_same_rate(test_set, tiny_model, tmp_path, capsys):
    (tmp_path / "7.wav").write_bytes(b"")
    out = tmp_path / "results"
    for _ in range(2):  # a second run replaces the first
        assert main(["evaluate", str(test_set), "-m", str(tiny_model), "-o", str(out), "--json"]) == 1
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert sorted(path.name for path in out.iterdir()) == [
        "alignments.txt", "hyp.ctm", "hyp.trn", "hypotheses.jsonl", "ref.stm", "ref.trn", "summary.json"
    ]  # fmt: skip

    def texts(name):
        lines = (out / name).read_text(encoding="utf-8").splitlines()
        assert [line.rpartition("(")[2] for line in lines] == [f"u{i})" for i in range(8)]
        return [line.rpartition(" (")[0] for line in lines]

    assert score(texts("ref.trn"), texts("hyp.trn")).wer == pytest.approx(printed["wer"]["rate"])
    rows = read_rows(out / "hypotheses.jsonl")
    page = tmp_path / "again.html"
    assert main(["score", str(out / "hypotheses.jsonl"), "--normalize", "basic", "--html", str(page), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["scores"][0]
    assert again["wer"] == printed["wer"]
    assert again["confidence"] == pytest.approx(printed["confidence"], abs=1e-3)  # four decimals in the file
    for row, original in zip(rows, read_rows(test_set), strict=True):
        assert row["text"] == original["text"]
        assert row["take"] == original["take"]
    assert rows[7]["pred_text"] == ""
    assert "empty" in rows[7]["error"]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["wer"] == printed["wer"]
    assert summary["model"] == str(tiny_model)
    assert Manifest.read(out / "hypotheses.jsonl")[3].extra["pred_text"] == rows[3]["pred_text"]


def test_empty_references_count_insertions(tiny_model, write_audio, tmp_path):
    write_audio(tmp_path / "a.wav", 1.0)
    manifest = write_rows(tmp_path / "m.jsonl", [{"audio_filepath": "a.wav", "duration": 1.0, "text": ""}])
    result = evaluate(asr.load(tiny_model), manifest)
    assert result.wer.insertions == len(result.scored.hypotheses[0].split()) == result.wer.rate
    assert result.unknown_share == 0.0


@pytest.mark.parametrize("content", ["", "{oops\n", '{"audio_filepath": "a.wav", "duration": 1.0}\n'])
def test_a_bad_manifest_is_one_line_that_names_it(tiny_model, tmp_path, capsys, content):
    manifest = tmp_path / "bad.jsonl"
    manifest.write_text(content, encoding="utf-8")
    assert main(["evaluate", str(manifest), "-m", str(tiny_model)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("asr: error: ")
    assert "bad.jsonl" in captured.err
    assert captured.err.count("\n") == 1


def test_the_report_has_strips_players_and_everything_of_the_summary(test_set, tiny_model, tmp_path, capsys):
    page = tmp_path / "report.html"
    options = ["--html", str(page), "--audio", "3", "--posteriorgrams", "2", "--snr", "--tables", "--flag-below", "1"]
    assert main(["evaluate", str(test_set), "-m", str(tiny_model), *options]) == 0
    captured = capsys.readouterr()
    assert "Sum/Avg" in captured.out and "SNR (estimated)" in captured.out and "below 2 s" in captured.out
    assert f"report written to {page}" in captured.err
    text = page.read_text(encoding="utf-8")
    found = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert found["title"] == "tiny.asr on test.jsonl"
    assert len(found["posteriorgrams"]) == 2 and len(found["audio"]) == 3
    assert set(found["posteriorgrams"]) <= {"3", "5"} == set(list(found["audio"])[:2])
    assert all(utterance["q"] is not None and utterance["e"] for utterance in found["utterances"])
    assert "confidences not calibrated" in found["facts"]
    assert "ECE" in captured.out and found["cards"][-1]["label"] == "Calibration error of confidences"
    assert any(utterance["f"] for utterance in found["utterances"])


def test_posteriorgrams_of_chosen_utterances(test_set, tiny_model, tmp_path, capsys):
    page = tmp_path / "report.html"
    options = ["evaluate", str(test_set), "-m", str(tiny_model), "--html", str(page), "--posteriorgrams"]
    assert main([*options, "u6,u1"]) == 0
    text = page.read_text(encoding="utf-8")
    assert set(json.loads(text.partition('id="data">')[2].partition("</script>")[0])["posteriorgrams"]) == {"1", "6"}
    capsys.readouterr()
    assert main([*options, "u1,u99"]) == 2
    assert "no utterance has the id 'u99'" in capsys.readouterr().err


def test_speakers_in_the_manifest_block_the_interval(test_set, tiny_model, capsys):
    rows = [row | {"speaker": f"s{i % 6}"} for i, row in enumerate(read_rows(test_set))]
    write_rows(test_set, rows)
    assert main(["evaluate", str(test_set), "-m", str(tiny_model), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["wer"]["interval_over"] == "speakers"
    assert [group["name"] for group in summary["speakers"]] == [f"s{i}" for i in range(6)]
    assert summary["sclite"]["snt"] == 8 and summary["sclite"]["s_err"] == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--audio", "3"],
        ["--flag-below", "0.5"],
        ["--html", "x.html", "--flag-below", "0"],
        ["--html", ".", "--audio"],
        ["--html", "x.html", "--audio", "-1"],
    ],
)
def test_report_options_that_cannot_work_are_said_before_the_work(test_set, capsys, options):
    assert main(["evaluate", str(test_set), "-m", "nowhere.asr", *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_decoding_options_are_checked_before_the_work(test_set, capsys):
    assert main(["evaluate", str(test_set), "-m", "nowhere.asr", "--decoder", "greedy", "--lm", "x.arpa"]) == 2
    assert "--lm has no effect with --decoder greedy" in capsys.readouterr().err


def test_a_compressed_manifest_with_long_ids_through_a_pipe(test_set, tiny_model, tmp_path, piped, capsys, monkeypatch):
    rows = [{**row, "id": row["id"] + "x" * 300} for row in read_rows(test_set)]
    monkeypatch.chdir(tmp_path)
    path = piped(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert main(["evaluate", str(path), "-m", str(tiny_model), "-o", str(tmp_path / "out")]) == 0
    assert "8 of 8 utterances" in capsys.readouterr().out
    assert [row["id"] for row in read_rows(tmp_path / "out/hypotheses.jsonl")] == [row["id"] for row in rows]
