"""The systems of recipes/an4/systems compared: each trained on AN4 with the same number of epochs and several seeds.

    python benchmarks/systems.py --archive an4_raw.bigendian.tar.gz --epochs 110 --seeds 1,2
    python benchmarks/systems.py --report --epochs 110

Every run is `recipes/an4/run.py` in a separate folder, `--jobs` of them at a time, spread over the GPUs if there are
any. The model that is best on dev is evaluated on dev and test. A finished run is a line in results/systems.jsonl and
is skipped the next time; an interrupted one resumes. All runs with these epochs and settings are reported in
systems.md, which keeps notes below a marker, and results/systems.png.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reports import names, new_figure, numbers, save_figure, write_report

from asr.config import apply_overrides
from asr.files import as_json
from asr.model.checkpoint import parameter_count, read_metadata
from asr.scoring.edits import EditCounts, Score, paired_bootstrap, resampling_units, score
from asr.text.normalize import normalize
from asr.training.config import read_extended
from asr.training.process import available_cores, launch_job, visible_gpus

RECIPE = Path(__file__).parents[1] / "recipes" / "an4"
SYSTEMS = RECIPE / "systems"
RESULTS = Path(__file__).parent / "results" / "systems.jsonl"
REPORT = Path(__file__).with_suffix(".md")
BASELINE = "lstm"
SETS = ("dev", "test")
HEAD = """# Recurrent systems on AN4

Each system of [recipes/an4/systems](../recipes/an4/systems) was trained with the same budget, epochs: {epochs}, and the
settings of its file and of the command. The best model on dev was evaluated, with greedy decoding unless the name says
otherwise. Rows are sorted by dev WER. Rates are percentages with 95 % intervals, for which errors are summed over the
seeds, and speakers are resampled, in pairs for differences. Seconds per epoch are a median and include validation.

    {command}

{machine}

