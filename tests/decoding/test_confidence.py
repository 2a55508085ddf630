"""Calibration finds the parameters that made the data; ECE and NCE by their definitions."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.confidence import (
    Calibration,
    calibration_from_dict,
    expected_calibration_error,
    fit_calibration,
    normalized_cross_entropy,
)
from asr.types import AsrError


@pytest.mark.parametrize(("temperature", "offset"), [(1.0, 0.0), (2.5, 0.3), (0.6, -1.0)])
def test_the_parameters_of_made_up_words_are_found(temperature, offset):
    generator = np.random.default_rng(1)
    confidences = 1 / (1 + np.exp(-generator.normal(1.0, 2.5, size=40_000)))
    truth = Calibration(temperature, offset)
    correct = generator.random(len(confidences)) < np.array([truth(c) for c in confidences])
    found = fit_calibration(confidences, correct)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.offset == pytest.approx(offset, abs=0.06)
    calibrated = [found(c) for c in confidences]
    assert expected_calibration_error(calibrated, correct) < 0.012
    before, after = (normalized_cross_entropy(c, correct) for c in (confidences, calibrated))
    assert after >= before - 1e-6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_any_words_give_a_calibration_that_keeps_their_order(words):
    confidences, correct = zip(*words, strict=True)
    calibration = fit_calibration(confidences, correct)
    assert calibration.temperature > 0
    ordered = [calibration(c) for c in sorted(confidences)]
    assert ordered == sorted(ordered)
    assert all(0.0 <= c <= 1.0 for c in ordered)
    assert calibration_from_dict(asdict(calibration)) == calibration


def test_expected_calibration_error_by_hand():
    # two bins of five: (0.1, 0.15) with 1 of 2 right, 0.9 with 2 of 2 right
    found = expected_calibration_error([0.1, 0.15, 0.9, 0.9], [True, False, True, True], bins=5)
    assert found == pytest.approx((abs(0.25 - 1) + abs(1.8 - 2)) / 4)
    assert expected_calibration_error([1.0, 0.0], [True, False]) == 0.0
    assert expected_calibration_error([], []) == 0.0


def test_normalized_cross_entropy_by_hand():
    assert normalized_cross_entropy([0.75] * 4, [True, True, True, False]) == pytest.approx(0.0)
    most = -(3 * math.log2(0.75) + math.log2(0.25))
    mine = -(3 * math.log2(0.9) + math.log2(1 - 0.2))
    assert normalized_cross_entropy([0.9, 0.9, 0.9, 0.2], [True] * 3 + [False]) == pytest.approx((most - mine) / most)
    assert normalized_cross_entropy([0.1, 0.9], [True, False]) < 0
    assert normalized_cross_entropy([0.9], [True]) is None
    assert normalized_cross_entropy([], []) is None


def test_what_is_no_calibration():
    for values in (None, {}, {"temperature": 0, "offset": 0}, {"temperature": "x", "offset": 0}, 5):
        assert calibration_from_dict(values) is None
    with pytest.raises(AsrError, match="no recognized words"):
        fit_calibration([], [])
