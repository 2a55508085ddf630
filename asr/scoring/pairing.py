"""Which hypothesis belongs to which reference: by id, by time or by line, nothing dropped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from asr.scoring.nist_files import cut
from asr.scoring.texts import Line, Texts, TextsError


@dataclass(frozen=True)
class TestSet:
    """References with the hypothesis of each, in the order of the references.

    `missing` are the ids of references without a hypothesis, which count as empty ones (every word deleted);
    `extra` those of hypotheses without a reference, which cannot be scored. Both are to be reported.
    """

    __test__ = False  # for pytest, which would collect a class of this name

    reference_path: str
    hypothesis_path: str
    references: tuple[Line, ...]
    hypotheses: tuple[Line, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What did not fit, one line each."""
        lines = []
        if self.missing:
            many = _count(len(self.missing), "utterance")
            lines.append(
                f"{self.hypothesis_path}: no hypothesis for {many} of {len(self.references)} "
                f"({_some(self.missing)}): scored as empty, every word deleted"
            )
        if self.extra:
            many = _count(len(self.extra), "hypothesis", "hypotheses")
            lines.append(f"{self.hypothesis_path}: {many} without a reference ({_some(self.extra)}): not scored")
        return tuple(lines)


def pair(references: Texts, hypotheses: Texts) -> TestSet:
    """Put every reference together with its hypothesis: by id, or by line number where both are txt.

    A ctm is cut to the segments of an stm. A file that is one text pairs with another, and with the lines of a txt file
    taken together. Raises TextsError where txt files differ in length, where only one of the two has ids or both may
    have them, and where no id is common.
    """
    if (references.format, hypotheses.format) == ("stm", "ctm"):
        hypotheses = cut(references, hypotheses)
    elif references.format == hypotheses.format == "ctm":
        references, hypotheses = _by_channel(references), _by_channel(hypotheses)
    elif references.whole or hypotheses.whole:
        references, hypotheses = _wholes(references, hypotheses)
    elif references.numbered or hypotheses.numbered:
        references, hypotheses = _with_ids(references, hypotheses)
    if references.numbered != hypotheses.numbered:
        bare, other = (references, hypotheses) if references.numbered else (hypotheses, references)
        raise TextsError(
            f"{bare.path} has no utterance ids and {other.path} has, as {other.format}: give both with "
            "ids (--format kaldi where lines begin with them)"
        )
    if references.numbered and len(references.lines) != len(hypotheses.lines):
        raise TextsError(
            f"{references.path} has {len(references.lines)} lines and {hypotheses.path} {len(hypotheses.lines)}: "
            "txt files are paired line by line (an empty line is an empty text); use trn or jsonl to pair by id"
        )
    by_id = {line.id: line for line in hypotheses.lines}
    found = [by_id.get(line.id) for line in references.lines]
    if not any(found):
        raise TextsError(
            f"{hypotheses.path}: none of its ids is in {references.path} "
            f"('{hypotheses.lines[0].id}' there, '{references.lines[0].id}' here)"
        )
    known = {line.id for line in references.lines}
    missing = [
        line.id
        for line, hypothesis in zip(references.lines, found, strict=True)
        if hypothesis is None or hypothesis.text is None
    ]
    return TestSet(
        references.path,
        hypotheses.path,
        references.lines,
        tuple(h or Line(line.id, None) for line, h in zip(references.lines, found, strict=True)),
        tuple(missing),
        tuple(line.id for line in hypotheses.lines if line.id not in known),
    )


def first_words(lines: Sequence[Line], *, alone: bool = False) -> list[str]:
    """The first word of each text, [] where they are no ids: an empty text, two alike, or all alone on their lines."""
    words = [(line.text or "").split(maxsplit=1) for line in lines]
    names = [word[0] for word in words if word]
    return names if len(set(names)) == len(lines) and (alone or max(map(len, words)) > 1) else []


def with_first_word_as_id(texts: Texts) -> Texts:
    """The lines of Kaldi's `text`: an id, then the words. Raises TextsError where an id is missing or there twice."""
    if not first_words(texts.lines, alone=True):
        raise TextsError(
            f"{texts.path}: each line of Kaldi's text begins with an id of its own, and here two are equal"
        )
    lines = []
    for line in texts.lines:
        name, *text = (line.text or "").split(maxsplit=1)
        lines.append(replace(line, id=name, text="".join(text)))
    return replace(texts, format="kaldi", lines=tuple(lines), numbered=False)


def look_like_ids(names: Sequence[str]) -> Literal["yes", "perhaps", "no"]:
    """Whether first words are ids and no words: "yes" for several with digits and - or _, or with many digits."""
    if not names or not all(re.search(r"\d", name) and not name.isdigit() for name in names):
        return "yes" if len(names) > 1 and all(re.fullmatch(r"\d{5,}", name) for name in names) else "no"
    sure = all(len(name) > 3 and (re.search("[-_]", name) or len(re.findall(r"\d", name)) > 2) for name in names)
    return "yes" if sure and len(names) > 1 else "perhaps"


def _with_ids(references: Texts, hypotheses: Texts) -> tuple[Texts, Texts]:
    """Both, with the first words of txt files as ids where they are ids. Raises TextsError where they may be."""
    both = (references, hypotheses)
    if any(texts.numbered and texts.chosen for texts in both):
        return both
    names = [first_words(texts.lines) if texts.numbered else [line.id for line in texts.lines] for texts in both]
    likely = [look_like_ids(found) if texts.numbered else "yes" for found, texts in zip(names, both, strict=True)]
    common = not set(names[0]).isdisjoint(names[1])
    if likely == ["yes", "yes"] and (common or all(texts.numbered for texts in both)):
        ours, theirs = (with_first_word_as_id(texts) if texts.numbered else texts for texts in both)
        return ours, theirs
    same = bool(names[0]) and set(names[0]) == set(names[1])
    single = len(names[0]) == 1 and all(Path(texts.path).suffix == ".txt" for texts in both)
    doubtful = "yes" in likely or ("no" not in likely and common and not single) or (same and names[0] != names[1])
    if doubtful and all(texts.numbered for texts in both):
        i = 0 if likely[0] != "no" else 1
        raise TextsError(
            f"{both[i].path}: its lines may begin with ids ('{names[i][0] if names[i] else names[0][0]}'): give "
            "--format kaldi if they are ids, --format txt if they are words"
        )
    return both


def _wholes(references: Texts, hypotheses: Texts) -> tuple[Texts, Texts]:
    """Both as one text called by the same name, where each is one or can be taken for one."""
    name = (references if references.whole else hypotheses).lines[0].id

    def joined(texts: Texts) -> Texts:
        text = " ".join(line.text for line in texts.lines if line.text)
        return replace(texts, lines=(replace(texts.lines[0], id=name, text=text),), numbered=False)

    if all(texts.whole or texts.numbered for texts in (references, hypotheses)):
        return joined(references), joined(hypotheses)
    return references, hypotheses


def _by_channel(texts: Texts) -> Texts:
    lines = (replace(line, id=line.recording.replace(" ", "-")) for line in texts.lines)
    return replace(texts, lines=tuple(lines))


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
