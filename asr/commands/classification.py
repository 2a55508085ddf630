"""`asr evaluate` and `asr compare` for classifiers: accuracy and F1 on a manifest, and a paired test of two models."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.commands import options, report_options
from asr.files import read_lines
from asr.types import AsrError, ManifestError, UsageError

if TYPE_CHECKING:
    from asr.recognition.class_evaluation import ClassEvaluation
    from asr.scoring.classes import ClassScores

TABLE_ROWS = 20
# The options of `asr evaluate` that apply to texts only, with their defaults.
TEXT_OPTIONS: dict[str, Any] = {
    "normalizer": None,
    "posteriorgrams": "8",
    "flag_below": None,
    "snr": False,
    "degrade": [],
}
COMPARED_TEXT_OPTIONS: dict[str, Any] = {"normalize": "none", "speakers": None, "format": None, "cer": False}


def run_evaluate(args: argparse.Namespace) -> int:
    """`asr evaluate` with a classifier."""
    report_options.check_report_options(args)
    from asr.corpus.manifest import Manifest
    from asr.recognition.class_evaluation import evaluate_classes
    from asr.recognition.outputs import OutputFolder

    manifest = Manifest.read(args.manifest, require_text=False)
    if args.output:
        OutputFolder(args.output, ())
    classifier = options.load_classifier(args)
    with options.reported_results(args, len(manifest)) as on_result:
        evaluation = evaluate_classes(classifier, manifest, batch_seconds=args.batch_seconds, on_result=on_result)
    model = {"model": args.model, "device": str(classifier.device)}
    if args.output:
        evaluation.write(args.output, model)
    if args.json:
        print(json.dumps({**model, **evaluation.summary()}, ensure_ascii=False))
    else:
        print(evaluation.text())
        if args.tables:
            print(f"\n{evaluation.scores.tables(TABLE_ROWS)}")
    if args.html:
        _write_report(args, evaluation)
    options.note_rates(classifier)
    return 1 if evaluation.failures else 0


def _write_report(args: argparse.Namespace, evaluation: ClassEvaluation) -> None:
    from asr import __version__
    from asr.scoring.class_report import WrongUtterance, write_class_report
    from asr.scoring.pairing import Line
    from asr.scoring.report import data_uri, read_clip

    scores, wrong = evaluation.scores, list[WrongUtterance]()
    most_certain_first = (-scores.certainty).argsort(kind="stable").tolist()
    for i in (i for i in most_certain_first if scores.wrong[i]):
        utterance, predicted = evaluation.utterances[i], int(scores.found[i])
        audio = ""
        if len(wrong) < args.audio:
            where = {name: getattr(utterance, name) for name in ("duration", "audio_filepath", "offset", "segment")}
            try:
                audio = data_uri(*read_clip(Line(utterance.id, "", channel=utterance.channel, **where)))
            except AsrError as error:
                options.warn(f"no player for {utterance.id}: {error}")
        label, probability = scores.labels[predicted] if predicted >= 0 else "", float(scores.certainty[i])
        reference = scores.labels[int(scores.references[i])]
        wrong.append(WrongUtterance(utterance.id, utterance.speaker, reference, label, probability, audio))
    write_class_report(
        args.html,
        scores,
        wrong,
        title=f"{Path(args.model).name} on {', '.join(Path(name).name for name in args.manifest)}",
        facts=[
            f"{len(evaluation.utterances):,} utterances",
            f"{len(scores.labels)} classes",
            f"{evaluation.audio_seconds / 60:.1f} min of audio",
            f"real-time factor {evaluation.real_time_factor:.4f}",
            f"intervals over {scores.errors[1]}",
        ],
        footer=f"Written by asr {__version__}. Intervals are 95 % bootstrap intervals.",
    )
    options.say(f"asr: report written to {args.html}")


def has_labels(path: str) -> bool:
    """Whether a file holds the output of a classifier, rows with `pred_label` or `probabilities`; never for a pipe."""
    if not Path(path).is_file():
        return False
    try:
        first = json.loads(next(filter(str.strip, read_lines(path)), ""))
    except (ValueError, AsrError):
        return False
    return isinstance(first, dict) and bool({"pred_label", "probabilities"} & first.keys())


def run_compare(args: argparse.Namespace) -> int:
    """`asr compare` with the output of two classifiers."""
    from asr.scoring.classes import compare_classes
    from asr.scoring.comparison import p_text

    paths = (args.hypothesis_a, args.hypothesis_b)
    for path in paths:
        if not has_labels(path):
            raise UsageError(f"{path}: has no labels (pred_label, or label with probabilities), but the other file has")
    options.refuse_for_classifiers(args, COMPARED_TEXT_OPTIONS, paths[0])
    (a, missing_a), (b, missing_b) = (_scores(args.reference, path) for path in paths)
    result = compare_classes(a, b)
    if args.json:
        files = {"reference": args.reference, "hypothesis_a": paths[0], "hypothesis_b": paths[1]}
        missing = {"missing_a": missing_a, "missing_b": missing_b}
        print(json.dumps({**files, "utterances": len(a.ids), **missing, **result.summary()}, ensure_ascii=False))
    else:
        lines = [f"A {paths[0]}, B {paths[1]} against {args.reference}: {len(a.ids)} utterances"]
        lines += [f"  {name} {scores.lines()[0]}" for name, scores in (("A", a), ("B", b))]
        lines += [
            f"  {result.verdict()}",
            f"  paired bootstrap over {result.units}; exact McNemar test: {p_text(result.mcnemar)}",
            f"only A is right in {result.only_a} utterances, only B in {result.only_b}",
        ]
        print("\n".join(lines))
    for name, missing_ids in (("A", missing_a), ("B", missing_b)):
        if missing_ids:
            options.warn(
                f"{name} has no label for {len(missing_ids)} utterances (e.g. {missing_ids[0]}): counted as wrong"
            )
    return 0


def _scores(reference: str, path: str) -> tuple[ClassScores, list[str]]:
    """The predictions for the rows of a manifest, paired by id, and the ids without a prediction."""
    import numpy as np

    from asr.corpus.labels import label_numbers, label_of
    from asr.corpus.manifest import Manifest
    from asr.scoring.classes import ClassScores
    from asr.text.tokenizer import LabelSet

    manifest = Manifest.read(reference, require_text=False)
    predictions = _read_predictions(path)
    names = sorted({label_of(u) for u in manifest} - {""} | set(predictions.values()) - {""})
    references = label_numbers(manifest, LabelSet(names))
    ids = tuple(utterance.id for utterance in manifest)
    if not set(ids) & predictions.keys():
        raise ManifestError(f"{path}: none of its ids is in {reference}")
    places = {label: i for i, label in enumerate(names)}
    numbers = np.array([places.get(predictions.get(name, ""), -1) for name in ids], dtype=np.int64)
    speakers = tuple(utterance.speaker for utterance in manifest)
    missing = [name for name in ids if not predictions.get(name)]
    return ClassScores(tuple(names), ids, references, numbers, speakers=speakers), missing


def _read_predictions(path: str) -> dict[str, str]:
    """The predicted label of each id, "" where an utterance failed. Raises ManifestError."""
    labels: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, ManifestError), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            raise ManifestError(f"{path}:{number}: not valid JSON ({error})") from error
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise ManifestError(f"{path}:{number}: not a row of a classifier's output: it has no 'id'")
        name = row["id"]
        if name in labels:
            raise ManifestError(f"{path}:{number}: the id '{name}' occurs twice")
        labels[name] = str(row.get("pred_label" if "pred_label" in row else "label") or "")
    return labels
