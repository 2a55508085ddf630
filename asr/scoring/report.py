"""The HTML report: one self-contained page that opens from disk and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from asr.audio.degrade import MP3_RATES
from asr.audio.read import read
from asr.files import write_text
from asr.scoring.breakdown import RATE_HEADER, GroupScore, ranked, rate_cells, rates
from asr.scoring.edits import Edit
from asr.scoring.pairing import Line
from asr.scoring.sclite import sclite_rows
from asr.scoring.scored import ScoredSet

MOST_UTTERANCES = 20_000  # those with the most errors are kept: with more, the page takes seconds to open
MOST_WORDS = 200
MOST_SPEAKERS = 200  # with more, there are no rows for speakers
WORST_SPEAKERS = 10  # listed in the table of speakers
MOST_LABELS = 48
FRAME_SECONDS = 0.02


@dataclass(frozen=True)
class Posteriorgram:
    """A posteriorgram: `log_probs` (time, vocab) in natural log, `labels` with the blank first, seconds per frame."""

    log_probs: np.ndarray
    labels: Sequence[str]
    frame_seconds: float


@dataclass(frozen=True)
class Section:
    """A section of the page: a table, with a plot of the rates of `groups`, if any, above it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    groups: Sequence[GroupScore] = ()
    note: str = ""


