"""`asr train RECIPE.yaml [key=value ...]`: train a model as a recipe says."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="the configuration, for example recipes/an4/recipe.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, e.g. model.layers=5")
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="continue from the output directory's last checkpoint (auto), start afresh, or continue from PATH",
    )


def run(args: argparse.Namespace) -> int:
    from asr.training.callbacks import Interrupted
    from asr.training.config import read_config
    from asr.training.run import train

    config = read_config(args.recipe, args.overrides)
    try:
        result = train(config, args.resume)
    except Interrupted as stop:
        if stop.first:
            again = shlex.join(["asr", "train", args.recipe, *args.overrides])
            print(f"stopped; everything is saved in {config.output}. Go on with: {again}", file=sys.stderr)
        return 128 + signal.Signals(stop.signal_number)
    if result.dev_wer == result.dev_wer:  # other ranks of a distributed run have nothing to report
        print(f"{result.model_path}  dev WER {result.dev_wer:.2%}  CER {result.dev_cer:.2%}  {result.epochs} epochs")
    return 0
