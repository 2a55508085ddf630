"""Intervals that hold the truth as often as they say; p-values of known cases; NIST's matched pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asr.scoring import compare, score
from asr.scoring.comparison import matched_pairs
from asr.scoring.edits import (
    align_texts,
    bootstrap_interval,
    paired_bootstrap,
    resampling_units,
    student_quantile,
    student_tail,
)


def paired(errors_a, errors_b, lengths, resamples=None):
    a, b = (np.stack([errors, lengths], axis=1) for errors in (errors_a, errors_b))
    return paired_bootstrap(a, b, resamples=resamples)


def coverage(speakers: int, repetitions: int, by_speaker: bool = True) -> float:
    """How often the interval of simulated test sets holds the true rate of 10 %; speakers differ (beta distributed)."""
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(repetitions):
        rates = generator.beta(2, 18, speakers)
        lengths = generator.integers(5, 20, (speakers, 8))
        errors = generator.binomial(lengths, rates[:, None])
        counts = np.stack([errors.ravel(), lengths.ravel()], axis=1)
        names = [str(s) for s in range(speakers) for _ in range(8)]
        units, _ = resampling_units(counts, names if by_speaker else ())
        low, high = bootstrap_interval(units[:, 0], units[:, 1], resamples=1000)
        held += low <= 0.1 <= high
    return held / repetitions


@pytest.mark.parametrize(("speakers", "least"), [(6, 0.88), (12, 0.91), (40, 0.925)])
def test_intervals_over_speakers_hold_the_truth_about_95_times_in_100(speakers, least):
    assert least <= coverage(speakers, 500) <= 0.98


def test_intervals_over_utterances_are_too_narrow_where_speakers_differ():
    assert coverage(20, 300, by_speaker=False) < 0.85


def test_units_are_speakers_only_where_all_are_known_and_not_too_few():
    counts = np.arange(20).reshape(10, 2)
    summed, name = resampling_units(counts, list("aabbccddee"))
    assert name == "speakers"
    assert summed.tolist() == [[2, 4], [10, 12], [18, 20], [26, 28], [34, 36]]
    for speakers in ([*"aabbccddd", ""], list("aaabbbcccd"), []):
        assert resampling_units(counts, speakers)[1] == "utterances"
    result = score(["a b"] * 10, ["a"] * 5 + ["a b"] * 5, speakers=list("aabbccddee"))
    assert result.interval_units == "speakers"
    assert score(["a b"], ["a"]).interval_units == "utterances"
    with pytest.raises(ValueError, match="2 utterances but 1 speakers"):
        score(["a", "b"], ["a", "b"], speakers=["x"])


def test_no_errors_and_single_units_do_not_give_intervals_of_no_width():
    low, high = bootstrap_interval(np.zeros(5), np.full(5, 60))
    assert low == 0.0
    assert (1 - high) ** 300 == pytest.approx(0.025)  # Clopper and Pearson
    assert bootstrap_interval(np.array([1]), np.array([10])) == (0.0, 1.0)
    assert bootstrap_interval(np.array([30]), np.array([10])) == (0.0, 3.0)


@pytest.mark.parametrize(("degrees", "expected"), [(1, 12.7062), (4, 2.7764), (9, 2.2622), (30, 2.0423), (99, 1.9842)])
def test_students_quantiles_are_those_of_the_tables(degrees, expected):
    assert student_quantile(0.025, degrees) == pytest.approx(expected, abs=1e-4)
    assert student_tail(expected, degrees) == pytest.approx(0.025, rel=1e-4)
    assert student_tail(-expected, degrees) == pytest.approx(0.975, rel=1e-4)


def test_the_tail_of_student_becomes_the_normal_one():
    assert student_tail(1.96, 10**6) == pytest.approx(0.5 * math.erfc(1.96 / math.sqrt(2)))
    assert student_tail(1.96, 9999) == pytest.approx(student_tail(1.96, 10_001), rel=1e-3)


def test_systems_alike_are_found_different_one_time_in_twenty():
    generator = np.random.default_rng(3)
    found = 0
    for _ in range(400):
        lengths = generator.integers(5, 20, 60)
        a, b = generator.binomial(lengths, 0.15), generator.binomial(lengths, 0.15)
        result = paired(a, b, lengths, 1000)
        found += result.p < 0.05
        assert (result.p < 0.05) == (not result.interval[0] <= 0.0 <= result.interval[1]) or abs(result.p - 0.05) < 0.01
    assert 0.02 <= found / 400 <= 0.085


def test_p_is_that_of_the_paired_t_test_for_equally_long_utterances():
    generator = np.random.default_rng(11)
    lengths = np.full(400, 10)
    a = generator.binomial(10, 0.2, 400)
    b = np.maximum(a + generator.choice([-1, 0, 1], 400, p=[0.20, 0.66, 0.14]), 0)
    gained = b - a
    t = abs(gained.mean()) / (gained.std(ddof=1) / 20)
    result = paired(a, b, lengths)
    assert result.p == pytest.approx(2 * student_tail(t, 399), abs=0.01)
    assert result.difference == pytest.approx(gained.sum() / 4000)
    half = student_quantile(0.025, 399) * gained.std(ddof=1) / 20 / 10
    assert (result.interval[1] - result.interval[0]) / 2 == pytest.approx(half, rel=0.05)


def test_a_clear_difference_a_null_one_and_too_little_data():
    lengths = np.full(100, 10)
    worse, better = np.full(100, 3) + np.arange(100) % 2, np.full(100, 1)
    clear = paired(worse, better, lengths)
    assert clear.p < 0.001 and clear.bounded and clear.interval[1] < 0
    mirrored = paired(better, worse, lengths)
    assert mirrored.difference == -clear.difference
    assert mirrored.interval == pytest.approx((-clear.interval[1], -clear.interval[0]))
    assert paired(worse, worse, lengths).p == 1.0
    assert paired(worse[:1], better[:1], lengths[:1]).p == 1.0
    assert paired(worse, better, lengths) == clear


def pairs(reference: str, a: str, b: str):
    return matched_pairs(align_texts([reference], [a]), align_texts([reference], [b]))


def test_segments_end_where_two_words_are_right_in_both():
    reference = "a b c d e f g h"
    assert pairs(reference, reference, reference).segments == 0
    assert pairs(reference, "x b c d e f g y", reference).segments == 2
    assert pairs(reference, "a x c y e f g h", reference).segments == 1  # one right word between
    assert pairs(reference, "a x c d y f g h", reference).segments == 2
    assert pairs(reference, "a x c d e f g h", "a b c y e f g h").segments == 1  # errors of either count
    assert pairs(reference, "a b c d e f g h z", "z a b c d e f g h").segments == 2
    assert pairs(reference, "a z b c y d e f g h", reference).segments == 2
    assert pairs(reference, "a z b y c d e f g h", reference).segments == 1
    assert pairs("", "x y", "x").segments == 1


def test_matched_pairs_of_a_constructed_case():
    references = ["a b c d"] * 40
    a = ["a b c x"] * 30 + ["a b c d"] * 10
    b = ["a b c d"] * 30 + ["a b c x"] * 10
    result = matched_pairs(align_texts(references, a), align_texts(references, b))
    values = np.array([1] * 30 + [-1] * 10)
    assert (result.segments, result.mean) == (40, 0.5)
    assert result.z == pytest.approx(0.5 / (values.std(ddof=1) / math.sqrt(40)))
    assert result.p == pytest.approx(math.erfc(result.z / math.sqrt(2)))
    same = matched_pairs(align_texts(references, a), align_texts(references, ["a b c d"] * 40))
    assert (same.segments, same.z, same.p) == (30, math.inf, 2 * 0.5**30)
    assert compare(["a b"], ["a b"], ["a b"]).matched.p == 1.0
