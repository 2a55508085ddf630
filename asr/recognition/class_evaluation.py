"""Evaluates a classifier on a manifest with labels: every utterance is classified and scored exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.corpus.labels import label_numbers
from asr.corpus.manifest import Manifest, Utterance, manifest_row
from asr.recognition.classifier import Classifier
from asr.recognition.evaluation import ManifestResults, recognize_manifest
from asr.recognition.writers import json_object
from asr.scoring.classes import ClassScores
from asr.scoring.scored import write_summary
from asr.text.tokenizer import LabelSet
from asr.types import Failure, Transcript


@dataclass(frozen=True)
class ClassEvaluation(ManifestResults):
    """The results of a classifier on a manifest, in manifest order; unreadable recordings count as wrong."""

    scores: ClassScores

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values; rates are fractions."""
        return {
            "manifest": self.manifest,
            "unreadable": len(self.failures),
            **self.scores.summary(),
            **self.costs(),
            "failures": [{"id": failure.id, "error": failure.error} for failure in self.failures],
        }

    def text(self) -> str:
        """The figures as a few lines of text."""
        unreadable = f", {len(self.failures)} of them unreadable and counted as wrong" if self.failures else ""
        occurring = len(set(self.scores.references.tolist()))
        facts = f"{len(self.utterances)} utterances{unreadable}, {occurring} of {len(self.scores.labels)} classes"
        return "\n".join(
            [
                f"{self.manifest}: {facts}, {self.audio_seconds / 60:.1f} min",
                *self.scores.lines(),
                f"RTF {self.real_time_factor:.4f}   intervals: bootstrap over {self.scores.errors[1]}",
            ]
        )

    def write(self, folder: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write predictions.jsonl (manifest rows with pred_label), confusion.png and summary.json (with `extra`)."""
        folder = Path(folder)
        self.write_rows(folder / "predictions.jsonl", _row)
        self.scores.draw(folder / "confusion.png")
        write_summary(folder, {**(extra or {}), **self.summary()})


def evaluate_classes(
    classifier: Classifier,
    manifest: Manifest,
    *,
    batch_seconds: float | None = None,
    on_result: Callable[[Transcript | Failure], object] | None = None,
) -> ClassEvaluation:
    """Classify every utterance of a manifest, whose texts are not used, and score the labels.

    Raises ManifestError for a row without a label, or with a label that the classifier does not have.
    """
    references = label_numbers(manifest, LabelSet(classifier.labels))
    started = time.perf_counter()
    results = recognize_manifest(classifier, manifest, batch_seconds=batch_seconds, on_result=on_result)
    seconds = time.perf_counter() - started
    places = {label: i for i, label in enumerate(classifier.labels)}
    predictions = np.full(len(results), -1, dtype=np.int64)
    probabilities = np.zeros((len(results), len(places)))
    for i, result in enumerate(results):
        if isinstance(result, Transcript):
            predictions[i] = places[result.text]
            for hypothesis in result.nbest:
                probabilities[i, places[hypothesis.text]] = np.exp(hypothesis.score)
    utterances = tuple(manifest)
    scores = ClassScores(
        tuple(classifier.labels),
        tuple(utterance.id for utterance in utterances),
        references,
        predictions,
        probabilities,
        tuple(utterance.speaker for utterance in utterances),
    )
    return ClassEvaluation(manifest.path, utterances, results, seconds, scores)


def _row(utterance: Utterance, result: Transcript | Failure) -> dict[str, Any]:
    """The manifest row, with a path that is valid from anywhere, and the prediction."""
    row, values = manifest_row(utterance, utterance.audio_filepath), json_object(result)
    if isinstance(result, Failure):
        return row | {"pred_label": None, "error": values["error"]}
    return row | {"pred_label": values["label"], **{k: values[k] for k in ("probability", "probabilities")}}
