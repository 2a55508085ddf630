"""Files of references and hypotheses in all formats that are scored, and what is known of their speakers."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

from asr.files import read_text
from asr.scoring.nist_files import TRN_LINE, read_ctm, read_stm, read_trn
from asr.scoring.pairing import first_words, look_like_ids, with_first_word_as_id
from asr.scoring.row_files import csv_rows, json_rows, jsonl_rows, row_lines, stem
from asr.scoring.texts import Line, Texts, TextsError
from asr.types import UsageError

FORMATS = ("trn", "stm", "ctm", "jsonl", "json", "csv", "kaldi", "srt", "vtt", "txt")
_SUFFIXES = {
    **{f".{name}": name for name in FORMATS},
    **{".ndjson": "jsonl", ".tsv": "csv", ".rttm": ""},
    **dict.fromkeys(
        (".textgrid", ".eaf", ".trs", ".xml", ".html", ".ass", ".ssa", ".lrc", ".ttml", ".sbv", ".mlf"), ""
    ),
}
# XML and HTML, TextGrid, MLF, ASS, RTTM, LRC and Whisper's log, Audacity's labels
_FOREIGN = re.compile(
    r"\s*(<\?xml|<!DOCTYPE|<html|<tt\b|File type = \"ooTextFile|#!MLF!#|\[Script Info\]"
    r"|SPEAKER \S+ \S+ [\d.]+ [\d.]+ <NA>"
    r"|\[\d+:\d\d|\d+\.\d+[\t ,;]+\d+\.\d+[\t ,;])",
    re.IGNORECASE,
)
_CUE = re.compile(r"\s*(?:\d+:)?\d+:\d\d[.,]\d{1,3}\s*-->\s*(?:\d+:)?\d+:\d\d[.,]\d{1,3}")
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+|\*)"
_STM_LINE = re.compile(rf"\S+\s+\S+\s+\S+\s+{_NUMBER}\s+{_NUMBER}(?:\s|$)")
_CTM_LINE = re.compile(rf"\S+\s+\S+\s+{_NUMBER}\s+{_NUMBER}\s+\S+(?:\s+[-+.\deENA]+(?:\s+\S+)*)?\s*$")
_TEXT_COLUMNS = {"text", "transcript", "sentence", "transcription", "pred_text"}
_NAME_COLUMNS = {"id", "utt_id", "utterance_id", "key", "path", "audio_filepath", "wav_filename", "file", "start"}


def read_texts(path: str, *, hypotheses: bool = False, format: str | None = None) -> Texts:
    """Read a file of texts, gzip or not; `-` is stdin. The format is that given, that of the suffix, or what it shows.

    trn: `text (id)` per line, stm: segments with times, both with sclite's markup; ctm: words with times, a text per
    recording. jsonl, json, csv (tsv): `text` and, of `hypotheses`, `pred_text` if the rows have it; `id`, or one made
    of `audio_filepath`. kaldi: an id, then the text. srt, vtt, and Whisper's json and tsv: one text, called after the
    file. txt: a text per line, empty lines are empty texts, to be paired by line number. Raises TextsError, also for
    files of other kinds, or UsageError for an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"unknown format '{format}' of {path} (valid: {', '.join(FORMATS)})")
    content = read_text(path, TextsError)
    found = format or _found(path, content)
    texts = Texts(path, found, (), chosen=format is not None)
    if found in ("jsonl", "json", "csv"):
        rows, whole = _ROWS[found](path, content)
        predicted = any("pred_text" in row for _, row in rows)
        texts = replace(texts, lines=tuple(row_lines(path, rows, hypotheses)), predicted=predicted, whole=whole)
    elif found == "trn":
        texts = replace(texts, lines=tuple(read_trn(path, content)))
    elif found == "stm":
        lines, ignored = read_stm(path, content)
        texts = replace(texts, lines=tuple(lines), ignored=tuple(ignored))
    elif found == "ctm":
        lines, timed = read_ctm(path, content)
        texts = replace(texts, lines=tuple(lines), timed=tuple(timed))
    elif found in ("srt", "vtt"):
        texts = replace(texts, lines=(Line(stem(path), _subtitles(content)),) if content.strip() else (), whole=True)
    else:
        texts = replace(texts, lines=_plain(content, keep_empty=found == "txt"), numbered=True)
        texts = with_first_word_as_id(texts) if found == "kaldi" and texts.lines else texts
    if not texts.lines:
        raise TextsError(f"{path}: no texts in it")
    if not texts.numbered:
        _check_unique(texts)
    return texts


