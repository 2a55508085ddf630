"""Confidences under calibrations that have not seen them; models that carry a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asr.decoding.confidence import Calibration, fit_calibration
from asr.model.checkpoint import load_model, save_model
from asr.scoring.breakdown import WordConfidences, pooled

KEY = "confidence"  # in a model file's training summary
FOLDS = 5


def held_out(utterances: Sequence[WordConfidences], speakers: Sequence[str]) -> WordConfidences | None:
    """The words with the confidences of calibrations fitted on other utterances (cross-validation in FOLDS parts).

    A speaker's utterances stay together where all are known and there are enough; None for a single utterance. The
    figures of a calibration on the words it was fitted on would flatter it.
    """
    several = all(speakers) and len(set(speakers)) >= FOLDS
    names = list(speakers) if several else [str(i) for i in range(len(utterances))]
    place = {name: i % FOLDS for i, name in enumerate(dict.fromkeys(names))}
    if len(place) < 2:
        return None
    found = []
    for fold in sorted(set(place.values())):
        rest = pooled([u for u, name in zip(utterances, names, strict=True) if place[name] != fold])
        change = fit_calibration(rest.confidences, rest.correct) if rest.confidences else Calibration()
        here = pooled([u for u, name in zip(utterances, names, strict=True) if place[name] == fold])
        found.append(replace(here, confidences=tuple(map(change, here.confidences))))
    return pooled(found)


def write_calibrated(model: str | Path, target: str | Path, calibration: Calibration, summary: dict[str, Any]) -> Path:
    """A copy of a model file whose confidences are calibrated; `summary` is kept with it. Raises ModelFileError."""
    file = load_model(model)
    training = {**file.training, KEY: {**asdict(calibration), **summary}}
    return save_model(target, file.model, file.tokenizer, file.normalizer, training)
