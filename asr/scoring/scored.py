"""A test set scored under one normalizer: its figures as text and JSON, and its files for sclite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.files import write_text
from asr.scoring import breakdown
from asr.scoring.alternatives import Wordings, choose_wordings
from asr.scoring.breakdown import (
    Confusions,
    GroupScore,
    Spread,
    WordConfidences,
    confusion_table,
    group_table,
    pooled,
    ranked,
    rates,
    word_confidences,
)
from asr.scoring.edits import Edit, Score, align_texts, score, score_alignments
from asr.scoring.nist_files import ctm_lines, has_look_alikes, stm_line, trn_line
from asr.scoring.sclite import sclite_counts, sclite_row, sclite_rows, sclite_table
from asr.text.normalize import normalize, tag_warnings, versioned

if TYPE_CHECKING:
    from asr.scoring.pairing import Line


@dataclass(frozen=True)
class ScoredSet:
    """References and hypotheses of a test set after one normalizer, and their scores.

    `lines` are those of the references, with what is known of the utterances (speaker, duration, ...);
    `hypothesis_lines` have the times and confidences of words, if known. `characters` is None unless requested.
    """

    normalizer: str
    lines: tuple[Line, ...]
    hypothesis_lines: tuple[Line, ...]
    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    alignments: tuple[list[Edit], ...]
    words: Score
    characters: Score | None = None

    @property
    def scores(self) -> dict[str, Score]:
        """WER and, if characters were requested, CER."""
        return {"WER": self.words} | ({} if self.characters is None else {"CER": self.characters})

    @cached_property
    def sclite_counts(self) -> np.ndarray:
        """See asr.scoring.sclite.sclite_counts."""
        return sclite_counts(self.references, self.hypotheses)

    @cached_property
    def speakers(self) -> tuple[GroupScore, ...]:
        """A group per speaker, () if none is known."""
        names = [line.speaker for line in self.lines]
        return breakdown.by_name(self.words.utterances, names, self._durations) if any(names) else ()

    @cached_property
    def speaker_spread(self) -> Spread | None:
        """How the rates of the known speakers differ; None for fewer than two."""
        return breakdown.spread(self.speakers)

    @cached_property
    def durations(self) -> tuple[GroupScore, ...]:
        """Groups by seconds of audio or, if no duration is known, by words of the reference."""
        if any(value is not None for value in self._durations):
            return breakdown.by_duration(self.words.utterances, self._durations)
        return breakdown.by_length(self.words.utterances)

    @cached_property
    def noise(self) -> tuple[GroupScore, ...]:
        """Groups by signal-to-noise ratio, () if none is known."""
        ratios = [line.snr for line in self.lines]
        return breakdown.by_snr(self.words.utterances, ratios) if any(r is not None for r in ratios) else ()

    @property
    def snr_note(self) -> str:
        """A suffix for "SNR": " (estimated)" if any was estimated from the audio, else ""."""
        return " (estimated)" if any(line.snr_estimated for line in self.lines) else ""

    @cached_property
    def confusions(self) -> Confusions:
        return breakdown.confusions(
            [text.split() for text in self.references], [text.split() for text in self.hypotheses], self.alignments
        )

    @cached_property
    def word_confidences(self) -> tuple[WordConfidences | None, ...]:
        """The recognized words of each utterance with their confidences; None where these are unknown."""
        utterances = zip(self.hypothesis_lines, self.hypotheses, self.alignments, strict=True)
        return tuple(word_confidences(line, text, self.normalizer, edits) for line, text, edits in utterances)

    @cached_property
    def confidences(self) -> WordConfidences | None:
        """All recognized words with confidences; None if there are none."""
        words = pooled(self.word_confidences)
        return words if words.confidences else None

    @property
    def _durations(self) -> list[float | None]:
        return [line.duration for line in self.lines]

    def summary(self, limit: int | None = None) -> dict[str, Any]:
        """All figures as JSON-able values; rates are fractions. `limit` truncates the lists of words."""
        confusions = self.confusions
        return {
            "normalizer": self.normalizer,
            **{label.lower(): rates(score) for label, score in self.scores.items()},
            "sentence_errors": self.words.sentence_errors,
            "sentence_error_rate": self.words.sentence_error_rate,
            "sclite": sclite_row("Sum/Avg", self.sclite_counts).summary(),
            "speakers": [group.summary() for group in self.speakers],
            "speaker_spread": self.speaker_spread and self.speaker_spread.summary(),
            "durations": [group.summary() for group in self.durations],
            "snr": [group.summary() for group in self.noise],
            "confidence": self.confidences and self.confidences.quality(),
            "confused": [
                {"reference": ours, "hypothesis": theirs, "count": n}
                for (ours, theirs), n in ranked(confusions.substituted, limit)
            ],
            "deleted": dict(ranked(confusions.deleted, limit)),
            "inserted": dict(ranked(confusions.inserted, limit)),
        }

    def sclite_text(self, limit: int | None = None) -> str:
        """sclite's summary, with a row per speaker if there are at most `limit`."""
        speakers = [line.speaker for line in self.lines]
        few = limit is None or len(set(speakers)) <= limit
        text = sclite_table(sclite_rows(self.sclite_counts, speakers if few else ()))
        more = int(self.sclite_counts[:, 1:].sum()) - self.words.counts.errors
        if more:
            text += f"\n(sclite's weighted alignment finds {more} more errors than the minimum, shown above)"
        return text

    def tables(self, limit: int | None = None) -> str:
        """Tables of errors by speaker, duration, noise level, and word."""
        named = {"speaker": self.speakers, "length": self.durations, f"SNR{self.snr_note}": self.noise}
        parts = [group_table(title, groups, limit) for title, groups in named.items() if groups]
        return "\n\n".join(filter(None, [*parts, confusion_table(self.confusions, limit)]))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the figures, one line each."""
        lines = []
        if empty := sum(not counts.reference_length for counts in self.words.utterances):
            lines.append(
                f"{empty} of {len(self.references)} references are empty: words recognized there count as insertions"
            )
        known = {line.speaker for line in self.lines if line.speaker}
        if known and self.words.interval_units == "utterances":
            lines.append(
                f"the intervals are over utterances: {len(known)} speaker{'s are' if len(known) > 1 else ' is'} known, "
                "too few to resample, or not all utterances have one"
            )
        for texts, what in ((self.lines, "the references"), (self.hypothesis_lines, "the hypotheses")):
            lines += tag_warnings(((line.id, line.text or "") for line in texts), what, self.normalizer)
        return tuple(lines)

    def write(self, folder: str | Path) -> tuple[str, ...]:
        """Write ref.trn, hyp.trn and alignments.txt and, with word times, hyp.ctm and ref.stm; return warnings.

        To score them with sclite: `sclite -s -r ref.trn trn -h hyp.trn trn -i spu_id` (-s: case-sensitive).
        """
        folder = Path(folder)
        ids = [line.id for line in self.lines]
        write_text(folder / "ref.trn", "".join(map(trn_line, self.references, ids)))
        write_text(folder / "hyp.trn", "".join(map(trn_line, self.hypotheses, ids)))
        write_text(folder / "alignments.txt", "".join(self.alignment_text(i) for i in range(len(ids))))
        if self._timed:
            order = sorted(range(len(ids)), key=lambda i: ids[i].encode())
            stm = (stm_line(self.lines[i], self.references[i]) for i in order)
            ctm = (ctm_lines(self.hypothesis_lines[i], self.hypotheses[i].split()) for i in order)
            write_text(folder / "ref.stm", "".join(stm))
            write_text(folder / "hyp.ctm", "".join(ctm))
        texts = zip(ids, self.references, self.hypotheses, strict=True)
        changed = tuple(name for name, *both in texts if has_look_alikes(" ".join(both)))
        return changed and (
            f"{len(changed)} texts (e.g. of '{changed[0]}') contain {{, }}, \\ or a lone @, which sclite cannot read "
            "as letters: its files have their full-width twins instead",
        )

    @property
    def _timed(self) -> bool:
        """Whether all words of all hypotheses have times, and the normalizer did not change their number."""
        known = all(line.duration is not None for line in self.lines)
        both = zip(self.hypothesis_lines, self.hypotheses, strict=True)
        return known and all(len(line.words) == len(text.split()) for line, text in both)

    def alignment_text(self, i: int) -> str:
        """Reference over hypothesis, with the edits marked below, in the format of sclite's `pra`."""
        reference, hypothesis = self.references[i].split(), self.hypotheses[i].split()
        marks = {"equal": "", "substitute": "S", "delete": "D", "insert": "I"}
        rows: tuple[list[str], ...] = (["REF: "], ["HYP: "], ["Eval:"])
        for edit in self.alignments[i]:
            for ours, theirs in edit.pairs(reference, hypothesis):
                width = max(len(ours), len(theirs))
                cells = (ours or "*" * width, theirs or "*" * width, marks[edit.kind])
                for row, cell in zip(rows, cells, strict=True):
                    row.append(f"{cell:<{width}}")
        c = self.words.utterances[i]
        counts = f"Scores: (#C #S #D #I) {c.hits} {c.substitutions} {c.deletions} {c.insertions}"
        return "\n".join([f"id: ({self.lines[i].id})", counts, *(" ".join(row).rstrip() for row in rows)]) + "\n\n"


