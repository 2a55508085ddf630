"""`asr score`: error rates of hypotheses against references, whatever system they come from."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.commands import html, options
from asr.types import UsageError

if TYPE_CHECKING:
    from asr.scoring.pairing import TestSet, TextFile
    from asr.scoring.scored import ScoredSet

EXAMPLES = """\
examples:
  asr score ref.trn hyp.trn                              paired by utterance id
  asr score test.jsonl results.jsonl --normalize basic   a manifest and what `asr transcribe --json` printed for it
  asr score hypotheses.jsonl                             rows with text and pred_text, as `asr evaluate -o` writes them
  asr score ref.txt hyp.txt --normalize none,basic       paired line by line, two normalizers side by side
  asr score test.stm hyp.ctm                             words cut to the segments of the stm, as sclite does
  asr score data/test/text decode/text --format kaldi    an id, then the text
  asr score talk.txt talk.srt --normalize basic          subtitles are one text, paired with all lines of a txt

trn and stm may leave a choice of wordings, as for sclite: { a / b c / @ }, @ for no word; the one nearest to the
hypothesis is scored. Braces in other formats are letters.

A reference without a hypothesis counts as an empty hypothesis, a hypothesis without a reference is not scored; both are
counted and named on stderr, and with --strict an error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("reference", metavar="REF", help=f"references: {options.TEXT_FORMATS}; - for stdin")
    parser.add_argument("hypothesis", metavar="HYP", nargs="?", help="hypotheses (default: pred_text of REF's rows)")
    options.add_text_options(parser)
    parser.add_argument("--cer", action="store_true", help="character error rates, too")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="rows per table (default: 10; 0: all)")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON object on stdout")
    html.add_report_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write summary.json, alignments.txt, ref.trn and hyp.trn (with word times hyp.ctm and ref.stm, too) here, "
        "each normalizer but the first in a folder of its own",
    )


def run(args: argparse.Namespace) -> int:
    names = options.normalizer_names(args.normalize)
    if args.limit < 0:
        raise UsageError(f"--limit must be 0 or more, found {args.limit}")
    html.check_report_options(args)
    from asr.scoring.scored import score_set, write_summary

    if args.reference == "-" and args.hypothesis in ("-", None):
        raise UsageError("stdin ('-') can be read only once")
    references = read_references(args)
    if args.hypothesis is None and not references.predicted:
        raise UsageError(f"{args.reference}: no row has 'pred_text': give the file of the hypotheses, too")
    test_set = pair_with(references, args.hypothesis or args.reference, args)
    warnings = list(test_set.warnings)
    if args.strict and warnings:
        raise UsageError(f"--strict: {warnings[0]}")
    sets = [score_set(test_set.references, test_set.hypotheses, name, characters=args.cer) for name in names]
    if args.snr:
        sets = [html.with_estimated_snr(sets[0]), *sets[1:]]
    warnings += sets[0].warnings
    if args.output:
        for number, scored in enumerate(sets):
            folder = args.output if number == 0 else f"{args.output}/{names[number]}"
            warnings += scored.write(folder)
        write_summary(args.output, summary(test_set, sets, warnings))
    if args.html:
        title = " against ".join(
            dict.fromkeys([Path(test_set.hypothesis_path).name, Path(test_set.reference_path).name])
        )
        warnings += html.write(args, sets, title=title, warnings=warnings)
    if args.json:
        print(json.dumps(summary(test_set, sets, warnings), ensure_ascii=False))
    else:
        print(text(test_set, sets, args.limit or None))
    for warning in warnings:
        print(f"asr: warning: {warning}", file=sys.stderr)
    return 0


def read_references(args: argparse.Namespace) -> TextFile:
    """The references, with the speakers that --speakers gives."""
    from asr.scoring.text_files import read_texts, with_speakers

    references = read_texts(args.reference, format=options.text_format(args, 0))
    return with_speakers(references, args.speakers) if args.speakers else references


def pair_with(references: TextFile, hypothesis: str, args: argparse.Namespace) -> TestSet:
    """The references with the hypotheses of a file."""
    from asr.scoring.pairing import pair
    from asr.scoring.text_files import read_texts

    return pair(references, read_texts(hypothesis, hypotheses=True, format=options.text_format(args, 1)))


def summary(test_set: TestSet, sets: list[ScoredSet], warnings: list[str]) -> dict[str, Any]:
    """Everything as JSON-able values."""
    return {
        "reference": test_set.reference_path,
        "hypothesis": test_set.hypothesis_path,
        "utterances": len(test_set.references),
        "missing": list(test_set.missing),
        "extra": list(test_set.extra),
        "scores": [scored.summary() for scored in sets],
        "warnings": warnings,
    }


def text(test_set: TestSet, sets: list[ScoredSet], limit: int | None) -> str:
    """The figures for people: one line per normalizer and unit, then the first normalizer's tables."""
    first = sets[0]
    facts = [f"{len(test_set.references)} utterances", f"{first.words.reference_length} words"]
    if first.speakers:
        facts.append(f"{len(first.speakers)} speakers")
    if test_set.missing:
        facts.append(f"{len(test_set.missing)} without a hypothesis")
    if test_set.extra:
        facts.append(f"{len(test_set.extra)} extra not scored")
    lines = [f"{test_set.hypothesis_path} against {test_set.reference_path}: {', '.join(facts)}", *rate_table(sets), ""]
    lines += [first.sclite_text(limit), "", first.tables(limit)]
    return "\n".join(lines).rstrip()


def rate_table(sets: list[ScoredSet]) -> list[str]:
    """A line per normalizer and unit."""
    from asr.scoring.tables import RATE_HEADER, rate_cells, rates, text_table

    rows = [
        [label, scored.normalizer, *rate_cells(rates(score)), f"{score.sentence_error_rate:.2%}" * (label == "WER")]
        for scored in sets
        for label, score in scored.scores.items()
    ]
    text = text_table(["", "normalizer", "rate", *RATE_HEADER[:-1], "reference", "SER"], rows, left=2)
    return [*text.splitlines(), f"    (intervals: bootstrap over {sets[0].words.interval_units})"]
