"""Annotators' tags in transcripts: `[noise]`, `(laughs)`, `<unk>`, which nobody says."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ASCII = str.maketrans("（）［］＜＞｛｝【】〔〕", "()[]<>{}[][]")
# What annotators write between parentheses, by the beginnings of the words.
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
    """The annotators' tags of a text, as they stand there.

    Taken for tags are: `[...]` up to 60 characters; `<...>` that begins with a letter, / or |, as in XML; `{word}`,
    `++word++` and `&=word`; and `(...)` and `*...*` of words for noises or for what could not be understood. Other
    words in parentheses may be spoken (`(and then he said)`, and acronyms in texts read aloud): see `find_asides`.
    Whisper's normalizers drop these as well, and sclite can let a hypothesis leave them out. A word that was spoken
    laughing and is written `[laughter-yes]` goes with its tag.
    """
    return [text[found.start() : found.end()] for found in _TAG.finditer(text.translate(_ASCII))]


def find_asides(text: str) -> list[str]:
    """The words between parentheses, or in more than 60 characters of brackets, that are no tags: perhaps spoken."""
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
    places = [found.span() for found in _TAG.finditer(text.translate(_ASCII))]
    for start, end in reversed(places):
        text = f"{text[:start]} {text[end:]}"
    return text
