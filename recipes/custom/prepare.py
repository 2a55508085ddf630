"""Your own recordings, in any format: manifests, a split by speaker, and a configuration that suits them."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from asr.recipe.corpus import Corpus
from asr.recipe.custom import Collection, as_yaml, collect, configuration, gpu_memory, write
from asr.training.config import read_extended

CORPUS = Corpus(
    speech="yours",
    hours="yours",
    license="yours",
    homepage="your folder, table, Kaldi directory or manifest",
    disk_gb="manifests only; the recordings stay where they are",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = "a folder of x.wav and x.txt, a CSV or TSV table, a Kaldi directory, a JSONL manifest"
    parser.add_argument("source", type=Path, metavar="SOURCE", help=source)
    parser.add_argument("--test", type=Path, metavar="SOURCE", help="a corpus to test on (default: a part of SOURCE)")


def sources(args: argparse.Namespace) -> list[Path]:
    return [path for path in (args.source, args.test) if path]


def configure(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration in the data folder, which the user may have changed, or else a suitable one."""
    name = args.source.resolve().name.partition(".")[0] or "custom"
    args.data = args.data or Path("data") / name
    kept = args.data / "recipe.yaml"
    if kept.exists():
        return read_extended(kept)
    args.output = args.output or Path("exp") / name
    collected, values = _derived(args.source, args.test, args.data, args.output)
    args.train_hours = collected.hours
    if args.dry_run:
        print(as_yaml(values, collected.notes))
    return values


def prepare(args: argparse.Namespace) -> None:
    """Write `{train,dev,test}.jsonl` and, unless it exists, `recipe.yaml` below `args.data`."""
    collected, values = _derived(args.source, args.test, args.data, args.output or Path("exp") / args.data.name)
    path = write(collected, values, args.data)
    print(path.read_text(encoding="utf-8"), file=sys.stderr)
    print(f"this configuration is {path}: change it as you like; delete it to have it derived again", file=sys.stderr)


@functools.cache
def _derived(source: Path, test: Path | None, data: Path, output: Path) -> tuple[Collection, dict[str, Any]]:
    collected = collect(source, test)
    return collected, configuration(collected, data, output, gpu_memory())
