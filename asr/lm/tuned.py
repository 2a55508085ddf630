"""The decoding weights found for a language model, kept beside it as `<lm>.tuned.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asr.files import read_text, write_text
from asr.lm.tables import LMError


@dataclass(frozen=True)
class Tuned:
    """`alpha`, `beta` and `beam_width` of the search; `details` say how they were found."""

    alpha: float
    beta: float
    beam_width: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


def tuned_path(lm: str | Path) -> Path:
    """The sidecar of a language model file."""
    return Path(f"{lm}.tuned.json")


def read_tuned(lm: str | Path) -> Tuned | None:
    """The weights stored beside a language model, None where there are none. Raises LMError when they are malformed."""
    path = tuned_path(lm)
    if not Path(lm).is_file() or not path.exists():  # nothing lies beside a pipe
        return None
    try:
        values = json.loads(read_text(path, LMError))
    except ValueError as error:
        raise LMError(f"{path}: not JSON ({error}): run `asr lm tune` again or delete it") from error
    try:
        tuned = Tuned(
            float(values["alpha"]),
            float(values["beta"]),
            None if values.get("beam_width") is None else int(values["beam_width"]),
            dict(values.get("details") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LMError(f"{path}: alpha and beta expected: run `asr lm tune` again or delete it") from error
    if not (math.isfinite(tuned.alpha) and math.isfinite(tuned.beta)) or (tuned.beam_width or 1) < 1:
        raise LMError(f"{path}: alpha, beta or beam_width out of range: run `asr lm tune` again or delete it")
    return tuned


def write_tuned(lm: str | Path, tuned: Tuned) -> Path:
    """Store the weights beside a language model, replacing those there; the path. Raises LMError."""
    path = tuned_path(lm)
    write_text(path, json.dumps(asdict(tuned), ensure_ascii=False, indent=1) + "\n", LMError, durable=True)
    return path
