"""How much speech fine-tuning needs: test error rates against the share of the training speech.

Each share is trained on from the model english-14h, and from nothing.

    python benchmarks/finetune.py an4 --archive an4_raw.bigendian.tar.gz
    python benchmarks/finetune.py words --archive speech_commands_v0.02.tar.gz

`an4` trains recipes/an4 on 1, 3, 10, 30 and 100 % of its training speech; `words` trains a recognizer of isolated words
on clips of Speech Commands whose speakers are held out from dev and test. Every run is `recipes/an4/run.py` with the
settings below, in a folder of its own: a run that is up to date is skipped, one that was interrupted resumes. Results
go to benchmarks/results/finetune_TASK.json, and a picture of those of AN4 to finetune_an4.png.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import soundfile

from asr.corpus.archive import extract
from asr.files import write_text
from asr.scoring.breakdown import text_table
from asr.training.record import provenance

RECIPE = Path(__file__).parents[1] / "recipes" / "an4"
RESULTS = Path(__file__).parent / "results"
SHARES = (1, 3, 10, 30, 100)  # percent of the training utterances; smaller sets are part of the larger ones
# Epochs by share: few utterances need more of them. The schedule warms up for WARMUP optimizer steps.
EPOCHS = {
    "model": {1: 100, 3: 60, 10: 40, 30: 30, 100: 20},
    "nothing": {1: 300, 3: 300, 10: 300, 30: 180, 100: 110},
}
WARMUP = {
    "model": {1: 10, 3: 20, 10: 40, 30: 80, 100: 100},
    "nothing": dict.fromkeys(SHARES, 200),
}
CONFIG = {"model": "finetune", "nothing": "ctc"}
DECODERS = {"greedy": "greedy", "beam+lm": "3-gram"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("an4", "words"))
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, default=Path("exp/finetune"))
    parser.add_argument("--start", type=_list, default=list(CONFIG), metavar="A,B", help="of: model, nothing")
    parser.add_argument("--share", type=_list, default=[str(share) for share in SHARES], metavar="A,B", help="percent")
    parser.add_argument("--seed", type=_list, default=["1"], metavar="A,B")
    parser.add_argument("--report", action="store_true", help="train nothing; collect what is finished")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="passed on, e.g. trainer.precision=bf16-mixed")
    args = parser.parse_intermixed_args()
    folder = args.data / args.task
    if args.task == "words":
        prepare_words(args.archive, folder)
    else:
        run_recipe(["--steps", "prepare", "--data", str(folder), "--archive", str(args.archive)])
    for share in map(int, args.share):
        subset(folder, share)
        for start in args.start:
            for seed in map(int, args.seed):
                if not args.report:
                    train(args, folder, start, share, seed)
    rows = collect(args.output / args.task)
    results = json.dumps({"machine": provenance(), "runs": rows}, indent=1)
    write_text(RESULTS / f"finetune_{args.task}.json", results + "\n")
    show(rows)
    if args.task == "an4":
        draw(rows, RESULTS / "finetune_an4.png")


def _list(text: str) -> list[str]:
    return text.split(",")


def train(args: argparse.Namespace, folder: Path, start: str, share: int, seed: int) -> None:
    """One run of the recipe: training, language model of its own transcripts, evaluation; what is done is kept."""
    output = args.output / args.task / f"{start}-{share:03d}-{seed}"
    epochs = EPOCHS[start][share]
    settings = [
        f"data.train={folder / f'train-{share:03d}.jsonl'}",
        f"data.dev={folder / 'dev.jsonl'}",
        f"data.test={{test: {folder / 'test.jsonl'}}}",
        f"trainer.max_epochs={epochs}",
        f"optimizer.warmup_steps={WARMUP[start][share]}",
        f"trainer.check_val_every_n_epoch={max(1, epochs // 20)}",
        f"seed={seed}",
    ]
    steps = "tokenizer,train,lm,evaluate"
    run_recipe(["--config", CONFIG[start], "--steps", steps, "--output", str(output), *settings, *args.settings])


def run_recipe(arguments: list[str]) -> None:
    subprocess.run([sys.executable, str(RECIPE / "run.py"), *arguments], check=True)


def subset(folder: Path, share: int) -> None:
    """Write `train-SHARE.jsonl`, the first utterances in a shuffled order that is the same for all shares."""
    lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
    random.Random(0).shuffle(lines)
    write_text(folder / f"train-{share:03d}.jsonl", "".join(lines[: max(1, round(len(lines) * share / 100))]))


def prepare_words(archive: Path, folder: Path) -> None:
    """Manifests of the clips WORD/SPEAKER_nohash_N.wav; a fifth of the speakers for the test set, a tenth for dev."""
    extract(archive, folder / "audio")
    sets: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for path in sorted((folder / "audio").rglob("*_nohash_*.wav")):
        speaker = path.name.partition("_")[0]
        place = int(hashlib.sha256(speaker.encode()).hexdigest(), 16) % 10
        row = {
            "audio_filepath": str(path.relative_to(folder)),
            "duration": soundfile.info(path).duration,
            "text": path.parent.name,
            "speaker": speaker,
        }
        sets["test" if place < 2 else "dev" if place == 2 else "train"].append(json.dumps(row) + "\n")
    for name, lines in sets.items():
        write_text(folder / f"{name}.jsonl", "".join(lines))


def collect(folder: Path) -> list[dict[str, Any]]:
    """A row for each finished run: share, hours, start, seed, minutes and the test rates of each decoder."""
    rows = []
    for path in sorted(folder.glob("*/results/test")):
        run = path.parents[1]
        start, share, seed = run.name.split("-")
        config = json.loads((run / "run.json").read_text())
        summaries = {d: json.loads((path / d / "summary.json").read_text())["wer"] for d in DECODERS}
        rows.append(
            {"start": start, "share": int(share), "seed": int(seed), "epochs": EPOCHS[start][int(share)]}
            | {name: summaries[decoder] for decoder, name in DECODERS.items()}
            | {"train_sha256": config["train_sha256"]}
        )
    return rows


def means(rows: list[dict[str, Any]]) -> dict[tuple[str, str, int], list[float]]:
    """Test error rates of all seeds, by start, decoder and share."""
    rates: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        for name in DECODERS.values():
            rates.setdefault((row["start"], name, row["share"]), []).append(row[name]["rate"])
    return rates


def show(rows: list[dict[str, Any]]) -> None:
    rates = means(rows)
    columns = [(start, name) for start in CONFIG for name in DECODERS.values()]
    table = []
    for share in sorted({row["share"] for row in rows}):
        cells = [rates.get((*column, share), []) for column in columns]
        table.append([f"{share} %", *(f"{sum(c) / len(c):.2%} ({len(c)})" if c else "" for c in cells)])
    print(text_table(["share", *(f"{start}, {name}" for start, name in columns)], table, left=1))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    minutes = {share: share / 100 * 0.63 * 60 for share in SHARES}
    rates = means(rows)
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for start, color in (("nothing", "tab:gray"), ("model", "tab:blue")):
        for name, style in (("greedy", "-o"), ("3-gram", "--s")):
            points = [(minutes[s], 100 * sum(r) / len(r)) for s in SHARES if (r := rates.get((start, name, s)))]
            if points:
                label = f"from {'english-14h' if start == 'model' else 'nothing'}, {name}"
                axes.plot(*zip(*points, strict=True), style, color=color, label=label)
    axes.set(xscale="log", yscale="log", xlabel="minutes of training speech", ylabel="test WER (%)", title="AN4")
    axes.set_xticks(list(minutes.values()), [f"{m:.2g}" for m in minutes.values()])
    axes.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
