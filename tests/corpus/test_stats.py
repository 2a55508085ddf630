"""Totals of a manifest."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.corpus.manifest import Utterance
from asr.corpus.stats import render, statistics


def manifest(*rows: tuple[str, float, str]) -> list[Utterance]:
    return [
        Utterance(f"u{i}", f"/{i}.wav", duration, text, speaker=speaker)
        for i, (text, duration, speaker) in enumerate(rows)
    ]


def test_totals() -> None:
    stats = statistics(manifest(("a b a", 1.0, "x"), ("c", 2.0, "y"), ("", 3.0, ""), ("B", 4.0, "x")), "basic")
    assert (stats.utterances, stats.seconds, stats.speakers, stats.without_speaker) == (4, 10.0, 2, 1)
    assert (stats.words, stats.vocabulary, stats.empty_texts) == (5, 3, 1)
    assert stats.words_per_second == pytest.approx(0.5) and stats.characters_per_second == pytest.approx(0.7)
    assert stats.characters == {" ": 2, "a": 2, "b": 2, "c": 1}
    assert stats.percentiles[0] == 1.0 and stats.percentiles[50] == 2.5 and stats.percentiles[100] == 4.0
    assert json.loads(json.dumps(asdict(stats)))["hours"] == pytest.approx(10 / 3600)


@given(st.lists(st.floats(0.01, 5000).map(lambda x: float(np.float32(x))), min_size=1, max_size=40))
def test_histogram_counts_every_utterance_once(durations: list[float]) -> None:
    bars = statistics(manifest(*(("a", duration, "") for duration in durations))).histogram
    assert sum(count for _, _, count in bars) == len(durations)
    assert bars[0][0] == 0 and bars[-1][1] >= max(durations) * (1 - 1e-6) and len(bars) <= 10
    for (low, high, count), following in zip(bars, [*bars[1:], None], strict=True):
        inside = sum(low <= d < high for d in durations)
        assert following is None or count == inside
        assert following is None or following[0] == pytest.approx(high)


def test_rendering_names_the_totals() -> None:
    text = render(statistics(manifest(("ab c\u0301", 1.0, "x"), ("", 7.5, ""))))
    assert "utterances   2 (1 without text)" in text and "speakers     1 (1 utterances without)" in text
    assert "median 4.25" in text and "space 1" in text and "\u0107 1" in text
    assert "0 - 1" in text and "#" in text


def test_an_empty_manifest_is_all_zeros() -> None:
    stats = statistics(manifest())
    assert stats.utterances == stats.words == 0 and stats.histogram == ()
    assert "audio        0.00 h" in render(stats)
