"""`asr score` against sclite and jiwer on hypotheses of real models: every utterance, every speaker's row, the totals.

    python benchmarks/sclite_equality.py NAME=hypotheses.jsonl ... [--output benchmarks/results/sclite_equality.json]

The files are those that `asr evaluate -o` writes. Both programs read the same two trn files, whose ids begin with the
speaker. Needs sclite (Debian: apt-get install sctk). The exit status is 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jiwer

from asr.scoring.pairing import pair
from asr.scoring.scored import ScoredSet, score_set
from asr.scoring.text_files import read_texts, with_speakers
from asr.text.normalize import normalize

COUNTS = r"Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)"


def write_trn(source: Path, folder: Path) -> None:
    """Write ref.trn and hyp.trn, normalized, with ids `SPEAKER-k`."""
    references, hypotheses = [], []
    for k, line in enumerate(source.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        name = re.sub(r"[-_\s]", "", row["speaker"]) + f"-{k}"
        references.append(f"{normalize(row['text'], 'basic')} ({name})\n")
        hypotheses.append(f"{normalize(row['pred_text'], 'basic')} ({name})\n")
    (folder / "ref.trn").write_text("".join(references), encoding="utf-8")
    (folder / "hyp.trn").write_text("".join(hypotheses), encoding="utf-8")


def ours(folder: Path) -> tuple[str, ScoredSet]:
    """What `asr score` prints, and the set it scored."""
    command = [sys.executable, "-m", "asr", "score", "ref.trn", "hyp.trn", "--speakers", "prefix", "--limit", "0"]
    out = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    references = with_speakers(read_texts(str(folder / "ref.trn")), "prefix")
    test_set = pair(references, read_texts(str(folder / "hyp.trn"), hypotheses=True))
    return out, score_set(test_set.references, test_set.hypotheses, "none")


def theirs(folder: Path) -> str:
    """What sclite prints: alignments and percentages."""
    command = ["sctk", "sclite", "-s", "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "spu_id"]
    done = subprocess.run(
        [*command, "-o", "pra", "sum", "stdout"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def rows(text: str) -> dict[str, list[str]]:
    """Name -> sentences, words, Corr, Sub, Del, Ins, Err, S.Err of a summary in sclite's form."""
    found = {}
    for line in text.splitlines():
        cells = re.findall(r"[^\s|]+", line)
        if line.lstrip().startswith("|") and len(cells) == 9 and re.fullmatch(r"\d+", cells[1]):
            found[cells[0]] = cells[1:]
    return found


def measure(source: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_trn(source, folder)
        printed, scored = ours(folder)
        out = theirs(folder)
    found = {m[1]: [int(n) for n in m.groups()[1:]] for m in re.finditer(r"id: \((\S+)\)\n" + COUNTS, out)}
    counts = {line.id: c.tolist() for line, c in zip(scored.lines, scored.sclite_counts, strict=True)}
    a, b = rows(printed), rows(out)
    total = a["Sum/Avg"]
    words = jiwer.process_words(list(scored.references), list(scored.hypotheses))
    return {
        "utterances": len(counts),
        "utterances_that_differ": sorted(k for k in counts | found if counts.get(k) != found.get(k)),
        "speakers": len(a) - 1,
        "rows_that_differ": sorted(k for k in a | b if a.get(k) != b.get(k)),
        "sum": dict(zip(("Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err"), total, strict=True)),
        "sclite_errors": int(scored.sclite_counts[:, 1:].sum()),
        "fewest_errors": scored.words.counts.errors,
        "jiwer_errors": words.substitutions + words.deletions + words.insertions,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("sets", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for item in args.sets:
        name, _, path = item.partition("=")
        results[name] = measure(Path(path))
        print(name, json.dumps(results[name]))
    if args.output:
        from asr.training.record import provenance

        command = "python benchmarks/sclite_equality.py " + " ".join(f"{name}=hypotheses.jsonl" for name in results)
        report = provenance() | {"command": command, "results": results}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    wrong = [r for r in results.values() if r["utterances_that_differ"] or r["rows_that_differ"]]
    return int(bool(wrong) or any(r["fewest_errors"] != r["jiwer_errors"] for r in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
