"""Annotators' tags in transcripts, which nobody says: `[noise]`, `(laughs)`, `<unk>`."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ASCII = str.maketrans("（）［］＜＞｛｝【】〔〕", "()[]<>{}[][]")
# Noises and remarks as annotators write them between parentheses, by the beginnings of the words.
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
  | \*+ {_EVENT} \*+                                              # *laughs*; others stress a word
  | &= [\w:]{{1,40}}                                               # &=laughs
  | \( [^\w()%]* (?:clears\s+)? {_EVENT}
       (?: [^\w()]+ (?: {_EVENT} | and | in | language | speech | voice | word | \d+ ) )* [^\w()]* \)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ASIDE = re.compile(r"(?<!\w)\([^()]*\w[^()]*\)(?!\w)|\[[^\[\]]*\w[^\[\]]*\]")


def find_tags(text: str) -> list[str]:
    """The annotators' tags of a text, as they are written there.

    These count as tags: `[...]` of up to 60 characters; `<...>` that begins with a letter, / or |, as in XML; `{word}`,
    `++word++` and `&=word`; and `(...)` and `*...*` around words for noises or for what could not be understood. Other
    words in parentheses may be spoken (`(and then he said)`, and acronyms in texts read aloud): see `find_asides`.
    Whisper's normalizers drop those as well, and sclite can let a hypothesis leave them out. A word spoken while
    laughing and written `[laughter-yes]` goes with its tag.
    """
    return [text[slice(*place)] for place in _places(text)]


def find_asides(text: str) -> list[str]:
    """What stands in parentheses, or in brackets around more than 60 characters, and is no tag: perhaps spoken."""
    return [found[0] for found in _ASIDE.finditer(without_tags(text))]


def count_tags(texts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The tags of (id, text) pairs, the most frequent first, with the id of each occurrence."""
    found: dict[str, list[str]] = {}
    for name, text in texts:
        for tag in find_tags(text):
            found.setdefault(tag, []).append(name)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def without_tags(text: str) -> str:
    """The text with a space for each of its tags."""
    for start, end in reversed(_places(text)):
        text = f"{text[:start]} {text[end:]}"
    return text


def _places(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in _TAG.finditer(text.translate(_ASCII))]
