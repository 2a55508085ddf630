"""`asr score` and `asr compare` in processes of their own: figures, files, missing utterances, errors."""

from __future__ import annotations

import json

import jiwer
import pytest

from asr.__main__ import main

REFERENCE = "The cat sat. (s1-1)\na dog ran home (s1-2)\n(s2-1)\nit was late (s2-2)\n"
HYPOTHESIS = "the cat sat (s1-1)\na dog run (s1-2)\nuh (s2-1)\nextra (x-9)\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "ref.trn").write_text(REFERENCE, encoding="utf-8")
    (tmp_path / "hyp.trn").write_text(HYPOTHESIS, encoding="utf-8")
    return tmp_path


def test_figures_tables_and_warnings(files, asr_command):
    done = asr_command("score", files / "ref.trn", files / "hyp.trn", "--normalize", "none,basic", "--cer")
    assert done.returncode == 0
    head = done.stdout.splitlines()[0]
    assert "4 utterances, 10 words, 1 without a hypothesis, 1 extra not scored" in head
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("WER", "CER"))]
    assert [row[:3] for row in rows] == [
        ["WER", "none@1", "80.00%"], ["CER", "none@1", "56.76%"],
        ["WER", "basic@2", "60.00%"], ["CER", "basic@2", "52.78%"],
    ]  # fmt: skip
    assert jiwer.cer(["the cat sat", "a dog ran home", "", "it was late"], ["the cat sat", "a dog run", "uh", ""]) == (
        pytest.approx(19 / 36)
    )
    assert "Sum/Avg" in done.stdout
    assert "The -> the" in done.stdout
    warnings = done.stderr.splitlines()
    assert len(warnings) == 3 and all(line.startswith("asr: warning: ") for line in warnings)
    assert "(s2-2): scored as empty" in warnings[0] and "(x-9): not scored" in warnings[1]


def test_json_and_files_hold_the_same_figures(files, asr_command):
    out = files / "out"
    done = asr_command(
        "score", files / "ref.trn", files / "hyp.trn", "--normalize", "basic,none", "--speakers", "prefix",
        "--json", "-o", out,
    )  # fmt: skip
    printed = json.loads(done.stdout)
    assert printed == json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert printed["missing"] == ["s2-2"] and printed["extra"] == ["x-9"]
    first = printed["scores"][0]
    assert first["wer"] | {"interval_95": 0} == {
        "rate": 0.6, "interval_95": 0, "interval_over": "utterances",
        "substitutions": 1, "deletions": 4, "insertions": 1, "reference_length": 10,
    }  # fmt: skip
    assert [g["name"] for g in first["speakers"]] == ["s1", "s2"]
    assert first["confused"] == [{"reference": "ran", "hypothesis": "run", "count": 1}]
    assert sorted(path.name for path in out.iterdir()) == [
        "alignments.txt", "hyp.trn", "none", "ref.trn", "summary.json"
    ]  # fmt: skip
    again = asr_command("score", out / "ref.trn", out / "hyp.trn", "--json")
    assert json.loads(again.stdout)["scores"][0]["wer"] == first["wer"]


def test_one_jsonl_with_both_texts_and_stdin(files, asr_command):
    rows = [{"id": "u1", "text": "a b", "pred_text": "a"}, {"id": "u2", "text": "c", "pred_text": "c"}]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    (files / "both.jsonl").write_text(content, encoding="utf-8")
    done = asr_command("score", files / "both.jsonl", "--json")
    assert json.loads(done.stdout)["scores"][0]["wer"]["deletions"] == 1
    piped = asr_command("score", files / "both.jsonl", "-", "--json", stdin=content.encode())
    assert json.loads(piped.stdout)["scores"] == json.loads(done.stdout)["scores"]


def test_txt_files_are_paired_by_line(tmp_path, asr_command):
    (tmp_path / "ref.txt").write_text("a b\n\nc\n", encoding="utf-8")
    (tmp_path / "hyp.txt").write_text("a\nx\nc\n", encoding="utf-8")
    done = asr_command("score", tmp_path / "ref.txt", tmp_path / "hyp.txt")
    assert done.stdout.splitlines()[2].split()[2] == "66.67%"


