"""Normalizers: tables of cases, and what holds for every text."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.text.normalize import NORMALIZERS, _lower, _upper, find_tags, normalize, versioned
from asr.types import ConfigError

NAMES = sorted(NORMALIZERS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  World!", "Hello,  World!".replace("  ", " ")),
        ("  tabs\tand\r\nlines\u00a0and\u3000more ", "tabs and lines and more"),
        ("cafe\u0301", "caf\u00e9"),
        ("", ""),
    ],
)
def test_none_touches_only_encoding_and_whitespace(text: str, expected: str) -> None:
    assert normalize(text, "none") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("Don\u2019t stop; 'tis rock 'n' roll, the dogs' bowl", "don't stop tis rock n roll the dogs bowl"),
        ("well-known \u2014 state\u2013of\u2011the-art", "well known state of the art"),
        ("and/or foo_bar wait\u2026what", "and or foo bar wait what"),
        ("U.S.A. at 3.5, 10:30 and 1,000.", "usa at 3.5 10:30 and 1,000"),
        ('"Quotes" \u201ccurly\u201d \u00abguillemets\u00bb (brackets)', "quotes curly guillemets brackets"),
        ("[noise] yes (laughs) <unk>", "yes"),
        ("\u0130stanbul i\u0307stanbul I\u0307I \u0131 I\u0328\u0307", "istanbul istanbul ii \u0131 \u012f\u0307"),
        (
            "\u039f\u0394\u039f\u03a3 \ufb01ne stra\u00dfe \u1e9e",
            "\u03bf\u03b4\u03bf\u03c2 \ufb01ne stra\u00dfe \u00df",
        ),
        ("5 % of $3 & \u20ac4 + 1", "5 % of $3 & \u20ac4 + 1"),
        ("\u00bfQu\u00e9 TAL? \u00c9T\u00c9 STRASSE", "qu\u00e9 tal \u00e9t\u00e9 strasse"),
        ("zero\u200bwidth \ufeffmark", "zerowidth mark"),
        ("...", ""),
    ],
)
def test_basic(text: str, expected: str) -> None:
    assert normalize(text, "basic") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u800c \u5bf9\u697c\u5e02\uff0c", "\u800c \u5bf9 \u697c \u5e02"),
        ("[noise] T\u6064 don't - it", "t \u6064 d o n ' t i t"),
        (" ... ", ""),
    ],
)
def test_characters(text: str, expected: str) -> None:
    assert normalize(text, "characters") == normalize(expected, "characters") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mister Quilter is the apostle.", "MISTER QUILTER IS THE APOSTLE"),
        ("'Tis the soldiers' don\u2019t - ' -", "'TIS THE SOLDIERS' DON'T"),
        ("NIGHTFALL--the well-known", "NIGHTFALL THE WELL KNOWN"),
        ("caf\u00e9 5 \u00bd stra\u00dfe", "CAF\u00c9 5 \u00bd STRASSE"),
        ("[NOISE] yes (laughs) <unk>", "YES"),
        ("\ufb01ne \u01f0 \u0390 \u0149", "FINE \u01f0 \u0390 'N"),
        ("ALREADY AS IT SHOULD BE", "ALREADY AS IT SHOULD BE"),
    ],
)
def test_librispeech(text: str, expected: str) -> None:
    assert normalize(text, "librispeech") == expected


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1), st.sampled_from(["", "'S", "'"]))
def test_librispeech_leaves_official_words_alone(word: str, ending: str) -> None:
    assert normalize(word + ending, "librispeech") == word + ending


def test_the_first_versions_are_as_they_were() -> None:
    text = "[noise] \u0130stanbul (laughs) <unk> \u01f0"
    assert normalize(text, "basic@1") == "noise i\u0307stanbul laughs <unk> \u01f0"
    assert normalize(text, "librispeech@1") == "NOISE \u0130STANBUL LAUGHS <UNK> J\u030c"


def test_case_adds_no_mark_to_any_character_and_lower_case_keeps_one_character_one() -> None:
    """Kind: case mappings of Unicode that make several characters of one."""

    def marks(text: str) -> int:
        return sum(unicodedata.category(c).startswith("M") for c in text)

    cased = [c for c in map(chr, range(sys.maxunicode + 1)) if c.lower() != c or c.upper() != c]
    assert len(cased) > 2500
    for c in (unicodedata.normalize("NFC", c) for c in cased):
        lower, upper = _lower(c), _upper(c)
        assert len(lower) == len(c) and marks(lower) <= marks(c), c
        assert marks(upper) <= marks(c), c


@given(st.text())
def test_lower_case_of_any_text_adds_neither_marks_nor_characters(text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    assert len(_lower(text)) <= len(text)
    assert sum(map(bool, map(unicodedata.combining, _lower(text)))) <= sum(map(bool, map(unicodedata.combining, text)))


@given(st.lists(st.sampled_from([*"[](){}<>+&=./|\u200b\u0307iI a", "noise", "laughs"]), max_size=20).map("".join))
def test_what_is_left_of_odd_brackets_holds_no_tag(text: str) -> None:
    for name in ("basic", "librispeech"):
        once = normalize(text, name)
        assert find_tags(once) == [] and normalize(once, name) == once


@pytest.mark.parametrize(
    "name", [f"{name}@{version}" for name in NAMES for version in range(1, len(NORMALIZERS[name]) + 1)]
)
@given(text=st.text())
def test_result_is_normalized_text_and_stays_so(name: str, text: str) -> None:
    once = normalize(text, name)
    assert once == " ".join(once.split())
    assert once == unicodedata.normalize("NFC", once)
    assert normalize(once, name) == once


@pytest.mark.parametrize("name", NAMES)
def test_versioned_names_are_accepted_and_others_refused(name: str) -> None:
    assert versioned(name) == f"{name}@{len(NORMALIZERS[name])}"
    assert normalize("Any Text", versioned(name)) == normalize("Any Text", name)
    for unknown in ("99", "0", "x"):
        with pytest.raises(ConfigError, match="differs"):
            normalize("x", f"{name}@{unknown}")


def test_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'librispeach'.*did you mean 'librispeech'\?"):
        normalize("x", "librispeach")
