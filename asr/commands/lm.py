"""`asr lm train|convert|info|tune|perplexity`: language models for the beam search, without a compiler."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.commands import lm_tune, options
from asr.types import UsageError

if TYPE_CHECKING:
    from asr.lm.estimate import Estimate
    from asr.lm.files import Tuned
    from asr.lm.ngram import NGramLM
    from asr.lm.tables import NGramTables

_LM_HELP = "an ARPA file, plain or gzip, or a binary of asr"
_TEXT_HELP = "text, .gz, a JSONL manifest (its texts), - for stdin"
_OUTPUT_HELP = "output; .lm (binary, opens fastest), .arpa or .arpa.gz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_subcommands(
        parser,
        {
            "train": ("estimate a language model from text", _add_train, _train),
            "convert": ("convert between ARPA and binary, change the case of the words, prune", _add_convert, _convert),
            "info": ("describe a language model", _add_info, _info),
            "tune": ("find alpha and beta on a development set", lm_tune.add_arguments, lm_tune.run),
            "perplexity": ("measure the perplexity of a language model on text", _add_perplexity, _perplexity),
        },
    )


def run(args: argparse.Namespace) -> int:
    status: int = args.run_subcommand(args)
    return status


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Estimate an n-gram model with interpolated modified Kneser-Ney smoothing: the probabilities of KenLM's lmplz. "
        "Every line of text is a sentence, even an empty one."
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT", help=_TEXT_HELP)
    parser.add_argument("-o", "--output", required=True, metavar="LM", help=_OUTPUT_HELP)
    parser.add_argument("--order", type=int, default=3, metavar="N", help="words of the longest n-grams (default: 3)")
    parser.add_argument(
        "--prune",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="leave out n-grams seen at most N times: a number per order, the last one for all higher orders (0 0 1)",
    )
    _add_prune_entropy(parser, "")
    parser.add_argument("--limit-vocab", metavar="FILE", help="leave out n-grams with words not in this list")
    _add_normalizer(parser)
    parser.add_argument(
        "--discount-fallback",
        type=float,
        nargs="+",
        metavar="D",
        help="discounts for counts 1, 2 and more where a small text determines none (default: 0.5 1 1.5)",
    )
    parser.add_argument("--force", action="store_true", help="replace LM if it exists")


def _train(args: argparse.Namespace) -> int:
    from asr.lm.estimate import encode_corpus, estimate, pruning_thresholds, read_sentences
    from asr.lm.tables import LMError

    write = _writer(args.output, args.force)
    fallback = _fallback(args.discount_fallback)
    try:
        pruning_thresholds(args.prune, args.order)  # before the text is read
    except LMError as error:
        raise UsageError(str(error)) from None
    allowed = None
    if args.limit_vocab:
        allowed = frozenset(word for line in read_sentences([args.limit_vocab]) for word in line.split())
    normalize = _normalizer(args)
    _say("reading the text")
    corpus = encode_corpus(read_sentences(args.texts, normalize))
    if corpus.skipped:
        _warn(f"{corpus.skipped:,} occurrences of <s>, </s> or <unk> in the text, read as white space")
    _say(f"{corpus.sentences:,} sentences, {len(corpus.tokens) - corpus.sentences:,} words; estimating")
    result = estimate(
        corpus,
        args.order,
        prune=args.prune,
        limit_vocabulary=allowed,
        fallback=fallback,
        warn=_warn,
    )
    if args.prune_entropy:
        from asr.lm.prune import prune_entropy

        result = replace(result, tables=prune_entropy(result.tables, args.prune_entropy, corpus))
    write(result.tables, None)
    print(_statistics(args.output, result))
    return 0


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="LM", help=_LM_HELP)
    parser.add_argument("target", metavar="NEW", help=_OUTPUT_HELP)
    parser.add_argument("--case", choices=["lower", "upper"], help="write the words in this case")
    _add_prune_entropy(parser, "; better done by `asr lm train`, which has the text")
    parser.add_argument("--force", action="store_true", help="replace NEW if it exists")


def _convert(args: argparse.Namespace) -> int:
    from asr.lm.files import read_tuned
    from asr.lm.ngram import read_ngrams
    from asr.lm.tables import with_case

    write = _writer(args.target, args.force)
    tables = read_ngrams(args.source)
    if args.case:
        tables = with_case(tables, getattr(str, args.case))
    if args.prune_entropy:
        from asr.lm.prune import prune_entropy

        tables = prune_entropy(tables, args.prune_entropy)
    write(tables, read_tuned(args.source))
    return 0


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lm", metavar="LM", help=_LM_HELP)
    parser.add_argument("-m", "--model", metavar="MODEL", help="also say how much of it this model can spell")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _info(args: argparse.Namespace) -> int:
    from asr.lm.check import token_level
    from asr.lm.ngram import NGramLM

    lm = NGramLM.read(args.lm, verify=True)
    values: dict[str, Any] = {
        "path": args.lm,
        "bytes": Path(args.lm).stat().st_size if Path(args.lm).is_file() else None,  # None: of a pipe
        "kind": "binary" if lm.binary else "ARPA",
        "order": lm.order,
        "ngrams": list(lm.counts),
        "words": lm.vocab_size,
        "memory_bytes": sum(array.nbytes for array in (*lm.arrays, lm.state_length)),
        "unk_log10": float(lm.arrays.unigram["logp"][0] / math.log(10)),
        "tuned": lm.tuned and {"alpha": lm.tuned.alpha, "beta": lm.tuned.beta, "beam_width": lm.tuned.beam_width},
    }
    if args.model:
        values |= _fit(lm, args.model)
    elif level := token_level(lm):
        values["remarks"] = [f"looks like a model of {level}, not of words"]
    print(json.dumps(values, ensure_ascii=False) if args.json else _described(values))
    return 0


def _add_perplexity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lm", metavar="LM", help=_LM_HELP)
    parser.add_argument("texts", nargs="+", metavar="TEXT", help=_TEXT_HELP)
    _add_normalizer(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _perplexity(args: argparse.Namespace) -> int:
    from asr.lm.estimate import read_sentences
    from asr.lm.ngram import NGramLM, perplexity

    normalize = _normalizer(args)
    found = perplexity(NGramLM.read(args.lm, verify=True), read_sentences(args.texts, normalize))
    if not found.tokens:
        raise UsageError("no text to score: not a single line")
    if args.json:
        values = {
            "perplexity": found.with_unknown,
            "perplexity_without_oov": found.without_unknown,
            "sentences": found.sentences,
            "tokens": found.tokens,
            "oov": found.unknown,
            "oov_rate": found.unknown_rate,
            "log10": found.log10,
        }
        print(json.dumps({key: None if v != v or v in (math.inf,) else v for key, v in values.items()}))
        return 0
    print(
        f"perplexity, unknown words counted   {found.with_unknown:.2f}\n"
        f"perplexity, unknown words left out  {found.without_unknown:.2f}\n"
        f"unknown words                       {found.unknown:,} ({found.unknown_rate:.2%})\n"
        f"tokens (words and </s>)             {found.tokens:,}\n"
        f"sentences                           {found.sentences:,}"
    )
    return 0


def _writer(path: str, force: bool) -> Callable[[NGramTables, Tuned | None], None]:
    """A function that writes a model and its tuned weights to `path`, which is checked here, before any work."""
    name = path.lower()
    if not name.endswith((".lm", ".arpa", ".arpa.gz")):
        raise UsageError(f"{path}: the name of a language model ends in .lm, .arpa or .arpa.gz")
    options.refuse_existing(path, force)

    def write(tables: NGramTables, tuned: Tuned | None) -> None:
        from asr.lm.arpa import write_arpa
        from asr.lm.files import tuned_path, write_tuned
        from asr.lm.ngram import NGramLM

        if name.endswith(".lm"):
            NGramLM.from_tables(tables).write_binary(path)
        else:
            write_arpa(path, tables)
        if tuned is not None:
            write_tuned(path, tuned)
        elif tuned_path(path).exists():
            tuned_path(path).unlink()
            _say(f"{tuned_path(path)} belonged to the replaced language model and is deleted: run `asr lm tune` again")

    return write


def _add_prune_entropy(parser: argparse.ArgumentParser, hint: str) -> None:
    parser.add_argument(
        "--prune-entropy",
        type=_share,
        metavar="T",
        help="leave out n-grams whose loss raises the perplexity by less than this share, for example 1e-7 (Stolcke "
        f"1998, as SRILM's -prune{hint})",
    )


def _share(text: str) -> float:
    """For argparse: a number in [0, 1)."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to well below 1 (for example 1e-7), found {text}")
    return value


