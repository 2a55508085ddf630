"""`asr average A B C -o D`: the mean of models of one shape, as a model."""

from __future__ import annotations

import argparse

from asr.commands import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The models must have the same encoder, features, tokenizer, normalizer and task: those of one run, or of runs "
        "that began from one model. Means of models trained apart recognize nothing. The training record is the first "
        "model's without its scores, with all that were averaged. Measure the result with `asr evaluate`."
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model files (.asr) or names of bundled ones")
    parser.add_argument("-o", "--output", required=True, metavar="NEW.asr", help="write the model to this file")
    parser.add_argument("--half", action="store_true", help="store the weights in half precision, in half the space")
    parser.add_argument("--force", action="store_true", help="replace NEW.asr if it exists")


def run(args: argparse.Namespace) -> int:
    options.refuse_existing(args.output, args.force)
    from asr.model.averaging import average_models
    from asr.model.checkpoint import save_model

    mean = average_models(args.models)
    path = save_model(
        args.output, mean.model, mean.tokenizer, mean.normalizer, mean.training, mean.task, half=args.half
    )
    options.say(f"asr: {path}: the mean of {len(args.models)} model{'s' if len(args.models) > 1 else ''}")
    return 0
