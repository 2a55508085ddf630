"""Evaluates a model and its confidences on a manifest: every utterance is recognized and scored exactly once."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.corpus.check import unknown_symbols
from asr.corpus.manifest import Manifest, Utterance, manifest_row
from asr.decoding.confidence import Calibration, fit_calibration
from asr.files import write_text
from asr.model.checkpoint import load_model, save_model
from asr.recognition.inputs import as_recording
from asr.recognition.writers import json_object
from asr.scoring.breakdown import WordConfidences, pooled, quality_line, rate_line, task_rates
from asr.scoring.edits import Score
from asr.scoring.pairing import Line
from asr.scoring.scored import ScoredSet, score_set, write_summary
from asr.text.normalize import versioned
from asr.types import Failure, Transcript

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer

MOST_WORDS = 200  # in the lists of the summary
UNKNOWN_SHARE_LIMIT = 0.05  # of reference characters; above it, the WER reflects spelling more than recognition
# Alters the samples (time,) of an utterance, at the model's rate.
Change = Callable[[Utterance, np.ndarray], np.ndarray]
FOLDS = 5  # in the cross-validation of calibrated confidences


@dataclass(frozen=True)
class ManifestResults:
    """The results of a model on a manifest, in manifest order, and the seconds that it took."""

    manifest: str
    utterances: tuple[Utterance, ...]
    results: tuple[Transcript | Failure, ...]
    seconds: float

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(result for result in self.results if isinstance(result, Failure))

    @property
    def audio_seconds(self) -> float:
        return sum(result.duration for result in self.results if isinstance(result, Transcript))

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of audio, including reading and decoding but not loading the model."""
        return self.seconds / self.audio_seconds if self.audio_seconds else 0.0

    def costs(self) -> dict[str, Any]:
        """The seconds of audio and of work as JSON-able values."""
        return {
            "audio_seconds": round(self.audio_seconds, 3),
            "seconds": round(self.seconds, 3),
            "real_time_factor": round(self.real_time_factor, 5),
        }

    def write_rows(self, path: Path, row: Callable[[Utterance, Transcript | Failure], dict[str, Any]]) -> None:
        """Write a JSON line for each utterance and its result."""
        rows = map(row, self.utterances, self.results)
        write_text(path, "".join(json.dumps(values, ensure_ascii=False) + "\n" for values in rows))