def _add_normalizer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--normalizer", metavar="NAME", help="text normalizer (default: none, the text as it is)")
    group.add_argument("-m", "--model", metavar="MODEL", help="normalize as for this model file")


def _normalizer(args: argparse.Namespace) -> Callable[[str], str]:
    from asr.text.normalize import normalizer

    if args.model:
        from asr.model.checkpoint import read_metadata

        return normalizer(read_metadata(args.model)["normalizer"])
    return normalizer(args.normalizer) if args.normalizer else str


def _fallback(given: list[float] | None) -> tuple[float, float, float]:
    from asr.lm.estimate import FALLBACK

    if given is None:
        return FALLBACK
    values = given[:3] + [given[-1]] * (3 - len(given))
    if len(given) > 3 or any(not 0 <= d <= j for j, d in enumerate(values, 1)):
        raise UsageError("--discount-fallback takes up to three discounts, at most 1, 2 and 3: for example 0.5 1 1.5")
    return values[0], values[1], values[2]


def _fit(lm: NGramLM, model: str) -> dict[str, Any]:
    """How much of a language model a model can spell, and what does not fit."""
    from asr.lm.check import check_lm, spelled_share
    from asr.lm.tables import LMError
    from asr.model.checkpoint import read_metadata
    from asr.text.tokenizer import tokenizer_from_dict

    labels = tokenizer_from_dict(read_metadata(model)["tokenizer"]).labels
    try:
        remarks = check_lm(lm, labels)
    except LMError as error:
        remarks = [str(error)]
    return {"spelled_share": spelled_share(lm, labels), "remarks": remarks}


