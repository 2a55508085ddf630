"""Which hidden size for RNN, GRU and LSTM? A grid over sizes on AN4, cross-validated by speaker.

    python recipes/an4/run.py --steps prepare --archive an4_raw.bigendian.tar.gz
    python benchmarks/hidden_sizes.py --jobs 2
    python benchmarks/hidden_sizes.py --report

All trials are one `asr tune` of recipes/an4: every cell with every size, each trained on five folds by speaker of the
training set. The same command resumes the study, and commands on other machines that share the folder help. Of what is
complete, hidden_sizes.md and results/hidden_sizes.png are written; what stands in hidden_sizes.md below the marker is
kept.
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

from asr.files import write_text
from asr.training.record import provenance

RECIPE = Path(__file__).parents[1] / "recipes" / "an4" / "recipe.yaml"
REPORT = Path(__file__).with_suffix(".md")
PICTURE = Path(__file__).parent / "results" / "hidden_sizes.png"
CELLS = ("rnn", "gru", "lstm")
SIZES = (32, 64, 128, 192, 256, 384)
MARKER = "<!-- What is below this line is written by hand, and kept. -->\n"
HEAD = """# Hidden sizes of RNN, GRU and LSTM on AN4

[recipes/an4](../recipes/an4/README.md) with other cells and hidden sizes (of each direction), epochs: {epochs}. Word
error rates are those of held-out speakers at the best epoch, decoded greedily: the mean over {folds} folds by speaker
of the training set, with its standard error. The best size of each cell is bold; a smaller one whose mean lies within
one standard error of it is in italics. Seconds are those of all folds together, with as many trials at once as the
command says.

    {command}

{machine}

![Word error rates by hidden size](results/hidden_sizes.png)
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=_names, default=list(CELLS), metavar="A,B", help="default: rnn,gru,lstm")
    parser.add_argument("--sizes", type=_numbers, default=list(SIZES), metavar="64,128")
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
    if not done.stdout:  # stopped or refused, which the command has said
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
    lines = ["| hidden size | " + " | ".join(f"{cell.upper()}, WER | s" for cell in cells) + " |"]
    lines.append("| ---: " * (1 + 2 * len(cells)) + "|")
    for size in sizes:
        parts = []
        for cell in cells:
            trial = found.get((cell, size))
            parts += [_cell(found, cell, size), f"{trial['seconds']:.0f}"] if trial else ["", ""]
        lines.append(f"| {size} | " + " | ".join(parts) + " |")
    kept = REPORT.read_text(encoding="utf-8").partition(MARKER)[2] if REPORT.exists() else ""
    write_text(REPORT, "\n".join([_head(trials, args), *lines, "", MARKER]) + kept)
    draw(found, cells, PICTURE)
    print("\n".join(lines))


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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = sorted({size for _, size in found})
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for number, cell in enumerate(cells):
        mine = sorted((size, trial) for (name, size), trial in found.items() if name == cell)
        places = [size * 1.02 ** (number - 1) for size, _ in mine]  # beside each other
        rates, errors = ([100 * (trial[key] or 0.0) for _, trial in mine] for key in ("value", "standard_error"))
        axes.errorbar(places, rates, yerr=errors, fmt="o-", capsize=3, label=cell.upper())
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="hidden size of each direction", ylabel="WER of held-out speakers (%)", title="AN4")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
