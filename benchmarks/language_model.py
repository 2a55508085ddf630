"""Opening a language model of a million n-grams: our ARPA reader and our binary beside KenLM's, times and memory.

    python benchmarks/language_model.py [--output benchmarks/results/language_model.json]

The model is a 3-gram estimated here on random words that follow Zipf's law. Every case runs in processes of its own,
after a tiny model was read there, so that compiled code is loaded; times are CPU seconds, the file is in the page
cache. Memory is read from /proc: it runs on Linux.
KenLM's binary is measured where its program `build_binary` is on the PATH: the Python package does not bring it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TINY = """\\data\\
ngram 1=3
ngram 2=1

\\1-grams:
-1\t<unk>\t0
0\t<s>\t-0.3
-1\t</s>\t0

\\2-grams:
-0.5\t<s> </s>

\\end\\
"""
CASE = """
import json, sys, time
which, path, tiny, text = sys.argv[1:]
if which == "kenlm":
    import kenlm
    read = kenlm.Model
else:
    from asr.lm.ngram import NGramLM
    read = NGramLM.read
def memory(key):  # of this process since it began; ru_maxrss would count its parent too
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))
lines = open(text, encoding="utf-8").read().splitlines()
read(tiny).score("a")
before, peak_before = memory("VmRSS"), memory("VmHWM")
started = time.process_time()
lm = read(path)
opened = time.process_time()
first = lm.score(lines[0])
scored_first = time.process_time()
after, peak = memory("VmRSS"), memory("VmHWM")
total = sum(lm.score(line) for line in lines)
print(json.dumps({
    "open_s": opened - started, "first_sentence_s": scored_first - opened, "resident_mb": (after - before) / 1e6,
    "peak_mb": (peak - before if peak > peak_before else after - before) / 1e6,
    "all_resident_mb": (memory("VmRSS") - before) / 1e6, "log10": total}))
"""


def make_model(folder: Path, words: int, vocabulary: int) -> tuple[Path, dict[str, Any]]:
    """The ARPA file of a model of random text, and what it is."""
    import numpy as np

    from asr.lm.arpa import write_arpa
    from asr.lm.estimate import encode_corpus, estimate

    generator = np.random.default_rng(0)
    share = np.cumsum(1 / np.arange(1, vocabulary + 1) ** 1.05)
    drawn = np.searchsorted(share / share[-1], generator.random(words)).tolist()
    lines = [" ".join(f"w{i}" for i in drawn[start : start + 15]) for start in range(0, words, 15)]
    (folder / "text.txt").write_text("\n".join(lines[:2000]) + "\n", encoding="utf-8")
    started = time.process_time()
    result = estimate(encode_corpus(lines), 3)
    seconds = time.process_time() - started
    path = folder / "model.arpa"
    write_arpa(path, result.tables)
    return path, {"ngrams": result.tables.counts, "words": words, "estimation_s": round(seconds, 2)}


def measure(which: str, path: Path, tiny: Path, text: Path, runs: int) -> dict[str, float]:
    """The medians of one case over several processes."""
    results = []
    for _ in range(runs + 1):
        done = subprocess.run(
            [sys.executable, "-c", CASE, which, str(path), str(tiny), str(text)],
            capture_output=True,
            text=True,
            check=True,
        )
        results.append(json.loads(done.stdout))
    results = results[1:]  # the first one compiles, and fills the page cache
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--words", type=int, default=640_000, help="words of random text (640,000: a million n-grams)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arpa, model = make_model(folder, args.words, 60_000)
        from asr.lm.ngram import NGramLM

        tiny, ours = folder / "tiny.arpa", folder / "model.lm"
        tiny.write_text(TINY, encoding="utf-8")
        NGramLM.read(arpa).write_binary(ours)
        cases = {"ours, ARPA": ("asr", arpa), "ours, binary": ("asr", ours)}
        try:
            import kenlm  # noqa: F401

            cases["kenlm, ARPA"] = ("kenlm", arpa)
            if shutil.which("build_binary"):
                theirs = folder / "model.klm"
                subprocess.run(["build_binary", str(arpa), str(theirs)], check=True, capture_output=True)
                cases["kenlm, binary"] = ("kenlm", theirs)
            else:
                print("kenlm, binary: left out, its program build_binary is not on the PATH")
        except ImportError:
            print("kenlm: left out, it is not installed")
        print(f"{sum(model['ngrams']):,} n-grams {model['ngrams']}; estimated in {model['estimation_s']:.1f} s")
        print(
            "                   file MB   open ms   first sentence ms   resident MB (after 2,000 sentences)   peak MB"
        )
        results: dict[str, dict[str, float]] = {}
        for case, (which, path) in cases.items():
            found = results[case] = measure(which, path, tiny, folder / "text.txt", args.runs)
            found["file_mb"] = path.stat().st_size / 1e6
            print(
                f"{case:16s} {found['file_mb']:9.1f} {1e3 * found['open_s']:9.2f} "
                f"{1e3 * found['first_sentence_s']:19.2f} "
                f"{found['resident_mb']:13.1f} ({found['all_resident_mb']:.1f}) {found['peak_mb']:27.1f}"
            )
        spread = {round(found["log10"], 1) for found in results.values()}
        print(f"log10 p of 2,000 sentences: {', '.join(map(str, sorted(spread)))}")
    if args.output:
        from asr.training.record import provenance

        args.output.parent.mkdir(parents=True, exist_ok=True)
        report = provenance() | {"runs": args.runs, "model": model, "results": results}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