def _statistics(path: str, result: Estimate) -> str:
    lines = [f"{path}: order, n-grams, discounts D1 D2 D3+"]
    for k, (count, discounts) in enumerate(zip(result.tables.counts, result.discounts, strict=True), 1):
        fixed = "  (fixed)" if k in result.fell_back else ""
        lines.append(f"{k}  {count:>12,}  " + " ".join(f"{d:.4f}" for d in discounts) + fixed)
    return "\n".join(lines)


def _described(values: dict[str, Any]) -> str:
    size = f"{values['bytes'] / 1e6:.1f} MB, " if values["bytes"] is not None else ""
    rows = [
        ("file", f"{values['path']} ({size}{values['kind']})"),
        ("order", str(values["order"])),
        ("n-grams", " + ".join(f"{n:,}" for n in values["ngrams"])),
        ("words", f"{values['words']:,} with <unk>, <s> and </s>"),
        ("in memory", f"{values['memory_bytes'] / 1e6:.1f} MB"),
        ("<unk>", f"log10 p = {values['unk_log10']:.4f}"),
    ]
    if values["tuned"]:
        rows.append(("tuned", ", ".join(f"{key} {v:g}" for key, v in values["tuned"].items() if v is not None)))
    if "spelled_share" in values:
        rows.append(("can be spelled", f"{values['spelled_share']:.1%} of the words, by probability"))
    rows += [("remark", remark) for remark in values.get("remarks", ())]
    return options.labeled(rows)


def _say(message: str) -> None:
    options.say(f"asr lm: {message}")


def _warn(message: str) -> None:
    _say(f"warning: {message}")
