"""`asr train RECIPE.yaml [key=value ...]`: train a model as a recipe says."""

from __future__ import annotations

import argparse
import shlex
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
    from asr.interruption import Interrupted, handled_signals
    from asr.ranks import is_first_process

    output = ""
    try:
        with handled_signals():  # from before the imports, which take seconds
            from asr.training.config import read_config
            from asr.training.run import train

            config = read_config(args.recipe, args.overrides)
            output = config.output
            result = train(config, args.resume)
    except Interrupted as stop:
        if is_first_process():
            again = shlex.join(["asr", "train", args.recipe, *args.overrides])
            where = f" in {output}" if output else ""
            print(f"stopped; everything is saved{where}. Go on with: {again}", file=sys.stderr)
        return stop.status
    if result.dev_wer == result.dev_wer:  # other ranks of a distributed run have nothing to report
        print(f"{result.model_path}  dev WER {result.dev_wer:.2%}  CER {result.dev_cer:.2%}  {result.epochs} epochs")
    return 0