@dataclass(frozen=True)
class Evaluation(ManifestResults):
    """The scored results of a model on a manifest; all lists are in manifest order.

    `scored` holds the normalized references and hypotheses and their scores; `results` are as recognized, with a
    Failure for an utterance whose audio could not be read, which counts as an empty hypothesis. `unknown_symbols`
    counts the symbols in the references that the model cannot spell, most frequent first. The model's `task` determines
    the leading error rate.
    """

    scored: ScoredSet
    unknown_symbols: dict[str, int]
    task: str = "ctc"

    @property
    def wer(self) -> Score:
        return self.scored.words

    @property
    def cer(self) -> Score:
        assert self.scored.characters is not None
        return self.scored.characters

    @property
    def unknown_share(self) -> float:
        """The share of reference characters, without spaces, that the model cannot spell."""
        characters = sum(len(text) - text.count(" ") for text in self.scored.references)
        unknown = sum(len(symbol) * count for symbol, count in self.unknown_symbols.items())
        return unknown / characters if characters else 0.0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the error rates, one line each."""
        if self.unknown_share <= UNKNOWN_SHARE_LIMIT:
            return self.scored.warnings
        symbols = ", ".join(map(repr, list(self.unknown_symbols)[:8]))
        return (
            *self.scored.warnings,
            f"{self.unknown_share:.1%} of the reference characters are outside the model's alphabet (most often "
            f"{symbols}): wrong case or normalizer? The references were normalized with '{self.scored.normalizer}'",
        )

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values; rates are fractions."""
        return {
            "manifest": self.manifest,
            "utterances": len(self.utterances),
            "unreadable": len(self.failures),
            **self.scored.summary(limit=MOST_WORDS),
            **self.costs(),
            "unknown_share": round(self.unknown_share, 5),
            "unknown_symbols": self.unknown_symbols,
            "failures": [{"id": failure.id, "error": failure.error} for failure in self.failures],
            "warnings": list(self.warnings),
        }

    def text(self) -> str:
        """The figures as a few lines of text."""
        words, confidences = self.wer, self.scored.confidences
        unreadable = f", {len(self.failures)} of them unreadable and counted as empty" if self.failures else ""
        total = len(self.utterances)
        speed = f" ({1 / self.real_time_factor:.0f}x real time)" if self.real_time_factor else ""
        scores = {"word": words, "char": self.cer}
        lead, *others = (rate_line(label, scores[unit]) for label, unit in task_rates(self.task))
        return "\n".join(
            [
                f"{self.manifest}: {len(self.scored.hypotheses)} of {total} utterances{unreadable}, "
                f"{words.reference_length} words, {self.audio_seconds / 60:.1f} min",
                f"{lead}   normalizer {self.scored.normalizer}",
                *others,
                f"SER {words.sentence_error_rate:7.2%}  ({words.sentence_errors} of {total} utterances with an error)",
                f"RTF {self.real_time_factor:.4f}{speed}",
                *([self.scored.speaker_spread.text()] if self.scored.speaker_spread else []),
                *([f"confidences: {quality_line(confidences.quality())}"] if confidences else []),
            ]
        )

    def write(self, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write the files of ScoredSet.write, hypotheses.jsonl (rows with pred_text), summary.json (with `extra`)."""
        folder = Path(folder)
        self.scored.write(folder)
        self.write_rows(folder / "hypotheses.jsonl", _row)
        write_summary(folder, {**(extra or {}), **self.summary()})


def evaluate(
    recognizer: Recognizer,
    manifest: Manifest | str | Path,
    *,
    normalizer: str | None = None,
    batch_seconds: float | None = None,
    workers: int | None = None,
    on_result: Callable[[Transcript | Failure], object] | None = None,
    change: Change | None = None,
) -> Evaluation:
    """Recognize every utterance of a manifest and score the texts.

    `normalizer` (default: the model's own) is applied to both references and hypotheses. `on_result` is called with
    each result, longest utterances first. `change` alters the samples of an utterance before recognition. Raises
    ManifestError for a malformed manifest, ConfigError for an unknown normalizer; unreadable audio is not an error but
    a Failure among the results.
    """
    if not isinstance(manifest, Manifest):
        manifest = Manifest.read(manifest)
    name = versioned(normalizer or recognizer.normalizer)  # raises for an unknown one before the work
    started = time.perf_counter()
    results = recognize_manifest(
        recognizer, manifest, batch_seconds=batch_seconds, workers=workers, on_result=on_result, change=change
    )
    seconds = time.perf_counter() - started
    scored = score_set(
        [_reference_line(utterance, result) for utterance, result in zip(manifest, results, strict=True)],
        [_hypothesis_line(result) for result in results],
        name,
        characters=True,
    )
    spelled = (replace(utterance, text=text) for utterance, text in zip(manifest, scored.references, strict=True))
    unknown = unknown_symbols(spelled, recognizer.tokenizer, "none")
    return Evaluation(
        manifest=manifest.path,
        utterances=tuple(manifest),
        results=results,
        scored=scored,
        unknown_symbols={symbol.symbol: symbol.count for symbol in unknown},
        seconds=seconds,
        task=recognizer.model_file.task,
    )


def recognize_manifest(
    recognizer: Recognizer,
    manifest: Manifest,
    *,
    batch_seconds: float | None = None,
    workers: int | None = None,
    on_result: Callable[[Transcript | Failure], object] | None = None,
    change: Change | None = None,
) -> tuple[Transcript | Failure, ...]:
    """The result of each utterance, in manifest order; `on_result` is called with each one, longest first."""
    utterances = list(manifest)
    # Longest first, so that batches are even and a lack of memory shows at once.
    longest_first = np.argsort(-manifest.durations, kind="stable").tolist()
    ordered = (utterances[i] for i in longest_first)
    recordings = (replace(as_recording(u), change=partial(change, u)) if change else as_recording(u) for u in ordered)
    recognized = recognizer.transcribe_many(recordings, batch_seconds=batch_seconds, workers=workers)
    results: dict[int, Transcript | Failure] = {}
    for i, result in zip(longest_first, recognized, strict=True):
        results[i] = result
        if on_result:
            on_result(result)
    return tuple(results[i] for i in range(len(utterances)))


def held_out(utterances: Sequence[WordConfidences], speakers: Sequence[str]) -> WordConfidences | None:
    """The words with confidences from calibrations fitted to other utterances (cross-validation in FOLDS parts).

    Measured on the words it was fitted to, a calibration would look too good. A speaker's utterances stay together if
    all speakers are known and there are at least FOLDS of them. Returns None for a single utterance.
    """
    by_speaker = all(speakers) and len(set(speakers)) >= FOLDS
    names = list(speakers) if by_speaker else [str(i) for i in range(len(utterances))]
    fold_of = {name: i % FOLDS for i, name in enumerate(dict.fromkeys(names))}
    if len(fold_of) < 2:
        return None
    calibrated = []
    for fold in sorted(set(fold_of.values())):
        rest = pooled([u for u, name in zip(utterances, names, strict=True) if fold_of[name] != fold])
        calibration = fit_calibration(rest.confidences, rest.correct) if rest.confidences else Calibration()
        held = pooled([u for u, name in zip(utterances, names, strict=True) if fold_of[name] == fold])
        calibrated.append(replace(held, confidences=tuple(map(calibration, held.confidences))))
    return pooled(calibrated)


def write_calibrated(model: str | Path, target: str | Path, calibration: Calibration, summary: dict[str, Any]) -> Path:
    """Write a copy of a model file with calibrated confidences and `summary`. Raises ModelFileError."""
    file = load_model(model)
    training = {**file.training, "confidence": {**asdict(calibration), **summary}}
    return save_model(target, file.model, file.tokenizer, file.normalizer, training, file.task)


def _hypothesis_line(result: Transcript | Failure) -> Line:
    if isinstance(result, Failure):
        return Line(result.id, None)  # the report distinguishes "no hypothesis" from an empty one
    return Line(result.id, result.text, words=result.words)


def _reference_line(utterance: Utterance, result: Transcript | Failure) -> Line:
    snr = utterance.extra.get("snr")
    return Line(
        utterance.id,
        utterance.text,
        speaker=utterance.speaker,
        duration=result.duration if isinstance(result, Transcript) else utterance.duration,
        snr=float(snr) if isinstance(snr, int | float) and math.isfinite(snr) else None,
        audio_filepath=utterance.audio_filepath,
        offset=utterance.offset,
        segment=utterance.segment,
        channel=utterance.channel,
    )


def _row(utterance: Utterance, result: Transcript | Failure) -> dict[str, Any]:
    """The manifest row, with a path that is valid from anywhere, the recognized text, and words with confidences."""
    text = "" if isinstance(result, Failure) else result.text
    row = manifest_row(utterance, utterance.audio_filepath) | {"pred_text": text}
    return row | {key: value for key, value in json_object(result).items() if key in ("words", "error")}
