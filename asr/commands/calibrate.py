"""`asr calibrate`: fit word confidences on a manifest, say how good they are, write a model that has them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from asr.commands import options
from asr.errors import AsrError, UsageError
from asr.transcript import Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", metavar="MANIFEST", help="a dev set: neither trained on nor tested on")
    options.add_model_options(parser)
    options.add_decoding_options(parser)
    parser.add_argument("-o", "--output", metavar="NEW.asr", help="write the model with calibrated confidences here")
    parser.add_argument("--force", action="store_true", help="replace NEW.asr if it exists")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    options.decoding_config(args)
    if args.output and Path(args.output).exists() and not args.force:
        raise UsageError(f"{args.output}: exists already; --force replaces it")
    from asr.calibration import judged_words, quality, write_calibrated
    from asr.corpus.manifest import Manifest
    from asr.decoding.confidence import fit_calibration

    manifest = Manifest.read(args.manifest)
    recognizer = options.load_recognizer(args)
    recognizer.calibration = None
    texts, words, failed = [], [], 0
    with options.progress_bar(args, total=len(manifest), unit="utt") as bar:
        utterances = list(manifest)
        results = recognizer.transcribe_many(utterances, batch_seconds=args.batch_seconds)
        for utterance, result in zip(utterances, results, strict=True):
            bar.update()
            if isinstance(result, Failure):
                failed += 1
                options.say(f"asr: error: {result.error}")
                continue
            texts.append(utterance.text)
            words.append(result.words)
    confidences, correct = judged_words(texts, words, recognizer.normalizer)
    if not confidences:
        raise AsrError(f"{args.manifest}: no words were recognized: there is nothing to calibrate on")
    calibration = fit_calibration(confidences, correct)
    before = quality(confidences, correct)
    after = quality([calibration(confidence) for confidence in confidences], correct)
    summary = {"manifest": Path(args.manifest).name, "decoder": args.decoder, "before": before, "after": after}
    if args.output:
        write_calibrated(args.model, args.output, calibration, summary)
    if args.json:
        print(json.dumps({**calibration.to_dict(), **summary}, ensure_ascii=False))
    else:
        print(f"temperature {calibration.temperature:.3f}, offset {calibration.offset:+.3f}")
        for name, values in (("before", before), ("after", after)):
            entropy = values["normalized_cross_entropy"]
            print(
                f"{name:<6}  {values['words']} words, {values['right']:.1%} right, mean confidence "
                f"{values['mean_confidence']:.1%}, ECE {values['expected_calibration_error']:.4f}, "
                f"NCE {'undefined' if entropy is None else format(entropy, '.4f')}"
            )
    return 1 if failed else 0