def with_speakers(texts: Texts, source: str) -> Texts:
    """The texts with speakers from `source`: "prefix" for the id up to its first - or _ (sclite's spu_id), else a file.

    The file is JSONL with `id` and `speaker`, whose durations and audio paths are taken too, or has lines of two
    words, id and speaker (Kaldi's utt2spk). Raises TextsError where it knows none of the ids.
    """
    if source == "prefix":
        return replace(texts, lines=tuple(replace(x, speaker=re.split("[-_]", x.id)[0]) for x in texts.lines))
    known = _speakers(source)
    if not any(line.id in known for line in texts.lines):
        raise TextsError(f"{source}: none of its ids is in {texts.path} (e.g. '{texts.lines[0].id}')")
    return replace(texts, lines=tuple(_completed(line, known.get(line.id)) for line in texts.lines))


def _completed(line: Line, about: Line | None) -> Line:
    if about is None:
        return line
    line = replace(
        line,
        speaker=about.speaker or line.speaker,
        duration=about.duration if line.duration is None else line.duration,
        snr=about.snr if line.snr is None else line.snr,
    )
    if line.audio_filepath or not about.audio_filepath:
        return line
    return replace(
        line,
        audio_filepath=about.audio_filepath,
        offset=about.offset,
        segment=about.segment,
        channel=about.channel,
    )


def _speakers(path: str) -> dict[str, Line]:
    content = read_text(path, TextsError)
    if _shape(content) == "jsonl":
        return {line.id: line for line in row_lines(path, jsonl_rows(path, content), False, text_needed=False)}
    known = {}
    for number, row in enumerate(content.splitlines(), start=1):
        fields = row.split()
        if len(fields) not in (0, 2):
            raise TextsError(f"{path}:{number}: expected an id and a speaker, found {len(fields)} words")
        if fields:
            known[fields[0]] = Line(fields[0], None, speaker=fields[1])
    return known


def _found(path: str, content: str) -> str:
    """The format that the suffix or else the content says. Raises TextsError for formats that are not read."""
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    if _FOREIGN.match(content) or _SUFFIXES.get(suffix) == "":
        kind = suffix.lstrip(".") if suffix != ".txt" and suffix else "a file of this kind"
        raise TextsError(
            f"{path}: {kind} is not read here: make a file of {', '.join(FORMATS[:-1])} or txt of it (--format says "
            "which it is, whatever its name)"
        )
    shape = _shape(content)
    named = _SUFFIXES.get(suffix, shape)
    return shape if named == "txt" and shape != "kaldi" else named


def _shape(content: str) -> str:
    """The format of a file whose name does not say it."""
    rows = [row for row in content.split("\n") if row.strip() and not row.startswith(";;")]
    if not rows:
        return "txt"
    first = rows[0].strip()
    if first.startswith("{") and first.endswith("}") and '"' in first:
        return "jsonl"
    if first in ("{", "[") or re.match(r"[\[{]\s*[\"{]", first):
        return "json"
    if first.startswith("WEBVTT"):
        return "vtt"
    if any(_CUE.match(row) for row in rows[:3]):
        return "srt"
    # a txt read as trn would fail on its first line; a trn read as txt would score its ids as words that are right
    if all(TRN_LINE.match(row) for row in rows):
        return "trn"
    for name, pattern in (("stm", _STM_LINE), ("ctm", _CTM_LINE)):
        times = [match.groups() for row in rows if (match := pattern.match(row))]
        if len(times) == len(rows) and any("." in time for pair in times for time in pair):  # digits may be words
            return name
    separator = max("\t,;|", key=first.count)
    columns = {column.strip().strip('"').lower() for column in first.split(separator)}
    if columns & _TEXT_COLUMNS and columns & _NAME_COLUMNS and all(separator in row for row in rows):
        return "csv"
    return "kaldi" if look_like_ids(first_words(_plain(content))) == "yes" else "txt"


def _plain(content: str, keep_empty: bool = False) -> tuple[Line, ...]:
    texts = content.removesuffix("\n").split("\n") if content else []
    return tuple(
        Line(str(number), text.strip()) for number, text in enumerate(texts, start=1) if keep_empty or text.strip()
    )


def _subtitles(content: str) -> str:
    """The words of SubRip or WebVTT cues, in order, without times, styles and notes."""
    said: list[str] = []
    for block in re.split(r"\n\s*\n", content):
        rows = block.strip().split("\n")
        at = next((i for i, row in enumerate(rows) if _CUE.match(row)), None)
        if at is not None:
            said += rows[at + 1 :]
    return " ".join(html.unescape(re.sub(r"<[^<>]*>|\{\\[^{}]*\}", "", " ".join(said))).split())


def _check_unique(texts: Texts) -> None:
    seen: set[str] = set()
    for line in texts.lines:
        if line.id in seen:
            raise TextsError(f"{texts.path}: the id '{line.id}' occurs twice: every utterance needs its own")
        seen.add(line.id)


_ROWS = {"jsonl": lambda path, content: (jsonl_rows(path, content), False), "json": json_rows, "csv": csv_rows}
