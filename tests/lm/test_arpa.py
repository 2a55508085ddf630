"""Reading and writing ARPA files: variants that occur in the wild, errors with file and line, exact round trips."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_oracles import EXAMPLES, as_dict

from asr.lm import arpa
from asr.lm.arpa import write_arpa
from asr.lm.ngram import NGramLM, read_ngrams
from asr.lm.tables import LMError, NGramTable, NGramTables

GOOD = """\\data\\
ngram 1=5
ngram 2=4

\\1-grams:
-2.0\t<unk>
-99\t<s>\t-0.3
-0.7\t</s>
-0.6\ta\t-0.25
-0.5\tb\t-0.125

\\2-grams:
-0.1\t<s> a
-0.2\ta b
-0.3\tb a
-0.4\tb </s>

\\end\\
"""


def read(path: Path, text: str | bytes) -> NGramLM:
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return NGramLM.read(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.arpa"


def test_a_small_file(path: Path) -> None:
    lm = read(path, GOOD)
    assert (lm.order, lm.counts, lm.words) == (2, (5, 4), ["<unk>", "<s>", "</s>", "a", "b"])
    assert lm.score("a b") == pytest.approx(-0.1 - 0.2 - 0.4, abs=1e-6)
    assert lm.score("b x", eos=False) == pytest.approx(-0.3 - 0.5 - 0.125 - 2.0, abs=1e-6)


@pytest.mark.parametrize(
    "variant",
    [
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\t", " "),
        GOOD.replace("\t", "  \t "),
        "\ufeff" + GOOD,
        "a comment\n\n" + GOOD,
        GOOD.replace("ngram 1=5", "ngram 1= 5").replace("ngram 2=4", "ngram  2 =  4"),
        GOOD.rstrip("\n"),
        GOOD + "\n\n",
        GOOD.replace("\n\\2", "\n\n\n\\2"),
        GOOD.replace("\n\n\\2", "\n\\2"),
        GOOD.replace("<unk>", "<UNK>"),
        GOOD.replace("<s>", "<S>").replace("</s>", "</S>").replace("<unk>", "<UNK>"),
        GOOD.replace("</s>", "</S>"),
        GOOD.replace("-0.25", "-2.5e-1").replace("-0.5\tb", "-.5\tb").replace("-0.125", "-0.12500000000000000000000"),
        GOOD.replace("-0.4\tb </s>", "-0.4\tb </s>\t0"),
        GOOD.replace("-2.0\t<unk>\n", "").replace("-0.5\tb\t-0.125", "-0.5\tb\t-0.125\n-2.0\t<unk>"),
    ],
)
def test_variants_of_the_format(path: Path, variant: str) -> None:
    lm = read(path, variant)
    assert lm.words == ["<unk>", "<s>", "</s>", "a", "b"]
    assert lm.score("a x b b a") == NGramLM.read(path).score("a x b b a")
    assert lm.score("a x b b a") == pytest.approx(read(path, GOOD).score("a x b b a"), abs=1e-6)


def test_sentence_marks_in_capitals_are_told_and_are_words_beside_the_usual_ones(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lm = read(path, GOOD.replace("<s>", "<S>").replace("</s>", "</S>"))
    assert [record.getMessage().partition(".arpa: ")[2] for record in caplog.records] == [
        "<S> is read as <s>",
        "</S> is read as </s>",
    ]
    assert lm.score("a b") == pytest.approx(-0.1 - 0.2 - 0.4, abs=1e-6)
    write_arpa(path, read_ngrams(path))
    assert "\t<s> a\n" in path.read_text("utf-8") and "<S>" not in path.read_text("utf-8")
    caplog.clear()
    lm = read(path, GOOD.replace("ngram 1=5", "ngram 1=6").replace("-0.6\ta", "-1.5\t<S>\n-0.6\ta"))
    assert (sorted(lm.words), caplog.records) == (sorted(["<unk>", "<s>", "</s>", "<S>", "a", "b"]), [])


def test_without_unk_an_unknown_word_costs_100_as_in_kenlm(path: Path) -> None:
    lm = read(path, GOOD.replace("-2.0\t<unk>\n", "").replace("ngram 1=5", "ngram 1=4"))
    assert lm.words == ["<unk>", "<s>", "</s>", "a", "b"]
    assert lm.score("a x", eos=False) == pytest.approx(-0.1 - 0.25 - 100, abs=1e-4)
    kenlm = pytest.importorskip("kenlm", reason="kenlm, the oracle, is not installed")
    assert lm.score("b x y a") == pytest.approx(kenlm.Model(str(path)).score("b x y a"), abs=1e-3)


def test_infinities_become_numbers(path: Path) -> None:
    assert read(path, GOOD.replace("-99\t", "-inf\t")).score("<s>", bos=False, eos=False) == pytest.approx(-100)


def test_contexts_that_the_file_lacks_are_made_up(path: Path) -> None:
    text = GOOD.replace("ngram 2=4", "ngram 2=4\nngram 3=1").replace("\\end\\", "\\3-grams:\n-0.05\ta a b\n\n\\end\\")
    lm = read(path, text)
    assert lm.score("a a b", eos=False) == pytest.approx(-0.1 - (0.25 + 0.6) - 0.05, abs=1e-6)
    assert lm.score("a a a", eos=False) == pytest.approx(-0.1 - 2 * (0.25 + 0.6), abs=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "", "x.arpa: empty"),
        (GOOD, "hello\n", r"x.arpa: not an ARPA file: it has no line \\data\\"),
        (GOOD, "\\data\\\n\n\\end\\\n", r"x.arpa:3: '\\end\\' where 'ngram 1=COUNT' was expected"),
        ("ngram 2", "ngram 3", r"x.arpa:3: 'ngram 3=4' where 'ngram 2=COUNT'"),
        ("ngram 1=5", "ngram 1=6", r"x.arpa:11: \\1-grams: ends after 5 n-grams; the header says 6"),
        ("ngram 1=5", "ngram 1=4", r"x.arpa:10: more 1-grams than the 4 that the header says"),
        ("ngram 2=4", "ngram 2=5", r"x.arpa:17: \\2-grams: ends after 4 n-grams; the header says 5"),
        ("ngram 2=4", "ngram 2=3", r"x.arpa:16: more 2-grams than the 3"),
        ("ngram 2=4", "ngram 2=400000000000", r"x.arpa:12: the header says 400,000,000,000 2-grams, more than fit"),
        (
            "\\2-grams:\n",
            "",
            r"x.arpa:12: '-0.1\t<s> a' where \\2-grams: was expected after \\1-grams:; are the counts",
        ),
        ("\\2-grams:", "\\3-grams:", r"x.arpa:12: '\\3-grams:' where \\2-grams: was expected"),
        ("\n\\end\\\n", "", r"x.arpa:17: the file ends before \\end\\; is it cut off"),
        ("-0.4\tb </s>\n\n\\end\\\n", "", r"x.arpa:16: \\2-grams: ends after 3 n-grams; the header says 4"),
        ("\n\\2-grams:\n" + GOOD.partition("\\2-grams:\n")[2], "", r"x.arpa:11: the file ends before \\2-grams:"),
        ("-0.6\ta", "0.6\ta", "x.arpa:9: log10 p = 0.6 is above 0"),
        ("-0.6\ta", "zero\ta", "x.arpa:9: 'zero' is not a log-probability"),
        ("-0.6\ta\t-0.25", "-0.6\ta\tx", "x.arpa:9: 'x' is not a back-off weight: a row is log10 p, 1 word, that"),
        ("-0.6\ta\t-0.25", "-0.6\ta\t-0.25\t7", "x.arpa:9: '7' is one field too many: a row is log10 p, 1 word"),
        ("-0.6\ta\t-0.25", "-0.6", "x.arpa:9: fewer than 1 word"),
        ("-0.2\ta b", "-0.2\ta", "x.arpa:14: fewer than 2 words in a row of the 2-grams$"),
        ("-0.2\ta b", "-0.2\ta c", "x.arpa:14: the word 'c' is not among the 1-grams"),
        ("-0.5\tb\t", "-0.5\ta\t", "x.arpa:10: the word 'a' occurs twice"),
        ("-0.3\tb a", "-0.3\ta b", "x.arpa:15: the 2-gram 'a b' occurs twice"),
        ("<s>", "<start>", "x.arpa:6: no <s> among the 1-grams"),
        ("</s>", "<end>", "x.arpa:6: no </s> among the 1-grams"),
    ],
)
def test_errors_name_file_and_line(path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(LMError, match=message) as caught:
        read(path, GOOD.replace(old, new))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_cut_off_anywhere_is_refused(path: Path, packed: bool) -> None:
    content = gzip.compress(GOOD.encode()) if packed else GOOD.encode().rstrip()
    for size in range(len(content)):
        with pytest.raises(LMError) as caught:
            read(path, content[:size])
        assert "\n" not in str(caught.value)
    with pytest.raises(LMError, match=r"x\.arpa:14: fewer than 2 words in a row of the 2-grams; is the file cut off\?"):
        read(path, GOOD[: GOOD.index("-0.2\ta b") + 6])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mmap lm http://kheafield.com/code format version 5\n\0", "a KenLM binary: give the ARPA"),
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"PK\x03\x04", "zip"),
        (GOOD.encode("utf-16"), "UTF-16"),
        (GOOD.encode().replace(b"\tb\t", b"\t\xe4\t").replace(b" b", b" \xe4"), "x.arpa:10: the word is not UTF-8"),
        (gzip.compress(GOOD.encode())[:-20], "gzip data is cut off"),
        (b"\0" * 100, "not an ARPA file"),
    ],
)
def test_other_files_are_recognized(path: Path, content: bytes, message: str) -> None:
    with pytest.raises(LMError, match=message):
        read(path, content)


@pytest.mark.parametrize("size", [7, 64, 300])
def test_pieces_of_any_size_give_the_same(path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    whole = as_dict(read_ngrams(EXAMPLES / "pruned.arpa"))
    monkeypatch.setattr(arpa, "_PIECE", size)
    assert as_dict(read_ngrams(EXAMPLES / "pruned.arpa")) == whole
    with pytest.raises(LMError, match=r"x\.arpa:14: the word 'c'"):
        read(path, GOOD.replace("-0.2\ta b", "-0.2\ta c"))


NUMBERS = st.floats(-90, 0, width=32)
SPELLINGS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(st.lists(SPELLINGS, max_size=6, unique=True), st.data(), st.sampled_from(["x.arpa", "x.arpa.gz"]))
def test_what_is_written_reads_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], data: st.DataObject, name: str
) -> None:
    words = ["<unk>", "<s>", "</s>", *(word for word in words if word.lower() not in ("<unk>", "<s>", "</s>"))]

    def column(n: int) -> np.ndarray:
        return np.array(data.draw(st.lists(NUMBERS, min_size=n, max_size=n)), np.float32)

    n = len(words)
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, unique=True))
    model = NGramTables(
        words,
        [
            NGramTable(np.arange(n, dtype=np.int32)[:, None], column(n), column(n)),
            NGramTable(np.array(pairs, np.int32), column(len(pairs)), np.zeros(len(pairs), np.float32)),
        ],
    )
    path = tmp_path_factory.mktemp("arpa") / name
    write_arpa(path, model)
    again = read_ngrams(path)
    assert list(again.words) == words
    for ours, theirs in zip(model.tables, again.tables, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_writing_fails_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LMError, match="cannot be written"):
        write_arpa(tmp_path / "file" / "x.arpa", read_ngrams(EXAMPLES / "pruned.arpa"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
