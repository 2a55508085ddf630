"""`asr info`: describe a model file without loading its tensors."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from asr.commands.options import labeled
from asr.model.config import described_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model file (.asr), or the name of a bundled one (asr models)")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")


def run(args: argparse.Namespace) -> int:
    from asr.model.checkpoint import find_model, read_metadata

    path = find_model(args.model)
    metadata = read_metadata(path)
    metadata["file"] = {
        "path": str(path),
        "bytes": path.stat().st_size,
        "parameters": sum(math.prod(shape) for shape in metadata["tensors"].values()),
    }
    print(json.dumps(metadata, ensure_ascii=False) if args.json else describe(metadata))
    return 0


def describe(metadata: dict[str, Any]) -> str:
    """The contents of a model file as text, a line per subject."""
    rows = [
        ("file", f"{metadata['file']['path']} ({metadata['file']['bytes'] / 1e6:.1f} MB, by {metadata['written_by']})"),
        ("parameters", f"{metadata['file']['parameters']:,}"),
        ("architecture", described_options(metadata["model"])),
        ("features", _features(metadata["features"])),
        ("tokenizer", f"{metadata['tokenizer']['kind']}, {metadata['vocab_size']} entries with the blank"),
        ("normalizer", metadata["normalizer"]),
    ]
    training = dict(metadata["training"])
    if init := training.pop("init", None):
        rows.append(("init", _init(init)))
    rows += [(f"training.{key}", _value(value)) for key, value in sorted(training.items())]
    return labeled(rows)


def _init(init: dict[str, Any]) -> str:
    """The model that the training began from; of a model from elsewhere, less may be known."""
    hours = f"{init['hours']:g} h of speech" if init["hours"] else ""
    known = ", ".join(filter(None, (init["name"], hours, init["normalizer"])))
    return f"{init['file']}: {known} (sha256 {init['sha256']})"


def _features(features: dict[str, Any]) -> str:
    return (
        f"{features['n_mels']} log-mel, {features['rate']} Hz, {features['window_ms']:g}/{features['hop_ms']:g} ms "
        f"window/hop, normalization {features['normalize']}"
    )


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
