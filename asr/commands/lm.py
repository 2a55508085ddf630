"""`asr lm train|convert|info|tune|perplexity`: language models for the beam search, without a compiler."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.commands import options
from asr.files import is_input
from asr.types import UsageError

if TYPE_CHECKING:
    from asr.lm.files import Tuned
    from asr.lm.tables import NGramTables

_LM_HELP = "an ARPA file, plain or gzip, or a binary of asr"
_TEXT_HELP = "text, .gz, a JSONL manifest (its texts), - for stdin"
_OUTPUT_HELP = "output; .lm (binary, opens fastest), .arpa or .arpa.gz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_subcommands(
        parser,
        {
            "train": ("estimate a language model from text", _add_train, _train),
            "convert": ("convert between ARPA and binary, change the case of words, prune", _add_convert, _convert),
            "info": ("describe a language model", _add_info, _info),
            "tune": ("find alpha and beta on a development set", _add_tune, _tune),
            "perplexity": ("measure the perplexity of a language model on text", _add_perplexity, _perplexity),
        },
    )


run = options.run_subcommand


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Estimate an n-gram model with interpolated modified Kneser-Ney smoothing: the probabilities of KenLM's lmplz. "
        "Every line of text is a sentence, including empty ones."
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT", help=_TEXT_HELP)
    parser.add_argument("-o", "--output", required=True, metavar="LM", help=_OUTPUT_HELP)
    parser.add_argument("--order", type=int, default=3, metavar="N", help="words in the longest n-grams (default: 3)")
    rare = "drop n-grams seen at most N times: one number per order, the last one for all higher orders (0 0 1)"
    parser.add_argument("--prune", type=int, nargs="+", default=[], metavar="N", help=rare)
    _add_prune_entropy(parser, "")
    parser.add_argument("--limit-vocab", metavar="FILE", help="drop n-grams with words that are not in this list")
    _add_normalizer(parser)
    fallback = "discounts for counts 1, 2 and 3+ where a text is too small to estimate them (default: 0.5 1 1.5)"
    parser.add_argument("--discount-fallback", type=float, nargs="+", metavar="D", help=fallback)
    parser.add_argument("--force", action="store_true", help="replace LM if it exists")


def _train(args: argparse.Namespace) -> int:
    from asr.lm.estimate import FALLBACK, encode_corpus, estimate, pruning_thresholds, read_sentences
    from asr.lm.prune import prune_entropy
    from asr.lm.tables import LMError

    write = _writer(args.output, args.force)
    fallback: list[float] = args.discount_fallback or list(FALLBACK)
    d1, d2, d3 = (fallback + 2 * fallback[-1:])[:3]
    if len(fallback) > 3 or not (0 <= d1 <= 1 and 0 <= d2 <= 2 and 0 <= d3 <= 3):
        raise UsageError("--discount-fallback takes up to three discounts, at most 1, 2 and 3: for example 0.5 1 1.5")
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
        _warn(f"{corpus.skipped:,} occurrences of <s>, </s> or <unk> in the text were read as white space")
    _say(f"{corpus.sentences:,} sentences, {len(corpus.tokens) - corpus.sentences:,} words; estimating")
    result = estimate(corpus, args.order, prune=args.prune, limit_vocabulary=allowed, fallback=(d1, d2, d3), warn=_warn)
    tables = result.tables
    if args.prune_entropy:
        tables = prune_entropy(tables, args.prune_entropy, corpus)
    write(tables, None)
    print(f"{args.output}: order, n-grams, discounts D1 D2 D3+")
    for k, (count, discounts) in enumerate(zip(tables.counts, result.discounts, strict=False), 1):
        fixed = "  (fixed)" if k in result.fell_back else ""
        print(f"{k}  {count:>12,}  {' '.join(f'{d:.4f}' for d in discounts)}{fixed}")
    return 0


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="LM", help=_LM_HELP)
    parser.add_argument("target", metavar="NEW", help=_OUTPUT_HELP)
    parser.add_argument("--case", choices=["lower", "upper"], help="write the words in this case")
    _add_prune_entropy(parser, "; more exact in `asr lm train`, which has the text")
    parser.add_argument("--force", action="store_true", help="replace NEW if it exists")


def _convert(args: argparse.Namespace) -> int:
    from asr.lm.files import read_tuned
    from asr.lm.ngram import read_ngrams
    from asr.lm.prune import prune_entropy
    from asr.lm.tables import with_case

    write = _writer(args.target, args.force)
    tables = read_ngrams(args.source)
    if args.case:
        tables = with_case(tables, getattr(str, args.case))
    if args.prune_entropy:
        tables = prune_entropy(tables, args.prune_entropy)
    write(tables, read_tuned(args.source))
    return 0


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lm", metavar="LM", help=_LM_HELP)
    parser.add_argument("-m", "--model", metavar="MODEL", help="also report how much of it this model can spell")
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _info(args: argparse.Namespace) -> int:
    from asr.lm.ngram import NGramLM, check_lm, spelled_share, token_level
    from asr.lm.tables import LMError
    from asr.model.checkpoint import read_metadata
    from asr.text.tokenizer import tokenizer_from_dict

    lm = NGramLM.read(args.lm, verify=True)
    values: dict[str, Any] = {
        "path": args.lm,
        "bytes": Path(args.lm).stat().st_size if Path(args.lm).is_file() else None,  # None for a pipe
        "kind": "binary" if lm.binary else "ARPA",
        "order": lm.order,
        "ngrams": list(lm.counts),
        "words": lm.vocab_size,
        "memory_bytes": sum(array.nbytes for array in (*lm.arrays, lm.state_length)),
        "unk_log10": float(lm.arrays.unigram["logp"][0] / math.log(10)),
        "tuned": lm.tuned and {"alpha": lm.tuned.alpha, "beta": lm.tuned.beta, "beam_width": lm.tuned.beam_width},
    }
    if args.model:
        labels = tokenizer_from_dict(read_metadata(args.model)["tokenizer"]).labels
        values["spelled_share"] = spelled_share(lm, labels)
        try:
            values["remarks"] = check_lm(lm, labels)
        except LMError as error:
            values["remarks"] = [str(error)]
    elif level := token_level(lm):
        values["remarks"] = [f"looks like a model of {level}, not of words"]
    print(json.dumps(values, ensure_ascii=False) if args.json else _described(values))
    return 0


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
    return options.labeled([*rows, *(("remark", remark) for remark in values.get("remarks", ()))])


def _add_tune(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find the alpha, beta and beam width with the fewest word errors on a development set. The acoustic model runs "
        "once; its output is kept in a folder. The result is stored beside the language model, where --lm finds it."
    )
    parser.add_argument("manifest", nargs="+", metavar="MANIFEST", help="JSONL manifest of a development set")
    options.add_model_options(parser)
    parser.add_argument("--lm", required=True, metavar="LM", help="language model, ARPA or binary")
    for name, default in (("--alpha", "0:3"), ("--beta", "-1:5")):
        parser.add_argument(name, default=default, metavar="LOW:HIGH", help=f"search bounds (default: {default})")
    parser.add_argument("--beam-width", type=options.positive, metavar="N", help="use this width (default: choose one)")
    parser.add_argument("--lexicon", metavar="FILE", help="allow only these words")
    parser.add_argument("--jobs", type=options.positive, default=1, metavar="N", help="decoding threads (default: 1)")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for trials, plot, emissions (default: LM.tuning)")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")


def _tune(args: argparse.Namespace) -> int:
    alphas, betas = _bounds(args.alpha, "--alpha"), _bounds(args.beta, "--beta")
    if alphas[0] < 0:
        raise UsageError("--alpha must not be negative")
    if is_input(args.lm) and not Path(args.lm).is_file():
        raise UsageError(f"{args.lm}: a pipe; the weights are stored beside the language model, so save it as a file")
    from asr.corpus.manifest import Manifest
    from asr.recognition.tuning import refuse_test_set

    manifest = Manifest.read(args.manifest)
    refuse_test_set(manifest)  # before the model runs
    import asr
    from asr.recognition.outputs import OutputFolder
    from asr.recognition.tuning import table, tune_on_manifest, write_tuning

    folder = Path(args.output or f"{args.lm}.tuning")
    OutputFolder(folder, ())  # report a folder that cannot be created before the work
    recognizer = asr.Recognizer.load(args.model, device=args.device, threads=args.threads)
    with options.progress_bar(args, total=len(manifest), unit="utt") as bar:
        tuning = tune_on_manifest(
            recognizer,
            args.model,
            args.lm,
            manifest,
            folder,
            alphas=alphas,
            betas=betas,
            beam_width=args.beam_width,
            lexicon=args.lexicon,
            jobs=args.jobs,
            batch_seconds=args.batch_seconds,
            on_result=bar.update,
            warn=options.warn,
        )
    write_tuning(tuning, folder, f"{Path(args.lm).name} with {Path(args.model).name}")
    best = tuning.best
    values = {
        "alpha": best.alpha,
        "beta": best.beta,
        "beam_width": best.beam_width,
        "wer": tuning.wer(best),
        "errors": best.errors,
        "reference_words": tuning.reference_words,
        "utterances": tuning.utterances,
        "trials": len(tuning.trials),
    }
    print(json.dumps(values) if args.json else table(tuning))
    _say(f"stored beside {args.lm}; all trials and the surface are in {folder}")
    return 0


def _bounds(text: str, name: str) -> tuple[float, float]:
    """The two numbers of LOW:HIGH."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        raise UsageError(f"{name} takes LOW:HIGH, two numbers, found '{text}'") from None
    if not low < high:
        raise UsageError(f"{name}: {low:g} is not below {high:g}")
    return low, high


