"""`asr score` and `asr compare`: error rates of any system's hypotheses, and whether one system is better."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.commands import classification, options, report_options
from asr.types import UsageError

if TYPE_CHECKING:
    from asr.scoring.comparison import Comparison
    from asr.scoring.pairing import TestSet
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

trn and stm files may give alternatives, as in sclite: { a / b c / @ }, where @ stands for no word. The one closest to
the hypothesis is scored. In other formats, braces have no meaning.

A reference without a hypothesis counts as deletions; a hypothesis without a reference is not scored. Both are
counted and named on stderr; with --strict they are an error.
"""

COMPARE_EXAMPLES = """\
examples:
  asr compare ref.trn greedy.trn beam.trn
  asr compare test.jsonl a/hypotheses.jsonl b/hypotheses.jsonl --normalize basic
  asr compare test.jsonl a/predictions.jsonl b/predictions.jsonl   two classifiers, as `asr evaluate -o` writes them

The 95 % interval and the first p-value come from a paired bootstrap over speakers or, unless every utterance has a
speaker, over utterances. The second p-value is that of the matched-pairs test on sentence segments (NIST's MAPSSWE).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("reference", metavar="REF", help=f"references: {TEXT_FORMATS}; - for stdin")
    parser.add_argument("hypothesis", metavar="HYP", nargs="?", help="hypotheses (default: pred_text in REF's rows)")
    _add_text_options(parser)
    parser.add_argument("--cer", action="store_true", help="also score characters")
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="rows per table (default: 10; 0: all)")
    parser.add_argument("--json", action="store_true", help="all results as one JSON object on stdout")
    report_options.add_report_options(parser)
    written = (
        "write summary.json, alignments.txt, ref.trn, hyp.trn and, if words have times, hyp.ctm and ref.stm to this "
        "folder; each normalizer but the first has a subfolder"
    )
    parser.add_argument("-o", "--output", metavar="DIR", help=written)


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = COMPARE_EXAMPLES
    parser.add_argument("reference", metavar="REF", help=f"references: {TEXT_FORMATS}; - for stdin")
    parser.add_argument("hypothesis_a", metavar="HYP_A", help="hypotheses of system A")
    parser.add_argument("hypothesis_b", metavar="HYP_B", help="hypotheses of system B")
    _add_text_options(parser)
    parser.add_argument("--cer", action="store_true", help="compare character error rates instead of words")
    shown = "utterances shown where B is better, and worse (default: 5; 0: all)"
    parser.add_argument("--limit", type=int, default=5, metavar="N", help=shown)
    parser.add_argument("--json", action="store_true", help="all results as one JSON object on stdout")


def _add_text_options(parser: argparse.ArgumentParser) -> None:
    """--normalize, --speakers, --format, --strict: how references and hypotheses are read and paired."""
    parser.add_argument(
        "--normalize",
        default="none",
        metavar="N[,N]",
        help="none (default), basic or librispeech, applied to both sides; several are scored side by side. basic and "
        "librispeech leave out annotators' tags ([noise], <unk>, (laughs)); basic@1, librispeech@1 keep them as words",
    )
    named = "manifest or utt2spk file that names the speakers, or `prefix`: the part of each id before the first - or _"
    parser.add_argument("--speakers", metavar="FILE", help=named)
    detected = f"{TEXT_FORMATS}: one for all files, or two for references,hypotheses (default: detected)"
    parser.add_argument("--format", metavar="F[,F]", help=detected)
    parser.add_argument("--strict", action="store_true", help="treat missing and extra utterances as an error")


def run(args: argparse.Namespace) -> int:
    report_options.check_report_options(args)
    names, [test_set], warnings = _read(args, [args.hypothesis])
    from asr.scoring.scored import score_set, write_summary

    sets = [score_set(test_set.references, test_set.hypotheses, name, characters=args.cer) for name in names]
    if args.snr:
        sets = [report_options.with_estimated_snr(sets[0]), *sets[1:]]
    warnings += sets[0].warnings
    if args.output:
        for name, scored in zip(names, sets, strict=True):
            warnings += scored.write(args.output if scored is sets[0] else f"{args.output}/{name}")
        write_summary(args.output, _summary(test_set, sets, warnings))
    if args.html:
        files = dict.fromkeys([Path(test_set.hypothesis_path).name, Path(test_set.reference_path).name])
        warnings += report_options.write_html(args, sets, title=" against ".join(files), warnings=warnings)
    if args.json:
        print(json.dumps(_summary(test_set, sets, warnings), ensure_ascii=False))
    else:
        print(_text(test_set, sets, args.limit or None))
    options.warn(*warnings)
    return 0


def run_compare(args: argparse.Namespace) -> int:
    if any(map(classification.has_labels, (args.hypothesis_a, args.hypothesis_b))):
        return classification.run_compare(args)
    names, sets, warnings = _read(args, [args.hypothesis_a, args.hypothesis_b])
    from asr.scoring.comparison import compare
    from asr.scoring.pairing import TextFileError
    from asr.scoring.scored import normalized_pairs
    from asr.text.normalize import tag_warnings, versioned

    lines = sets[0].references
    if [line.id for line in lines] != [line.id for line in sets[1].references]:
        raise TextFileError(f"{args.reference}: A and B pair by different ids: give both in the same format")
    sides = [(lines, "the references"), (sets[0].hypotheses, "A's hypotheses")]
    for side, name in [*sides, (sets[1].hypotheses, "B's hypotheses")]:
        warnings += tag_warnings(((line.id, line.text or "") for line in side), name, names[0])
    speakers = [line.speaker for line in lines]
    results: list[tuple[str, Comparison]] = []
    for name in names:
        (references_a, a), (references_b, b) = (normalized_pairs(lines, test_set.hypotheses, name) for test_set in sets)
        known = speakers if any(speakers) else ()
        result = compare(references_a, a, b, "char" if args.cer else "word", speakers=known, references_b=references_b)
        results.append((versioned(name), result))
    if args.json:
        print(json.dumps(_compared_summary(sets, results, warnings), ensure_ascii=False))
    else:
        print(_compared_text(sets, results, args.limit or None))
    options.warn(*warnings)
    return 0


def _read(args: argparse.Namespace, paths: list[str | None]) -> tuple[list[str], list[TestSet], list[str]]:
    """The normalizers, the references paired with each file of hypotheses, and warnings.

    A path that is None stands for the predictions in the rows of the references. Raises UsageError for options that
    contradict each other, ConfigError for an unknown normalizer.
    """
    from asr.scoring.pairing import pair
    from asr.scoring.text_files import read_texts, with_speakers
    from asr.text.normalize import normalizer

    names = list(dict.fromkeys(name.strip() for name in args.normalize.split(",") if name.strip()))
    for name in names:
        normalizer(name)
    if not names:
        raise UsageError("no normalizer given (valid: none, basic, librispeech)")
    if args.limit < 0:
        raise UsageError(f"--limit must be 0 or more, found {args.limit}")
    if [args.reference, *(path or args.reference for path in paths)].count("-") > 1:
        raise UsageError("stdin ('-') can be read only once")
    formats = (args.format or "").split(",")
    if len(formats) > 2:
        raise UsageError(f"--format takes one format, or two: references,hypotheses; found '{args.format}'")
    references = read_texts(args.reference, format=formats[0].strip() or None)
    if args.speakers:
        references = with_speakers(references, args.speakers)
    if None in paths and not references.predicted:
        raise UsageError(f"{args.reference}: no row has 'pred_text': give a file of hypotheses as well")
    sets = []
    for path in paths:
        hypotheses = read_texts(path or args.reference, hypotheses=True, format=formats[-1].strip() or None)
        sets.append(pair(references, hypotheses))
    warnings = [warning for test_set in sets for warning in test_set.warnings]
    if args.strict and warnings:
        raise UsageError(f"--strict: {warnings[0]}")
    return names, sets, warnings


def _summary(test_set: TestSet, sets: list[ScoredSet], warnings: list[str]) -> dict[str, Any]:
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


def _text(test_set: TestSet, sets: list[ScoredSet], limit: int | None) -> str:
    """The results as text: one line per normalizer and unit, then the tables of the first normalizer."""
    from asr.scoring.breakdown import RATE_HEADER, rate_cells, rates, text_table

    first = sets[0]
    facts = [f"{len(test_set.references)} utterances", f"{first.words.reference_length} words"]
    facts += [f"{len(first.speakers)} speakers"] if first.speakers else []
    facts += [f"{len(test_set.missing)} without a hypothesis"] if test_set.missing else []
    facts += [f"{len(test_set.extra)} extra not scored"] if test_set.extra else []
    rows = [
        [label, scored.normalizer, *rate_cells(rates(score)), f"{score.sentence_error_rate:.2%}" * (label == "WER")]
        for scored in sets
        for label, score in scored.scores.items()
    ]
    lines = [
        f"{test_set.hypothesis_path} against {test_set.reference_path}: {', '.join(facts)}",
        text_table(["", "normalizer", "rate", *RATE_HEADER[:-1], "reference", "SER"], rows, left=2),
        f"    (intervals: bootstrap over {first.words.interval_units})",
        *([first.speaker_spread.text()] if first.speaker_spread else []),
    ]
    return "\n".join([*lines, "", first.sclite_text(limit), "", first.tables(limit)]).rstrip()


def _compared_summary(
    sets: list[TestSet], results: list[tuple[str, Comparison]], warnings: list[str]
) -> dict[str, Any]:
    """All results as JSON-able values; the gain of an utterance is how many fewer errors B makes in it than A."""
    from asr.scoring.breakdown import rates

    a, b = sets
    comparisons = []
    for name, result in results:
        gains = {line.id: int(gain) for line, gain in zip(a.references, result.gains, strict=True) if gain}
        both = {"normalizer": name, "unit": result.a.unit, "a": rates(result.a), "b": rates(result.b)}
        comparisons.append(both | result.summary() | {"gains": gains})
    return {
        "reference": a.reference_path,
        "hypothesis_a": a.hypothesis_path,
        "hypothesis_b": b.hypothesis_path,
        "utterances": len(a.references),
        "missing_a": list(a.missing),
        "missing_b": list(b.missing),
        "comparisons": comparisons,
        "warnings": warnings,
    }


def _compared_text(sets: list[TestSet], results: list[tuple[str, Comparison]], limit: int | None) -> str:
    """The results as text: rates and verdict per normalizer, then where B wins and loses under the first one."""
    from asr.scoring.breakdown import rate_line
    from asr.scoring.comparison import p_text

    a, b = sets
    paths = f"A {a.hypothesis_path}, B {b.hypothesis_path} against {a.reference_path}"
    lines = [f"{paths}: {len(a.references)} utterances"]
    for name, result in results:
        label = "WER" if result.a.unit == "word" else "CER"
        lines += [f"normalizer {name}", f"  A {rate_line(label, result.a)}", f"  B {rate_line(label, result.b)}"]
        matched = result.matched
        second = f"; matched pairs of {matched.segments} segments: {p_text(matched.p)}" if matched else ""
        lines += [f"  {result.verdict()}", f"  paired bootstrap over {result.interval_units}{second}"]
    gains = results[0][1].gains
    wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
    ties = len(gains) - wins - losses
    lines.append(f"B has fewer errors in {wins} utterances, more in {losses}, equally many in {ties}")
    for title, gained in (("B wins", gains), ("B loses", -gains)):
        order = sorted((i for i in range(len(gained)) if gained[i] > 0), key=lambda i: (-gained[i], i))
        for i in order[:limit]:
            texts = (("REF", a.references[i]), ("A  ", a.hypotheses[i]), ("B  ", b.hypotheses[i]))
            lines.append(f"\n{title} {a.references[i].id} by {gained[i]}")
            lines += [f"  {name} {line.text or ''}".rstrip() for name, line in texts]
        if limit is not None and len(order) > limit:
            lines.append(f"... and {len(order) - limit} more utterances that {title} (--limit)")
    return "\n".join(lines)