def test_two_formats_in_one_command_and_what_a_flag_decides(tmp_path, asr_command):
    (tmp_path / "ref").write_text("r 1 s 0.00 2.00 <o> a {b/c} d\nr 1 s 2.00 4.00 <o> e\n", encoding="utf-8")
    (tmp_path / "hyp").write_text("r 1 0.10 0.2 a\nr 1 0.5 0.2 c\nr 1 0.9 0.2 d\nr 1 2.5 0.2 x\n", encoding="utf-8")
    done = asr_command("score", tmp_path / "ref", tmp_path / "hyp", "--json", "--format", "stm,ctm")
    assert json.loads(done.stdout)["scores"][0]["wer"] | {"interval_95": 0, "interval_over": 0} == {
        "rate": 0.25, "interval_95": 0, "interval_over": 0,
        "substitutions": 1, "deletions": 0, "insertions": 0, "reference_length": 4,
    }  # fmt: skip
    compared = asr_command("compare", tmp_path / "ref", tmp_path / "hyp", tmp_path / "hyp", "--json")
    assert json.loads(compared.stdout)["comparisons"][0]["a"] == json.loads(done.stdout)["scores"][0]["wer"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["ref.trn", "hyp.trn", "--strict"], 2, "--strict: "),
        (["ref.trn", "hyp.trn", "--normalize", "basics"], 2, "did you mean 'basic'?"),
        (["ref.trn", "hyp.trn", "--normalize", ","], 2, "no normalizer given"),
        (["ref.trn", "hyp.trn", "--format", "trn,txt,txt"], 2, "--format takes one format, or two"),
        (["ref.trn", "hyp.trn", "--format", "trn,txs"], 2, "unknown format 'txs'"),
        (["ref.trn", "hyp.trn", "--limit", "-1"], 2, "--limit must be 0 or more"),
        (["ref.trn", "hyp.trn", "--html", "x.html", "--flag-below", "0.6"], 2, "no words with confidences"),
        (["ref.trn"], 2, "no row has 'pred_text'"),
        (["-", "-"], 2, "stdin"),
        (["ref.trn", "nowhere.trn"], 1, "cannot be read"),
        (["ref.trn", "hyp.trn", "--format", "jsonl"], 1, "ref.trn:1: not valid JSON"),
        (["ref.trn", "hyp.trn", "--speakers", "nowhere"], 1, "nowhere: cannot be read"),
    ],
)
def test_what_cannot_work_is_one_clear_line(files, asr_command, arguments, status, message):
    named = [str(files / a) if a.endswith(".trn") else a for a in arguments]
    done = asr_command("score", *named)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("asr: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_tags_of_either_side_are_reported_whatever_becomes_of_them(tmp_path, capsys):
    """Kind: what annotators wrote counted as speech in silence."""
    ref, hyp = tmp_path / "ref.jsonl", tmp_path / "hyp.jsonl"
    ref.write_text('{"id":"u1","text":"[noise] yes (laughs)"}\n{"id":"u2","text":"\u0130stanbul"}\n', encoding="utf-8")
    hyp.write_text('{"id":"u1","text":"yes"}\n{"id":"u2","text":"istanbul <unk>"}\n', encoding="utf-8")
    ours = "1 of the references (u1) have annotators' tags: (laughs) x 1, [noise] x 1: "
    theirs = "(u2) have annotators' tags: <unk> x 1: "
    fates = {
        "basic": "basic@2 drops them",
        "none": "none@1 counts them as words; the normalizer basic drops them",
    }
    for name, fate in fates.items():
        assert main(["score", str(ref), str(hyp), "--normalize", name, "--json"]) == 0
        out, err = capsys.readouterr()
        [scored] = json.loads(out)["scores"]
        assert scored["wer"]["rate"] == (0.0 if name == "basic" else 1.0)
        assert ours + fate in err and f"1 of the hypotheses {theirs}{fate}" in err
    assert main(["compare", str(ref), str(ref), str(hyp), "--normalize", "basic"]) == 0
    err = capsys.readouterr().err
    assert "1 of A's hypotheses (u1) have" in err and f"1 of B's hypotheses {theirs}basic@2 drops them" in err


@pytest.fixture
def systems(tmp_path):
    """A test set on which B is clearly better than A, but loses one utterance."""
    words = [f"w{i}" for i in range(10)]
    ref, a, b = [], [], []
    for i in range(60):
        ref.append(" ".join(words))
        a.append(" ".join(words[: 10 - i % 4]))
        b.append("none of them" if i == 30 else " ".join(words))
    for name, texts in (("ref", ref), ("a", a), ("b", b)):
        rows = "".join(f"{text} (s{i % 6}-{i})\n" for i, text in enumerate(texts))
        (tmp_path / f"{name}.trn").write_text(rows, encoding="utf-8")
    return [tmp_path / f"{name}.trn" for name in ("ref", "a", "b")]


def test_compare_says_which_is_better_and_where(systems, asr_command):
    done = asr_command("compare", *systems, "--limit", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  B is better: -13.33 % absolute [" in done.stdout and "p < 0.001" in done.stdout
    assert "paired bootstrap over utterances; matched pairs of" in done.stdout
    assert "B has fewer errors in 44 utterances, more in 1, equally many in 15" in done.stdout
    assert done.stdout.count("\nB wins s") == 2
    assert "B loses s0-30 by 8\n  REF w0" in done.stdout
    assert "... and 42 more utterances that B wins" in done.stdout


def test_compare_in_json_over_speakers_and_characters(systems, asr_command):
    done = asr_command("compare", *systems, "--json", "--speakers", "prefix", "--normalize", "none,basic")
    printed = json.loads(done.stdout)
    first, second = printed["comparisons"]
    assert (first["normalizer"], second["normalizer"]) == ("none@1", "basic@2")
    assert first["interval_over"] == "speakers" and first["difference"] < 0 and first["wins"] == 44
    assert first["gains"]["s0-30"] == -8 and first["gains"]["s1-1"] == 1
    characters = json.loads(asr_command("compare", *systems, "--json", "--cer").stdout)["comparisons"][0]
    assert (characters["unit"], characters["matched_pairs"]) == ("char", None)


def test_compare_counts_what_is_missing(systems, asr_command):
    systems[1].write_text("w0 (s0-0)\n", encoding="utf-8")
    done = asr_command("compare", *systems)
    assert done.returncode == 0
    assert "no hypothesis for 59 utterances of 60" in done.stderr
    strict = asr_command("compare", *systems, "--strict")
    assert (strict.returncode, strict.stdout) == (2, "") and "--strict: " in strict.stderr
