"""Time against word error rate of the beam search, flashlight and pyctcdecode: same emissions, LM, words, one thread.

    python benchmarks/decoders.py [--npz FILE --lm FILE.arpa] [--utterances 150] [--output benchmarks/results]

Emissions are synthetic, peaky and noisy (benchmarks/synthetic_emissions.py), and those of an .npz file: arrays
`labels`, `references` and `emission_0`, `emission_1`, ... Every decoder runs over a grid of its settings; what counts
is the lower edge of its points. Times are CPU seconds of the calling process. "search" is the search alone: ours
(`decode_many` of all utterances) without word times, and flashlight's C++ call without torchaudio's making of Python
results; "call" is the whole call of each library, ours with word times and confidences. flashlight gets a separator
after each utterance, without which it loses the last word, and is also measured with the frames dropped that our
search skips.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from decoder_points import Point, Problem, cpu, flashlight, ours, part_of, pyctcdecode
from synthetic_emissions import LABELS, STYLES, TextSource, emissions

from asr.decoding.beam.search import BeamSearch
from asr.lm.arpa import write_arpa
from asr.lm.estimate import encode_corpus, estimate
from asr.lm.ngram import NGramLM

COLORS = {
    "ours": "tab:red",
    "flashlight": "tab:blue",
    "flashlight, blanks dropped": "tab:cyan",
    "pyctcdecode": "tab:green",
}


def edge(points: Sequence[Point], kind: str) -> list[Point]:
    """The points than which none is both faster and better, fastest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (getattr(p, kind), p.wer)):
        if not kept or point.wer < kept[-1].wer:
            kept.append(point)
    return kept


def with_calls(points: Sequence[Point], problem: Problem, args: argparse.Namespace) -> list[Point]:
    """The points with the times of whole calls, of those that are on the edge or nearly so."""
    measured = []
    for name in dict.fromkeys(p.decoder for p in points):
        own = [p for p in points if p.decoder == name]
        share = args.share if name == "pyctcdecode" else 1.0
        frames = problem.frames if share == 1.0 else sum(map(len, problem.arrays[: part_of(problem, share)]))
        for point in own:
            best = fastest(own, point.wer, "search")
            if best is not None and point.search <= 1.15 * best.search:
                seconds, _ = cpu(point.whole, args.repeats if share == 1.0 else 1)
                point = replace(point, call=seconds / frames * 1e6)
            measured.append(point)
    return measured


def fastest(points: Sequence[Point], wer: float, kind: str) -> Point | None:
    """The fastest point with at most this word error rate."""
    good = [p for p in points if p.wer <= wer + 1e-9]
    return min(good, key=lambda p: getattr(p, kind)) if good else None


def compare(points: Sequence[Point], kind: str) -> list[dict[str, Any]]:
    """For every point on another decoder's edge: how much faster ours is at equal or lower word error rate."""
    mine = [p for p in points if p.decoder == "ours"]
    rows = []
    for name in dict.fromkeys(p.decoder for p in points if p.decoder != "ours"):
        for point in edge([p for p in points if p.decoder == name], kind):
            best = fastest(mine, point.wer, kind)
            rows.append(
                {
                    "decoder": name,
                    "kind": kind,
                    "wer": round(point.wer, 5),
                    "microseconds": round(getattr(point, kind), 3),
                    "setting": point.setting,
                    "ours_microseconds": round(getattr(best, kind), 3) if best else None,
                    "ours_wer": round(best.wer, 5) if best else None,
                    "ours_setting": best.setting if best else None,
                    "times_faster": round(getattr(point, kind) / getattr(best, kind), 2) if best else None,
                }
            )
    return rows


def side_figures(problem: Problem, search: BeamSearch) -> dict[str, Any]:
    """Two threads against one, and 1,000 hotwords against none, at the default settings."""
    search.decode(problem.arrays[0])
    figures: dict[str, Any] = {}
    for jobs in (1, 2):
        best = float("inf")
        for _ in range(3):
            begun = time.perf_counter()
            search.decode_many(problem.arrays * 8, jobs=jobs)  # enough for threads to share
            best = min(best, time.perf_counter() - begun)
        figures[f"seconds_{jobs}_threads"] = round(best, 4)
    figures["speed_up_2_threads"] = round(figures["seconds_1_threads"] / figures["seconds_2_threads"], 2)
    rng = np.random.default_rng(0)
    known = search.lm.words[3:] if search.lm else []
    hotwords = [
        *("".join(rng.choice(LABELS[2:], size=8)) for _ in range(500)),  # unknown names
        *(" ".join(rng.choice(known, size=2)) for _ in range(250)),
        *rng.choice(known, size=250).tolist(),
    ]
    hot = BeamSearch(problem.labels, search.lm, alpha=search.alpha, beta=search.beta, hotwords=hotwords, oov=search.oov)
    hot.decode(problem.arrays[0])
    plain_seconds, _ = cpu(lambda: search.decode_many(problem.arrays, jobs=1), 3)
    hot_seconds, _ = cpu(lambda: hot.decode_many(problem.arrays, jobs=1), 3)
    figures["hotwords"] = len(hot._hotwords.words) and 1000
    figures["hotwords_time_ratio"] = round(hot_seconds / plain_seconds, 3)
    return figures


