"""`asr calibrate`: fit word confidences to a manifest, measure them, write a model with the calibration."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from asr.commands import options
from asr.types import AsrError

EPILOG = """\
"after" is measured by cross-validation: each fifth of the speakers (or utterances) with a calibration fitted to the
others. The calibration in NEW.asr is fitted to all of them; measure it on a test set with `asr evaluate`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EPILOG
    parser.add_argument("manifest", metavar="MANIFEST", help="a development set: not used in training or testing")
    options.add_model_options(parser)
    options.add_decoding_options(parser)
    parser.add_argument("-o", "--output", metavar="NEW.asr", help="write a model file with the calibration")
    parser.add_argument("--force", action="store_true", help="replace NEW.asr if it exists")
    parser.add_argument("--json", action="store_true", help="all results as one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    options.decoding_config(args)
    options.refuse_existing(args.output, args.force)
    from asr.corpus.manifest import Manifest
    from asr.decoding.confidence import fit_calibration
    from asr.recognition.evaluation import held_out, write_calibrated
    from asr.scoring.breakdown import pooled
    from asr.scoring.tables import quality_line

    manifest = Manifest.read(args.manifest)
    recognizer = options.load_recognizer(args)
    recognizer.calibration = None
    evaluation = options.evaluate(args, recognizer, manifest)
    scored = evaluation.scored
    found = [(u, line.speaker) for u, line in zip(scored.word_confidences, scored.lines, strict=True) if u]
    words = pooled([utterance for utterance, _ in found])
    if not words.confidences:
        raise AsrError(f"{args.manifest}: no words were recognized: there is nothing to calibrate on")
    calibration = fit_calibration(words.confidences, words.correct)
    unseen = held_out([utterance for utterance, _ in found], [speaker for _, speaker in found])
    before, after = words.quality(), None if unseen is None else unseen.quality()
    summary = {"manifest": Path(args.manifest).name, "decoder": args.decoder, "before": before, "held_out": after}
    if args.output:
        write_calibrated(args.model, args.output, calibration, summary)
    if args.json:
        print(json.dumps({**asdict(calibration), **summary}, ensure_ascii=False))
    else:
        print(f"temperature {calibration.temperature:.3f}, offset {calibration.offset:+.3f}")
        print(f"before  {quality_line(before)}")
        print(f"after   {quality_line(after) if after else 'not known: one utterance leaves nothing to measure on'}")
    return 1 if evaluation.failures else 0
