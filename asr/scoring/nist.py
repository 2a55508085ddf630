"""Lines of NIST's text formats, written so that sclite reads their words."""

from __future__ import annotations

_UNREADABLE = frozenset("{}\\")
_TWINS = str.maketrans("{}\\", "\uff5b\uff5d\uff3c")


def nist_id(name: str) -> str:
    """An id that the NIST formats can hold: white space and parentheses end it there, `;;` and `**` begin a comment."""
    name = "".join("_" if c.isspace() or c in "()" else c for c in name) or "utterance"
    return "_" + name[1:] if name.startswith((";;", "**")) else name


def nist_text(text: str) -> str:
    """A text written so that sclite reads its words in trn, stm and ctm: one space between them, its markup escaped.

    Braces, backslashes and a lone @ cannot be escaped: their full-width twins (U+FF5B, U+FF5D, U+FF3C, U+FF20) stand
    for them.
    """
    words = [_nist_word(word) for word in text.split()]
    if words and words[0].startswith("**"):  # would begin a comment
        words[0] = "\\" + words[0]
    return " ".join(words)


def has_look_alikes(text: str) -> bool:
    """Whether `nist_text` has to write other letters than those of the text."""
    return not _UNREADABLE.isdisjoint(text) or "@" in text.split()


def _nist_word(word: str) -> str:
    if word == "@":
        return "\uff20"
    word = word.translate(_TWINS).replace(";", "\\;")  # after ; comes a tag
    return word + "*" if len(word) > 1 and word.endswith("*") else word  # the last * of a longer word is not read


def trn_line(text: str, utterance_id: str) -> str:
    """One line of a trn file."""
    return f"{nist_text(text)} ({nist_id(utterance_id)})\n"
