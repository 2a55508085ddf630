"""Which hidden size for RNN, GRU and LSTM? A grid over sizes on AN4, cross-validated by speaker.

    python recipes/an4/run.py --steps prepare --archive an4_raw.bigendian.tar.gz
    python benchmarks/hidden_sizes.py --jobs 2
    python benchmarks/hidden_sizes.py --report

All trials belong to one `asr tune` of recipes/an4: every cell with every size, each trained on five folds of the
training set by speaker. The same command resumes the study, and commands on other machines that share the folder join
it. Complete trials are reported in hidden_sizes.md, which keeps notes below a marker, and results/hidden_sizes.png.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from reports import names, new_figure, numbers, save_figure, write_report

from asr.training.record import provenance

RECIPE = Path(__file__).parents[1] / "recipes" / "an4" / "ctc.yaml"
REPORT = Path(__file__).with_suffix(".md")
PICTURE = Path(__file__).parent / "results" / "hidden_sizes.png"
CELLS = ("rnn", "gru", "lstm")
SIZES = (32, 64, 128, 192, 256, 384)
HEAD = """# Hidden sizes of RNN, GRU and LSTM on AN4

[recipes/an4](../recipes/an4/README.md) with plain CTC and other cells and hidden sizes (of each direction), epochs:
{epochs}. Word error rates are of held-out speakers at the best epoch, decoded greedily: the mean over {folds} folds of
the training set by speaker, with its standard error. The best size of each cell is bold; smaller sizes within one
standard error of it are in italics. Seconds are of all folds together, with as many trials at once as in the command.

    {command}

{machine}

![Word error rates by hidden size](results/hidden_sizes.png)
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=names, default=list(CELLS), metavar="A,B", help="default: rnn,gru,lstm")
    parser.add_argument("--sizes", type=numbers, default=list(SIZES), metavar="64,128")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40, help="of every training (default: %(default)s)")
    parser.add_argument("--jobs", type=int, metavar="N", help="trials at once, as in asr tune")
    parser.add_argument("--data", type=Path, default=Path("data/an4"))
    parser.add_argument("--output", type=Path, default=Path("exp/hidden_sizes"))
    parser.add_argument("--report", action="store_true", help="train nothing; report what is complete")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of every trial, e.g. optimizer.lr=0.001")
    args = parser.parse_intermixed_args(argv)
    command = [sys.executable, "-m", "asr", "tune"]
    if args.report:
        command += ["--report", str(args.output), "--json"]
    else:
        sets = [f"data.{name}={args.data / name}.jsonl" for name in ("train", "dev")]
        search = [f"model.cell=[{','.join(args.cells)}]", f"model.hidden_size=[{','.join(map(str, args.sizes))}]"]
        command += [str(RECIPE), *search, *sets, f"trainer.max_epochs={args.epochs}", *args.settings]
        command += ["--search", "grid", "--folds", str(args.folds), "-o", str(args.output), "--json"]
        command += ["--jobs", str(args.jobs)] if args.jobs else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:  # stopped or refused, as the command has reported
        return done.returncode
    trials = [trial for trial in json.loads(done.stdout)["trials"] if trial["state"] == "complete"]
    if not trials:
        print("hidden_sizes: no trial is complete: there is no report", file=sys.stderr)
        return 1
    report(trials, args)
    return done.returncode


def report(trials: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    """Write hidden_sizes.md and the picture, and print the table."""
    found = {(t["parameters"]["model.cell"], t["parameters"]["model.hidden_size"]): t for t in trials}
    cells = [cell for cell in dict.fromkeys([*CELLS, *args.cells]) if any(cell == known for known, _ in found)]
    sizes = sorted({size for _, size in found})
    heads = [head for cell in cells for head in (f"{cell.upper()}, WER", "s")]
    rows = [["hidden size", *heads], ["---:"] * (1 + len(heads))]
    for size in sizes:
        pairs = [(found.get((cell, size)), cell) for cell in cells]
        parts = [(_cell(found, cell, size), f"{trial['seconds']:.0f}") if trial else ("", "") for trial, cell in pairs]
        rows.append([str(size), *(part for pair in parts for part in pair)])
    write_report(REPORT, _head(trials, args), rows)
    draw(found, cells, PICTURE)


def _cell(found: dict[tuple[str, int], dict[str, Any]], cell: str, size: int) -> str:
    mine = {other: trial for (name, other), trial in found.items() if name == cell}
    best = min(mine, key=lambda other: mine[other]["value"])
    limit = mine[best]["value"] + (mine[best]["standard_error"] or 0.0)
    mark = "**" if size == best else "*" if size < best and mine[size]["value"] <= limit else ""
    return f"{mark}{100 * mine[size]['value']:.1f}{mark} ± {100 * (mine[size]['standard_error'] or 0.0):.1f}"


def _head(trials: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    folder = args.output / f"trial-{trials[0]['trial']:04d}"
    config = yaml.safe_load(next(args.output.glob("trial-*/**/config.yaml"), folder).read_text(encoding="utf-8"))
    made = provenance()
    versions = ", ".join(f"{name} {made['versions'][name]}" for name in ("torch", "pytorch-lightning", "python"))
    cells = dict.fromkeys(t["parameters"]["model.cell"] for t in sorted(trials, key=lambda t: int(t["trial"])))
    command = ["python", "benchmarks/hidden_sizes.py", "--cells", ",".join(cells)]
    sizes = sorted({t["parameters"]["model.hidden_size"] for t in trials})
    command += ["--sizes", ",".join(map(str, sizes)), "--folds", str(len(trials[0]["folds"]))]
    command += ["--epochs", str(config["trainer"]["max_epochs"]), *args.settings]
    command += ["--jobs", str(args.jobs)] if args.jobs else []
    return HEAD.format(
        epochs=config["trainer"]["max_epochs"],
        folds=len(trials[0]["folds"]),
        command=shlex.join(command),
        machine=f"{made['machine']}. {versions}. Revision {made['revision']}.",
    )


def draw(found: dict[tuple[str, int], dict[str, Any]], cells: Sequence[str], path: Path) -> None:
    """The error rate of each cell by hidden size, with standard errors."""
    sizes = sorted({size for _, size in found})
    figure, axes = new_figure(7, 4)
    for number, cell in enumerate(cells):
        mine = sorted((size, trial) for (name, size), trial in found.items() if name == cell)
        places = [size * 1.02 ** (number - 1) for size, _ in mine]  # beside each other
        rates, errors = ([100 * (trial[key] or 0.0) for _, trial in mine] for key in ("value", "standard_error"))
        axes.errorbar(places, rates, yerr=errors, fmt="o-", capsize=3, label=cell.upper())
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="hidden size of each direction", ylabel="WER of held-out speakers (%)", title="AN4")
    save_figure(figure, axes, path)


if __name__ == "__main__":
    sys.exit(main())
