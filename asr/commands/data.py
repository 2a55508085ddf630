"""`asr data check|stats|init|convert|shard`: problems in a corpus, totals, sets and settings, formats, tar files."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.commands import options
from asr.types import UsageError

if TYPE_CHECKING:
    from asr.corpus.audit import Audit, Target
    from asr.corpus.manifest import Manifest
    from asr.training.config import TrainConfig

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_subcommands(
        parser,
        {
            "check": ("find problems, by utterance id; exit status 1 if there are any", _add_check, _check),
            "stats": ("hours, durations, speakers, words, characters", _add_stats, _stats),
            "init": ("split your own recordings by speaker and write a recipe that suits them", _add_init, _init),
            "convert": ("Kaldi, CSV, TSV <-> JSONL; LibriSpeech, Common Voice -> JSONL", _add_convert, _convert),
            "shard": ("pack audio and transcripts into tar files for sequential reading", _add_shard, _shard),
        },
    )


run = options.run_subcommand


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Find unreadable audio, transcripts that cannot be learned, duplicates, outliers and, given several "
        "manifests, utterances that occur in more than one. Exit status 0: no problems, 1: problems."
    )
    parser.add_argument("manifests", nargs="*", metavar="MANIFEST")
    parser.add_argument("--train", action="append", default=[], metavar="MANIFEST", help="a training set")
    parser.add_argument("--test", action="append", default=[], metavar="MANIFEST", help="a dev or test set")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--model", metavar="MODEL", help="check spelling and lengths for this model")
    tokenizer = "check spelling and lengths for this tokenizer and the default model"
    target.add_argument("--tokenizer", metavar="FILE", help=tokenizer)
    recipe = "check spelling and lengths for this recipe; MANIFEST defaults to its sets"
    target.add_argument("--config", metavar="RECIPE.yaml", help=recipe)
    normalizer = "text normalizer (default: that of the model or recipe, else none)"
    parser.add_argument("--normalizer", metavar="NAME", help=normalizer)
    parser.add_argument("--read", action="store_true", help="decode all audio, not only the headers")
    parser.add_argument("--json", action="store_true", help="all results as JSON")
    shown = f"ids to show per kind of problem (default: {_SHOWN})"
    parser.add_argument("--limit", type=int, default=_SHOWN, metavar="N", help=shown)
    parser.add_argument("-o", "--output", metavar="TSV", help="write ids with problems, and the reasons, to this file")


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifests", nargs="+", metavar="MANIFEST", help="several are counted together")
    parser.add_argument("--normalizer", default="none", metavar="NAME", help="text normalizer (default: none)")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Formats are detected by name and content. Missing durations are read from the audio. Utterances whose audio "
        "cannot be read are named and left out (exit status 1); unused files and keys are named in notes. Files may be "
        "compressed (.gz) or, with --from, pipes or - for stdin. The channels of a Kaldi directory come from segments, "
        "reco2file_and_channel, or commands in wav.scp that only unpack a file (sph2pipe, flac, sox, cat)."
    )
    source = "a file, a Kaldi or LibriSpeech folder, a folder of x.wav and x.txt, lhotse cuts"
    parser.add_argument("source", metavar="SRC", help=source)
    parser.add_argument("target", metavar="DST", help="a .jsonl, .csv or .tsv file, or a folder for Kaldi")
    sources = "jsonl, kaldi, librispeech, pairs, csv, tsv or commonvoice"
    parser.add_argument("--from", dest="source_kind", default="", metavar="FORMAT", help=sources)
    parser.add_argument("--to", dest="target_kind", default="", metavar="FORMAT", help="jsonl, kaldi, csv or tsv")
    for name in ("audio", "text", "id", "speaker"):
        parser.add_argument(f"--{name}-column", default="", metavar="NAME", help=f"column or key of the {name}")
    normalizer = "text normalizer (default: none, which only applies NFC)"
    parser.add_argument("--normalizer", default="none", metavar="NAME", help=normalizer)
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write train, dev and test manifests and a recipe.yaml that suits the hours, the language and this machine, "
        "for you to keep and change. Speakers come from the data or from folders; dev and test have other speakers "
        "than train where possible. The recordings stay where they are."
    )
    parser.add_argument("source", metavar="SRC", help="a folder of x.wav and x.txt, a table, a Kaldi folder, ...")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="where sets and recipe.yaml go")
    parser.add_argument("--test", metavar="SRC", help="a corpus to test on (default: a part of the first SRC)")


def _init(args: argparse.Namespace) -> int:
    from asr.recipe.custom import collect, configuration, gpu_memory, write

    if (args.output / "recipe.yaml").exists():
        raise UsageError(f"{args.output / 'recipe.yaml'} already exists: delete it to have it written again")
    collected = collect(args.source, args.test)
    values = configuration(collected, args.output, Path("exp") / args.output.resolve().name, gpu_memory())
    path = write(collected, values, args.output)
    print(path.read_text(encoding="utf-8"))
    options.say(f"next: asr train {shlex.quote(str(path))}")
    return 0


def _add_shard(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write a corpus to DIR as tar files in WebDataset's layout (KEY.flac, KEY.json), and DIR/index.jsonl, a "
        "manifest of their contents, for slow or remote disks and for millions of files. An interrupted run resumes "
        "where it stopped. Utterances whose audio cannot be read are named and left out (exit status 1)."
    )
    parser.add_argument("manifest", metavar="MANIFEST")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder of the shards")
    size = "approximate size of a shard (default: 500MB)"
    parser.add_argument("--size", type=_bytes, default="500MB", metavar="SIZE", help=size)
    most = "most utterances in a shard (default: no limit)"
    parser.add_argument("--utterances", type=int, default=0, metavar="N", help=most)
    order = "keep the utterances in order (default: shuffled, because batches are drawn from neighbors)"
    parser.add_argument("--keep-order", action="store_true", help=order)
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes (default: one per core)")


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG])B", text.strip().upper())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500MB or 1.5GB")
    return int(float(match[1]) * {"K": 10**3, "M": 10**6, "G": 10**9}[match[2]])


def _check(args: argparse.Namespace) -> int:
    from asr.corpus.audit import audit
    from asr.corpus.check import write_skipped

    sources = [(path, "") for path in args.manifests]
    sources += [(path, "train") for path in args.train] + [(path, "test") for path in args.test]
    config = None
    if args.config:
        from asr.training.config import manifests, read_config

        config = read_config(args.config)
        if not sources:
            sources = [(path, "train") for path in manifests(config.data.train)]
            sources += [(path, "test") for path in (*manifests(config.data.dev), *config.data.test.values())]
    if not sources:
        raise UsageError("name a manifest to check, or a recipe that names some: --config RECIPE.yaml")
    [(path, uses)] = Counter(str(Path(path).resolve()) for path, _ in sources).most_common(1)
    if uses > 1:
        raise UsageError(f"{path} is named twice")
    result = audit(sources, _target(args, config, sources), decode=args.read, progress=_progress)
    if args.json:
        print(json.dumps(_as_json(result), ensure_ascii=False, indent=2))
    else:
        _print_audit(result, max(0, args.limit))
    if args.output:
        write_skipped(args.output, result.skips())
    return 1 if result.problems else 0


def _stats(args: argparse.Namespace) -> int:
    from asr.corpus.manifest import Manifest
    from asr.corpus.stats import render, statistics

    stats = statistics(Manifest.read(args.manifests, require_text=False), args.normalizer)
    print(json.dumps(asdict(stats), ensure_ascii=False, indent=2) if args.json else render(stats))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from asr.corpus.formats import SOURCES, TARGETS, read_corpus, target_kind, write_corpus
    from asr.corpus.tables import Columns

    for option, chosen, known in (("from", args.source_kind, SOURCES), ("to", args.target_kind, TARGETS)):
        if chosen and chosen not in known:
            raise UsageError(f"--{option} {chosen}: choose one of {', '.join(known)}")
    target = Path(args.target)
    kind = args.target_kind or target_kind(target)
    taken = (target / "wav.scp").exists() if kind == "kaldi" else target.exists()
    if taken and not args.force:
        raise UsageError(f"{target}: already exists; --force replaces it")
    columns = Columns(args.audio_column, args.text_column, args.id_column, args.speaker_column)
    unreadable, notes = list[str](), list[str]()
    manifest = read_corpus(
        args.source,
        args.source_kind,
        columns=columns,
        normalizer=args.normalizer,
        unreadable=unreadable,
        notes=notes,
    )
    for error in unreadable:
        options.say(f"asr: left out: {error}")
    if lost := write_corpus(target, manifest, kind):
        notes.append(f"{target}: this format cannot hold: {', '.join(lost)}")
    options.note(*notes)
    print(f"{target}: {_count(len(manifest), 'utterance')}, {_hours(manifest)}")
    return 1 if unreadable else 0


def _shard(args: argparse.Namespace) -> int:
    from asr.corpus.manifest import Manifest
    from asr.corpus.shards import write_shards
    from asr.training.process import available_cores

    if args.utterances < 0 or args.jobs < 0:
        raise UsageError("--utterances and --jobs must not be negative")
    manifest = Manifest.read(args.manifest, require_text=False)
    shards = write_shards(
        manifest,
        Path(args.output),
        size=args.size,
        most=args.utterances,
        shuffle=not args.keep_order,
        jobs=args.jobs or available_cores(),
        advance=_progress(len(manifest)),
    )
    for error in shards.left_out:
        options.say(f"asr: left out: {error}")
    options.note(*shards.notes)
    written = Manifest.read(shards.index, require_text=False)
    size = sum(path.stat().st_size for path in shards.tars) / 1e6
    contents = f"{_count(len(written), 'utterance')}, {_hours(written)} in {_count(len(shards.tars), 'shard')}"
    print(f"{shards.index}: {contents}, {size:,.1f} MB")
    return 1 if shards.left_out else 0


def _target(
    args: argparse.Namespace, config: TrainConfig | None, sources: list[tuple[str, str]]
) -> Callable[[list[Manifest]], Target]:
    """What to check the texts against: a model file, a tokenizer, a recipe, or only the normalizer.

    For a recipe that names no tokenizer file, one is trained on its training sets or else on the first manifest.
    """
    from asr.corpus.audit import Target
    from asr.model.config import CLASSIFICATION

    if not (args.model or args.tokenizer or config) or (config and config.task == CLASSIFICATION):
        return lambda manifests: Target(args.normalizer or "none")
    from asr.audio.features import FeatureConfig
    from asr.config import from_dict
    from asr.model.acoustic import output_length
    from asr.model.checkpoint import check_task, read_metadata
    from asr.model.config import ModelConfig, RecurrentConfig
    from asr.text.tokenizer import load_tokenizer, tokenizer_from_dict

    tokenizer, normalizer, features = None, "none", FeatureConfig()
    model: ModelConfig = RecurrentConfig()
    if args.model:
        metadata = read_metadata(args.model)
        check_task(args.model, metadata)
        normalizer, tokenizer = metadata["normalizer"], tokenizer_from_dict(metadata["tokenizer"])
        features = from_dict(FeatureConfig, metadata["features"], "features")
        model = from_dict(ModelConfig, metadata["model"], "model")
    elif config:
        normalizer, features, model = config.text.normalizer, config.features, config.model
    if path := args.tokenizer or (config and config.text.tokenizer_file):
        tokenizer = load_tokenizer(path)
    normalizer = args.normalizer or normalizer

    def target(manifests: list[Manifest]) -> Target:
        known = tokenizer
        if known is None and config:
            from asr.training.data import make_tokenizer

            roles = [role for _, role in sources]
            training = [m for m, role in zip(manifests, roles, strict=True) if role == "train"] or manifests[:1]
            known = make_tokenizer(replace(config.text, normalizer=normalizer), chain.from_iterable(training))
        return Target(normalizer, known, features.rate, partial(output_length, features=features, model=model))

    return target


def _progress(total: int) -> Callable[[int], object]:
    from tqdm import tqdm

    return tqdm(total=total, unit="utt", desc="audio", disable=None, leave=False, file=sys.stderr).update


def _print_audit(result: Audit, limit: int) -> None:
    from asr.corpus.check import NOTES, PROBLEMS
    from asr.text.tokenizer import shown_symbol

    several = len(result.manifests) > 1
    for kind, advice in (PROBLEMS | NOTES).items():
        found = [finding for finding in result.findings if finding.kind == kind]
        if found:
            title = "problem" if kind in PROBLEMS else "note"
            print(f"{title}: {kind} ({len(found):,}){': ' + advice if advice else ''}")
        for finding in found[:limit]:
            place = f"{finding.manifest}:" if several and kind != "malformed row" else ""
            name = " ".join(filter(None, (place, finding.id)))
            print("  " + "  ".join(filter(None, (name, finding.detail))))
        if len(found) > limit:
            print(f"  ... and {len(found) - limit:,} more (--limit, --json, -o)")
    for path, symbols in result.unknown.items():
        print(f"unknown symbols in {path}:")
        for symbol in symbols:
            print(f"  {shown_symbol(symbol.symbol)} {symbol.count:,} times, e.g. {', '.join(symbol.examples)}")
    for manifest in result.manifests:
        print(f"{manifest.path}: {_count(len(manifest), 'utterance')}, {_hours(manifest)}")
    problems, affected = _count(len(result.problems), "problem"), _count(len(result.skips()), "utterance")
    print(f"{problems} in {affected}, {_count(len(result.notes), 'note')}")


def _as_json(result: Audit) -> dict[str, Any]:
    return {
        "manifests": [
            {"path": m.path, "utterances": len(m), "hours": float(m.durations.sum(dtype="float64")) / 3600}
            for m in result.manifests
        ],
        "counts": dict(Counter(finding.kind for finding in result.findings)),
        "problems": [asdict(finding) for finding in result.problems],
        "notes": [asdict(finding) for finding in result.notes],
        "unknown_symbols": {path: [asdict(symbol) for symbol in symbols] for path, symbols in result.unknown.items()},
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)


def _hours(manifest: Manifest) -> str:
    seconds = float(manifest.durations.sum(dtype="float64"))
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds:.1f} s"
