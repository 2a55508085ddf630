"""Named text normalizers: the same one is applied to training texts, to references and to hypotheses.

Every normalizer returns Unicode NFC with single spaces and no outer whitespace ("normalized text"), which is
what the tokenizers reproduce exactly. All are idempotent. Model files and WER reports can carry
`versioned(name)`: should the rules of a name ever change, its version grows and old files keep saying which
rules they were made with.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from asr.config import nearest
from asr.types import ConfigError

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\uff07": "'", "`": "'", "\u00b4": "'"})
_DASH_LIKE = frozenset("/\\_\u2026\u2212")  # read as a pause between words, as every dash (category Pd) is
_DOUBTFUL = re.compile(r"[^\w\s]|_")  # all but letters, digits and spaces: those stay whatever is beside them
_READ_ALOUD = frozenset("%&@")  # punctuation by category, words by sound: kept, so that the check reports them


def none(text: str) -> str:
    """Only what encodings leave behind: NFC, every run of whitespace one space, none at the ends."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def basic(text: str) -> str:
    """Lower case without punctuation, for any language with spaces between words.

    Apostrophes inside words (don't) and marks between digits (3.5, 10:30) stay; dashes, slashes and ellipses
    become spaces; symbols that are read aloud (% & @ $ + ...) stay, so that they are reported as unknown and
    not lost.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    return none(_without_punctuation(text.translate(_APOSTROPHES), _inside_word))


def librispeech(text: str) -> str:
    """A-Z, apostrophe and space, as in the official LibriSpeech transcripts, which it leaves as they are.

    Apostrophes stay when they touch a letter ('TIS, DON'T, SOLDIERS'); dashes become spaces; other
    punctuation goes. Digits, accented letters and symbols stay: they have no agreed spelling, so they are
    reported as unknown.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).upper())
    return none(_without_punctuation(text.translate(_APOSTROPHES), _touches_letter))


NORMALIZERS: dict[str, Callable[[str], str]] = {"none": none, "basic": basic, "librispeech": librispeech}
VERSIONS: dict[str, int] = {"none": 1, "basic": 1, "librispeech": 1}


def normalize(text: str, name: str) -> str:
    """`text` under the normalizer called `name` ("basic", or "basic@1" as `versioned` writes it).

    Raises ConfigError for an unknown name, with the nearest one, and for rules of another version.
    """
    return normalizer(name)(text)


def normalizer(name: str) -> Callable[[str], str]:
    """The function behind a name; raises ConfigError as `normalize` does."""
    plain, _, version = name.partition("@")
    if plain not in NORMALIZERS:
        raise ConfigError(f"unknown normalizer '{name}'{nearest(plain, NORMALIZERS)}")
    if version and version != str(VERSIONS[plain]):
        raise ConfigError(f"normalizer '{name}' differs from '{versioned(plain)}' here: use the asr that wrote it")
    return NORMALIZERS[plain]


def versioned(name: str) -> str:
    """The name with the version of its rules, as reports print it: "basic@1"."""
    plain = name.partition("@")[0]
    normalizer(name)
    return f"{plain}@{VERSIONS[plain]}"


def _without_punctuation(text: str, keeps_apostrophe: Callable[[str, int], bool]) -> str:
    def kept(found: re.Match[str]) -> str:
        c, i = found[0], found.start()
        if c == "'":
            return c if keeps_apostrophe(text, i) else ""
        category = unicodedata.category(c)
        if category == "Pd" or c in _DASH_LIKE:
            return " "
        if category == "Sk" or (category.startswith("P") and c not in _READ_ALOUD):
            return c if _between(text, i, str.isdigit) else ""
        return "" if category in ("Cc", "Cf") else c

    return _DOUBTFUL.sub(kept, text)


def _between(text: str, i: int, test: Callable[[str], bool]) -> bool:
    return 0 < i < len(text) - 1 and test(text[i - 1]) and test(text[i + 1])


def _inside_word(text: str, i: int) -> bool:
    return _between(text, i, _is_word)


def _touches_letter(text: str, i: int) -> bool:
    return any(_is_word(c) for c in text[max(0, i - 1) : i + 2])


def _is_word(c: str) -> bool:
    return bool(re.match(r"[^\W_]", c)) or unicodedata.category(c).startswith("M")
