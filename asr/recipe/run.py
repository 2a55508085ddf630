"""The program behind every recipe's run.py: reads the arguments and the configuration, and runs the steps."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr import standard_streams
from asr.config import expand_path
from asr.training.process import Interrupted, handled_signals, say, set_thread_environment
from asr.types import AsrError, ConfigError, UsageError

if TYPE_CHECKING:
    from asr.recipe.steps import Preparation
    from asr.training.config import TrainConfig

STEPS = ("prepare", "tokenizer", "train", "average", "lm", "evaluate")  # methods of `asr.recipe.steps.Run`


def main(folder: Path, preparation: Preparation, argv: Sequence[str] | None = None) -> int:
    """Run a recipe from the command line and return the exit status.

    0: done; 1: failed; 2: wrong usage; 130: stopped by Ctrl-C; 143: stopped by SIGTERM.
    """
    set_thread_environment()  # before torch is imported
    if argv is None:
        standard_streams.install()
    arguments = list(sys.argv[1:] if argv is None else argv)
    return standard_streams.guarded(lambda: _status(folder, preparation, arguments), folder.name)


def _status(folder: Path, preparation: Preparation, arguments: Sequence[str]) -> int:
    try:
        with handled_signals() as signals:
            args = _parse(folder, preparation, arguments)
            config = _config(folder, preparation, args)
            chosen, forced = _chosen(args.steps), _chosen(args.force or "")
            with signals.deferred():  # importing takes seconds, and an exception meanwhile can abort the process
                from asr.recipe.steps import Run
            signals.check()
            run = Run(config, args, preparation, folder, signals)
            if args.dry_run:
                from asr.recipe.plan import lines

                print("\n".join(lines(run, chosen, forced)))
            else:
                run.steps(chosen, forced)
            return 0
    except Interrupted as stop:
        say(f"{folder.name}: stopped; everything is saved, the same command continues from here")
        return stop.status
    except AsrError as error:
        print(f"{folder.name}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError | ConfigError) else 1
    except OSError as error:
        if not standard_streams.is_file_error(error) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"{folder.name}: error: {where}{error.strerror or error}", file=sys.stderr)
        return 1


def _parse(folder: Path, preparation: Preparation, argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"{folder.name}/run.py",
        description=f"The recipe {folder.name}, in steps: {', '.join(STEPS)}; see recipes/{folder.name}/README.md.",
    )
    preparation.add_arguments(parser)  # first, because it may add a positional argument
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, e.g. model.layers=5")
    config = "a configuration of this recipe, or a YAML file (default: recipe)"
    parser.add_argument("--config", default="recipe", metavar="NAME", help=config)
    data = f"folder for audio and manifests (default: data/{folder.name})"
    parser.add_argument("--data", type=Path, metavar="DIR", help=data)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder of the run (default: as configured, in exp/)"
    )
    parser.add_argument("--steps", default=",".join(STEPS), metavar="A,B", help="run only these of: %(default)s")
    parser.add_argument("--force", metavar="A,B", help="run these steps even if they are up to date")
    dry_run = "do nothing: print what would be downloaded, stored and done, and why"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    args = parser.parse_intermixed_args(argv)
    for name, value in vars(args).items():
        if isinstance(value, Path):  # a shell does not expand the ~ of --output=~/x
            setattr(args, name, Path(expand_path(str(value), f"--{name.replace('_', '-')}")))
    return args


def _config(folder: Path, preparation: Preparation, args: argparse.Namespace) -> TrainConfig:
    """The configuration with `--data` and `--output` applied; sets `args.data`, `args.manifests`, `args.lm_file`."""
    from asr.config import apply_overrides
    from asr.training.config import manifests, parse_config, read_extended

    configure = getattr(preparation, "configure", None)  # for a recipe without a recipe.yaml
    if configure and args.config == "recipe":
        values = configure(args)
    else:
        values = read_extended(_found(folder, args.config))
    default = Path("data") / folder.name
    args.data = args.data or default
    for section in ("data", "lm"):
        values[section] = _moved(values.get(section, {}), default, args.data)
    values = apply_overrides(values, args.overrides)
    if args.output:
        values["output"] = str(args.output)
    config = parse_config(values)
    paths = [*manifests(config.data.train), *manifests(config.data.dev), *config.data.test.values()]
    args.manifests = [path for path in map(Path, dict.fromkeys(paths)) if path.is_relative_to(args.data)]
    lm_file = Path(config.lm.file)
    args.lm_file = lm_file if config.lm.file and lm_file.is_relative_to(args.data) else None
    return config


def _found(folder: Path, name: str) -> Path:
    path = Path(name)
    if not path.suffix and not path.is_absolute():  # /dev/fd/63 is a pipe
        path = folder / f"{name}.yaml"
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UsageError(f"there is no configuration {path} (this recipe has: {names})")
    return path


def _moved(value: Any, default: Path, data: Path) -> Any:
    """A setting with all paths below the folder `default` moved to the folder `data`."""
    if isinstance(value, dict):
        return {key: _moved(entry, default, data) for key, entry in value.items()}
    if isinstance(value, list):
        return [_moved(entry, default, data) for entry in value]
    if isinstance(value, str) and Path(value).is_relative_to(default):
        return str(data / Path(value).relative_to(default))
    return value


def _chosen(steps: str) -> list[str]:
    chosen = [step.strip() for step in steps.split(",") if step.strip()]
    for step in chosen:
        if step not in STEPS:
            raise UsageError(f"there is no step '{step}' (valid: {', '.join(STEPS)})")
    return [step for step in STEPS if step in chosen]
