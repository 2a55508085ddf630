"""Transcripts as txt, json, jsonl, srt, vtt, tsv, ctm, trn, textgrid: one function per format."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from asr.config import nearest
from asr.scoring.nist_files import nist_id, nist_text, trn_line
from asr.types import Classification, Failure, Transcript, UsageError, Word

# Subtitles that follow broadcasters' guidelines: two lines of 42 characters, shown for at most 7 seconds.
LINE_WIDTH = 42
LINES = 2
LONGEST_CUE = 7.0
SHORTEST_CUE = 1.0  # CTC words are short peaks; a cue stays on screen this long if the next one leaves room
PAUSE = 1.0  # silence that ends a cue
BREATH = 0.15  # silence at which a full cue may end, before its last words


@dataclass(frozen=True)
class Cue:
    """A subtitle: words shown together, from `start` to `end` (seconds)."""

    start: float
    end: float
    text: str


def txt(transcript: Transcript) -> str:
    """The text on a line; for a classifier, the label and its probability, separated by a tab."""
    if isinstance(transcript, Classification):
        return f"{transcript.label}\t{transcript.probability:.4f}\n"
    return transcript.text + "\n"


def flagged(below: float) -> Callable[[Transcript], str]:
    """`txt` with words of a confidence below `below` marked: the [cat?] sat."""

    def write(transcript: Transcript) -> str:
        words = [f"[{w.word}?]" if w.confidence < below else w.word for w in transcript.words]
        return " ".join(words) + "\n" if words else txt(transcript)

    return write


def json_(transcript: Transcript) -> str:
    """One JSON object, indented: text, words with start, end (seconds) and confidence, duration."""
    return json.dumps(json_object(transcript), ensure_ascii=False, indent=2) + "\n"


def json_line(result: Transcript | Failure) -> str:
    """One JSON object on one line, the keys of `json_`; a failure has `error` instead of `text`."""
    return json.dumps(json_object(result), ensure_ascii=False) + "\n"


def word_lines(transcript: Transcript) -> str:
    """One line per word: start and end in seconds, confidence, word, separated by tabs."""
    return "".join(f"{w.start:.3f}\t{w.end:.3f}\t{w.confidence:.3f}\t{w.word}\n" for w in transcript.words)


def srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, hours:minutes:seconds,milliseconds."""
    blocks = enumerate(_subtitles(transcript, ","), start=1)
    return "\n".join(f"{number}\n{times}\n{text}\n" for number, (times, text) in blocks)


def vtt(transcript: Transcript) -> str:
    """WebVTT (W3C): markup characters escaped."""
    blocks = (f"{times}\n{escape(text, quote=False)}\n" for times, text in _subtitles(transcript, "."))
    return "\n".join(["WEBVTT\n", *blocks])


def _subtitles(transcript: Transcript, decimal_mark: str) -> Iterator[tuple[str, str]]:
    """The times and the line-wrapped text of each cue."""
    for cue in cues(transcript.words, transcript.duration):
        times = f"{_clock(cue.start, decimal_mark)} --> {_clock(cue.end, decimal_mark)}"
        yield times, "\n".join(_lines(cue.text))


def tsv(transcript: Transcript) -> str:
    """Whisper's table: start and end in milliseconds, text; one row per subtitle cue."""
    rows = (
        f"{_milliseconds(cue.start)}\t{_milliseconds(cue.end)}\t{cue.text}\n"
        for cue in cues(transcript.words, transcript.duration)
    )
    return "start\tend\ttext\n" + "".join(rows)


def ctm(transcript: Transcript) -> str:
    """NIST time-marked conversation, a row per word: recording, channel (from 1), begin, duration, word, confidence."""
    recording = nist_id(transcript.id)
    channel = 1 if transcript.channel is None else transcript.channel + 1
    rows = []
    for word in transcript.words:
        begin = _milliseconds(word.start)
        length = max(_milliseconds(word.end) - begin, 1)  # rounded ends, so that words do not overlap
        times = f"{begin / 1000:.3f} {length / 1000:.3f}"
        rows.append(f"{recording} {channel} {times} {nist_text(word.word)} {word.confidence:.3f}\n")
    return "".join(rows)


def trn(transcript: Transcript) -> str:
    """NIST transcript: the text, then the utterance id in parentheses (what sclite reads)."""
    channel = "" if transcript.channel is None else f"-{transcript.channel + 1}"
    return trn_line(transcript.text, transcript.id + channel)


def textgrid(transcript: Transcript) -> str:
    """Praat's TextGrid: a tier of words, and one of tokens if they were aligned.

    A tier covers the recording without gaps: intervals between words have an empty text.
    """
    tiers = {"words": transcript.words} | ({"tokens": transcript.tokens} if transcript.tokens else {})
    span = f"xmin = 0\n{{indent}}xmax = {_seconds(transcript.duration)}\n"
    text = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n' + span.format(indent="")
    text += f"tiers? <exists>\nsize = {len(tiers)}\nitem []:\n"
    for number, (name, words) in enumerate(tiers.items(), start=1):
        intervals = _without_gaps(words, transcript.duration)
        indent = 8 * " "
        text += f'    item [{number}]:\n{indent}class = "IntervalTier"\n{indent}name = {_quoted(name)}\n'
        text += f"{indent}{span.format(indent=indent)}{indent}intervals: size = {len(intervals)}\n"
        for i, (start, end, word) in enumerate(intervals, start=1):
            fields = (f"xmin = {start}", f"xmax = {end}", f"text = {_quoted(word)}")
            text += f"{indent}intervals [{i}]:\n" + "".join(f"{indent}    {field}\n" for field in fields)
    return text


