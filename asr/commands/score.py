"""`asr score`: error rates of hypotheses against references, whatever system they come from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.commands import options, report
from asr.types import UsageError

if TYPE_CHECKING:
    from asr.scoring.pairing import TestSet, TextFile
    from asr.scoring.scored import ScoredSet

TEXT_FORMATS = "trn, stm, ctm, jsonl, json, csv (tsv), kaldi, srt, vtt or txt"

EXAMPLES = """\
examples:
  asr score ref.trn hyp.trn                              paired by utterance id
  asr score test.jsonl results.jsonl --normalize basic   a manifest and what `asr transcribe --json` printed for it
  asr score hypotheses.jsonl                             rows with text and pred_text, as `asr evaluate -o` writes them
  asr score ref.txt hyp.txt --normalize none,basic       paired line by line, with two normalizers
  asr score test.stm hyp.ctm                             words are assigned to the stm's segments, as in sclite
  asr score data/test/text decode/text --format kaldi    an id, then the text, on each line
  asr score talk.txt talk.srt --normalize basic          subtitles as one text, paired with the whole txt

trn and stm files may give alternatives, as for sclite: { a / b c / @ }, where @ stands for no word. The one nearest to
the hypothesis is scored. In other formats braces have no meaning.

A reference without a hypothesis counts as deletions; a hypothesis without a reference is not scored. Both are
counted and named on stderr; with --strict they are an error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("reference", metavar="REF", help=f"references: {TEXT_FORMATS}; - for stdin")
    parser.add_argument("hypothesis", metavar="HYP", nargs="?", help="hypotheses (default: pred_text in REF's rows)")
    add_text_options(parser)
    parser.add_argument("--cer", action="store_true", help="also score characters")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="rows per table (default: 10; 0: all)")
    parser.add_argument("--json", action="store_true", help="all results as one JSON object on stdout")
    report.add_report_options(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write summary.json, alignments.txt, ref.trn, hyp.trn and, if words have times, hyp.ctm and ref.stm to "
        "this folder; each normalizer but the first has a subfolder",
    )


def run(args: argparse.Namespace) -> int:
    names = normalizer_names(args.normalize)
    if args.limit < 0:
        raise UsageError(f"--limit must be 0 or more, found {args.limit}")
    report.check_report_options(args)
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
        sets = [report.with_estimated_snr(sets[0]), *sets[1:]]
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
        warnings += report.write(args, sets, title=title, warnings=warnings)
    if args.json:
        print(json.dumps(summary(test_set, sets, warnings), ensure_ascii=False))
    else:
        print(text(test_set, sets, args.limit or None))
    options.warn(*warnings)
    return 0


def text_format(args: argparse.Namespace, side: int) -> str | None:
    """What --format says of the references (0) or of the hypotheses (1); raises UsageError for more than two."""
    names = (args.format or "").split(",")
    if len(names) > 2:
        raise UsageError(
            f"--format is one format, or two: of the references and of the hypotheses; found '{args.format}'"
        )
    return names[side % len(names)].strip() or None


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """--normalize, --speakers, --format, --strict: how references and hypotheses are read and paired."""
    parser.add_argument(
        "--normalize",
        default="none",
        metavar="N[,N]",
        help="none (default), basic or librispeech, applied to both sides; several are scored side by side. basic and "
        "librispeech leave out annotators' tags ([noise], <unk>, (laughs)); basic@1, librispeech@1 keep them as words",
    )
    parser.add_argument(
        "--speakers",
        metavar="FILE",
        help="manifest or utt2spk file that names the speakers; `prefix`: the start of each id, up to the first - or _",
    )
    parser.add_argument(
        "--format",
        metavar="F[,F]",
        help=f"{TEXT_FORMATS}: of all files, or of references,hypotheses (default: detected)",
    )
    parser.add_argument("--strict", action="store_true", help="treat missing and extra utterances as an error")


def normalizer_names(text: str) -> list[str]:
    """The names of a comma-separated list; raises ConfigError for an unknown one, UsageError for none."""
    from asr.text.normalize import normalizer

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        normalizer(name)
    if not names:
        raise UsageError("no normalizer given (valid: none, basic, librispeech)")
    return names


def read_references(args: argparse.Namespace) -> TextFile:
    """The references, with the speakers that --speakers gives."""
    from asr.scoring.text_files import read_texts, with_speakers

    references = read_texts(args.reference, format=text_format(args, 0))
    return with_speakers(references, args.speakers) if args.speakers else references


def pair_with(references: TextFile, hypothesis: str, args: argparse.Namespace) -> TestSet:
    """The references with the hypotheses of a file."""
    from asr.scoring.pairing import pair
    from asr.scoring.text_files import read_texts

    return pair(references, read_texts(hypothesis, hypotheses=True, format=text_format(args, 1)))


def summary(test_set: TestSet, sets: list[ScoredSet], warnings: list[str]) -> dict[str, Any]:
    """All results as JSON-able values."""
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
    """The results as text: one line per normalizer and unit, then the tables of the first normalizer."""
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