def score_set(
    lines: Sequence[Line], hypothesis_lines: Sequence[Line], normalizer: str, *, characters: bool = False
) -> ScoredSet:
    """Normalize both sides alike and score them; a hypothesis without text counts as empty. Raises ConfigError."""
    name = versioned(normalizer)
    references, hypotheses = normalized_pairs(lines, hypothesis_lines, name)
    speakers = [line.speaker for line in lines]
    known = speakers if any(speakers) else ()
    alignments = align_texts(references, hypotheses)
    return ScoredSet(
        name,
        tuple(lines),
        tuple(hypothesis_lines),
        references,
        hypotheses,
        tuple(alignments),
        score_alignments(alignments, speakers=known),
        score(references, hypotheses, "char", speakers=known) if characters else None,
    )


def normalized_pairs(
    lines: Sequence[Line], hypotheses: Sequence[Line], normalizer: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The normalized texts of both sides; for alternatives, the wording closest to the other side."""

    def normalized(line: Line) -> str | Wordings:
        if line.wordings is None:
            return normalize(line.text or "", normalizer)
        return line.wordings.normalized(lambda text: normalize(text, normalizer))

    return choose_wordings([*map(normalized, lines)], [*map(normalized, hypotheses)])


def write_summary(folder: str | Path, summary: dict[str, Any]) -> None:
    """Write summary.json."""
    write_text(Path(folder) / "summary.json", json.dumps(summary, ensure_ascii=False, indent=2) + "\n")