WRITERS: dict[str, Callable[[Transcript], str]] = {
    "txt": txt,
    "json": json_,
    "jsonl": json_line,
    "srt": srt,
    "vtt": vtt,
    "tsv": tsv,
    "ctm": ctm,
    "trn": trn,
    "textgrid": textgrid,
}


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats in a comma-separated list ("txt,srt", or "all"). Raises UsageError for an unknown one."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    if "all" in names:
        return tuple(WRITERS)
    for name in names:
        if name not in WRITERS:
            raise UsageError(f"unknown output format '{name}'{nearest(name, WRITERS)}")
    if not names:
        raise UsageError(f"no output format given (valid: {', '.join(WRITERS)})")
    return names


def json_object(result: Transcript | Failure) -> dict[str, Any]:
    """The JSON form of a result; a failure has `error` instead of `text`. Times in seconds, confidences in [0, 1]."""
    row: dict[str, Any] = {"id": result.id, "audio_filepath": result.audio_filepath}
    if isinstance(result, Failure):
        return {**row, "error": result.error}
    if result.channel is not None:
        row["channel"] = result.channel
    if isinstance(result, Classification):
        return row | _label_object(result)
    row |= {
        "duration": round(result.duration, 3),
        "text": result.text,
        "confidence": round(result.confidence, 4),
        "words": [_word_object(word) for word in result.words],
    }
    if result.tokens:
        row["tokens"] = [_word_object(token) for token in result.tokens]
    if len(result.nbest) > 1:
        row["nbest"] = [
            {"text": hypothesis.text}
            | {name: round(getattr(hypothesis, name), 4) for name in ("score", "acoustic_score", "lm_score")}
            | {"words": [_word_object(word) for word in hypothesis.words]}
            for hypothesis in result.nbest
        ]
    if result.warnings:
        row["warnings"] = list(result.warnings)
    return row


def _label_object(result: Classification) -> dict[str, Any]:
    row: dict[str, Any] = {
        "duration": round(result.duration, 3),
        "label": result.label,
        "probability": round(result.probability, 4),
        "probabilities": {label: round(probability, 4) for label, probability in result.probabilities.items()},
    }
    if len(result.windows) > 1:
        row["windows"] = [
            {"start": round(w.start, 3), "end": round(w.end, 3), "label": w.word, "probability": round(w.confidence, 4)}
            for w in result.windows
        ]
    return row | ({"warnings": list(result.warnings)} if result.warnings else {})


def cues(words: Sequence[Word], duration: float) -> list[Cue]:
    """Group words into subtitle cues of at most LINES lines of LINE_WIDTH characters and LONGEST_CUE seconds.

    A pause of PAUSE seconds ends a cue. A full cue ends at the longest pause in its second half if that lasts at least
    BREATH seconds, else after its last word. A cue is shown for at least SHORTEST_CUE seconds if the next cue and the
    end of the recording leave room.
    """
    groups: list[list[Word]] = []
    for word in words:
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        elif groups and word.start - groups[-1][-1].end < PAUSE and (carried := _after_breath(groups[-1], word)):
            groups[-1] = groups[-1][: -len(carried)]
            groups.append([*carried, word])
        else:
            groups.append([word])
    result = []
    for i, group in enumerate(groups):
        limit = groups[i + 1][0].start if i + 1 < len(groups) else max(duration, group[-1].end)
        end = max(group[-1].end, min(group[0].start + SHORTEST_CUE, limit))
        result.append(Cue(group[0].start, end, " ".join(word.word for word in group)))
    return result


def _after_breath(group: Sequence[Word], word: Word) -> list[Word]:
    """The last words of a full cue that belong in the next one, with `word`; none if there is no better split."""
    gaps = [after.start - before.end for before, after in pairwise([*group, word])]
    second_half = range(max(1, len(group) // 2), len(group))
    best = max(second_half, key=lambda i: gaps[i - 1], default=0)
    if not best or gaps[best - 1] < BREATH or gaps[best - 1] <= gaps[-1] or not _fits(group[best:], word):
        return []
    return list(group[best:])


def _fits(group: Sequence[Word], word: Word) -> bool:
    text = " ".join(w.word for w in [*group, word])
    return (
        word.start - group[-1].end < PAUSE and word.end - group[0].start <= LONGEST_CUE and len(_lines(text)) <= LINES
    )


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, LINE_WIDTH, break_long_words=False, break_on_hyphens=False)


def _clock(seconds: float, decimal_mark: str) -> str:
    total = _milliseconds(seconds)
    minutes, milliseconds = divmod(total, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{decimal_mark}{milliseconds % 1000:03d}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _word_object(word: Word) -> dict[str, Any]:
    times = {"start": round(word.start, 3), "end": round(word.end, 3)}
    return {"word": word.word, **times, "confidence": round(word.confidence, 4)}


def _without_gaps(words: Sequence[Word], duration: float) -> list[tuple[str, str, str]]:
    """Intervals (xmin, xmax, text) as printed: Praat requires the printed ends and starts to be equal."""
    intervals: list[tuple[str, str, str]] = []
    at = _seconds(0.0)
    for word in words:
        start, end = _seconds(word.start), _seconds(word.end)
        if float(end) <= max(float(start), float(at)):  # no width left after rounding
            continue
        if float(start) > float(at):
            intervals.append((at, start, ""))
            at = start
        intervals.append((at, end, word.word))
        at = end
    if float(_seconds(duration)) > float(at) or not intervals:
        intervals.append((at, _seconds(duration), ""))
    return intervals


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
