"""The texts that NIST's sclite reads: trn (texts with ids), stm (segments with times), ctm (words with times)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from asr.scoring.alternatives import NULL, Wordings, read_markup
from asr.scoring.texts import Line, Texts, TextsError, TimedWord

TRN_LINE = re.compile(r"(.*?)\s*\(([^()\s]+)\)\s*$", re.DOTALL)
IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"


def read_trn(path: str, content: str) -> list[Line]:
    """`text (id)` per line; lines that begin with `;;` are comments. Raises TextsError."""
    lines = []
    for number, row in _rows(content):
        match = TRN_LINE.match(row)
        if not match:
            raise TextsError(f"{path}:{number}: no utterance id: a line of a trn file ends in (id)")
        text, name = match.groups()
        lines.append(_marked(Line(name, text.strip()), f"{path}:{number}"))
    return lines


def read_stm(path: str, content: str) -> tuple[list[Line], list[Line]]:
    """The segments of `recording channel speaker start end [<label>] text`, and those to be ignored in scoring.

    A text that begins with `<` begins with a label, as to sclite. Segments are called recording-channel-start. Raises
    TextsError.
    """
    found: list[tuple[Line, str]] = []
    for number, row in _rows(content):
        where = f"{path}:{number}"
        fields = row.split(maxsplit=5)
        try:
            recording, channel, speaker = fields[:3]
            start, end = float(fields[3]), float(fields[4])
        except (ValueError, IndexError) as error:
            raise TextsError(
                f"{where}: expected 'RECORDING CHANNEL SPEAKER START END TEXT', times in seconds"
            ) from error
        if not 0.0 <= start <= end < float("inf"):
            raise TextsError(f"{where}: the segment ends ({end:g} s) before it starts ({start:g} s): correct its times")
        text = fields[5].strip() if len(fields) > 5 else ""
        if text.startswith("<"):
            text = text.partition(" ")[2].strip() if " " in text else ""
        line = Line(
            f"{recording}-{channel}-{start:.2f}",
            text,
            speaker=speaker,
            duration=round(end - start, 6),
            offset=start,
            segment=True,
            recording=f"{recording} {channel}",
        )
        found.append((line, where))
    uses = Counter(line.id for line, _ in found)
    named = [(replace(x, id=f"{x.id}-{x.speaker}") if uses[x.id] > 1 else x, where) for x, where in found]
    lines = [_marked(line, where) for line, where in named if line.text != IGNORED]
    return lines, [line for line, _ in named if line.text == IGNORED]


def read_ctm(path: str, content: str) -> tuple[list[Line], list[TimedWord]]:
    """A text per recording and channel of `recording channel start duration word [confidence]`, and the words.

    The text is called after the recording, and its channel where there are several. Raises TextsError.
    """
    words: list[TimedWord] = []
    for number, row in _rows(content):
        where = f"{path}:{number}"
        fields = row.split()
        try:
            recording, channel, written, length, word = fields[:5]
            start = end = None
            if (written, length) != ("*", "*"):
                start = float(written)
                end = start + float(length)
            confidence = float(fields[5]) if len(fields) > 5 and fields[5] != "NA" else None
        except ValueError as error:
            raise TextsError(f"{where}: expected 'RECORDING CHANNEL START DURATION WORD [CONFIDENCE]'") from error
        if start is None and not word.upper().startswith("<ALT"):
            raise TextsError(
                f"{where}: the word '{word}' has no times: only <ALT_BEGIN>, <ALT> and <ALT_END> have none"
            )
        if start is not None:
            word = _plain(word, where)
        words.append(TimedWord(f"{recording} {channel}", word, start, end, confidence))
    channels = Counter(key.split()[0] for key in dict.fromkeys(word.recording for word in words))
    lines = []
    for key, spoken in _by_recording(words).items():
        recording, channel = key.split()
        name = recording if channels[recording] == 1 else f"{recording}-{channel}"
        lines.append(timed_line(Line(name, "", recording=key), spoken, path))
    return lines, words


def cut(references: Texts, hypotheses: Texts) -> Texts:
    """A ctm's words as the hypotheses of an stm's segments, cut as sclite cuts them.

    A segment takes the words whose middle comes before its end, and that no segment before it took: what was said in a
    gap belongs to the segment behind it, or else to the last. Raises TextsError where no recording is common.
    """
    segments: dict[str, list[tuple[Line, bool]]] = {}
    for line, ignored in [(x, False) for x in references.lines] + [(x, True) for x in references.ignored]:
        segments.setdefault(line.recording, []).append((line, ignored))
    spoken = _by_recording(hypotheses.timed)
    if not segments.keys() & spoken.keys():
        raise TextsError(
            f"{hypotheses.path}: none of its recordings is in {references.path} "
            f"('{next(iter(spoken))}' there, '{next(iter(segments))}' here, each with its channel)"
        )
    lines = [line for line in hypotheses.lines if line.recording not in segments]
    for recording, known in segments.items():
        if recording not in spoken:
            continue
        known.sort(key=lambda item: item[0].offset)
        words = [word for word in spoken[recording] if word.start is not None and word.end is not None]
        words.sort(key=lambda word: word.start or 0.0)
        taken = 0
        for i, (line, ignored) in enumerate(known):
            first = taken
            end = line.offset + (line.duration or 0.0)
            while taken < len(words) and (i == len(known) - 1 or words[taken].middle < end):
                taken += 1
            if not ignored:
                lines.append(timed_line(Line(line.id, ""), words[first:taken], hypotheses.path, line.offset))
    return replace(hypotheses, lines=tuple(lines))


def timed_line(line: Line, words: Sequence[TimedWord], path: str, offset: float = 0.0) -> Line:
    """The line with a text of these words; with their times from `offset` on where all have confidences."""
    parts: list[str | tuple[Wordings, ...]] = []
    choice: list[list[str]] | None = None
    plain: list[str] = []
    for word in words:
        tag = word.text.upper() if word.start is None else ""
        if tag == "<ALT_BEGIN>" and choice is None:
            parts.append(" ".join(plain))
            plain, choice = [], [[]]
        elif tag == "<ALT>" and choice is not None:
            choice.append([])
        elif tag == "<ALT_END>" and choice is not None:
            parts.append(tuple(Wordings((" ".join(one) or NULL,)) for one in choice))
            choice = None
        elif tag:
            raise TextsError(f"{path}: {word.text} of '{word.recording}' stands alone: give <ALT_BEGIN> and <ALT_END>")
        elif word.text:
            (plain if choice is None else choice[-1]).append(word.text)
    if choice is not None:
        raise TextsError(f"{path}: a choice of words in '{words[0].recording}' has no <ALT_END>")
    if parts:
        shown = " ".join(word.text for word in words)
        return replace(line, text=shown, wordings=Wordings((*parts, " ".join(plain))))
    said = [word for word in words if word.text]
    times = tuple(
        (word.text, max(word.start - offset, 0.0), max(word.end - offset, 0.0), word.confidence)
        for word in said
        if word.start is not None and word.end is not None and word.confidence is not None
    )
    return replace(line, text=" ".join(plain), words=times if len(times) == len(said) else ())


def _rows(content: str) -> Iterator[tuple[int, str]]:
    for number, row in enumerate(content.split("\n"), start=1):
        if row.strip() and not row.startswith(";;"):
            yield number, row


def _by_recording(words: Sequence[TimedWord]) -> dict[str, list[TimedWord]]:
    found: dict[str, list[TimedWord]] = {}
    for word in words:
        found.setdefault(word.recording, []).append(word)
    return found


def _marked(line: Line, where: str) -> Line:
    """The line with the markup of its text read."""
    try:
        read = read_markup(line.text or "")
    except ValueError as error:
        raise TextsError(f"{where}: {error} (in a file of plain texts, txt or jsonl, braces are letters)") from error
    return replace(line, wordings=read) if isinstance(read, Wordings) else replace(line, text=read)


def _plain(word: str, where: str) -> str:
    read = _marked(Line("", word), where)
    if read.wordings is not None:
        raise TextsError(f"{where}: '{word}': a ctm file gives a choice of words by <ALT_BEGIN>, <ALT> and <ALT_END>")
    return read.text or ""


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