def synthetic(folder: Path, utterances: int, words: int, sentences: int) -> list[Problem]:
    """The peaky and the noisy problem, and the language model trained on text of the same source."""
    source = TextSource(words)
    model = estimate(encode_corpus(source.sentences(sentences, seed=1)), 3)
    lm = folder / "synthetic.arpa"
    write_arpa(lm, model.tables)
    texts = source.sentences(utterances, seed=2)
    problems = []
    for name, style in STYLES.items():
        rng = np.random.default_rng(5)
        problems.append(Problem(name, LABELS, texts, [emissions(t, style, rng) for t in texts], lm, 0.7, 1.0))
    return problems


def real(path: Path, lm: Path, alpha: float, beta: float) -> Problem:
    """The problem of an .npz file."""
    with np.load(path) as data:
        labels, references = data["labels"].tolist(), data["references"].tolist()
        arrays = [np.ascontiguousarray(data[f"emission_{i}"], np.float32) for i in range(len(references))]
    return Problem(path.stem, labels, references, arrays, lm, alpha, beta)


def measure(problem: Problem, args: argparse.Namespace) -> dict[str, Any]:
    """All points of a problem, and what they come to."""
    lm = NGramLM.read(problem.lm)
    search = BeamSearch(problem.labels, lm, alpha=problem.alpha, beta=problem.beta, oov="forbid")
    words = lm.words[3:]
    points = [*ours(problem, search, args.repeats, args.quick)]
    if not args.only_ours:
        for dropped in (False, True):
            points += flashlight(problem, words, dropped, args.repeats, args.quick)
        points += pyctcdecode(problem, words, args.share, args.quick)
    points = with_calls(points, problem, args)
    rows = [*compare(points, "search"), *compare(points, "call")]
    report = {
        "problem": problem.describe() | {"lm_ngrams": list(lm.counts), "alpha": problem.alpha, "beta": problem.beta},
        "edges": {
            name: [_values(p) for p in edge([p for p in points if p.decoder == name], "search")]
            for name in dict.fromkeys(p.decoder for p in points)
        },
        "comparison": rows,
        **side_figures(problem, search),
    }
    print(f"\n{problem.name}: {json.dumps(report['problem'])}")
    for name, kept in report["edges"].items():
        for p in kept:
            print(f"  {name:28s} {p['wer']:7.2%} {p['search']:8.2f} us/frame  (call {p['call']:8.2f})  {p['setting']}")
    for row in rows:
        if row["times_faster"]:
            print(
                f"  {row['kind']:6s} {row['decoder']:28s} {row['wer']:7.2%} {row['microseconds']:8.2f} us, ours "
                f"{row['ours_wer']:7.2%} {row['ours_microseconds']:7.2f} us: {row['times_faster']:6.1f}x"
            )
    print(f"  two threads: {report['speed_up_2_threads']}x; 1,000 hotwords: {report['hotwords_time_ratio']}x the time")
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        plot(problem, points, args.output / f"decoders-{problem.name}.png")
    return report


def _values(point: Point) -> dict[str, Any]:
    return {
        "setting": point.setting,
        "wer": round(point.wer, 5),
        "search": round(point.search, 3),
        "call": round(point.call, 3),
    }


def plot(problem: Problem, points: Sequence[Point], path: Path) -> None:
    """Time against word error rate, the edges as lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name, color in COLORS.items():
        kept = edge([p for p in points if p.decoder == name], "search")
        axes.plot([p.search for p in kept], [100 * p.wer for p in kept], "o-", color=color, label=name, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("CPU microseconds per frame, search alone, one thread")
    axes.set_ylabel("word error rate, %")
    axes.set_title(f"{problem.name}: {problem.frames} frames, {len(problem.labels)} labels, 3-gram LM")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--npz", type=Path, action="append", default=[], help="emissions of a real model")
    parser.add_argument("--lm", type=Path, help="ARPA file for --npz")
    parser.add_argument("--alpha", type=float, default=0.7, help="for --npz")
    parser.add_argument("--beta", type=float, default=1.0, help="for --npz")
    parser.add_argument("--utterances", type=int, default=150)
    parser.add_argument("--words", type=int, default=20000, help="of the synthetic vocabulary")
    parser.add_argument("--sentences", type=int, default=150000, help="that the synthetic language model is trained on")
    parser.add_argument("--share", type=float, default=0.1, help="of the utterances, for pyctcdecode")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", choices=[*STYLES, "npz"], help="one kind of emissions")
    parser.add_argument("--quick", action="store_true", help="a coarse grid, to see that all works")
    parser.add_argument("--only-ours", action="store_true")
    parser.add_argument("--output", type=Path, help="folder for decoders.json and the plots")
    args = parser.parse_args()
    if args.npz and args.lm is None:
        parser.error("--npz needs --lm")
    reports: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        problems: list[Problem] = []
        if args.only != "npz":
            problems += synthetic(Path(folder), args.utterances, args.words, args.sentences)
        problems += [real(path, args.lm, args.alpha, args.beta) for path in args.npz]
        for problem in problems:
            if args.only in (None, problem.name) or (args.only == "npz" and problem.name not in STYLES):
                reports[problem.name] = measure(problem, args)
    if args.output:
        from importlib.metadata import version

        from asr.training.record import provenance

        libraries = ("numba", "flashlight-text", "pyctcdecode", "kenlm")
        about = provenance()
        about["versions"] |= {name: version(name) for name in libraries}
        path = args.output / "decoders.json"
        path.write_text(json.dumps(about | {"results": reports}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
