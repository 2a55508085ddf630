"""The last step of a classifier's recipe: its test sets, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr.corpus.manifest import Manifest
from asr.recognition.class_evaluation import evaluate_classes
from asr.recognition.classifier import Classifier
from asr.scoring.breakdown import text_table
from asr.scoring.classes import NAMES
from asr.training.process import say

LABELS = "labels"  # in the place of a decoder


def evaluate_sets(model: Path, tests: Mapping[str, str], folders: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Evaluate the manifests `tests` and write all results; the figures, a row for each of `folders`."""
    classifier = Classifier.load(model)
    rows = []
    for name, folder in folders.items():
        evaluation = evaluate_classes(classifier, Manifest.read(tests[name], require_text=False))
        evaluation.write(folder, {"model": str(model)})
        for failure in evaluation.failures:
            say(f"[evaluate] error: {name}: {failure.id}: {failure.error}")
        rows.append({"set": name, "decoding": LABELS} | evaluation.summary())
    return rows


def class_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each test set, under a heading; the accuracy with its interval."""
    cells = []
    for row in rows:
        low, high = row["accuracy"]["interval_95"]
        rates = [f"{row[name]['rate']:.2%}" for name in NAMES]
        cells.append(
            [row["set"], str(row["utterances"]), rates[0], f"{low:.2%} to {high:.2%}", str(row["errors"]), *rates[1:]]
        )
    return text_table(
        ["test set", "utterances", "accuracy", "95 % interval", "errors", *list(NAMES.values())[1:]], cells
    )
