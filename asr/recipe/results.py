"""The last step of a recipe: each test set evaluated with each decoder, and the table of the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asr
from asr.corpus.manifest import Manifest
from asr.decoding.make import DecodingConfig
from asr.model.config import CLASSIFICATION
from asr.recognition.class_evaluation import evaluate_classes
from asr.recognition.classifier import Classifier
from asr.recognition.evaluation import evaluate
from asr.scoring.breakdown import RATE_HEADER, rate_cells, task_rates, text_table
from asr.scoring.classes import NAMES
from asr.training.config import TrainConfig
from asr.training.process import say

GREEDY, BEAM, BEAM_LM = "greedy", "beam", "beam+lm"
LABELS = "labels"  # a classifier's only decoding


def decodings_of(config: TrainConfig, lm: Path | None) -> tuple[str, ...]:
    """Greedy, both beam searches if there is a language model, and those of an attention decoder if there is one."""
    if config.task == CLASSIFICATION:
        return (LABELS,)
    if config.model.decoder and "ctc" not in config.objectives:
        return ("attention",)
    attention = ("joint", "attention") if config.model.decoder else ()
    return ((GREEDY, BEAM, BEAM_LM) if lm else (GREEDY,)) + attention


def results_folders(folder: Path, tests: Iterable[str], decodings: Sequence[str]) -> dict[tuple[str, str], Path]:
    """The folder for the results of each (test set, decoding)."""
    return {(name, decoding): folder / name / decoding for name in tests for decoding in decodings}


def evaluate_all(
    model_file: Path, tests: Mapping[str, str], folders: Mapping[tuple[str, str], Path], lm: Path | None
) -> list[dict[str, Any]]:
    """Evaluate the manifests `tests` and write all results; returns the figures, a row for each of `folders`."""
    if all(decoding == LABELS for _, decoding in folders):
        return _evaluate_classifier(model_file, tests, {name: folder for (name, _), folder in folders.items()})
    first = next(iter(folders))[1]
    recognizer = asr.load(model_file, decoder=first)
    decoders = {first: recognizer.decoder}
    rows = []
    for (name, decoding), folder in folders.items():
        if decoding in decoders:
            recognizer.decoder = decoders[decoding]
        else:
            chosen, _, with_lm = decoding.partition("+")
            recognizer.decode_with(DecodingConfig(decoder=chosen, lm=str(lm) if with_lm else None))
            decoders[decoding] = recognizer.decoder
        evaluation = evaluate(recognizer, tests[name])
        evaluation.write(folder, {"model": str(model_file), "decoder": decoding})
        if decoding == first:  # problems with the audio or the texts are the same for all
            for warning in evaluation.warnings:
                say(f"[evaluate] warning: {name}: {warning}")
            for failure in evaluation.failures:
                say(f"[evaluate] error: {name}: {failure.id}: {failure.error}")
        rows.append({"set": name, "decoding": decoding} | evaluation.summary())
    return rows


def _evaluate_classifier(
    model_file: Path, tests: Mapping[str, str], folders: Mapping[str, Path]
) -> list[dict[str, Any]]:
    classifier = Classifier.load(model_file)
    rows = []
    for name, folder in folders.items():
        evaluation = evaluate_classes(classifier, Manifest.read(tests[name], require_text=False))
        evaluation.write(folder, {"model": str(model_file)})
        for failure in evaluation.failures:
            say(f"[evaluate] error: {name}: {failure.id}: {failure.error}")
        rows.append({"set": name, "decoding": LABELS} | evaluation.summary())
    return rows


def results_table(rows: list[dict[str, Any]], task: str = "ctc") -> str:
    """A line for each test set and decoding, below a header; the leading rate of `task` has its interval."""
    if task == CLASSIFICATION:
        return _class_table(rows)
    (lead, unit), *others = task_rates(task)
    key = {"word": "wer", "char": "cer"}
    counted = {"WER": "words", "CER": "characters", "PER": "phones"}[lead]
    cells = [
        [row["set"], row["decoding"], str(row["utterances"]), *rate_cells(row[key[unit]])]
        + [f"{row[key[other]]['rate']:.2%}" for _, other in others]
        for row in rows
    ]
    header = ["test set", "decoder", "utterances", lead, *RATE_HEADER[:-1], counted, *(label for label, _ in others)]
    return text_table(header, cells, left=2)


def _class_table(rows: list[dict[str, Any]]) -> str:
    cells = []
    for row in rows:
        low, high = row["accuracy"]["interval_95"]
        accuracy, *others = (f"{row[name]['rate']:.2%}" for name in NAMES)
        interval = f"{low:.2%} to {high:.2%}"
        cells.append([row["set"], str(row["utterances"]), accuracy, interval, str(row["errors"]), *others])
    header = ["test set", "utterances", "accuracy", "95 % interval", "errors", *list(NAMES.values())[1:]]
    return text_table(header, cells)
