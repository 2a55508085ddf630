"""`asr evaluate`: word and character error rate of a model on a manifest."""

from __future__ import annotations

import argparse
import json
import sys

from asr.commands import options
from asr.transcript import Failure, Transcript


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", nargs="+", metavar="MANIFEST", help="JSONL manifest; several are scored as one set")
    options.add_model_options(parser)
    options.add_decoding_options(parser)
    parser.add_argument("--normalizer", metavar="NAME", help="none, basic or librispeech (default: the model's own)")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on stdout")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write hyp.trn, ref.trn, hypotheses.jsonl and summary.json here (replacing those of an earlier run)",
    )


def run(args: argparse.Namespace) -> int:
    options.decoding_config(args)
    from asr.corpus.manifest import Manifest
    from asr.evaluation import evaluate
    from asr.outputs import OutputFolder
    from asr.text.normalize import normalizer

    if args.normalizer:
        normalizer(args.normalizer)  # an unknown name is said now, not after the work
    manifest = Manifest.read(args.manifest)
    if args.output:
        OutputFolder(args.output, ())  # as is a folder that cannot be made
    recognizer = options.load_recognizer(args)
    with options.progress_bar(args, total=len(manifest), unit="utt") as bar:

        def on_result(result: Transcript | Failure) -> None:
            bar.update()
            if isinstance(result, Failure):
                options.say(f"asr: error: {result.id}: {result.error}")

        evaluation = evaluate(
            recognizer,
            manifest,
            normalizer=args.normalizer,
            batch_seconds=args.batch_seconds,
            on_result=on_result,
        )
    model = {"model": args.model, "decoder": args.decoder, "device": str(recognizer.device)}
    if args.output:
        evaluation.write(args.output, model)
    if args.json:
        print(json.dumps({**model, **evaluation.summary()}, ensure_ascii=False))
    else:
        print(evaluation.text())
    for warning in evaluation.warnings:
        print(f"asr: warning: {warning}", file=sys.stderr)
    options.note_rates(recognizer)
    return 1 if evaluation.failures else 0
