"""Cross-validation by speaker: which fold each utterance is held out in."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from asr.corpus.manifest import Manifest
from asr.types import ManifestError


def speaker_folds(manifest: Manifest, folds: int) -> np.ndarray:
    """The fold of each utterance, (utterances,) int64 from 0 to `folds` - 1; all of a speaker are in the same one.

    Speakers, those with the most speech first, go to the fold with the least speech so far. Folds are the same on
    every machine, and none is empty. Raises ManifestError for an utterance without a speaker, and for too few speakers.
    """
    speakers = [utterance.speaker for utterance in manifest]
    if missing := speakers.count(""):
        more = f" (and {missing - 1} more such rows)" if missing > 1 else ""
        first = manifest.where(speakers.index(""))
        raise ManifestError(f"{first}: no 'speaker'{more}: folds are made of whole speakers")
    seconds: dict[str, float] = defaultdict(float)
    for speaker, duration in zip(speakers, manifest.durations.tolist(), strict=True):
        seconds[speaker] += duration
    if len(seconds) < folds:
        raise ManifestError(f"{manifest.path}: {folds} folds need as many speakers, found {len(seconds)}")
    chosen: dict[str, int] = {}
    filled, members = [0.0] * folds, Counter[int]()
    for speaker in sorted(seconds, key=lambda name: (-seconds[name], name)):
        fold = min(range(folds), key=lambda number: (filled[number], members[number]))
        chosen[speaker] = fold
        filled[fold] += seconds[speaker]
        members[fold] += 1
    return np.array([chosen[speaker] for speaker in speakers], dtype=np.int64)
