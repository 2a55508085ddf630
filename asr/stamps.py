"""Stamps: a step of a recipe is done again only when what it was made from has changed, and says what changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr.files import write_text


class Stamp:
    """A JSON file beside a step's results: the inputs they were made from, and whether the step came to its end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """{"inputs": ..., "finished": bool, "result": ...}; empty when it never ran or the file is damaged."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stored if isinstance(stored, dict) else {}

    def write(self, inputs: Mapping[str, Any], *, finished: bool = True, result: Any = None) -> None:
        content = {"finished": finished, "inputs": inputs, "result": result}
        write_text(self.path, json.dumps(content, indent=1, sort_keys=True) + "\n", durable=True)

    def why(self, inputs: Mapping[str, Any], outputs: Sequence[Path] = ()) -> str:
        """Why the step must be done: "" when it is up to date, otherwise a few words for the user."""
        stored = self.read()
        if not stored:
            return "not done yet"
        changed = differences(stored.get("inputs"), as_json(inputs))
        if changed:
            return f"{changed[0]} changed" + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
        if not stored.get("finished"):
            return "was interrupted"
        missing = next((path for path in outputs if not path.exists()), None)
        return f"{missing} is missing" if missing else ""


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Dotted names of the entries that differ between two nested plain values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in sorted({*old, *new}):
            path = f"{where}.{key}" if where else key
            if key not in old or key not in new:
                found.append(path)
            else:
                found += differences(old[key], new[key], path)
        return found
    return [] if old == new else [where]


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values as they come back from a JSON file (tuples as lists)."""
    return json.loads(json.dumps(values))


def file_state(path: Path) -> dict[str, Any]:
    """Size and time of change of a file or folder: cheap, for inputs of gigabytes."""
    try:
        status = path.stat()
    except OSError:
        return {}
    return {"path": str(path.resolve()), "bytes": status.st_size, "modified": status.st_mtime_ns}
