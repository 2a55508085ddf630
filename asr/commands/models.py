"""`asr info`, `asr models` and `asr average`: what is in a model file, the bundled models, the mean of several."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from asr.commands import options
from asr.model.config import described_options


def add_info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file (.asr), or the name of a bundled one (asr models)")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")


def run_info(args: argparse.Namespace) -> int:
    from asr.model.checkpoint import find_model, parameter_count, read_metadata

    path = find_model(args.model)
    metadata = read_metadata(path)  # without loading the tensors
    metadata["file"] = {"path": str(path), "bytes": path.stat().st_size, "parameters": parameter_count(metadata)}
    print(json.dumps(metadata, ensure_ascii=False) if args.json else _described(metadata))
    return 0


def _described(metadata: dict[str, Any]) -> str:
    """The contents of a model file as text, a line per subject."""
    file, features, training = metadata["file"], metadata["features"], dict(metadata["training"])
    rows = [
        ("file", f"{file['path']} ({file['bytes'] / 1e6:.1f} MB, by {metadata['written_by']})"),
        ("parameters", f"{file['parameters']:,}"),
        ("architecture", described_options(metadata["model"])),
        (
            "features",
            f"{features['n_mels']} log-mel, {features['rate']} Hz, {features['window_ms']:g}/{features['hop_ms']:g} ms "
            f"window/hop, normalization {features['normalize']}",
        ),
        *_symbols(metadata),
    ]
    if init := training.pop("init", None):  # the model that training started from, as far as it is known
        hours = f"{init['hours']:g} h of speech" if init["hours"] else ""
        known = ", ".join(filter(None, (init["name"], hours, init["normalizer"])))
        rows.append(("init", f"{init['file']}: {known} (sha256 {init['sha256']})"))
    for key, value in sorted(training.items()):
        nested = isinstance(value, dict | list)
        rows.append((f"training.{key}", json.dumps(value, ensure_ascii=False) if nested else str(value)))
    return options.labeled(rows)


def _symbols(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """What the outputs of the last layer stand for."""
    if "labels" not in metadata:
        symbols = f"{metadata['tokenizer']['kind']}, {metadata['vocab_size']} entries with the blank"
        return [("tokenizer", symbols), ("normalizer", metadata["normalizer"])]
    counts = metadata["label_counts"] or [""] * len(metadata["labels"])
    classes = ", ".join(f"{label} {count}".rstrip() for label, count in zip(metadata["labels"], counts, strict=True))
    return [
        ("task", f"classification, pooling {metadata['pooling']}"),
        ("classes", f"{metadata['vocab_size']}: {classes}"),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "A name can stand for any model file: asr info NAME, init: NAME in a recipe, asr.load(NAME)."
    parser.add_argument("--json", action="store_true", help="one JSON object per model, each on a line")


def run(args: argparse.Namespace) -> int:
    from asr.model.checkpoint import BUNDLED

    for bundled in BUNDLED.values():
        size = bundled.path.stat().st_size
        if args.json:
            print(json.dumps({**asdict(bundled), "bytes": size, "path": str(bundled.path)}, ensure_ascii=False))
            continue
        rows = [("name", bundled.name), ("size", f"{size / 1e6:.1f} MB"), ("purpose", bundled.purpose)]
        print(options.labeled([*rows, ("trained on", ", ".join(bundled.data)), ("license", bundled.license)]))
    return 0


def add_average_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "The models must have the same encoder, features, tokenizer, normalizer and task, and come from one run or "
        "from runs that started from the same model: averages of unrelated models recognize nothing. The training "
        "record is that of the first model, without its scores, plus a list of the averaged models. Measure the result "
        "with `asr evaluate`."
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="model files (.asr) or names of bundled ones")
    parser.add_argument("-o", "--output", required=True, metavar="NEW.asr", help="write the model to this file")
    parser.add_argument("--half", action="store_true", help="store the weights in half precision, for half the size")
    parser.add_argument("--force", action="store_true", help="replace NEW.asr if it exists")


def run_average(args: argparse.Namespace) -> int:
    options.refuse_existing(args.output, args.force)
    from asr.model.averaging import average_models
    from asr.model.checkpoint import save_model

    mean = average_models(args.models)
    parts = (mean.model, mean.tokenizer, mean.normalizer, mean.training, mean.task)
    path = save_model(args.output, *parts, half=args.half)
    options.say(f"asr: {path}: the mean of {len(args.models)} model{'s' if len(args.models) > 1 else ''}")
    return 0
