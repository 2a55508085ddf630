"""`asr tune RECIPE.yaml key=[a,b] key=loguniform(a,b) ...`: search for the best training settings."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from asr.commands.options import positive
from asr.types import UsageError

if TYPE_CHECKING:
    import optuna

    from asr.training.process import Signals
    from asr.training.study import Search

_VALUES = """\
settings:
  key=[a,b,c]                one of these; in a grid, each of them
  key=int(low,high[,step])   a whole number; in a grid, each of them
  key=uniform(low,high)      any number in between
  key=loguniform(low,high)   any number in between, evenly on a logarithmic scale
  key=value                  the same value in all trials

For the weights of a language model, use `asr lm tune`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _VALUES
    parser.add_argument("recipe", nargs="?", metavar="RECIPE.yaml", help="the configuration, as for asr train")
    parser.add_argument("settings", nargs="*", metavar="key=VALUES", help="settings to search, or to change (below)")
    searches = "grid (default if every key has a list or int), random, or tpe (default otherwise)"
    parser.add_argument("--search", choices=("grid", "random", "tpe"), help=searches)
    parser.add_argument("--trials", type=positive, metavar="N", help="trials in the study (default: 30; a grid: all)")
    folds = "cross-validation: train each trial on K parts of data.train, split by speaker, and take the mean"
    parser.add_argument("--folds", type=positive, metavar="K", help=folds)
    parser.add_argument("--jobs", type=positive, metavar="N", help="trials at a time (default: one per GPU, else 1)")
    pruning = "stop trials early that are worse than the median of the others (default: yes, except in a grid)"
    parser.add_argument("--prune", action=argparse.BooleanOptionalAction, help=pruning)
    after = "validations before a trial can be pruned (default: %(default)s)"
    parser.add_argument("--prune-after", type=positive, default=5, metavar="N", help=after)
    folder = "folder of the study (default: the recipe's output plus '-tune'); the same folder resumes or shares it"
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=folder)
    database = "SQL database to use instead of DIR/study.journal, such as postgresql://host/name"
    parser.add_argument("--storage", default="", metavar="URL", help=database)
    parser.add_argument("--study", default="", metavar="NAME", help="its name in the database (default: the recipe's)")
    report = "run nothing: print the results of the study in this folder and write them there again"
    parser.add_argument("--report", metavar="DIR", type=Path, help=report)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(args: argparse.Namespace) -> int:
    from asr.training.process import Interrupted, handled_signals, say, set_thread_environment

    set_thread_environment()  # before torch is imported
    if args.report:
        if args.recipe:
            raise UsageError("--report takes no recipe: it reads the study in the given folder")
        from asr.training.study import load_study, open_storage

        return _show(load_study(open_storage(args.storage, args.report, create=False), args.study), args.report, args)
    if not args.recipe:
        raise UsageError("name a recipe and settings to search: asr tune RECIPE.yaml model.hidden_size=[128,256]")
    try:
        with handled_signals() as signals, signals.deferred():
            return _search(args, signals)
    except Interrupted as stop:
        say(f"stopped; everything is saved. Continue with: {shlex.join(['asr', *sys.argv[1:]])}")
        return stop.status


def _search(args: argparse.Namespace, signals: Signals) -> int:
    from asr.training.space import check_space, grid, split_arguments

    if args.folds == 1:
        raise UsageError("--folds 1: cross-validation needs at least 2")
    plain, space = split_arguments(args.settings)
    if not space:
        raise UsageError("nothing to search: give a setting several values, such as model.hidden_size=[128,256]")
    cells = grid(space)
    search: Search = args.search or ("tpe" if cells is None else "grid")
    if search == "grid" and cells is None:
        endless = next(d.key for d in space if d.cells() is None)
        raise UsageError(f"a grid over '{endless}' would be infinite: give a list, or --search random or tpe")
    recipe, config = check_space(args.recipe, plain, space)

    from asr.training.process import say
    from asr.training.study import create_study, open_storage
    from asr.training.trials import Plan, attributes, checked_gpus, run_trials

    output = args.output or Path(config.output.rstrip("/") + "-tune")
    gpus = checked_gpus(config, args.jobs)
    jobs = args.jobs or max(1, len(gpus))
    most = args.trials or (len(cells) if search == "grid" and cells else 30)
    prune = args.prune if args.prune is not None else search != "grid"
    plan = Plan(recipe, config, space, output, search, most, args.folds or 0, jobs, prune, args.prune_after, gpus)
    recorded = attributes(plan)
    storage = open_storage(args.storage, output)
    chosen = cells[:most] if search == "grid" and cells else []
    study = create_study(storage, args.study or config.name, plan.mode, recorded, chosen)
    where = f"{len(gpus)} GPUs" if len(gpus) > 1 else "the GPU" if gpus else "the CPU"
    say(f"study '{study.study_name}' in {args.storage or output}: {search}, {most} trials, {jobs} at a time on {where}")
    run_trials(plan, study, signals)
    return _show(study, output, args)


def _show(study: optuna.Study, output: Path, args: argparse.Namespace) -> int:
    """Write the report and print it; the exit status is 1 if trials failed."""
    from asr.training.process import say
    from asr.training.study_report import BEST, as_json, table, write_report

    rows = write_report(study, output)
    print(json.dumps(as_json(study, rows)) if args.json else table(study, rows))
    if any(row.state == "complete" for row in rows):
        say(f"results and plots are in {output}; train the best with: asr train {shlex.quote(str(output / BEST))}")
    failed = [row for row in rows if row.state == "failed"]
    if failed:
        say(f"{len(failed)} trials failed, the first with: {failed[0].error} (the same command runs them again)")
    return 1 if failed else 0
