"""`asr train RECIPE.yaml [key=value ...]`: train a model from a recipe."""

from __future__ import annotations

import argparse
import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from asr.files import is_input
from asr.types import AsrError, UsageError

if TYPE_CHECKING:
    from asr.training.config import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="the configuration, such as recipes/an4/recipe.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, such as model.layers=5")
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="resume from the last checkpoint in the output folder (auto), start over (never), or resume from PATH",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing: run a few steps and print the hours, steps, memory and time that training would take",
    )
    parser.add_argument(
        "--throughput",
        type=float,
        default=0.0,
        metavar="N",
        help="with --dry-run: run no steps but assume N seconds of audio per second, as measured on another machine",
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: print the plan as JSON")
    parser.add_argument(
        "--find-batch",
        action="store_true",
        help="do not train: find the largest data.batch_seconds that fits in GPU memory",
    )


def run(args: argparse.Namespace) -> int:
    from asr.training.process import Interrupted, handled_signals, say, set_thread_environment

    set_thread_environment()  # before torch is imported
    if (args.throughput or args.json) and not args.dry_run:
        raise UsageError("--throughput and --json need --dry-run")
    if args.dry_run or args.find_batch:
        return _find_batch(args) if args.find_batch else _plan(args)
    output = ""
    try:
        with handled_signals() as signals:  # from before the imports, which take seconds
            with signals.deferred():  # an exception while a library starts up can abort the process
                from asr.training.config import read_config

                signals.check()
                config = read_config(args.recipe, args.overrides, args.resume)  # before Lightning, for early errors
                _refuse_pipes(args.recipe, config)
                from asr.training.run import train
            signals.check()
            output = config.output
            result = train(config, args.resume)
    except Interrupted as stop:
        command = shlex.join(["asr", "train", args.recipe, *args.overrides])
        saved = f"everything is saved in {output}" if output else "training had not started"
        say(f"stopped; {saved}. Continue with: {command}")
        return stop.status
    if result.scores:  # other ranks of a distributed run have nothing to report
        print(f"{result.model_path}  {result.scores}  {result.epochs} epochs")
    return 0


def _plan(args: argparse.Namespace) -> int:
    from asr.training.config import read_config

    if not 0 <= args.throughput < math.inf:
        raise UsageError(f"--throughput must be positive, found {args.throughput:g}")
    config = read_config(args.recipe, args.overrides)  # before Lightning is imported, for early errors

    from asr.model.acoustic import out_of_memory
    from asr.training.plan import corpus, plan

    durations, vocab_size = corpus(config)
    try:
        planned = plan(config, durations, vocab_size, throughput=args.throughput, run=not args.throughput)
    except Exception as error:
        if not out_of_memory(error):
            raise
        advice = f"out of memory with data.batch_seconds={config.data.batch_seconds:g}: lower it"
        raise AsrError(f"{advice}, or let --find-batch find the largest that fits on a GPU") from error
    print(json.dumps(planned.to_dict()) if args.json else "\n".join(planned.lines()))
    return 0


def _find_batch(args: argparse.Namespace) -> int:
    import torch

    from asr.training.config import read_config
    from asr.training.measure import find_batch
    from asr.training.plan import corpus

    config = read_config(args.recipe, args.overrides)
    if not torch.cuda.is_available():
        raise UsageError(
            "--find-batch needs a CUDA GPU, and there is none; on the CPU larger batches are not faster, and "
            f"--dry-run estimates the memory for data.batch_seconds={config.data.batch_seconds:g}"
        )
    seconds = find_batch(config, *corpus(config))
    if not seconds:
        raise AsrError("not even the longest utterance fits in the memory of this GPU: lower data.max_duration")
    print(f"data.batch_seconds={int(seconds)}")
    return 0


def _refuse_pipes(recipe: str, config: TrainConfig) -> None:
    """Refuse pipes in a run on several devices: each process reads the inputs, but a pipe can be read only once."""
    from asr.training.config import manifests

    if config.trainer.get("devices", 1) in (1, "1") and config.trainer.get("num_nodes", 1) == 1:
        return
    for name in (recipe, config.text.tokenizer_file, *manifests(config.data.train), *manifests(config.data.dev)):
        if name and is_input(name) and not Path(name).is_file():
            raise UsageError(f"{name}: a pipe can be read only once, but each device reads it: save it as a file")
