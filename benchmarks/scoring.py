"""Seconds to score and compare 100,000 utterances, bootstrap included, on one core: `asr score`, `asr compare`.

    python benchmarks/scoring.py [--utterances 100000] [--output benchmarks/results/scoring.json]

The test set is made up: 18 words an utterance on average, 300 speakers, about 10 % of the words wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def write_sets(folder: Path, utterances: int) -> None:
    """Write ref.jsonl, a.trn and b.trn."""
    generator = np.random.default_rng(1)
    words = np.array([f"word{i}" for i in range(20_000)])
    with (
        (folder / "ref.jsonl").open("w", encoding="utf-8") as references,
        (folder / "a.trn").open("w", encoding="utf-8") as a,
        (folder / "b.trn").open("w", encoding="utf-8") as b,
    ):
        for i in range(utterances):
            length = int(generator.integers(1, 36))
            reference = words[(20_000 * generator.random(length) ** 3).astype(int)]
            row = {"id": f"u{i}", "text": " ".join(reference), "speaker": f"s{i % 300}", "duration": length / 2.5}
            references.write(json.dumps(row) + "\n")
            for file, share in ((a, 0.10), (b, 0.099)):
                kind = generator.random(length)
                heard = np.where(kind < share / 2, words[generator.integers(0, 20_000, length)], reference)
                heard = heard[(kind < share / 2) | (kind > share * 0.75)]
                if generator.random() < share:
                    heard = np.append(heard, words[0])
                file.write(f"{' '.join(heard)} (u{i})\n")


def measure(arguments: list[str], folder: Path) -> dict[str, float]:
    """Seconds and peak memory of a command on one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    pin = ["taskset", "-c", "0"] if sys.platform == "linux" and shutil.which("taskset") else []
    started = time.perf_counter()
    process = subprocess.Popen(
        [*pin, sys.executable, "-m", "asr", *arguments],
        env={**os.environ, **one, "PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"asr {' '.join(arguments)} failed")
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--utterances", type=int, default=100_000)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    commands = {
        "score": ["score", "ref.jsonl", "a.trn"],
        "score, 3 normalizers and CER": [
            "score",
            "ref.jsonl",
            "a.trn",
            "--cer",
            "--normalize",
            "none,basic,librispeech",
        ],
        "score --html": ["score", "ref.jsonl", "a.trn", "--html", "report.html"],
        "compare": ["compare", "ref.jsonl", "a.trn", "b.trn"],
    }
    results = {}
    with tempfile.TemporaryDirectory() as name:
        write_sets(Path(name), args.utterances)
        for title, arguments in commands.items():
            results[title] = measure(arguments, Path(name))
            print(
                "{:30s} {seconds:6.1f} s   {cpu_seconds:6.1f} s CPU   {peak_mib:6.0f} MiB".format(
                    title, **results[title]
                )
            )
    if args.output:
        from asr.training.record import provenance

        args.output.parent.mkdir(parents=True, exist_ok=True)
        report = provenance() | {"utterances": args.utterances, "results": results}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
