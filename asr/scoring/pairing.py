"""The texts of utterances as read from files, and the pairing of hypotheses with references without losing any."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from asr.scoring.alternatives import NULL, Wordings
from asr.types import AsrError, Word


class TextFileError(AsrError):
    """A file of references or hypotheses is malformed or does not match the other. The message names file and line."""


@dataclass(frozen=True)
class Line:
    """The text of one utterance and what its file says about it; times in seconds, `snr` in decibels.

    `text` is None for a hypothesis without a text, as of a recording that could not be read. If the text has
    alternatives, `wordings` is scored instead. `words` are set if the file gives their times. `recording` is the
    recording and its channel in stm and ctm files.
    """

    id: str
    text: str | None
    speaker: str = ""
    duration: float | None = None
    snr: float | None = None
    snr_estimated: bool = False
    audio_filepath: str = ""
    offset: float = 0.0
    segment: bool = False
    channel: int | None = None
    words: tuple[Word, ...] = ()
    wordings: Wordings | None = None
    recording: str = ""


@dataclass(frozen=True)
class TimedWord:
    """A word of a ctm file, times in seconds. `mark` is set for <ALT_BEGIN>, <ALT> and <ALT_END>, which have none."""

    text: str
    start: float = 0.0
    end: float = 0.0
    confidence: float | None = None
    mark: bool = False


@dataclass(frozen=True)
class TextFile:
    """A file of references or hypotheses: its lines in file order.

    `numbered`: the ids are line numbers, as in a txt file. `predicted`: rows have `pred_text`. `whole`: the file is
    one text without an id (subtitles), named after the file. `chosen`: the user gave the format. `ignored` holds the
    segments of an stm file that are not scored, `timed` the words of a ctm file by recording and channel.
    """

    path: str
    lines: tuple[Line, ...]
    format: str = ""
    numbered: bool = False
    predicted: bool = False
    whole: bool = False
    chosen: bool = False
    ignored: tuple[Line, ...] = ()
    timed: Mapping[str, Sequence[TimedWord]] = field(default_factory=dict)


@dataclass(frozen=True)
class TestSet:
    """References and the hypothesis of each, in the order of the references.

    A reference without a hypothesis gets one whose text is None, which is scored as empty (every word deleted).
    `extra` holds the ids of hypotheses without a reference, which cannot be scored. `warnings` reports both.
    """

    __test__ = False  # keeps pytest from collecting a class of this name

    reference_path: str
    hypothesis_path: str
    references: tuple[Line, ...]
    hypotheses: tuple[Line, ...]
    extra: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The ids of references without a hypothesis."""
        return tuple(line.id for line in self.hypotheses if line.text is None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each kind of mismatch."""
        lines = []
        if missing := self.missing:
            many = f"{len(missing)} utterance{'s' * (len(missing) > 1)} of {len(self.references)}"
            lines.append(f"no hypothesis for {many} ({_examples(missing)}): scored as empty, every word deleted")
        if self.extra:
            many = f"{len(self.extra)} {'hypotheses' if len(self.extra) > 1 else 'hypothesis'}"
            lines.append(f"{many} without a reference ({_examples(self.extra)}): not scored")
        return tuple(f"{self.hypothesis_path}: {line}" for line in lines)


def pair(references: TextFile, hypotheses: TextFile) -> TestSet:
    """Match every reference with its hypothesis: by id, or by line number if both are txt.

    A ctm is cut to the segments of an stm. A file that is one text pairs with another such file, or with the joined
    lines of a txt file. Raises TextFileError if txt files differ in length, if only one file has ids, if it is unclear
    whether they have ids, or if they have no id in common.
    """
    if (references.format, hypotheses.format) == ("stm", "ctm"):
        hypotheses = cut_to_segments(references, hypotheses)
    elif references.format == hypotheses.format == "ctm":
        references, hypotheses = _by_channel(references), _by_channel(hypotheses)
    elif references.whole or hypotheses.whole:
        references, hypotheses = _as_single_texts(references, hypotheses)
    elif references.numbered or hypotheses.numbered:
        references, hypotheses = _with_ids(references, hypotheses)
    if references.numbered != hypotheses.numbered:
        bare, other = (references, hypotheses) if references.numbered else (hypotheses, references)
        raise TextFileError(
            f"{bare.path} has no utterance ids, but {other.path} ({other.format}) has: give both with "
            "ids (--format kaldi if lines begin with them)"
        )
    if references.numbered and len(references.lines) != len(hypotheses.lines):
        raise TextFileError(
            f"{references.path} has {len(references.lines)} lines and {hypotheses.path} has {len(hypotheses.lines)}: "
            "txt files are paired line by line (an empty line is an empty text); use trn or jsonl to pair by id"
        )
    reference_ids = {line.id for line in references.lines}
    by_id = {line.id: line for line in hypotheses.lines}
    if reference_ids.isdisjoint(by_id):
        raise TextFileError(
            f"{hypotheses.path}: none of its ids (e.g. '{hypotheses.lines[0].id}') is in {references.path} "
            f"(e.g. '{references.lines[0].id}')"
        )
    paired = tuple(by_id.get(line.id) or Line(line.id, None) for line in references.lines)
    extra = tuple(line.id for line in hypotheses.lines if line.id not in reference_ids)
    return TestSet(references.path, hypotheses.path, references.lines, paired, extra)


def first_words(lines: Sequence[Line], *, alone: bool = False) -> list[str]:
    """The first word of each text, or [] if these cannot be ids.

    They cannot if a text is empty, if two are equal, or, unless `alone`, if no line has a second word.
    """
    words = [(line.text or "").split(maxsplit=1) for line in lines]
    names = [word[0] for word in words if word]
    return names if len(set(names)) == len(lines) and (alone or max(map(len, words)) > 1) else []


def with_first_word_as_id(texts: TextFile) -> TextFile:
    """The lines of Kaldi's `text`: an id, then the words. Raises TextFileError if ids are not distinct."""
    if not first_words(texts.lines, alone=True):
        raise TextFileError(f"{texts.path}: each line of Kaldi's text begins with a unique id, but two here are equal")
    lines = []
    for line in texts.lines:
        name, *text = (line.text or "").split(maxsplit=1)
        lines.append(replace(line, id=name, text="".join(text)))
    return replace(texts, format="kaldi", lines=tuple(lines), numbered=False)


def look_like_ids(names: Sequence[str]) -> Literal["yes", "perhaps", "no"]:
    """Whether first words look like ids: "yes" for several with digits and - or _, or with many digits."""
    if not names or not all(re.search(r"\d", name) and not name.isdigit() for name in names):
        return "yes" if len(names) > 1 and all(re.fullmatch(r"\d{5,}", name) for name in names) else "no"
    sure = all(len(name) > 3 and (re.search("[-_]", name) or len(re.findall(r"\d", name)) > 2) for name in names)
    return "yes" if sure and len(names) > 1 else "perhaps"


def _with_ids(references: TextFile, hypotheses: TextFile) -> tuple[TextFile, TextFile]:
    """Both files, with the first words of txt files as ids if they surely are. Raises TextFileError if in doubt."""
    both = (references, hypotheses)
    if any(texts.numbered and texts.chosen for texts in both):
        return both
    names = [first_words(texts.lines) if texts.numbered else [line.id for line in texts.lines] for texts in both]
    likely = [look_like_ids(words) if texts.numbered else "yes" for words, texts in zip(names, both, strict=True)]
    common = not set(names[0]).isdisjoint(names[1])
    if likely == ["yes", "yes"] and (common or all(texts.numbered for texts in both)):
        references, hypotheses = (with_first_word_as_id(texts) if texts.numbered else texts for texts in both)
        return references, hypotheses
    same = bool(names[0]) and set(names[0]) == set(names[1])
    single = len(names[0]) == 1 and all(Path(texts.path).suffix == ".txt" for texts in both)
    doubtful = "yes" in likely or ("no" not in likely and common and not single) or (same and names[0] != names[1])
    if doubtful and all(texts.numbered for texts in both):
        i = 0 if likely[0] != "no" else 1
        raise TextFileError(
            f"{both[i].path}: its lines may begin with ids ('{names[i][0] if names[i] else names[0][0]}'): give "
            "--format kaldi if they are ids, --format txt if they are words"
        )
    return both


def _as_single_texts(references: TextFile, hypotheses: TextFile) -> tuple[TextFile, TextFile]:
    """Both as one text under the same name, if each is one text or can be joined into one."""
    name = (references if references.whole else hypotheses).lines[0].id

    def joined(texts: TextFile) -> TextFile:
        text = " ".join(line.text for line in texts.lines if line.text)
        return replace(texts, lines=(replace(texts.lines[0], id=name, text=text),), numbered=False)

    if all(texts.whole or texts.numbered for texts in (references, hypotheses)):
        return joined(references), joined(hypotheses)
    return references, hypotheses


def _by_channel(texts: TextFile) -> TextFile:
    return replace(texts, lines=tuple(replace(x, id=x.recording.replace(" ", "-")) for x in texts.lines))


def _examples(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def cut_to_segments(references: TextFile, hypotheses: TextFile) -> TextFile:
    """A ctm's words as the hypotheses of an stm's segments, cut as sclite cuts them.

    A segment takes the words that have their middle before its end and that no earlier segment took: words in a gap
    belong to the segment after it, and words after the last segment to that one. Raises TextFileError if the files
    have no recording in common.
    """
    segments: dict[str, list[Line]] = {}
    for line in sorted((*references.lines, *references.ignored), key=lambda line: line.offset):
        segments.setdefault(line.recording, []).append(line)
    if segments.keys().isdisjoint(hypotheses.timed):
        raise TextFileError(
            f"{hypotheses.path}: none of its recordings (e.g. '{next(iter(hypotheses.timed))}', with its channel) is "
            f"in {references.path} (e.g. '{next(iter(segments))}')"
        )
    lines = [line for line in hypotheses.lines if line.recording not in segments]
    for recording, timed in hypotheses.timed.items():
        groups = _groups(timed)
        taken = 0
        for line in segments.get(recording, ()):
            first, end = taken, line.offset + (line.duration or 0.0)
            last = line is segments[recording][-1]
            while taken < len(groups) and (last or sum(_span(groups[taken])) / 2 < end):
                taken += 1
            words = [word for group in groups[first:taken] for word in group]
            lines.append(timed_line(Line(line.id, ""), words, hypotheses.path, line.offset))
    ignored = {line.id for line in references.ignored}
    return replace(hypotheses, lines=tuple(line for line in lines if line.id not in ignored))


_SHOWN = {"<ALT_BEGIN>": "{", "<ALT>": "/", "<ALT_END>": "}"}  # as in trn and stm


def _groups(words: Sequence[TimedWord]) -> list[list[TimedWord]]:
    """The words sorted by start; a choice, from <ALT_BEGIN> to <ALT_END>, stays together and starts with its first."""
    groups: list[list[TimedWord]] = []
    inside = False
    for word in words:
        groups += [] if inside else [[]]
        groups[-1].append(word)
        inside = word.text.upper() != "<ALT_END>" if word.mark else inside
    return sorted(groups, key=lambda group: _span(group)[0])


def _span(group: Sequence[TimedWord]) -> tuple[float, float]:
    """When the words of a group begin and end, in seconds."""
    times = [time for word in group if not word.mark for time in (word.start, word.end)] or [0.0]
    return min(times), max(times)


def timed_line(line: Line, words: Sequence[TimedWord], path: str, offset: float = 0.0) -> Line:
    """The line with the text of `words` and, if all have confidences, their times relative to `offset`."""
    parts: list[str | tuple[Wordings, ...]] = []
    choice: list[list[str]] = []  # the wordings so far of the open choice
    plain: list[str] = []
    for word in words:
        tag = word.text.upper() if word.mark else ""
        if not tag:
            (choice[-1] if choice else plain).append(word.text)
        elif tag == "<ALT_BEGIN>" and not choice:
            parts.append(" ".join(plain))
            plain, choice = [], [[]]
        elif tag == "<ALT>" and choice:
            choice.append([])
        elif tag == "<ALT_END>" and choice:
            parts.append(tuple(Wordings((" ".join(wording).strip() or NULL,)) for wording in choice))
            choice = []
        else:
            raise TextFileError(
                f"{path}: {word.text} of '{line.recording}' is unmatched: a choice has <ALT_BEGIN> and <ALT_END>"
            )
    if choice:
        raise TextFileError(f"{path}: a choice of words in '{line.recording}' has no <ALT_END>")
    if parts:
        shown = " ".join(_SHOWN[word.text.upper()] if word.mark else word.text for word in words)
        return replace(line, text=shown, wordings=Wordings((*parts, " ".join(plain))))
    timed = tuple(
        Word(word.text, max(word.start - offset, 0.0), max(word.end - offset, 0.0), word.confidence)
        for word in words
        if word.text and word.confidence is not None
    )
    text = " ".join(filter(None, plain))
    return replace(line, text=text, words=timed if len(timed) == len(text.split()) else ())
