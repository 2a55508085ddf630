"""Named text normalizers: the same one is applied to training texts, to references and to hypotheses.

Every normalizer returns Unicode NFC with single spaces and no outer whitespace ("normalized text"), which is
what the tokenizers reproduce exactly. All are idempotent. A change of a normalizer's rules is a new version of it:
a plain name is the newest one, `basic@1` that of its number, and model files and reports carry `versioned(name)`.

What version 2 of `basic` and `librispeech` changed: annotators' tags are left out (asr.text.tags), where version 1
made words of them; and changing the case of a character adds no combining mark to the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from asr.config import nearest
from asr.text.tags import count_tags, find_tags, without_tags
from asr.types import ConfigError

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\uff07": "'", "`": "'", "\u00b4": "'"})
_DASH_LIKE = frozenset("/\\_\u2026\u2212")  # read as a pause between words, as every dash (category Pd) is
_DOUBTFUL = re.compile(r"[^\w\s]|_")  # all but letters, digits and spaces: those stay whatever is beside them
_READ_ALOUD = frozenset("%&@")  # punctuation by category, words by sound: kept, so that the check reports them


def none(text: str) -> str:
    """Only what encodings leave behind: NFC, every run of whitespace one space, none at the ends."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def basic(text: str) -> str:
    """Lower case without punctuation and annotators' tags, for any language with spaces between words.

    Apostrophes inside words (don't) and marks between digits (3.5, 10:30) stay; dashes, slashes and ellipses
    become spaces; symbols that are read aloud (% & @ $ + ...) stay, so that they are reported as unknown and
    not lost. Lower case is Unicode's, which is that of no language in particular: I becomes i in Turkish, too. One
    character stays one: \u0130 becomes i, \u00df and ligatures stay.
    """
    return _settled(text, lambda text: _without_marks(_lower(without_tags(text)), _inside_word))


def librispeech(text: str) -> str:
    """A-Z, apostrophe and space, as in the official LibriSpeech transcripts, which it leaves as they are.

    Apostrophes stay when they touch a letter ('TIS, DON'T, SOLDIERS'); dashes become spaces; other
    punctuation and annotators' tags go. Digits, accented letters and symbols stay: they have no agreed spelling, so
    they are reported as unknown. So do characters whose upper case would be a letter and a combining mark.
    """
    return _settled(text, lambda text: _without_marks(_upper(without_tags(text)), _touches_letter))


def _basic_1(text: str) -> str:
    return _without_marks(unicodedata.normalize("NFC", text).lower(), _inside_word)


def _librispeech_1(text: str) -> str:
    return _without_marks(unicodedata.normalize("NFC", text).upper(), _touches_letter)


# The versions of each normalizer, the first at 0.
NORMALIZERS: dict[str, tuple[Callable[[str], str], ...]] = {
    "none": (none,),
    "basic": (_basic_1, basic),
    "librispeech": (_librispeech_1, librispeech),
}
VERSIONS: dict[str, int] = {name: len(rules) for name, rules in NORMALIZERS.items()}


def normalize(text: str, name: str) -> str:
    """`text` under the normalizer called `name` ("basic", or "basic@2" as `versioned` writes it).

    Raises ConfigError for an unknown name, with the nearest one, and for a version that is not known here.
    """
    return normalizer(name)(text)


def normalizer(name: str) -> Callable[[str], str]:
    """The function behind a name; raises ConfigError as `normalize` does."""
    plain, number = _parsed(name)
    return NORMALIZERS[plain][number - 1]


def versioned(name: str) -> str:
    """The name with the version of its rules, as reports print it: "basic@2"."""
    plain, number = _parsed(name)
    return f"{plain}@{number}"


def recorded(name: str) -> str:
    """The versioned name behind one that a file holds: names were written without a version while there was one."""
    return name if "@" in name else f"{name}@1"


def tag_warnings(texts: Iterable[tuple[str, str]], what: str, name: str) -> list[str]:
    """A line where (id, text) pairs hold annotators' tags: how many, which, and what normalizer `name` makes of them.

    `what` names the texts: "the references".
    """
    tags = count_tags(texts)
    if not tags:
        return []
    ids = list(dict.fromkeys(name for names in tags.values() for name in names))
    kept = normalizer(name)("[noise]")
    fate = "counts them as words; the normalizer basic leaves them out" if kept else "leaves them out"
    return [
        f"{len(ids)} of {what} ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)}) hold tags of annotators: "
        f"{', '.join(f'{tag} x {len(names)}' for tag, names in list(tags.items())[:5])}{', ...' * (len(tags) > 5)}: "
        f"{versioned(name)} {fate}"
    ]


def _parsed(name: str) -> tuple[str, int]:
    plain, _, version = name.partition("@")
    if plain not in NORMALIZERS:
        raise ConfigError(f"unknown normalizer '{name}'{nearest(plain, NORMALIZERS)}")
    newest = VERSIONS[plain]
    if not version:
        return plain, newest
    if version not in map(str, range(1, newest + 1)):
        raise ConfigError(f"normalizer '{name}' differs from '{plain}@{newest}' here: use the asr that wrote it")
    return plain, int(version)


def _settled(text: str, rules: Callable[[str], str]) -> str:
    """The rules applied until nothing changes: characters that go can leave a tag (of "<.b>") or join i and a dot."""
    once = rules(text)
    return _settled(once, rules) if find_tags(once) or "i\u0307" in once else once


def _lower(text: str) -> str:
    """Lower case, the only letter that Unicode makes two of (\u0130: i and a dot above) one letter, too."""
    lower = unicodedata.normalize("NFC", text).lower()
    return unicodedata.normalize("NFC", lower.replace("i\u0307", "i"))  # the dot that every i has


def _upper(text: str) -> str:
    """Upper case, but for characters that would become a letter and a combining mark."""
    return "".join(c if _is_split(c) else c.upper() for c in unicodedata.normalize("NFC", text))


def _is_split(c: str) -> bool:
    return len(c.upper()) > 1 and any(map(unicodedata.combining, unicodedata.normalize("NFC", c.upper())))


def _without_marks(text: str, keeps_apostrophe: Callable[[str, int], bool]) -> str:
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    return none(_without_punctuation(text, keeps_apostrophe))


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
