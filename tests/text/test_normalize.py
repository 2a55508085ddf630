"""Normalizers: tables of cases, and what holds for every text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.text.normalize import NORMALIZERS, VERSIONS, normalize, versioned
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
        ('"Quotes" \u201ccurly\u201d \u00abguillemets\u00bb (brackets) [too]', "quotes curly guillemets brackets too"),
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
        ("Mister Quilter is the apostle.", "MISTER QUILTER IS THE APOSTLE"),
        ("'Tis the soldiers' don\u2019t - ' -", "'TIS THE SOLDIERS' DON'T"),
        ("NIGHTFALL--the well-known", "NIGHTFALL THE WELL KNOWN"),
        ("caf\u00e9 5 \u00bd stra\u00dfe", "CAF\u00c9 5 \u00bd STRASSE"),
        ("ALREADY AS IT SHOULD BE", "ALREADY AS IT SHOULD BE"),
    ],
)
def test_librispeech(text: str, expected: str) -> None:
    assert normalize(text, "librispeech") == expected


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1), st.sampled_from(["", "'S", "'"]))
def test_librispeech_leaves_official_words_alone(word: str, ending: str) -> None:
    assert normalize(word + ending, "librispeech") == word + ending


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text())
def test_result_is_normalized_text_and_stays_so(name: str, text: str) -> None:
    once = normalize(text, name)
    assert once == " ".join(once.split())
    assert once == unicodedata.normalize("NFC", once)
    assert normalize(once, name) == once


@pytest.mark.parametrize("name", NAMES)
def test_versioned_names_are_accepted_and_others_refused(name: str) -> None:
    assert versioned(name) == f"{name}@{VERSIONS[name]}"
    assert normalize("Any Text", versioned(name)) == normalize("Any Text", name)
    with pytest.raises(ConfigError, match="differs"):
        normalize("x", f"{name}@99")


def test_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'librispeach'.*did you mean 'librispeech'\?"):
        normalize("x", "librispeach")
