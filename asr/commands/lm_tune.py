"""`asr lm tune`: choose the weights of a language model on a development set, and store them beside it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from asr.commands import options
from asr.files import is_input
from asr.types import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find alpha, beta and the beam width with the fewest word errors on a development set. The acoustic model runs "
        "once; its output is kept in a folder. The result is stored beside the language model, where --lm finds it."
    )
    parser.add_argument("manifest", nargs="+", metavar="MANIFEST", help="JSONL manifest of a development set")
    options.add_model_options(parser)
    parser.add_argument("--lm", required=True, metavar="LM", help="language model, ARPA or binary")
    parser.add_argument("--alpha", default="0:3", metavar="LOW:HIGH", help="bounds of the search (default: 0:3)")
    parser.add_argument("--beta", default="-1:5", metavar="LOW:HIGH", help="bounds of the search (default: -1:5)")
    parser.add_argument("--beam-width", type=options.positive, metavar="N", help="use this width (default: choose one)")
    parser.add_argument("--lexicon", metavar="FILE", help="allow only these words")
    parser.add_argument("--jobs", type=options.positive, default=1, metavar="N", help="decoding threads (default: 1)")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for trials, plot, emissions (default: LM.tuning)")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    alphas, betas = _bounds(args.alpha, "--alpha"), _bounds(args.beta, "--beta")
    if alphas[0] < 0:
        raise UsageError("--alpha must not be negative")
    if is_input(args.lm) and not Path(args.lm).is_file():
        raise UsageError(f"{args.lm}: a pipe; the weights are stored beside the language model, so save it as a file")
    from asr.corpus.manifest import Manifest
    from asr.recognition.tuning import refuse_test_set

    manifest = Manifest.read(args.manifest)
    refuse_test_set(manifest)  # before the model runs
    import asr
    from asr.recognition.outputs import OutputFolder
    from asr.recognition.tuning import table, tune_on_manifest, write_tuning

    folder = Path(args.output or f"{args.lm}.tuning")
    OutputFolder(folder, ())  # a folder that cannot be created is an error before the work
    recognizer = asr.load(args.model, device=args.device, threads=args.threads)
    with options.progress_bar(args, total=len(manifest), unit="utt") as bar:
        tuning = tune_on_manifest(
            recognizer,
            args.model,
            args.lm,
            manifest,
            folder,
            alphas=alphas,
            betas=betas,
            beam_width=args.beam_width,
            lexicon=args.lexicon,
            jobs=args.jobs,
            batch_seconds=args.batch_seconds,
            on_result=bar.update,
            warn=options.warn,
        )
    write_tuning(tuning, folder, f"{Path(args.lm).name} with {Path(args.model).name}")
    best = tuning.best
    if args.json:
        values = {
            "alpha": best.alpha,
            "beta": best.beta,
            "beam_width": best.beam_width,
            "wer": tuning.wer(best),
            "errors": best.errors,
            "reference_words": tuning.reference_words,
            "utterances": tuning.utterances,
            "trials": len(tuning.trials),
        }
        print(json.dumps(values))
    else:
        print(table(tuning))
    options.say(f"asr lm: stored beside {args.lm}; all trials and the surface are in {folder}")
    return 0


def _bounds(text: str, name: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"{name} takes LOW:HIGH, two numbers, found '{text}'") from None
    if not low < high:
        raise UsageError(f"{name}: {low:g} is not below {high:g}")
    return low, high
