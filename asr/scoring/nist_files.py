"""The text formats of NIST's sclite: trn (texts with ids), stm (segments with times), ctm (words with times)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from asr.scoring.alternatives import Wordings, read_markup
from asr.scoring.pairing import Line, TextFile, TextFileError, TimedWord, timed_line

TRN_LINE = re.compile(r"(.*?)\s*\(([^()\s]+)\)\s*$", re.DOTALL)
IGNORED = "ignore_time_segment_in_scoring"  # sclite ignores its case


def read_trn(path: str, content: str) -> TextFile:
    """`text (id)` per line; lines that begin with `;;` are comments. Raises TextFileError."""
    lines = []
    for number, row in _rows(content):
        match = TRN_LINE.match(row)
        if not match:
            raise TextFileError(f"{path}:{number}: no utterance id: a line of a trn file ends in (id)")
        text, name = match.groups()
        lines.append(_with_markup_read(Line(name, text.strip()), f"{path}:{number}"))
    return TextFile(path, tuple(lines))


def read_stm(path: str, content: str) -> TextFile:
    """The segments of `recording channel speaker start end [<label>] text`, and those to be ignored in scoring.

    As in sclite, a text that begins with `<` begins with a label. Segments are named recording-channel-start, with
    the speaker where that is not unique. Raises TextFileError.
    """
    segments: list[tuple[Line, str]] = []  # with their places for messages
    for number, row in _rows(content):
        where = f"{path}:{number}"
        fields = row.split(maxsplit=5)
        try:
            recording, channel, speaker = fields[:3]
            start, end = map(float, fields[3:5])
        except ValueError as error:
            form = "'RECORDING CHANNEL SPEAKER START END TEXT', times in seconds"
            raise TextFileError(f"{where}: expected {form}") from error
        if not 0.0 <= start <= end < float("inf"):
            raise TextFileError(f"{where}: the segment ends ({end:g} s) before it starts ({start:g} s): correct it")
        text = fields[5].strip() if len(fields) > 5 else ""
        if text.startswith("<"):
            text = text.partition(" ")[2].strip()
        line = Line(f"{recording}-{channel}-{start:.2f}", text, speaker, round(end - start, 6))
        line = replace(line, offset=start, segment=True, recording=f"{recording} {channel}")
        segments.append((line, where))
    uses = Counter(line.id for line, _ in segments)
    named = [(replace(x, id=f"{x.id}-{x.speaker}") if uses[x.id] > 1 else x, where) for x, where in segments]
    scored = tuple(_with_markup_read(line, where) for line, where in named if not _is_ignored(line))
    return TextFile(path, scored, ignored=tuple(line for line, _ in named if _is_ignored(line)))


def read_ctm(path: str, content: str) -> TextFile:
    """A text per recording and channel from lines of `recording channel start duration word [confidence]`.

    A text is named after its recording, with the channel if there are several. Raises TextFileError.
    """
    words: dict[str, list[TimedWord]] = {}
    for number, row in _rows(content):
        where = f"{path}:{number}"
        fields = row.split()
        try:
            recording, channel, start, length, text = fields[:5]
            if (start, length) == ("*", "*"):
                word = TimedWord(text, mark=True)
            else:
                confidence = float(fields[5]) if len(fields) > 5 and fields[5] != "NA" else None
                word = TimedWord(_plain_word(text, where), float(start), float(start) + float(length), confidence)
        except ValueError as error:
            raise TextFileError(f"{where}: expected 'RECORDING CHANNEL START DURATION WORD [CONFIDENCE]'") from error
        if word.mark and not text.upper().startswith("<ALT"):
            marks = "<ALT_BEGIN>, <ALT> and <ALT_END>"
            raise TextFileError(f"{where}: the word '{text}' has no times: only {marks} have none")
        words.setdefault(f"{recording} {channel}", []).append(word)
    channels = Counter(key.split()[0] for key in words)
    lines = []
    for key, timed in words.items():
        recording, channel = key.split()
        name = recording if channels[recording] == 1 else f"{recording}-{channel}"
        lines.append(timed_line(Line(name, "", recording=key), timed, path))
    return TextFile(path, tuple(lines), timed=words)


def _rows(content: str) -> Iterator[tuple[int, str]]:
    for number, row in enumerate(content.split("\n"), start=1):
        if row.strip() and not row.startswith(";;"):
            yield number, row


def _is_ignored(line: Line) -> bool:
    return (line.text or "").lower() == IGNORED


def _with_markup_read(line: Line, where: str) -> Line:
    """The line with the markup of its text interpreted."""
    try:
        text = read_markup(line.text or "")
    except ValueError as error:
        raise TextFileError(f"{where}: {error} (in plain texts, txt or jsonl, braces are ordinary letters)") from error
    return replace(line, wordings=text) if isinstance(text, Wordings) else replace(line, text=text)


def _plain_word(word: str, where: str) -> str:
    read = _with_markup_read(Line("", word), where)
    if read.wordings is not None:
        choice = "in a ctm file, <ALT_BEGIN>, <ALT> and <ALT_END> mark a choice of words"
        raise TextFileError(f"{where}: '{word}': {choice}")
    return read.text or ""


_UNREADABLE = frozenset("{}\\")
_TWINS = str.maketrans("{}\\", "\uff5b\uff5d\uff3c")


def nist_id(name: str) -> str:
    """An id that the NIST formats allow: white space and parentheses would end it, `;;` or `**` begin a comment."""
    name = "".join("_" if c.isspace() or c in "()" else c for c in name) or "utterance"
    return "_" + name[1:] if name.startswith((";;", "**")) else name


def nist_text(text: str) -> str:
    """A text as sclite reads it in trn, stm and ctm: one space between words, sclite's markup escaped.

    Braces, backslashes and a lone @ cannot be escaped: they are replaced by their full-width twins (U+FF5B, U+FF5D,
    U+FF3C, U+FF20).
    """
    words = [_nist_word(word) for word in text.split()]
    if words and words[0].startswith("**"):  # would begin a comment
        words[0] = "\\" + words[0]
    return " ".join(words)


def has_look_alikes(text: str) -> bool:
    """Whether `nist_text` has to replace letters of the text."""
    return not _UNREADABLE.isdisjoint(text) or "@" in text.split()


def _nist_word(word: str) -> str:
    if word == "@":
        return "\uff20"
    word = word.translate(_TWINS).replace(";", "\\;")  # a bare ; begins a tag
    return word + "*" if len(word) > 1 and word.endswith("*") else word  # sclite drops the last * of a longer word


def trn_line(text: str, utterance_id: str) -> str:
    """One line of a trn file."""
    return f"{nist_text(text)} ({nist_id(utterance_id)})\n"


def stm_line(line: Line, text: str) -> str:
    """A line of an stm file, sclite's reference for a ctm, with each utterance as a recording of its own."""
    name = nist_id(line.id)
    speaker = nist_id(line.speaker) if line.speaker else name
    # <> is an empty label: without it, sclite takes a text that begins with < for the label
    return f"{name} 1 {speaker} 0.000 {line.duration or 0.0:.3f} <> {nist_text(text)}".rstrip() + "\n"


def ctm_lines(line: Line, words: Iterable[str]) -> str:
    """The lines of a ctm file for a hypothesis: `words` are its normalized words, one for each of `line.words`."""
    rows = ""
    for text, word in zip(words, line.words, strict=True):
        length = max(word.end - word.start, 0.001)
        rows += f"{nist_id(line.id)} 1 {word.start:.3f} {length:.3f} {nist_text(text)} {word.confidence:.3f}\n"
    return rows
