"""`asr evaluate` and `asr calibrate`: error rates of a model on a manifest, and calibration of its confidences."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from asr.commands import classification, options, report_options
from asr.types import AsrError, Transcript, UsageError

if TYPE_CHECKING:
    from asr.audio.degrade import Degradation, Degrader
    from asr.corpus.manifest import Manifest
    from asr.recognition.evaluation import Change, Evaluation
    from asr.recognition.recognizer import Recognizer
    from asr.recognition.robustness import Robustness

TABLE_ROWS = 10

DEGRADE_EPILOG = """\
conditions of --degrade (each one evaluates every utterance again; each value of a list is a condition of its own):
  noise:20,10,5,0       white noise at these signal-to-noise ratios in dB; noise:pink:10, noise:babble:10 (six other
                        utterances at once); recorded noise with --noise-dir. The level of the speech is measured in
                        20 ms frames within 30 dB of the loudest, so pauses do not count
  reverb, reverb:0.3,1  a room with this reverberation time in seconds (default: 0.5); a recorded room with --reverb-dir
  speed:0.9,1.1         faster or slower, and higher or lower
  band:8000             resampled to this rate in Hz and back
  mp3:32                through MP3 at this bit rate in kbit/s
  gain:-20              louder or quieter by this many dB, as a 16-bit recording
  clip, clip:0.1        clipped at this share of the largest sample (default: 0.25)
The utterance's id decides which noise and room are drawn, so that every run uses the same ones.
"""

CLASSIFIER_EPILOG = """\
For a classifier, the rows of the manifest have labels, and the output is accuracy, balanced accuracy and macro F1;
--tables prints the classes and the confusion matrix; -o writes predictions.jsonl, confusion.png and summary.json.
"""
CALIBRATE_EPILOG = """\
"after" is measured by cross-validation: each fifth of the speakers (or utterances) with a calibration fitted to the
rest. The calibration in NEW.asr is fitted to all of them; measure it on a test set with `asr evaluate`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = DEGRADE_EPILOG + CLASSIFIER_EPILOG
    parser.add_argument("manifest", nargs="+", metavar="MANIFEST", help="JSONL manifest; several are scored as one set")
    options.add_model_options(parser)
    options.add_decoding_options(parser)
    named = "none, basic or librispeech; basic@1 for an earlier version (default: the model's own)"
    parser.add_argument("--normalizer", metavar="NAME", help=named)
    parser.add_argument("--json", action="store_true", help="all results as one JSON object on stdout")
    tables = "print sclite's row, errors by speaker and length, confusions"
    parser.add_argument("--tables", action="store_true", help=tables)
    report_options.add_report_options(parser)
    shown = "with --html: show the posteriors of the N utterances with the most errors (default: 8), or of these ids"
    parser.add_argument("--posteriorgrams", default="8", metavar="N|ID[,ID]", help=shown)
    written = (
        "write hyp.trn, ref.trn, alignments.txt, hypotheses.jsonl, summary.json and, if words have times, hyp.ctm and "
        "ref.stm to this folder, replacing those of an earlier run; with --degrade also degraded.png, and the same "
        "files in degraded/CONDITION"
    )
    parser.add_argument("-o", "--output", metavar="DIR", help=written)
    group = parser.add_argument_group("robustness")
    conditions = "also evaluate degraded audio, see below: --degrade noise:20,10 reverb mp3:32"
    group.add_argument("--degrade", nargs="+", metavar="CONDITION", default=[], help=conditions)
    group.add_argument("--noise-dir", metavar="DIR", default="", help="recordings to take `noise` from")
    group.add_argument("--reverb-dir", metavar="DIR", default="", help="impulse responses to take `reverb` from")


def run(args: argparse.Namespace) -> int:
    options.decoding_config(args)
    if options.is_classifier(args, classification.TEXT_OPTIONS):
        return classification.run_evaluate(args)
    report_options.check_report_options(args)
    from asr.audio.degrade import Degrader, parse_degradations
    from asr.corpus.manifest import Manifest
    from asr.recognition.outputs import OutputFolder
    from asr.text.normalize import normalizer

    if args.normalizer:
        normalizer(args.normalizer)  # report an unknown name before the work
    degradations = parse_degradations(args.degrade, args.noise_dir, args.reverb_dir)
    manifest = Manifest.read(args.manifest)
    if len(manifest) < 2 and any(d.variant == "babble" for d in degradations):
        raise UsageError("--degrade noise:babble: babble is made of other utterances, but there is only one")
    chosen = None if args.posteriorgrams.isdecimal() else _places(args.posteriorgrams, [u.id for u in manifest])
    if args.output:
        OutputFolder(args.output, ())  # and a folder that cannot be created
    recognizer = options.load_recognizer(args)
    degrader = Degrader(degradations, recognizer.rate, noise_dir=args.noise_dir, reverb_dir=args.reverb_dir)
    evaluation = options.evaluate(args, recognizer, manifest, args.normalizer)
    options.note_rates(recognizer)
    if args.snr:
        evaluation = replace(evaluation, scored=report_options.with_estimated_snr(evaluation.scored))
    robustness = _degraded(args, recognizer, manifest, evaluation, degradations, degrader) if degradations else None
    model = {"model": args.model, "decoder": args.decoder, "device": str(recognizer.device)}
    degraded = {"degraded": robustness.summary()} if robustness else {}
    if args.output:
        evaluation.write(args.output, model | degraded)
        if robustness:
            robustness.write(args.output, model)
    if args.json:
        print(json.dumps({**model, **evaluation.summary(), **degraded}, ensure_ascii=False))
    else:
        print(evaluation.text())
        if robustness:
            print(f"\n{robustness.text()}")
        if args.tables:
            print(f"\n{evaluation.scored.sclite_text(TABLE_ROWS)}\n\n{evaluation.scored.tables(TABLE_ROWS)}")
    if args.html:
        options.warn(*_write_report(args, evaluation, recognizer, chosen, robustness))
    options.warn(*evaluation.warnings)
    evaluations = [evaluation, *(robustness.conditions.values() if robustness else ())]
    return 1 if any(e.failures for e in evaluations) else 0


