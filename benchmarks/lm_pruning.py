"""Size against perplexity of a language model made smaller: entropy pruning beside count cut-offs.

    python benchmarks/lm_pruning.py [TRAIN TEST] [--order 3] [--output benchmarks/results/lm_pruning.json]

TRAIN and TEST are texts with a sentence a line; without them they are drawn from benchmarks/synthetic_emissions.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synthetic_emissions import TextSource

from asr.lm.estimate import encode_corpus, estimate, read_sentences
from asr.lm.ngram import NGramLM, perplexity
from asr.lm.prune import prune_entropy
from asr.lm.tables import NGramTables

THRESHOLDS = (1e-8, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5)


def row(name: str, model: NGramTables, test: Sequence[str], seconds: float) -> dict[str, Any]:
    """N-grams, megabytes of the binary, perplexity with unknown words."""
    lm = NGramLM.from_tables(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.lm"
        lm.write_binary(path)
        size = path.stat().st_size / 1e6
    found = perplexity(lm, test).with_unknown
    print(f"{name:28s} {sum(model.counts):>12,} {size:9.1f} {found:11.2f} {seconds:8.1f}")
    return {"name": name, "ngrams": model.counts, "megabytes": size, "perplexity": found, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("texts", nargs="*", metavar="TRAIN TEST")
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if len(args.texts) not in (0, 2):
        parser.error("give both TRAIN and TEST, or neither")
    if args.texts:
        train, test = (list(read_sentences([path])) for path in args.texts)
    else:
        source = TextSource(5000)
        train, test = source.sentences(80_000, 1), source.sentences(2000, 2)
    corpus = encode_corpus(train)
    print(f"{corpus.sentences:,} sentences, {len(corpus.tokens) - corpus.sentences:,} words; order {args.order}")
    print(f"{'':28s} {'n-grams':>12s} {'binary MB':>9s} {'perplexity':>11s} {'seconds':>8s}")
    rows = []

    def timed(name: str, make: Any) -> NGramTables:
        started = time.process_time()
        model: NGramTables = make()
        rows.append(row(name, model, test, time.process_time() - started))
        return model

    full = timed("all n-grams", lambda: estimate(corpus, args.order).tables)
    for cut_off in ([0, 0, 1], [0, 1], [0, 2]):
        name = f"--prune {' '.join(map(str, cut_off))}"
        timed(name, lambda cut_off=cut_off: estimate(corpus, args.order, prune=cut_off).tables)
    for threshold in THRESHOLDS:
        timed(f"--prune-entropy {threshold:.0e}", lambda t=threshold: prune_entropy(full, t, corpus))
    for threshold in THRESHOLDS[1::2]:
        timed(f"convert --prune-entropy {threshold:.0e}", lambda t=threshold: prune_entropy(full, t))
    if args.output:
        from asr.training.record import provenance

        args.output.parent.mkdir(parents=True, exist_ok=True)
        text = {"sentences": corpus.sentences, "words": len(corpus.tokens) - corpus.sentences, "order": args.order}
        args.output.write_text(json.dumps(provenance() | {"text": text, "results": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