def _add_perplexity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lm", metavar="LM", help=_LM_HELP)
    parser.add_argument("texts", nargs="+", metavar="TEXT", help=_TEXT_HELP)
    _add_normalizer(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def _perplexity(args: argparse.Namespace) -> int:
    from asr.lm.estimate import read_sentences
    from asr.lm.ngram import NGramLM, perplexity

    normalize = _normalizer(args)
    result = perplexity(NGramLM.read(args.lm, verify=True), read_sentences(args.texts, normalize))
    if not result.tokens:
        raise UsageError("no text to score: it has no lines")
    values = {
        "perplexity": result.with_unknown,
        "perplexity_without_oov": result.without_unknown,
        "sentences": result.sentences,
        "tokens": result.tokens,
        "oov": result.unknown,
        "oov_rate": result.unknown_rate,
        "log10": result.log10,
    }
    if args.json:
        print(json.dumps({key: value if math.isfinite(value) else None for key, value in values.items()}))
        return 0
    rows = [
        ("perplexity, unknown words counted", f"{result.with_unknown:.2f}"),
        ("perplexity, unknown words left out", f"{result.without_unknown:.2f}"),
        ("unknown words", f"{result.unknown:,} ({result.unknown_rate:.2%})"),
        ("tokens (words and </s>)", f"{result.tokens:,}"),
        ("sentences", f"{result.sentences:,}"),
    ]
    print(options.labeled(rows))
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
            _say(f"deleted {tuned_path(path)}, which belonged to the replaced language model: run `asr lm tune` again")

    return write


def _add_prune_entropy(parser: argparse.ArgumentParser, hint: str) -> None:
    pruned = "drop n-grams whose removal raises the perplexity by less than this fraction, for example 1e-7"
    source = f"(Stolcke 1998, like SRILM's -prune{hint})"
    parser.add_argument("--prune-entropy", type=_share, metavar="T", help=f"{pruned} {source}")


def _share(text: str) -> float:
    """An argparse type: a number in [0, 1)."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to well below 1 (for example 1e-7), found {text}")
    return value


def _add_normalizer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--normalizer", metavar="NAME", help="text normalizer (default: none, the text as it is)")
    group.add_argument("-m", "--model", metavar="MODEL", help="use the normalizer of this model file")


def _normalizer(args: argparse.Namespace) -> Callable[[str], str]:
    from asr.model.checkpoint import read_metadata
    from asr.text.normalize import normalizer

    name = read_metadata(args.model)["normalizer"] if args.model else args.normalizer
    return normalizer(name) if name else str


def _say(message: str) -> None:
    options.say(f"asr lm: {message}")


def _warn(message: str) -> None:
    _say(f"warning: {message}")