def _degraded(
    args: argparse.Namespace,
    recognizer: Recognizer,
    manifest: Manifest,
    clean: Evaluation,
    degradations: Sequence[Degradation],
    degrader: Degrader,
) -> Robustness:
    from asr.recognition.robustness import measure

    known = {failure.id for failure in clean.failures}

    def evaluate(condition: str, change: Change) -> Evaluation:
        return options.evaluate(
            args, recognizer, manifest, args.normalizer, condition=condition, change=change, known_failures=known
        )

    return measure(clean, manifest, degradations, degrader, evaluate)


def _places(names: str, ids: list[str]) -> list[int]:
    """The positions in the manifest of a comma-separated list of ids."""
    places = {name: i for i, name in enumerate(ids)}
    try:
        return [places[name] for name in names.split(",")]
    except KeyError as error:
        raise UsageError(f"--posteriorgrams: no utterance has the id {error}; give a number or ids") from None


def _write_report(
    args: argparse.Namespace,
    evaluation: Evaluation,
    recognizer: Recognizer,
    chosen: list[int] | None,
    robustness: Robustness | None,
) -> list[str]:
    from asr.scoring.report import Posteriorgram, Section, most_errors, read_clip

    posteriorgrams = {}
    if not recognizer.model_file.has_ctc:
        chosen = []  # its output layer was not trained
    for i in most_errors(evaluation.scored, int(args.posteriorgrams)) if chosen is None else chosen:
        if isinstance(evaluation.results[i], Transcript):
            samples, _ = read_clip(evaluation.scored.lines[i], recognizer.rate)
            [log_probs] = recognizer.emissions([samples])
            posteriorgrams[i] = Posteriorgram(log_probs, recognizer.tokenizer.labels, recognizer.frame_seconds)
    title = f"{Path(args.model).name} on {', '.join(Path(name).name for name in args.manifest)}"
    calibrated = "not calibrated"
    if recognizer.calibration:
        calibrated = f"calibrated on {recognizer.model_file.training['confidence'].get('manifest', 'other data')}"
    facts = [f"decoder {args.decoder}", f"real-time factor {evaluation.real_time_factor:.3f}"]
    facts.append(f"confidences {calibrated}")
    sections = []
    if robustness:
        note = "The dotted line is the rate on the clean recordings; differences from it have a paired bootstrap."
        sections.append(Section("Robustness", *robustness.rows(), robustness.groups, note))
    return report_options.write_html(
        args,
        [evaluation.scored],
        title=title,
        facts=facts,
        warnings=evaluation.warnings,
        posteriorgrams=posteriorgrams,
        sections=sections,
    )


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = CALIBRATE_EPILOG
    parser.add_argument("manifest", metavar="MANIFEST", help="a development set: not used in training or testing")
    options.add_model_options(parser)
    options.add_decoding_options(parser)
    parser.add_argument("-o", "--output", metavar="NEW.asr", help="write a model file with the calibration")
    parser.add_argument("--force", action="store_true", help="replace NEW.asr if it exists")
    parser.add_argument("--json", action="store_true", help="all results as one JSON object on stdout")


def run_calibrate(args: argparse.Namespace) -> int:
    options.decoding_config(args)
    options.refuse_existing(args.output, args.force)
    from asr.corpus.manifest import Manifest
    from asr.decoding.confidence import fit_calibration
    from asr.recognition.evaluation import held_out, write_calibrated
    from asr.scoring.breakdown import pooled, quality_line

    manifest = Manifest.read(args.manifest)
    recognizer = options.load_recognizer(args)
    recognizer.model_file.need_ctc("calibration of confidences")
    recognizer.calibration = None
    evaluation = options.evaluate(args, recognizer, manifest)
    scored = evaluation.scored
    pairs = [(u, line.speaker) for u, line in zip(scored.word_confidences, scored.lines, strict=True) if u]
    utterances, speakers = [u for u, _ in pairs], [speaker for _, speaker in pairs]
    words = pooled(utterances)
    if not words.confidences:
        raise AsrError(f"{args.manifest}: no words were recognized: there is nothing to calibrate on")
    calibration = fit_calibration(words.confidences, words.correct)
    unseen = held_out(utterances, speakers)
    before, after = words.quality(), None if unseen is None else unseen.quality()
    summary = {"manifest": Path(args.manifest).name, "decoder": args.decoder, "before": before, "held_out": after}
    if args.output:
        write_calibrated(args.model, args.output, calibration, summary)
    if args.json:
        print(json.dumps({**asdict(calibration), **summary}, ensure_ascii=False))
    else:
        print(f"temperature {calibration.temperature:.3f}, offset {calibration.offset:+.3f}")
        print(f"before  {quality_line(before)}")
        print(f"after   {quality_line(after) if after else 'unknown: with one utterance there is none to measure on'}")
    return 1 if evaluation.failures else 0
