"""`asr models`: the models that are part of the package."""

from __future__ import annotations

import argparse
import json
from typing import Any

from asr.commands.options import labeled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "A name stands for a model file everywhere: asr info NAME, init: NAME in a recipe, asr.load(NAME)."
    parser.add_argument("--json", action="store_true", help="a JSON object per model, one per line")


def run(args: argparse.Namespace) -> int:
    from asr.model.checkpoint import BUNDLED

    for bundled in BUNDLED.values():
        size = bundled.path.stat().st_size
        values: dict[str, Any] = {
            "name": bundled.name,
            "bytes": size,
            "license": bundled.license,
            "data": bundled.data,
            "purpose": bundled.purpose,
            "path": str(bundled.path),
        }
        if args.json:
            print(json.dumps(values, ensure_ascii=False))
        else:
            shown = values | {"size": f"{size / 1e6:.1f} MB", "trained on": ", ".join(bundled.data)}
            print(labeled([(key, shown[key]) for key in ("name", "size", "purpose", "trained on", "license")]))
    return 0
