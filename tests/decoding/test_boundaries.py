"""Word times from frames: in order, disjoint, inside the recording, meeting in the middle of short gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.align import LONGEST_EXTENSION, boundaries


def test_short_gaps_are_shared_and_long_ones_are_pauses():
    begins, ends = boundaries([10, 14, 60], [12, 16, 61], 0.04, 10.0)
    assert ends[0] == begins[1] == pytest.approx((12 + 14) / 2 * 0.04 - 0.02)
    assert ends[1] == pytest.approx(16 * 0.04 - 0.02 + LONGEST_EXTENSION)
    assert begins[2] == pytest.approx(60 * 0.04 - 0.02 - LONGEST_EXTENSION)
    assert begins[0] == pytest.approx(10 * 0.04 - 0.02 - LONGEST_EXTENSION)
    assert [len(array) for array in boundaries([], [], 0.04, 1.0)] == [0, 0]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), min_size=1, max_size=30),
    st.sampled_from([0.02, 0.04, 0.08]),
)
def test_in_order_disjoint_and_inside(gaps_and_lengths, step):
    first, last, at = [], [], 0
    for gap, length in gaps_and_lengths:
        first.append(at + gap)
        at += gap + length
        last.append(at)
    duration = (at - 0.5) * step
    begins, ends = boundaries(first, last, step, duration)
    assert (begins < ends).all()
    assert begins[0] >= 0.0
    assert ends[-1] <= duration
    assert (begins[1:] >= ends[:-1] - 1e-12).all()
    assert (begins <= np.maximum((np.array(first) - 0.5) * step, 0.0) + 1e-12).all()
