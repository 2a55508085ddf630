"""`asr align`: formats, texts from files, stdin and the command line, manifests, and what goes wrong."""

from __future__ import annotations

import io
import json
import sys

import pytest

import asr
from asr.__main__ import main


@pytest.fixture
def run(tiny_model, capsys):
    def call(*arguments):
        capsys.readouterr()
        status = main(["align", *map(str, arguments), "-m", str(tiny_model)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def talk(write_audio, tmp_path):
    return write_audio(tmp_path / "in" / "talk.wav", 1.5)


@pytest.fixture
def text(tiny_model, talk):
    return asr.load(tiny_model).transcribe(talk).text


def test_words_and_tokens_as_json(run, talk, text):
    status, out, err = run(talk, text)
    assert (status, err) == (0, "")
    row = json.loads(out)
    assert row["text"] == text
    assert [word["word"] for word in row["words"]] == text.split()
    assert "".join(token["word"] for token in row["tokens"]) == text
    assert all(0 <= word["start"] < word["end"] <= 1.5 for word in row["words"])


@pytest.mark.parametrize(
    ("name", "beginning"), [("ctm", "talk 1 0."), ("srt", "1\n00:00:00"), ("textgrid", 'File type = "ooTextFile"')]
)
def test_formats(run, talk, text, name, beginning):
    status, out, _ = run(talk, text, "-f", name)
    assert status == 0
    assert out.startswith(beginning)


def test_the_text_of_a_file_and_of_stdin(run, talk, text, tmp_path, monkeypatch):
    (tmp_path / "talk.txt").write_bytes(b"\xef\xbb\xbf" + text.upper().replace(" ", "\r\n").encode())
    _, out, _ = run(talk, tmp_path / "talk.txt", "-f", "jsonl")
    assert json.loads(out)["text"] == text.upper()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
    assert json.loads(run(talk, "-")[1])["text"] == text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(talk.read_bytes()), encoding="utf-8"))
    row = json.loads(run("-", text)[1])
    assert (row["id"], row["text"]) == ("stdin", text)


def test_a_manifest(run, talk, text, tmp_path):
    rows = [
        {"id": "u1", "audio_filepath": "in/talk.wav", "duration": 1.5, "text": text},
        {"id": "u2", "audio_filepath": "in/gone.wav", "duration": 1.5, "text": "a"},
        {"id": "u3", "audio_filepath": "in/talk.wav", "duration": 0.5, "offset": 1.0, "text": "a b"},
        {"id": "u4", "audio_filepath": "in/talk.wav", "duration": 1.5, "text": "x"},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    status, out, err = run(manifest)
    assert status == 1
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["id"] for row in found] == ["u1", "u2", "u3", "u4"]
    assert ["error" in row for row in found] == [False, True, False, True]
    assert "2 aligned, 2 failed" in err
    status, _, _ = run(manifest, "-o", tmp_path / "out", "-f", "textgrid,srt")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "u1.srt",
        "u1.textgrid",
        "u3.srt",
        "u3.textgrid",
    ]
    status, _, err = run(manifest, "-o", tmp_path / "out", "-f", "textgrid")
    assert "u1.textgrid: already exists" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TALK"], "TEXT is missing"),
        (["TALK", "a", "-f", "txt"], "-f txt has no times"),
        (["TALK", "a", "-f", "srt,ctm"], "give -o DIR"),
        (["TALK", "a", "--force"], "give -o DIR"),
        (["TALK", "gone.txt"], "gone.txt: no such text file"),
        (["-", "-"], "stdin ('-') can be read only once"),
        (["TALK", "a", "--channel", "each"], "--channel must be mix or a number"),
        (["TALK", "a", "--chunk-length", "-1"], "at least 1 s"),
        (["MANIFEST", "a"], "omit TEXT"),
        (["MANIFEST", "-f", "srt"], "needs -o DIR"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(run, talk, tmp_path, arguments, message):
    names = {"TALK": str(talk), "MANIFEST": str(tmp_path / "m.jsonl")}
    status, out, err = run(*[names.get(argument, argument) for argument in arguments])
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        ("123", "not in the alphabet"),
        ("a b c d e " * 20, "needs at least"),
    ],
)
def test_what_cannot_be_aligned_is_one_line_and_status_1(run, talk, text, message):
    status, out, err = run(talk, text)
    assert (status, out) == (1, "")
    assert err.startswith(f"asr: error: {talk}: ")
    assert message in err
    assert err.count("\n") == 1


def test_one_name_that_cannot_be_written_does_not_stop_the_others(run, talk, text, tmp_path, piped, monkeypatch):
    """A bad name fails alone; the manifest may be a pipe, whose relative paths start at the current folder."""
    monkeypatch.chdir(tmp_path)
    names = ["x" * 300, "/".join(["z" * 200] * 30), "ok"]
    rows = [{"id": name, "audio_filepath": "in/talk.wav", "duration": 1.5, "text": text} for name in names]
    status, _, err = run(piped("\n".join(map(json.dumps, rows)).encode()), "-f", "ctm", "-o", tmp_path / "out")
    assert status == 1 and "2 aligned, 1 failed" in err and err.count("names too long for a file were shortened") == 1
    assert (tmp_path / "out" / "ok.ctm").is_file() and len(list((tmp_path / "out").iterdir())) == 2
