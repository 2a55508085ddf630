"""`asr compare`: a paired test of whether one system is better than another."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from asr.commands import options
from asr.commands.score import TEXT_FORMATS, add_text_options, normalizer_names, pair_with, read_references
from asr.types import UsageError

if TYPE_CHECKING:
    from asr.scoring.comparison import Comparison
    from asr.scoring.edits import Unit
    from asr.scoring.pairing import TestSet

EXAMPLES = """\
examples:
  asr compare ref.trn greedy.trn beam.trn
  asr compare test.jsonl a/hypotheses.jsonl b/hypotheses.jsonl --normalize basic

The 95 % interval and the first p-value come from a paired bootstrap over speakers or, unless every utterance has a
speaker, over utterances. The second p-value is that of the matched-pairs test on sentence segments (NIST's MAPSSWE).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("reference", metavar="REF", help=f"references: {TEXT_FORMATS}; - for stdin")
    parser.add_argument("hypothesis_a", metavar="HYP_A", help="hypotheses of system A")
    parser.add_argument("hypothesis_b", metavar="HYP_B", help="hypotheses of system B")
    add_text_options(parser)
    parser.add_argument("--cer", action="store_true", help="compare character error rates instead of words")
    parser.add_argument(
        "--limit",
        type=int,
        default=5,
        metavar="N",
        help="utterances shown where B is better, and worse (default: 5; 0: all)",
    )
    parser.add_argument("--json", action="store_true", help="all results as one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    names = normalizer_names(args.normalize)
    if args.limit < 0:
        raise UsageError(f"--limit must be 0 or more, found {args.limit}")
    if [args.reference, args.hypothesis_a, args.hypothesis_b].count("-") > 1:
        raise UsageError("stdin ('-') can be read only once")
    from asr.scoring.comparison import compare
    from asr.scoring.pairing import TextFileError
    from asr.scoring.scored import normalized_pairs
    from asr.text.normalize import tag_warnings, versioned

    references = read_references(args)
    sets = [pair_with(references, args.hypothesis_a, args), pair_with(references, args.hypothesis_b, args)]
    lines = sets[0].references
    if [line.id for line in lines] != [line.id for line in sets[1].references]:
        raise TextFileError(f"{args.reference}: paired by other ids with A than with B: give both in one format")
    warnings = [warning for test_set in sets for warning in test_set.warnings]
    if args.strict and warnings:
        raise UsageError(f"--strict: {warnings[0]}")
    sides = [(references.lines, "the references"), (sets[0].hypotheses, "A's hypotheses")]
    for side, what in [*sides, (sets[1].hypotheses, "B's hypotheses")]:
        warnings += tag_warnings(((line.id, line.text or "") for line in side), what, names[0])
    speakers = [line.speaker for line in lines]
    unit: Unit = "char" if args.cer else "word"
    results: list[tuple[str, Comparison]] = []
    for name in names:
        (ours, a), (others, b) = (normalized_pairs(lines, test_set.hypotheses, name) for test_set in sets)
        known = speakers if any(speakers) else ()
        results.append((versioned(name), compare(ours, a, b, unit, speakers=known, references_b=others)))
    if args.json:
        print(json.dumps(summary(sets, results, warnings), ensure_ascii=False))
    else:
        print(text(sets, results, args.limit or None))
    options.warn(*warnings)
    return 0


def summary(sets: list[TestSet], results: list[tuple[str, Comparison]], warnings: list[str]) -> dict[str, Any]:
    """All results as JSON-able values; the `gain` of an utterance is how many fewer errors B makes in it than A."""
    from asr.scoring.tables import rates

    lines = sets[0].references
    comparisons = []
    for name, result in results:
        gains = {line.id: int(gain) for line, gain in zip(lines, result.gains, strict=True) if gain}
        comparisons.append(
            {"normalizer": name, "unit": result.a.unit, "a": rates(result.a), "b": rates(result.b)}
            | result.summary()
            | {"gains": gains}
        )
    return {
        "reference": sets[0].reference_path,
        "hypothesis_a": sets[0].hypothesis_path,
        "hypothesis_b": sets[1].hypothesis_path,
        "utterances": len(lines),
        "missing_a": list(sets[0].missing),
        "missing_b": list(sets[1].missing),
        "comparisons": comparisons,
        "warnings": warnings,
    }


def text(sets: list[TestSet], results: list[tuple[str, Comparison]], limit: int | None) -> str:
    """The results as text: rates and verdict per normalizer, then where B wins and loses under the first one."""
    from asr.scoring.comparison import p_text
    from asr.scoring.tables import rate_line

    first = results[0][1]
    lines = [
        f"A {sets[0].hypothesis_path}, B {sets[1].hypothesis_path} against {sets[0].reference_path}: "
        f"{len(sets[0].references)} utterances"
    ]
    for name, result in results:
        label = "WER" if result.a.unit == "word" else "CER"
        lines += [f"normalizer {name}", f"  A {rate_line(label, result.a)}", f"  B {rate_line(label, result.b)}"]
        lines.append(f"  {result.verdict()}")
        matched = result.matched
        second = f"; matched pairs of {matched.segments} segments: {p_text(matched.p)}" if matched else ""
        lines.append(f"  paired bootstrap over {result.interval_units}{second}")
    gains = first.gains
    wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
    lines.append(f"B has fewer errors in {wins} utterances, more in {losses}, as many in {len(gains) - wins - losses}")
    lines += _utterances("B wins", sets, gains, limit)
    lines += _utterances("B loses", sets, -gains, limit)
    return "\n".join(lines)


def _utterances(title: str, sets: list[TestSet], gains: Any, limit: int | None) -> list[str]:
    order = sorted((i for i in range(len(gains)) if gains[i] > 0), key=lambda i: (-gains[i], i))
    lines = []
    for i in order[:limit]:
        lines += [
            f"\n{title} {sets[0].references[i].id} by {gains[i]}",
            f"  REF {sets[0].references[i].text}",
            f"  A   {sets[0].hypotheses[i].text or ''}".rstrip(),
            f"  B   {sets[1].hypotheses[i].text or ''}".rstrip(),
        ]
    if len(order) > len(order[:limit]):
        lines.append(f"... and {len(order) - len(order[:limit])} more utterances that {title} (--limit)")
    return lines
