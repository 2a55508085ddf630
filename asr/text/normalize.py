"""Named text normalizers: the same one is applied to training texts, references and hypotheses.

Every normalizer is idempotent and returns Unicode NFC with single spaces and none at the ends ("normalized text"),
which the tokenizers reproduce exactly. When its rules change, a normalizer gets a new version: a plain name means the
newest version, `basic@1` the first, and model files and reports store `versioned(name)`.

Version 2 of `basic` and `librispeech` drops annotators' tags (`[noise]`, `(laughs)`, `<unk>`), which version 1 turned
into words, and changes the case of a character only if that adds no combining mark to the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from asr.config import nearest
from asr.text.phones import timit39, timit48
from asr.types import ConfigError

_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\uff07": "'", "`": "'", "\u00b4": "'"})
_DASH_LIKE = frozenset("/\\_\u2026\u2212")  # they separate words, like all dashes (category Pd)
_MARK = re.compile(r"[^\w\s]|_")  # anything but letters, digits and spaces, which always stay
_READ_ALOUD = frozenset("%&@")  # punctuation by category, but read as words: kept, so that checks report them


def none(text: str) -> str:
    """The text unchanged except for NFC, single spaces, and none at the ends."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def basic(text: str) -> str:
    """Lower case without punctuation and annotators' tags, for any language with spaces between words.

    Apostrophes inside words (don't) and marks between digits (3.5, 10:30) stay. Dashes, slashes and ellipses become
    spaces. Symbols that are read aloud (% & @ $ + ...) stay, so that they are reported as unknown instead of lost.
    Lower case is Unicode's in every language: I becomes i in Turkish too. A character never becomes several: \u0130
    becomes i, and \u00df and ligatures stay.
    """
    return _until_stable(text, lambda text: _without_marks(_lower(without_tags(text)), _inside_word))


def librispeech(text: str) -> str:
    """A-Z, apostrophe and space, as in the official LibriSpeech transcripts, which it does not change.

    Apostrophes stay if they touch a letter ('TIS, DON'T, SOLDIERS'). Dashes become spaces. Other punctuation and
    annotators' tags are dropped. Digits, accented letters and symbols stay and are reported as unknown, as there is no
    agreed spelling for them. Characters with an upper case of a letter and a combining mark stay too.
    """
    return _until_stable(text, lambda text: _without_marks(_upper(without_tags(text)), _touches_letter))


def characters(text: str) -> str:
    """`basic`, with a space between all characters instead of between words: each character is a word.

    For language models of characters, in languages without spaces between words.
    """
    return " ".join("".join(basic("".join(without_tags(text).split())).split()))


def _basic_1(text: str) -> str:
    return _without_marks(unicodedata.normalize("NFC", text).lower(), _inside_word)


def _librispeech_1(text: str) -> str:
    return _without_marks(unicodedata.normalize("NFC", text).upper(), _touches_letter)


# The versions of each normalizer, oldest first.
NORMALIZERS: dict[str, tuple[Callable[[str], str], ...]] = {
    "none": (none,),
    "basic": (_basic_1, basic),
    "librispeech": (_librispeech_1, librispeech),
    "characters": (characters,),
    "timit39": (lambda text: timit39(none(text)),),
    "timit48": (lambda text: timit48(none(text)),),
}


def normalize(text: str, name: str) -> str:
    """`text` after the normalizer `name` ("basic", or "basic@2" as `versioned` writes it).

    Raises ConfigError for an unknown name, suggesting the nearest one, and for an unknown version.
    """
    return normalizer(name)(text)


def normalizer(name: str) -> Callable[[str], str]:
    """The normalizer with this name. Raises ConfigError as `normalize` does."""
    plain, number = _parsed(name)
    return NORMALIZERS[plain][number - 1]


def versioned(name: str) -> str:
    """The name with its version, as printed in reports: "basic@2". Raises ConfigError as `normalize` does."""
    plain, number = _parsed(name)
    return f"{plain}@{number}"


def recorded(name: str) -> str:
    """The versioned name for a name in a file; names had no version while there was only one."""
    return name if "@" in name else f"{name}@1"


def tag_warnings(texts: Iterable[tuple[str, str]], what: str, name: str) -> list[str]:
    """A warning if (id, text) pairs have annotators' tags: how many, which, and what normalizer `name` does to them.

    `what` is what to call the texts: "the references".
    """
    tags = count_tags(texts)
    if not tags:
        return []
    ids = list(dict.fromkeys(id for uses in tags.values() for id in uses))
    counts = [f"{tag} x {len(uses)}" for tag, uses in tags.items()]
    kept = normalizer(name)("[noise]")
    fate = "counts them as words; the normalizer basic drops them" if kept else "drops them"
    return [
        f"{len(ids)} of {what} ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)}) have annotators' tags: "
        f"{', '.join(counts[:5])}{', ...' * (len(counts) > 5)}: {versioned(name)} {fate}"
    ]


def _parsed(name: str) -> tuple[str, int]:
    plain, _, version = name.partition("@")
    if plain not in NORMALIZERS:
        raise ConfigError(f"unknown normalizer '{name}'{nearest(plain, NORMALIZERS)}")
    newest = len(NORMALIZERS[plain])
    if version and version not in map(str, range(1, newest + 1)):
        raise ConfigError(f"normalizer '{name}' differs from '{plain}@{newest}' here: use the asr that wrote it")
    return plain, int(version or newest)


def _until_stable(text: str, rules: Callable[[str], str]) -> str:
    """Apply the rules again if removing characters has created a tag (from "<.b>") or joined i and a dot above."""
    once = rules(text)
    return _until_stable(once, rules) if find_tags(once) or "i\u0307" in once else once


