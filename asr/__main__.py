"""The `asr` command line: a table of commands. Only the module of the chosen command is imported."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from asr import __version__, standard_streams
from asr.config import nearest
from asr.types import AsrError, ConfigError, UsageError

# name: (module with add_arguments(parser) and run(args) -> exit status, one line of help). Where the module is named
# differently, its functions have the command in their names: add_compare_arguments and run_compare.
COMMANDS: dict[str, tuple[str, str]] = {
    "transcribe": ("asr.commands.transcribe", "transcribe audio files, folders or a manifest"),
    "evaluate": ("asr.commands.evaluate", "measure the word error rate of a model on a manifest"),
    "score": ("asr.commands.score", "compute the error rates of any recognizer's output"),
    "compare": ("asr.commands.score", "test whether one system is really better than another"),
    "align": ("asr.commands.align", "find when each word of a known text was spoken"),
    "explain": ("asr.commands.explain", "show what happens inside a model as it hears a recording"),
    "train": ("asr.commands.train", "train a model from a recipe"),
    "tune": ("asr.commands.tune", "search for the best training settings"),
    "data": ("asr.commands.data", "check, summarize, set up, convert or shard a corpus"),
    "lm": ("asr.commands.lm", "train, convert, inspect or measure a language model"),
    "info": ("asr.commands.models", "describe a model file"),
    "models": ("asr.commands.models", "list the bundled models"),
    "average": ("asr.commands.models", "average the weights of several models"),
    "calibrate": ("asr.commands.evaluate", "fit word confidences to a development set"),
    "doctor": ("asr.commands.doctor", "check the installation and say how to fix it"),
}

OK, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0: success; 1: something failed; 2: wrong usage; 130: interrupted by Ctrl-C; 141: the reader of stdout has gone.
    """
    if argv is None:
        standard_streams.install()
    arguments = list(sys.argv[1:] if argv is None else argv)
    return standard_streams.guarded(lambda: _status(arguments), "asr")


def _status(arguments: list[str]) -> int:
    """Run a command and report an error in one line. Raises OSError for errors of stdout itself."""
    try:
        return _dispatch(arguments)
    except (UsageError, ConfigError) as error:
        return _fail(error, WRONG_USAGE)
    except AsrError as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED, "")
    except OSError as error:
        if not standard_streams.is_file_error(error):
            raise
        return _fail(f"{error.filename}: {error.strerror or error}", FAILED)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "asr":
            raise
        return _fail(f"the Python package '{error.name}' is not installed; see `asr doctor`", FAILED)


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(_overview(), file=sys.stderr)
        return WRONG_USAGE
    name, rest = arguments[0], arguments[1:]
    if name in ("-h", "--help", "help"):
        if rest and name == "help":
            return _dispatch([rest[0], "--help"])
        print(_overview())
        return OK
    if name in ("-V", "--version"):
        print(f"asr {__version__}")
        return OK
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        raise UsageError(f"unknown {kind} '{name}'{nearest(name, COMMANDS)}; see `asr --help`")
    module_name, summary = COMMANDS[name]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        prog=f"asr {name}",
        description=summary[0].upper() + summary[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviation that works today may be ambiguous in a later version
    )
    own = "" if module_name.endswith(f".{name}") else f"_{name}"
    getattr(module, f"add{own}_arguments")(parser)
    status: int = getattr(module, f"run{own}")(parser.parse_args(rest))
    return status


def _overview() -> str:
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        "usage: asr COMMAND ...\n\n"
        "End-to-end CTC speech recognition: train, transcribe, measure word error rates you can trust.\n\n"
        f"commands:\n{table}\n\n"
        "`asr COMMAND --help` describes a command, `asr --version` prints the version."
    )


def _fail(message: object, status: int, kind: str = "error: ") -> int:
    try:
        standard_streams.flush_stdout()  # so that earlier results precede the error where both go to the same place
    finally:
        print(f"asr: {kind}{message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