![Word error rates of the systems](results/systems.png)
"""
EPOCH = re.compile(r"^epoch +\d+ .*  ([\d.]+) s$", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """A run: its system and seed, and all settings that are not defaults, which identify a finished run."""

    system: str
    seed: int
    epochs: int
    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.system}-{self.seed}"

    @property
    def config(self) -> dict[str, Any]:
        values = apply_overrides(read_extended(SYSTEMS / f"{self.system}.yaml"), self.settings)
        settings = {key: value for key, value in values.items() if key not in ("name", "output", "lm")}
        return as_json(settings)

    def finished(self, rows: Sequence[dict[str, Any]], lm: bool) -> bool:
        wanted = {"seed": self.seed, "epochs": self.epochs, "system": self.system, "config": self.config}
        return any(wanted.items() <= row.items() and (row["lm"] or not lm) for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", type=names, metavar="A,B", help="default: all in recipes/an4/systems")
    parser.add_argument("--seeds", type=numbers, default=[1, 2], metavar="1,2")
    parser.add_argument("--epochs", type=int, default=110, help="of every run (default: %(default)s)")
    parser.add_argument("--lm", action="store_true", help="also decode with a 3-gram model of the training texts")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="of each run (default: the cores, divided)")
    parser.add_argument("--archive", type=Path, help="of AN4, if --data is not prepared yet")
    parser.add_argument("--data", type=Path, default=Path("data/an4"))
    parser.add_argument("--output", type=Path, default=Path("exp/systems"))
    parser.add_argument("--report", action="store_true", help="train nothing; report what is finished")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="of every run, e.g. model.hidden_size=192")
    args = parser.parse_intermixed_args(argv)
    there = sorted(path.stem for path in SYSTEMS.glob("*.yaml"))
    for name in args.systems or ():
        if name not in there:
            parser.error(f"there is no system {name} (valid: {', '.join(there)})")
    if min(args.jobs, args.epochs, args.threads or 1) < 1:
        parser.error("--jobs, --epochs and --threads must be at least 1")
    status = 0
    if not args.report:
        if args.archive:
            prepare = ["--steps", "prepare", "--data", str(args.data), "--archive", str(args.archive)]
            subprocess.run([sys.executable, str(RECIPE / "run.py"), *prepare], check=True)
        elif not (args.data / "train.jsonl").exists():
            parser.error(f"{args.data} holds no train.jsonl: name the archive of AN4 with --archive")
        # All systems with the first seed, then all with the next, so that partial results can be compared.
        every = [Job(s, seed, args.epochs, tuple(args.settings)) for seed in args.seeds for s in args.systems or there]
        rows = read_rows()
        jobs = [job for job in every if not job.finished(rows, args.lm)]
        say(f"{len(every)} runs, {len(every) - len(jobs)} of them finished before")
        status = run_all(jobs, args)
    report(chosen_rows(read_rows(), args.epochs, args.settings), args)
    return status


def run_all(jobs: Sequence[Job], args: argparse.Namespace) -> int:
    """Do the runs, `args.jobs` at a time. Returns 1 if some failed. On Ctrl-C or SIGTERM they save: status 130."""
    waiting, free = deque(jobs), list(range(args.jobs))
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    failed = 0
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and free:
                place = free.pop(0)
                running[place] = (waiting[0], start(waiting[0], place, args))
                say(f"{waiting.popleft().name}: started, {len(waiting)} waiting")
            time.sleep(0.5)
            for place, (job, process) in list(running.items()):
                if process.poll() is None:
                    continue
                free.append(place)
                del running[place]
                folder = args.output / job.name
                if process.returncode:
                    failed, log = failed + 1, folder / "run.log"
                    last = log.read_text(encoding="utf-8").strip().rpartition("\n")[2]
                    say(f"{job.name}: failed with status {process.returncode}: {last} (see {log})")
                    continue
                row = finished_row(job, folder, args)
                RESULTS.parent.mkdir(exist_ok=True)
                with RESULTS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                for name, found in entries([row]).items():
                    rates = ", ".join(f"{part} {pooled(found, part).rate:.2%}" for part in SETS)
                    say(f"{name}, seed {job.seed}: {rates}, {row['seconds_per_epoch']:.1f} s an epoch")
    except KeyboardInterrupt:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
        say("stopped; the same command resumes")
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    return 1 if failed else 0


def start(job: Job, place: int, args: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start or resume a run; its output is appended to `run.log` in its folder."""
    folder = args.output / job.name
    folder.mkdir(parents=True, exist_ok=True)
    sets = ", ".join(f"{name}: {args.data / name}.jsonl" for name in SETS)
    settings = [f"trainer.max_epochs={job.epochs}", f"seed={job.seed}", f"data.test={{{sets}}}", *job.settings]
    settings += [] if args.lm else ["lm.order=0"]
    command = [sys.executable, str(RECIPE / "run.py"), "--config", str(SYSTEMS / f"{job.system}.yaml")]
    command += ["--data", str(args.data), "--output", str(folder), "--steps", "tokenizer,train,lm,evaluate", *settings]
    gpus, threads = visible_gpus(), args.threads or max(1, available_cores() // args.jobs)
    return launch_job(command, folder / "run.log", gpus[place % len(gpus)] if gpus else "", threads)


def finished_row(job: Job, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The row of a run: for each set and decoder, the errors, words and speaker of each utterance."""
    model = read_metadata(folder / "model.asr")
    seconds = [float(found) for found in EPOCH.findall((folder / "run.log").read_text(encoding="utf-8"))]
    row: dict[str, Any] = {"system": job.system, "seed": job.seed, "epochs": job.epochs, "settings": list(job.settings)}
    row |= {"parameters": parameter_count(model), "seconds_per_epoch": statistics.median(seconds)}
    for name in SETS:
        row[name] = {}
        for decoder in sorted((folder / "results" / name).iterdir()):
            rules = json.loads((decoder / "summary.json").read_text(encoding="utf-8"))["normalizer"]
            lines = [
                json.loads(line) for line in (decoder / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()
            ]
            references, hypotheses = (
                [normalize(line.get(key) or "", rules) for line in lines] for key in ("text", "pred_text")
            )
            counts = score(references, hypotheses).errors_and_lengths.T.tolist()
            speakers = [line.get("speaker", "") for line in lines]
            row[name][decoder.name] = dict(zip(("errors", "words", "speakers"), [*counts, speakers], strict=True))
    made = {key: model["training"][key] for key in ("date", "revision", "versions", "machine")}
    return row | {"lm": args.lm, "jobs": args.jobs, "config": job.config, **made}


def read_rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def chosen_rows(rows: Sequence[dict[str, Any]], epochs: int, settings: Sequence[str]) -> list[dict[str, Any]]:
    """The last row of each system and seed with this budget."""
    mine = [row for row in rows if row["epochs"] == epochs and row["settings"] == list(settings)]
    return list({(row["system"], row["seed"]): row for row in mine}.values())


def entries(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of all seeds of each system, and of each decoder besides `greedy`, by the names in the report."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        for decoder in row["test"]:
            if not decoder.startswith("beam"):
                name = row["system"] if decoder == "greedy" else f"{row['system']}, {decoder}"
                found.setdefault(name, []).append(row | {"decoder": decoder})
    return found


def pooled(rows: Sequence[dict[str, Any]], name: str, decoder: str = "") -> Score:
    """The score of a set, with the errors of each utterance summed over the rows, which are seeds."""
    parts = [row[name][decoder or row["decoder"]] for row in rows]
    errors, words = (np.sum([part[key] for part in parts], axis=0) for key in ("errors", "words"))
    counts = tuple(EditCounts(int(e), 0, 0, 0, int(w)) for e, w in zip(errors, words, strict=True))
    return Score("word", counts, tuple(parts[0]["speakers"]))


def report(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    """Write systems.md and the picture of the rows."""
    if not rows:
        say("nothing is finished with these epochs and settings: there is no report")
        return
    found = entries(rows)
    order = sorted(found, key=lambda name: pooled(found[name], "dev").rate)
    lm = any("beam+lm" in row["test"] for row in rows)
    heads = ["system", "parameters", "s an epoch", "dev WER", "test WER", "test WER of each seed"]
    heads += [f"test, minus {BASELINE}"] if BASELINE in found else []
    heads += ["test WER, 3-gram model"] if lm else []
    table = [heads, ["---"] * len(heads)]
    for name in order:
        mine = found[name]
        seconds = statistics.median(row["seconds_per_epoch"] for row in mine)
        cells = [f"[{name}](../recipes/an4/systems/{mine[0]['system']}.yaml)"]
        cells += [f"{mine[0]['parameters'] / 1e6:.2f} M", f"{seconds:.1f}"]
        cells += [_cell(pooled(mine, part)) for part in SETS]
        cells.append(", ".join(f"{100 * pooled([row], 'test').rate:.1f}" for row in mine))
        if BASELINE in found:
            cells.append("" if name == BASELINE else _difference(found[BASELINE], mine))
        if lm:
            with_lm = [row for row in mine if "beam+lm" in row["test"] and row["decoder"] == "greedy"]
            cells.append(_cell(pooled(with_lm, "test", "beam+lm")) if with_lm else "")
        table.append(cells)
    write_report(REPORT, _head(rows, args), table)
    draw(order, found, RESULTS.with_suffix(".png"))


def _head(rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> str:
    """The text above the table: how the figures were measured."""
    seeds = sorted({row["seed"] for row in rows})
    command = ["python", "benchmarks/systems.py", "--epochs", str(args.epochs), "--seeds", ",".join(map(str, seeds))]
    command += ["--lm"] if any(row["lm"] for row in rows) else []
    command += ["--jobs", str(max(row["jobs"] for row in rows)), *args.settings]
    machines = sorted({row["machine"] for row in rows})
    libraries = sorted({f"{k} {row['versions'][k]}" for row in rows for k in ("torch", "pytorch-lightning", "python")})
    revisions = sorted({row["revision"] for row in rows})
    return HEAD.format(
        epochs=args.epochs,
        command=shlex.join(command),
        machine=f"{'; '.join(machines)}. {', '.join(libraries)}. Revision {', '.join(revisions)}.",
    )


def _cell(found: Score) -> str:
    low, high = found.interval
    return f"**{100 * found.rate:.1f}** ({100 * low:.1f} to {100 * high:.1f})"


def _difference(baseline: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str:
    """The difference of the test rate from the baseline, over the seeds that both have."""
    seeds = {row["seed"] for row in rows} & {row["seed"] for row in baseline}
    if not seeds:
        return ""
    a, b = (pooled([row for row in side if row["seed"] in seeds], "test") for side in (baseline, rows))
    units, _ = resampling_units(np.concatenate([a.errors_and_lengths, b.errors_and_lengths], axis=1), a.speakers)
    found = paired_bootstrap(units[:, :2], units[:, 2:])
    low, high = found.interval
    return f"{100 * found.difference:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def draw(order: Sequence[str], found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Dev and test rates with their intervals, and the test rate of each seed; the best on dev on top."""
    figure, axes = new_figure(7, 1.2 + 0.36 * len(order))
    for name, color, shift in (("dev", "tab:gray", -0.16), ("test", "tab:blue", 0.16)):
        scores = [pooled(found[system], name) for system in order]
        rates = np.array([100 * s.rate for s in scores])
        limits = 100 * np.array([s.interval for s in scores]).T
        bars = np.abs(limits - rates)
        places = np.arange(len(order)) + shift
        axes.errorbar(rates, places, xerr=bars, fmt="o", color=color, label=f"{name}, 95 % interval", markersize=5)
    for place, system in enumerate(order):
        seeds = [100 * pooled([row], "test").rate for row in found[system]]
        axes.plot(seeds, [place + 0.16] * len(seeds), "|", color="black", label="" if place else "test, each seed")
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set(xlabel="WER (%)", title="AN4", xlim=(0, None))
    save_figure(figure, axes, path, axis="x")


def say(line: str) -> None:
    print(f"systems: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