def _lower(text: str) -> str:
    """Lower case, with \u0130 as one letter too, the only one that Unicode turns into two (i and a dot above)."""
    lower = unicodedata.normalize("NFC", text).lower()
    return unicodedata.normalize("NFC", lower.replace("i\u0307", "i"))


def _upper(text: str) -> str:
    """Upper case, except for characters that would become a letter and a combining mark."""

    def splits(c: str) -> bool:
        return len(c.upper()) > 1 and any(map(unicodedata.combining, unicodedata.normalize("NFC", c.upper())))

    return "".join(c if splits(c) else c.upper() for c in unicodedata.normalize("NFC", text))


def _without_marks(text: str, keeps_apostrophe: Callable[[str, int], bool]) -> str:
    """Normalized text without punctuation; `keeps_apostrophe(text, position)` decides on each apostrophe."""
    text = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)

    def kept(match: re.Match[str]) -> str:
        c, i = match[0], match.start()
        if c == "'":
            return c if keeps_apostrophe(text, i) else ""
        category = unicodedata.category(c)
        if category == "Pd" or c in _DASH_LIKE:
            return " "
        if category == "Sk" or (category.startswith("P") and c not in _READ_ALOUD):
            return c if _between(text, i, str.isdigit) else ""
        return "" if category in ("Cc", "Cf") else c

    return none(_MARK.sub(kept, text))


def _between(text: str, i: int, test: Callable[[str], bool]) -> bool:
    return 0 < i < len(text) - 1 and test(text[i - 1]) and test(text[i + 1])


def _inside_word(text: str, i: int) -> bool:
    return _between(text, i, _is_word)


def _touches_letter(text: str, i: int) -> bool:
    return any(_is_word(c) for c in text[max(0, i - 1) : i + 2])


def _is_word(c: str) -> bool:
    return bool(re.match(r"[^\W_]", c)) or unicodedata.category(c).startswith("M")


_ASCII = str.maketrans("（）［］＜＞｛｝【】〔〕", "()[]<>{}[][]")
# Beginnings of words for noises and remarks, as annotators write them in parentheses.
_EVENT = r"""(?:
    (?: laugh | chuckl | giggl | cough | sneez | sniff | sigh | breath | inhal | exhal | gasp | yawn | sobb | groan
      | moan | whistl | humming | clap(?:s|ping)?\b | applau | aplaus | cheer | musi[ck] | música | nois | static\b
      | beep | click | bang(?:s|ing)?\b | buzz | knock | silence | pause | inaudib | unintelligib | indistinct
      | indiscernib | incomprehensib | cross-?talk | overlap | foreign | background | hesitat | smack | lip-?smack
      | throat | mumbl | grunt | scream | bleep | ring(?:s|ing)\b | crying | singing | vocali[sz]ed | rires?\b
      | lacht?\b | lachen | risas?\b | risate\b | bruit | ruido | rumore | geräusch | unk(?:nown)?\b | sil\b | spn\b
      | nsn\b | %\w
    )[\w-]*)"""
_TAG = re.compile(
    rf"""
    \[+ [^\[\]]{{0,60}} \]+                                        # [noise] [speaking French] [laughter-yes]
  | <+ [/|!%]? [^\W\d_] [^<>\s]{{0,40}} >+                         # <unk> <s> <laugh>yes</laugh> <|en|>
  | (?<!\w) <+ [^\W\d_] [^<>]{{0,60}} >+ (?!\w)                    # <foreign language>
  | < [^\W\d_]+ \s [\w-]+ = [^<>]{{0,60}} >                         # <font color="red">
  | \{{ [^\W\d_] [\w-]{{0,40}} \}}                                 # {{breath}}; not {{a / b}}, sclite's alternatives
  | \+\+ [\w-]{{1,40}} \+\+                                        # ++noise++
  | \*+ {_EVENT} \*+                                              # *laughs*; around other words * marks stress
  | &= [\w:]{{1,40}}                                               # &=laughs
  | \( [^\w()%]* (?:clears\s+)? {_EVENT}
       (?: [^\w()]+ (?: {_EVENT} | and | in | language | speech | voice | word | \d+ ) )* [^\w()]* \)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ASIDE = re.compile(r"(?<!\w)\([^()]*\w[^()]*\)(?!\w)|\[[^\[\]]*\w[^\[\]]*\]")


def find_tags(text: str) -> list[str]:
    """The annotators' tags in a text, as written.

    These count as tags: `[...]` of up to 60 characters; `<...>` that begins with a letter, / or |, as in XML; `{word}`,
    `++word++` and `&=word`; and `(...)` and `*...*` around words for noises or for unintelligible speech. Other words
    in parentheses may be spoken (`(and then he said)`, and acronyms in texts read aloud): see `find_asides`. Whisper's
    normalizers drop those as well, and sclite can make them optional. A word spoken while laughing and written
    `[laughter-yes]` is dropped with its tag.
    """
    return [text[slice(*span)] for span in _tag_spans(text)]


def find_asides(text: str) -> list[str]:
    """Text in parentheses, or in brackets around more than 60 characters, that is not a tag: perhaps spoken."""
    return [match[0] for match in _ASIDE.finditer(without_tags(text))]


def count_tags(texts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The tags of (id, text) pairs, the most frequent first, with the id of each occurrence."""
    ids: dict[str, list[str]] = {}
    for name, text in texts:
        for tag in find_tags(text):
            ids.setdefault(tag, []).append(name)
    return dict(sorted(ids.items(), key=lambda item: (-len(item[1]), item[0])))


def without_tags(text: str) -> str:
    """The text with each tag replaced by a space."""
    for start, end in reversed(_tag_spans(text)):
        text = f"{text[:start]} {text[end:]}"
    return text


def _tag_spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _TAG.finditer(text.translate(_ASCII))]
