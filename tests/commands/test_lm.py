"""`asr lm`: training, converting, describing and measuring language models from the command line."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.lm.files import Tuned, read_tuned, write_tuned
from asr.lm.ngram import NGramLM

Command = Callable[..., "subprocess.CompletedProcess[str]"]
EXAMPLES = Path(__file__).parents[1] / "lm" / "lmplz"
TEXT = EXAMPLES / "text.txt"


def same_scores(a: Path, b: Path) -> bool:
    left, right = NGramLM.read(a), NGramLM.read(b)
    return all(
        abs(left.score(line) - right.score(line)) < 1e-4 for line in TEXT.read_text(encoding="utf-8").splitlines()
    )


def test_train_writes_what_lmplz_writes(asr_command: Command, tmp_path: Path) -> None:
    out = tmp_path / "lm.arpa"
    done = asr_command("lm", "train", TEXT, "-o", out, "--order", 4, "--prune", 0, 1)
    assert done.returncode == 0, done.stderr
    assert same_scores(out, EXAMPLES / "pruned.arpa")
    assert NGramLM.read(out).counts == NGramLM.read(EXAMPLES / "pruned.arpa").counts
    assert done.stdout.splitlines()[2].split() == ["2", "133", "0.7442", "1.1882", "0.8915"]
    again = asr_command("lm", "train", TEXT, "-o", out)
    assert again.returncode == 2 and "lm.arpa: already exists; --force" in again.stderr


def test_train_from_manifest_stdin_and_gzip(asr_command: Command, tmp_path: Path) -> None:
    lines = TEXT.read_text(encoding="utf-8").splitlines()
    manifest, packed = tmp_path / "m.jsonl", tmp_path / "t.txt.gz"
    rows = [{"audio_filepath": "a.wav", "text": line.upper()} for line in lines]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    packed.write_bytes(gzip.compress(TEXT.read_bytes()))
    assert asr_command("lm", "train", manifest, "-o", tmp_path / "m.lm", "--normalizer", "basic").returncode == 0
    assert asr_command("lm", "train", packed, "-o", tmp_path / "z.arpa.gz").returncode == 0
    assert asr_command("lm", "train", "-", "-o", tmp_path / "s.lm", stdin=TEXT.read_bytes()).returncode == 0
    for name in ("m.lm", "z.arpa.gz", "s.lm"):
        assert same_scores(tmp_path / name, EXAMPLES / "trigram.arpa.gz")


def test_train_warns_of_small_texts_and_special_words(asr_command: Command, tmp_path: Path) -> None:
    done = asr_command("lm", "train", "-", "-o", tmp_path / "x.lm", "--order", 2, stdin=b"a b\n<s> a c </s>\n")
    assert done.returncode == 0
    assert "warning: discounts for 1-grams are fixed at 0.5, 1, 1.5" in done.stderr
    assert "warning: 2 occurrences of <s>, </s> or <unk> in the text" in done.stderr
    limited = asr_command(
        "lm", "train", TEXT, "-o", tmp_path / "l.arpa", "--order", 2, "--limit-vocab", EXAMPLES / "vocabulary.txt"
    )
    assert limited.returncode == 0
    assert same_scores(tmp_path / "l.arpa", EXAMPLES / "limited.arpa")


def test_train_normalizes_as_a_model_does(asr_command: Command, tmp_path: Path, tiny_model: Path) -> None:
    out = tmp_path / "x.lm"
    text = b"A cab, a bed!\nDeaf\n"
    assert asr_command("lm", "train", "-", "-o", out, "-m", tiny_model, stdin=text).returncode == 0
    assert NGramLM.read(out).words[3:] == ["a", "cab", "bed", "deaf"]
    shown = json.loads(asr_command("lm", "info", out, "-m", tiny_model, "--json").stdout)
    assert 0.5 < shown["spelled_share"] < 1 and shown["remarks"] == []


def test_pruning_by_entropy(asr_command: Command, tmp_path: Path) -> None:
    full, small, smaller = tmp_path / "full.lm", tmp_path / "small.arpa", tmp_path / "smaller.lm"
    assert asr_command("lm", "train", TEXT, "-o", full).returncode == 0
    done = asr_command("lm", "train", TEXT, "-o", small, "--prune-entropy", "1e-4")
    assert done.returncode == 0
    sizes = [int(line.split()[1].replace(",", "")) for line in done.stdout.splitlines()[1:]]
    assert tuple(sizes) == NGramLM.read(small).counts and sum(sizes) < sum(NGramLM.read(full).counts)
    assert asr_command("lm", "convert", full, smaller, "--prune-entropy", "1e-2").returncode == 0
    assert sum(NGramLM.read(smaller).counts) < sum(sizes)
    wrong = asr_command("lm", "train", TEXT, "-o", small, "--force", "--prune-entropy", "3")
    assert wrong.returncode == 2 and "well below 1 (for example 1e-7), found 3" in wrong.stderr


def test_usage_errors(asr_command: Command, tmp_path: Path) -> None:
    for arguments, message in [
        (["train", TEXT, "-o", tmp_path / "x.txt"], "ends in .lm, .arpa or .arpa.gz"),
        (["train", TEXT, "-o", tmp_path / "x.lm", "--prune", 1, 0], "must not decrease"),
        (["train", TEXT, "-o", tmp_path / "x.lm", "--order", 0], "between 1 and 32"),
        (["train", TEXT, "-o", tmp_path / "x.lm", "--discount-fallback", 2], "up to three discounts"),
        (["train", TEXT, "-o", tmp_path / "x.lm", "--normalizer", "basci"], "did you mean"),
        (["perplexity", EXAMPLES / "pruned.arpa", "-"], "it has no lines"),
    ]:
        done = asr_command("lm", *arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert not (tmp_path / "x.lm").exists()


def test_bad_inputs_are_named_with_their_line(asr_command: Command, tmp_path: Path) -> None:
    manifest, latin = tmp_path / "m.jsonl", tmp_path / "l.txt"
    manifest.write_text('{"text": "a"}\n{"txt": "b"}\n', encoding="utf-8")
    latin.write_bytes(b"a\nb\xe4\n")
    for path, message in [
        (tmp_path / "none.txt", "none.txt: cannot be read: No such file"),
        (manifest, "m.jsonl:2: the row has no string 'text'"),
        (latin, "l.txt:2: not UTF-8"),
    ]:
        done = asr_command("lm", "train", path, "-o", tmp_path / "x.lm")
        assert done.returncode == 1 and message in done.stderr
        assert "Traceback" not in done.stderr


def test_convert_there_and_back_takes_the_tuned_weights_along(asr_command: Command, tmp_path: Path) -> None:
    binary, back, upper = tmp_path / "x.lm", tmp_path / "y.arpa.gz", tmp_path / "u.lm"
    source = tmp_path / "s.arpa"
    source.write_bytes((EXAMPLES / "pruned.arpa").read_bytes())
    write_tuned(source, Tuned(0.5, 1.0, 20))
    assert asr_command("lm", "convert", source, binary).returncode == 0
    assert asr_command("lm", "convert", binary, back).returncode == 0
    assert same_scores(back, source)
    assert read_tuned(back) == Tuned(0.5, 1.0, 20)
    assert asr_command("lm", "convert", binary, upper, "--case", "upper").returncode == 0
    assert NGramLM.read(upper).score("THE OF") == pytest.approx(NGramLM.read(source).score("the of"))


def test_weights_of_a_model_that_is_replaced_go_with_it(asr_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "x.lm"
    assert asr_command("lm", "train", TEXT, "-o", path).returncode == 0
    write_tuned(path, Tuned(0.5, 1.0, 20))
    assert asr_command("lm", "convert", path, path, "--force").returncode == 0
    assert read_tuned(path) == Tuned(0.5, 1.0, 20)
    again = asr_command("lm", "train", TEXT, "-o", path, "--force")
    assert again.returncode == 0 and "x.lm.tuned.json, which belonged to the replaced language model" in again.stderr
    assert read_tuned(path) is None


def test_info(asr_command: Command, tmp_path: Path) -> None:
    binary = tmp_path / "x.lm"
    NGramLM.read(EXAMPLES / "pruned.arpa").write_binary(binary)
    shown = asr_command("lm", "info", binary)
    assert shown.returncode == 0 and "77 + 133 + 57 + 15" in shown.stdout
    values = json.loads(asr_command("lm", "info", EXAMPLES / "pruned.arpa", "--json").stdout)
    assert (values["kind"], values["order"], values["ngrams"]) == ("ARPA", 4, [77, 133, 57, 15])
    data = bytearray(binary.read_bytes())
    data[-1] ^= 1
    binary.write_bytes(data)
    for command in (("info", binary), ("perplexity", binary, TEXT), ("convert", binary, tmp_path / "y.lm")):
        damaged = asr_command("lm", *command)
        assert damaged.returncode == 1 and "the contents are damaged (word_block)" in damaged.stderr


def test_info_tells_models_of_characters(asr_command: Command, tmp_path: Path) -> None:
    spelled = " ".join(TEXT.read_text(encoding="utf-8").replace("\n", " ")).encode()
    assert asr_command("lm", "train", "-", "-o", tmp_path / "x.lm", stdin=spelled).returncode == 0
    assert "looks like a model of single characters" in asr_command("lm", "info", tmp_path / "x.lm").stdout


def test_perplexity_is_that_of_kenlm(asr_command: Command, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("the of xyz and\n\nmust the qqq\n", encoding="utf-8")
    values = json.loads(asr_command("lm", "perplexity", EXAMPLES / "pruned.arpa", text, "--json").stdout)
    assert (values["tokens"], values["oov"], values["sentences"]) == (10, 2, 3)
    assert values["oov_rate"] == pytest.approx(2 / 7)
    shown = asr_command("lm", "perplexity", EXAMPLES / "pruned.arpa", text).stdout
    assert f"{values['perplexity_without_oov']:.2f}" in shown
    kenlm = pytest.importorskip("kenlm", reason="kenlm, the oracle, is not installed")
    model = kenlm.Model(str(EXAMPLES / "pruned.arpa"))
    scores = [score for line in text.read_text(encoding="utf-8").splitlines() for score in model.full_scores(line)]
    known = [log10 for log10, _, oov in scores if not oov]
    assert values["perplexity"] == pytest.approx(10 ** (-math.fsum(s[0] for s in scores) / len(scores)), rel=1e-4)
    assert values["perplexity_without_oov"] == pytest.approx(10 ** (-math.fsum(known) / len(known)), rel=1e-4)
