"""`asr data` as people call it: exit status, stdout, stderr."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.corpus.manifest import Manifest, Utterance, write_manifest
from asr.text.tokenizer import CharTokenizer

Command = Callable[..., "subprocess.CompletedProcess[str]"]
WriteAudio = Callable[..., Path]


@pytest.fixture
def corpus(tmp_path: Path, write_audio: WriteAudio) -> Path:
    """A folder with train.jsonl (4 utterances) and test.jsonl (2), nothing wrong with them."""
    texts = ["a bad cab", "dead bee", "a bead", "cab ace", "added", "decade"]
    rows = []
    for i, text in enumerate(texts):
        path = write_audio(tmp_path / "wavs" / f"u{i}.wav", 1.0 + i / 10, seed=i)
        rows.append(Utterance(f"u{i}", str(path), 1.0 + i / 10, text, speaker=f"s{i}"))
    write_manifest(tmp_path / "train.jsonl", rows[:4])
    write_manifest(tmp_path / "test.jsonl", rows[4:])
    return tmp_path


def append(path: Path, **row: object) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def test_check_of_clean_manifests_exits_with_0(asr_command: Command, corpus: Path, tiny_model: Path) -> None:
    done = asr_command("data", "check", corpus / "train.jsonl", corpus / "test.jsonl", "--model", tiny_model, "--read")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{corpus}/train.jsonl: 4 utterances, 4.6 s" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 problems in 0 utterances, 0 notes"


def test_check_names_problems_and_writes_them(asr_command: Command, corpus: Path, tiny_model: Path) -> None:
    test = corpus / "test.jsonl"
    append(test, id="leak", audio_filepath="wavs/u0.wav", duration=1.0, text="a bad cab")
    append(test, id="unspelled", audio_filepath="wavs/u4.wav", duration=1.4, text="Zoo 7")
    append(test, id="dense", audio_filepath="wavs/u5.wav", duration=1.5, text="added " * 12)
    append(test, id="gone", audio_filepath="wavs/gone.wav", duration=1.5, text="ace")
    append(test, id="broken", audio_filepath="wavs/u0.wav", duration=-1.5, text="ace")
    skipped = corpus / "skipped.tsv"
    options = ["--train", corpus / "train.jsonl", "--test", test, "--model", tiny_model]
    done = asr_command("data", "check", *options, "-o", skipped)
    assert (done.returncode, done.stderr) == (1, "")
    for expected in (
        f"  {test}:7: 'duration' is negative (-1.5 s): leave it out to have it read from the file",
        f"  {test}: gone  {corpus}/wavs/gone.wav: no such file",
        f"  {test}: unspelled  '7', 'o', 'z'",
        f"  {test}: leak  the same audio as 'u0' in {corpus}/train.jsonl",
        f"unknown symbols in {test}:",
        "  'o' 2 times, e.g. unspelled",
    ):
        assert expected in done.stdout.splitlines()
    assert "dense  too short for its text: 1.50 s are" in done.stdout
    lines = skipped.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id\treason" and sorted(row.split("\t")[0] for row in lines[1:]) == [
        *("dense", "gone", "leak", "unspelled")
    ]

    done = asr_command("data", "check", *options, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["counts"]["in train and test"] == 1
    assert {"kind": "unreadable audio", "id": "gone"}.items() <= report["problems"][1].items()
    assert report["unknown_symbols"][str(test)][0] == {"symbol": "o", "count": 2, "examples": ["unspelled"]}
    assert [m["utterances"] for m in report["manifests"]] == [4, 6]


def test_check_with_a_tokenizer_and_few_shown(asr_command: Command, corpus: Path) -> None:
    CharTokenizer(["", " ", *"abc"]).save(corpus / "tokenizer.json")
    done = asr_command("data", "check", corpus / "train.jsonl", "--tokenizer", corpus / "tokenizer.json", "--limit", 1)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "problem: unknown symbols (4): correct the text, or choose another normalizer or tokenizer"
    assert lines[1:3] == ["  u0  'd'", "  ... and 3 more (--limit, --json, -o)"]


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_check_against_a_recipe(asr_command: Command, corpus: Path, kind: str) -> None:
    append(corpus / "test.jsonl", id="new", audio_filepath="wavs/u0.wav", duration=1.0, text="Fab ABC")
    recipe = corpus / "recipe.yaml"
    recipe.write_text(
        f"data: {{train: {corpus}/train.jsonl, test: {{clean: {corpus}/test.jsonl}}}}\n"
        f"text: {{normalizer: basic, tokenizer: {kind}, vocab_size: 20}}\n",
        encoding="utf-8",
    )
    done = asr_command("data", "check", "--config", recipe)
    assert done.returncode == 1
    assert f"  {corpus}/test.jsonl: new  'f'" in done.stdout.splitlines()
    assert "in train and test (1)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["check"], 2, "name a manifest to check"),
        (["check", "{}/train.jsonl", "{}/train.jsonl"], 2, "train.jsonl is named twice"),
        (["check", "{}/none.jsonl"], 1, "none.jsonl: cannot be read: No such file or directory"),
        (["check", "{}/train.jsonl", "--model", "{}/train.jsonl"], 1, "train.jsonl: not an asr-ctc model file"),
        (["check", "{}/train.jsonl", "--normalizer", "basik"], 2, "(did you mean 'basic'?)"),
        (["stats", "{}/wavs"], 1, "wavs: a folder, not a manifest"),
        (["stats", "{}/array.json"], 1, "array.json:1: this is a JSON array"),
        (["convert", "{}/train.jsonl", "{}/test.jsonl"], 2, "test.jsonl: already exists; --force replaces it"),
        (["convert", "{}/train.jsonl", "{}/x.csv", "--to", "xml"], 2, "--to xml: choose one of jsonl, kaldi"),
        (["convert", "{}/wavs", "{}/x.jsonl"], 2, "wavs: neither a Kaldi directory"),
        (["convert", "{}/train.jsonl", "{}/x.jsonl", "--audio-column", "wav"], 2, "no column 'wav'"),
    ],
)
def test_wrong_calls_and_files_are_one_line(
    asr_command: Command, corpus: Path, arguments: list[str], status: int, message: str
) -> None:
    (corpus / "array.json").write_text('[{"audio_filepath": "a.wav", "duration": 1, "text": "x"}]', encoding="utf-8")
    done = asr_command("data", *(argument.format(corpus) for argument in arguments))
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("asr: error: ") and done.stderr.count("\n") == 1 and message in done.stderr


@pytest.mark.parametrize("arguments", [[], ["chek"], ["stats"], ["convert", "x"], ["check", "--nothing"]])
def test_wrong_usage_exits_with_2(asr_command: Command, arguments: list[str]) -> None:
    done = asr_command("data", *arguments)
    assert done.returncode == 2 and "usage: asr data" in done.stderr and done.stdout == ""


def test_stats(asr_command: Command, corpus: Path) -> None:
    done = asr_command("data", "stats", corpus / "train.jsonl", corpus / "test.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("utterances   6\naudio        0.00 h\n") and "speakers     6\n" in done.stdout
    done = asr_command("data", "stats", "--json", corpus / "test.jsonl")
    stats = json.loads(done.stdout)
    assert (stats["utterances"], stats["words"], stats["seconds"]) == (2, 2, pytest.approx(2.9))


def test_convert_there_and_back(asr_command: Command, corpus: Path) -> None:
    original = list(Manifest.read(corpus / "train.jsonl"))
    source = corpus / "train.jsonl"
    for step in ("new/t.csv", "t.tsv", "kaldi", "back.jsonl"):
        target = corpus / step
        done = asr_command("data", "convert", source, target)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{target}: 4 utterances, 4.6 s\n", "")
        source = target
    assert list(Manifest.read(source)) == original
    assert json.loads(source.read_text(encoding="utf-8").splitlines()[0])["audio_filepath"] == "wavs/u0.wav"
    assert asr_command("data", "convert", corpus / "t.tsv", corpus / "back.jsonl", "--force").returncode == 0


def test_convert_makes_a_manifest_of_a_json_array(asr_command: Command, corpus: Path) -> None:
    rows = [{"audio_filepath": "wavs/u0.wav", "text": "A B"}, {"audio_filepath": "wavs/u1.wav", "text": "C"}]
    (corpus / "array.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    done = asr_command("data", "convert", corpus / "array.json", corpus / "new.jsonl", "--normalizer", "basic")
    assert done.returncode == 0
    made = [(u.id, u.text, u.duration) for u in Manifest.read(corpus / "new.jsonl")]
    assert made == [("u0", "a b", 1.0), ("u1", "c", 1.1)]


def test_convert_names_what_it_leaves_out(asr_command: Command, corpus: Path) -> None:
    table = corpus / "t.csv"
    table.write_text("file,said\nwavs/u0.wav,ace\nwavs/gone.wav,bee\n", encoding="utf-8")
    columns = ["--audio-column", "file", "--text-column", "said"]
    done = asr_command("data", "convert", table, corpus / "new.jsonl", *columns)
    assert (done.returncode, done.stdout) == (1, f"{corpus}/new.jsonl: 1 utterance, 1.0 s\n")
    assert done.stderr == f"asr: left out: {corpus}/wavs/gone.wav: no such file\n"
