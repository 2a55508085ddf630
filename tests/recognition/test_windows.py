"""Windows: every frame once and in order, utterances in one piece, silence left out, little held."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.recognition.windows import Grid, cut_windows

RATE, STRIDE = 16000, 640
GRID = Grid(RATE, STRIDE, length=250, overlap=50, shortest=10, usual=10)  # 10 s, 2 s, 0.4 s, 0.4 s


def audio_of(parts, seed=0):
    generator = np.random.default_rng(seed)
    levels = np.concatenate([np.full(round(abs(p) * RATE), 0.2 if p > 0 else 1e-3) for p in parts])
    return (generator.standard_normal(len(levels)) * levels).astype(np.float32)


def blocks_of(samples, size):
    return iter([samples[i : i + size] for i in range(0, len(samples), size)])


def frames_of(samples):
    """As a model with a hop of 10 ms and a subsampling of 4 counts them."""
    return -(-(samples // 160 + 1) // 4) if samples else 0


def placed(windows, samples):
    """(first frame kept, one past the last, first sample) of every window, checked against the samples themselves."""
    at, found = 0, []
    for window in windows:
        at += window.before
        kept = frames_of(len(window.samples))
        kept = (kept if window.last is None else window.last) - window.first
        start = (at - window.first) * STRIDE
        assert np.array_equal(window.samples, samples[start : start + len(window.samples)])
        if window.last is not None and len(window.samples):
            assert window.last <= frames_of(len(window.samples))
        found.append((at, at + kept, start))
        at += kept + window.after
    return found, at


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(st.sampled_from([0.3, 1.0, 2.5, 14.0, -0.1, -0.5, -1.5, -25.0]), min_size=1, max_size=12),
    block=st.integers(500, 300_000),
    overlap=st.sampled_from([0, 10, 50]),
    usual=st.sampled_from([10, 60, 250]),
)
def test_every_frame_once_and_in_order(parts, block, overlap, usual):
    samples = audio_of(parts)
    grid = GRID._replace(overlap=overlap, usual=usual)
    windows = list(cut_windows(blocks_of(samples, block), grid))
    _, total = placed(windows, samples)
    assert total == frames_of(len(samples))
    assert all(len(w.samples) <= (grid.length + 2 * overlap + 1) * STRIDE for w in windows)


def test_utterances_are_windows_of_their_own():
    parts = [2.0, -1.0, 3.0, -1.0, 2.5, -1.0, 4.0, -1.0, 2.0, -1.0, 3.0]
    samples = audio_of(parts)
    windows = list(cut_windows(blocks_of(samples, 16000), GRID))
    assert [w.ends_in_pause for w in windows] == [True] * 5 + [False]
    spans, _ = placed(windows, samples)
    edges = np.cumsum(np.abs(parts))
    for (first, last, _), begin, end in zip(spans, [0.0, *edges[1::2]], edges[::2], strict=True):
        assert first * STRIDE / RATE == pytest.approx(begin - 0.25 if begin else 0.0, abs=0.1)
        assert last * STRIDE / RATE == pytest.approx(end + (0.25 if end < edges[-1] else 0.0), abs=0.1)


@settings(max_examples=20, deadline=None)
@given(block=st.integers(500, 300_000))
def test_a_window_ends_in_the_longest_pause_of_a_usual_length(block):
    """Utterances of 1 + 0.5 + 1 s with 0.9 s between: windows of 1.5 to 5 s end there, not in the shorter pauses."""
    samples = audio_of([1.0, -0.5, 1.0, -0.9] * 8)
    grid = GRID._replace(shortest=38, usual=125)
    windows = list(cut_windows(blocks_of(samples, block), grid))
    spans, _ = placed(windows, samples)
    begins = [first * STRIDE / RATE for first, _, _ in spans]
    assert begins == pytest.approx([0.0] + [3.4 * i - 0.25 for i in range(1, 8)], abs=0.1)


def test_a_usual_length_without_a_pause_ends_in_the_next_one():
    samples = audio_of([6.0, -0.5, 6.0, -0.9, 3.0, -0.5, 3.0])
    windows = list(cut_windows(blocks_of(samples, 5000), GRID._replace(shortest=38, usual=100)))
    spans, _ = placed(windows, samples)
    begins = [first * STRIDE / RATE for first, _, _ in spans]
    assert begins == pytest.approx([0.0, 6.25, 13.15, 16.65], abs=0.1)


def test_long_silence_is_not_recognized():
    samples = audio_of([4.0, -60.0, 4.0])
    windows = list(cut_windows(blocks_of(samples, 20_000), GRID))
    recognized = sum(len(w.samples) for w in windows) / RATE
    assert recognized < 12.0


def test_a_long_pause_ends_a_window_however_short():
    samples = audio_of([1.0, -1.0, 1.0, -8.0, 1.0, -8.0, 4.0])
    windows = list(cut_windows(blocks_of(samples, 20_000), GRID._replace(shortest=75, usual=200)))
    spans, _ = placed(windows, samples)
    begins = [
        first * STRIDE / RATE for (first, _, _), window in zip(spans, windows, strict=True) if len(window.samples)
    ]
    assert begins == pytest.approx([0.0, 10.75, 19.75], abs=0.1)
    assert sum(len(w.samples) for w in windows) / RATE < 10.0


def test_without_pauses_windows_overlap():
    samples = audio_of([40.0])
    windows = list(cut_windows(blocks_of(samples, 20_000), GRID))
    assert all(w.before == w.after == 0 and not w.ends_in_pause for w in windows)
    spans, total = placed(windows, samples)
    assert spans[0][0] == 0
    for (first, last, start), window in zip(spans[1:-1], windows[1:-1], strict=True):
        assert start == (first - GRID.overlap) * STRIDE
        assert 0.6 * GRID.length <= last - first <= GRID.length
        assert len(window.samples) == (last - first + 2 * GRID.overlap) * STRIDE
    assert total == frames_of(len(samples))
