"""Folds by speaker: disjoint, complete, balanced, the same for any order of rows; clear refusals."""

from __future__ import annotations

import numpy as np
import pytest

from asr.corpus.folds import speaker_folds
from asr.corpus.manifest import Manifest
from asr.types import ManifestError


def manifest(speakers: list[str], seconds: list[float] | None = None) -> Manifest:
    rows = [
        {"audio_filepath": f"{i}.wav", "duration": seconds[i] if seconds else 1.0, "text": "a", "speaker": speaker}
        for i, speaker in enumerate(speakers)
    ]
    return Manifest.from_rows(rows, "rows.jsonl")


def test_every_speaker_is_held_out_once_and_folds_are_even_and_independent_of_the_order() -> None:
    rng = np.random.default_rng(3)
    speakers = [f"s{n}" for n in rng.integers(0, 23, 400)]
    seconds = rng.uniform(0.5, 9.0, 400).round(3).tolist()
    folds = speaker_folds(manifest(speakers, seconds), 5)
    assert set(folds.tolist()) == set(range(5))
    where = {(speaker, fold) for speaker, fold in zip(speakers, folds.tolist(), strict=True)}
    assert len(where) == len(set(speakers))
    sizes = [sum(s for s, fold in zip(seconds, folds, strict=True) if fold == k) for k in range(5)]
    assert max(sizes) - min(sizes) < 0.1 * sum(sizes)
    order = rng.permutation(400)
    again = speaker_folds(manifest([speakers[i] for i in order], [seconds[i] for i in order]), 5)
    assert {(speakers[i], fold) for i, fold in zip(order, again.tolist(), strict=True)} == where


def test_no_fold_is_empty_whatever_the_durations() -> None:
    assert sorted(speaker_folds(manifest(["a", "b", "c"], [100.0, 0.001, 0.001]), 3).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("speakers", "message"),
    [
        (["a", "b", "a"], "rows.jsonl: 3 folds need as many speakers, found 2"),
        (["a", "", "b", "c"], "rows.jsonl:2: no 'speaker'"),
    ],
)
def test_what_cannot_be_split_is_refused(speakers: list[str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        speaker_folds(manifest(speakers), 3)