def write_report(
    path: str | Path,
    sets: Sequence[ScoredSet],
    *,
    title: str,
    facts: Sequence[str] = (),
    warnings: Sequence[str] = (),
    audio: Mapping[int, str] | None = None,
    posteriorgrams: Mapping[int, Posteriorgram] | None = None,
    sections: Sequence[Section] = (),
    flag_below: float | None = None,
    footer: str = "",
) -> None:
    """Write the page for the first of `sets`, with the rates of the others beside its own. Raises OutputError.

    Keys of `audio` (data URIs) and `posteriorgrams` are positions in the set; `sections` follow the plots. Utterances
    without a hypothesis are marked, as are words with a confidence below `flag_below`.
    """
    first = sets[0]
    speakers = [line.speaker for line in first.lines]
    confidences = first.confidences
    data = {
        "title": title,
        "facts": [*_facts(first), *facts],
        "warnings": list(warnings),
        "rate": first.words.rate,
        "cards": [*_cards(first), *_confidence_card(first, flag_below)],
        "normalizers": [
            {"normalizer": scored.normalizer, "label": label, **rates(score)}
            for scored in sets
            for label, score in scored.scores.items()
        ],
        "charts": _charts(first),
        "sections": [
            {**vars(section), "groups": [_group(group) for group in section.groups]}
            for section in (*_speaker_section(first), *sections)
        ],
        "reliability": confidences.bins() if confidences else [],
        "flag": flag_below,
        "confused": [{"r": r, "h": h, "n": n} for (r, h), n in ranked(first.confusions.substituted, MOST_WORDS)],
        "deleted": [{"r": word, "h": "", "n": n} for word, n in ranked(first.confusions.deleted, MOST_WORDS)],
        "inserted": [{"r": "", "h": word, "n": n} for word, n in ranked(first.confusions.inserted, MOST_WORDS)],
        "total": len(first.references),
        "utterances": [_utterance(first, i, flag_below) for i in sorted(most_errors(first, MOST_UTTERANCES))],
        "audio": {str(i): uri for i, uri in (audio or {}).items()},
        "posteriorgrams": {str(i): posteriorgram_data(p) for i, p in (posteriorgrams or {}).items()},
        "sclite": [
            {"name": row.name, "sentences": row.sentences, "words": row.words, "figures": list(row.percentages())}
            for row in sclite_rows(first.sclite_counts, speakers if len(set(speakers)) <= MOST_SPEAKERS else ())
        ],
        "footer": footer,
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # Inside a script element, only "</" and "<!--" could end the data.
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = files("asr.scoring").joinpath("report.html").read_text(encoding="utf-8")
    write_text(Path(path), page.replace("@TITLE@", escape(title)).replace("@DATA@", text))


def most_errors(scored: ScoredSet, count: int) -> list[int]:
    """Positions of the utterances with the most errors, at most `count`; ties in order."""
    errors = scored.words.errors_and_lengths[:, 0]
    return [int(i) for i in np.argsort(-errors, kind="stable")[:count]]


def posteriorgram_data(posteriorgram: Posteriorgram) -> dict[str, Any]:
    """The posteriors of `shown_labels` as bytes, label by label."""
    names, posteriors = shown_labels(posteriorgram)
    shown = np.rint(255 * posteriors).clip(0, 255).astype(np.uint8)
    return {
        "labels": names,
        "step": posteriorgram.frame_seconds,
        "data": base64.b64encode(np.ascontiguousarray(shown).tobytes()).decode("ascii"),
    }


def shown_labels(posteriorgram: Posteriorgram) -> tuple[list[str], np.ndarray]:
    """Names and posteriors (labels, time) of the labels that reach 0.1 anywhere; the blank comes last."""
    posteriors = np.exp(np.asarray(posteriorgram.log_probs, dtype=np.float64))
    peaks = posteriors.max(axis=0)
    peaks[0] = 0.0
    chosen = np.flatnonzero(peaks > 0.1)
    if len(chosen) > MOST_LABELS:
        chosen = np.sort(chosen[np.argsort(-peaks[chosen], kind="stable")[:MOST_LABELS]])
    if len(posteriorgram.labels) > 100:  # pieces, in no meaningful order: sort them by the time of their peak
        chosen = chosen[np.argsort(posteriors[:, chosen].argmax(axis=0), kind="stable")]
    rows = [*chosen.tolist(), 0]
    names = [label_name(k, posteriorgram.labels) for k in rows]
    return names, posteriors[:, rows].T


def label_name(token: int, labels: Sequence[str]) -> str:
    """The name of an output label for display."""
    return "blank" if token == 0 else "space" if labels[token] == " " else labels[token]


def _facts(scored: ScoredSet) -> list[str]:
    facts = [f"{len(scored.references):,} utterances", f"{scored.words.reference_length:,} words"]
    if scored.speakers:
        facts.append(f"{len({line.speaker for line in scored.lines if line.speaker}):,} speakers")
    seconds = [line.duration for line in scored.lines if line.duration is not None]
    if seconds:
        total = sum(seconds)
        facts.append(f"{total / 3600:.2f} h of audio" if total >= 3600 else f"{total / 60:.1f} min of audio")
    return [*facts, f"normalizer {scored.normalizer}", f"intervals over {scored.words.interval_units}"]


def _cards(scored: ScoredSet) -> list[dict[str, Any]]:
    cards = []
    for label, score in scored.scores.items():
        (low, high), c = score.interval, score.counts
        lines = [
            f"95 % interval {100 * low:.2f}\u00a0–\u00a0{100 * high:.2f}",
            f"{c.substitutions:,}\u00a0sub · {c.deletions:,}\u00a0del · {c.insertions:,}\u00a0ins",
        ]
        unit = "Word" if label == "WER" else "Character"
        cards.append({"label": f"{unit} error rate", "value": f"{100 * score.rate:.2f} %", "lines": lines})
    wrong, total = scored.words.sentence_errors, len(scored.references)
    value = f"{100 * scored.words.sentence_error_rate:.1f} %"
    return [*cards, {"label": "Sentence error rate", "value": value, "lines": [f"{wrong:,} of {total:,} utterances"]}]


def _confidence_card(scored: ScoredSet, flag_below: float | None) -> list[dict[str, Any]]:
    """A card with the quality of the word confidences; [] if no word has one."""
    if scored.confidences is None:
        return []
    figures = scored.confidences.quality()
    entropy = figures["normalized_cross_entropy"]
    lines = [
        f"normalized cross entropy {'undefined' if entropy is None else format(entropy, '.3f')}",
        f"mean {100 * figures['mean_confidence']:.1f} %, right {100 * figures['right']:.1f} %",
    ]
    if flag_below is not None:
        doubtful, wrong = scored.confidences.below(flag_below)
        lines.append(f"{doubtful:,} below {flag_below:g}, {wrong:,} of them wrong")
    value = f"{100 * figures['expected_calibration_error']:.1f} %"
    return [{"label": "Calibration error of confidences", "value": value, "lines": lines}]


def _charts(scored: ScoredSet) -> list[dict[str, Any]]:
    timed = any(line.duration is not None for line in scored.lines)
    worst_first = sorted(scored.speakers, key=lambda group: -group.rate)
    title = "WER by duration" if timed else "WER by length of the reference"
    charts = [(0, title, scored.durations), (1, "WER by speaker", tuple(worst_first))]
    charts.append((0 if worst_first else 1, f"WER by signal-to-noise ratio{scored.snr_note}", scored.noise))
    return [{"side": s, "title": t, "groups": [_group(g) for g in groups]} for s, t, groups in charts if groups]


def _speaker_section(scored: ScoredSet) -> list[Section]:
    """How much the speakers differ, and the worst of them; [] if fewer than two are known."""
    if (spread := scored.speaker_spread) is None:
        return []
    worst = spread.groups[:WORST_SPEAKERS]
    rows = [[group.name, f"{len(group.utterances):,}", *rate_cells(rates(group))] for group in worst]
    title = "Speakers" if len(worst) == len(spread.groups) else f"Speakers, the {len(worst)} worst"
    return [Section(title, ["speaker", "utterances", "WER", *RATE_HEADER], rows, note=spread.text())]


def _group(group: GroupScore) -> dict[str, Any]:
    rate, low, high = (round(value, 6) for value in (group.rate, *group.interval))
    return {"name": group.name, "rate": rate, "low": low, "high": high, "words": group.counts.reference_length}


def _utterance(scored: ScoredSet, i: int, flag_below: float | None) -> dict[str, Any]:
    line, words = scored.lines[i], scored.word_confidences[i]
    doubtful = enumerate(words.confidences) if words and flag_below is not None else ()
    return {
        "k": i,
        "id": line.id,
        "p": line.speaker,
        "t": None if line.duration is None else round(line.duration, 2),
        "q": None if line.snr is None else round(line.snr, 1),
        "e": int(line.snr_estimated),
        "f": [[k, round(c, 2)] for k, c in doubtful if c < (flag_below or 0.0)],
        "w": scored.words.utterances[i].reference_length,
        "m": int(scored.hypothesis_lines[i].text is None),
        "a": _parts(scored.references[i].split(), scored.hypotheses[i].split(), scored.alignments[i]),
    }


def _parts(reference: list[str], hypothesis: list[str], edits: Sequence[Edit]) -> list[str | list[str]]:
    """The alignment as the page expects it: right words as one string, each edit as [reference, hypothesis]."""
    parts: list[str | list[str]] = []
    for edit in edits:
        pairs = edit.pairs(reference, hypothesis)
        parts += [" ".join(word for word, _ in pairs)] if edit.kind == "equal" else map(list, pairs)
    return parts


def read_clip(line: Line, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Samples (time,) float32 of the utterance, and their rate in hertz. Raises AudioError."""
    channel, duration = "mix" if line.channel is None else line.channel, line.duration if line.segment else None
    audio = read(line.audio_filepath, rate=rate, channel=channel, offset=line.offset, duration=duration)
    return audio.samples, audio.rate


def data_uri(samples: np.ndarray, rate: int) -> str:
    """The recording as a data URI that every browser plays: MP3 if libsndfile can write it, else 16-bit WAV."""
    import soundfile

    buffer = io.BytesIO()
    clipped = np.clip(samples, -1.0, 1.0)
    form, subtype, kind = "WAV", "PCM_16", "wav"
    if "MP3" in soundfile.available_formats() and rate in MP3_RATES:
        form, subtype, kind = "MP3", "MPEG_LAYER_III", "mpeg"
    soundfile.write(buffer, clipped, rate, format=form, subtype=subtype)
    return f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def estimated_snr(samples: np.ndarray, rate: int) -> float | None:
    """Decibels from the quietest tenth of the frames to the mean of the loud half; None below half a second.

    A rough figure for sorting utterances: it takes pauses for noise, and reports 60 dB if pauses are digital silence.
    """
    length = round(FRAME_SECONDS * rate)
    frames = len(samples) // length
    if frames * FRAME_SECONDS < 0.5:
        return None
    energy = (samples[: frames * length].reshape(frames, length).astype(np.float64) ** 2).mean(axis=1)
    noise = float(np.quantile(energy, 0.1))
    loud = float(energy[energy >= np.median(energy)].mean())
    if loud <= 0.0:
        return None
    speech = max(loud - noise, 1e-3 * loud)
    return float(min(10.0 * np.log10(speech / max(noise, 1e-6 * speech)), 60.0))
