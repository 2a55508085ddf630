"""Forced alignment against every path of tiny problems and torchaudio; texts that do not fit; word times."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.align import LONGEST_EXTENSION, AlignmentError, boundaries, forced_align, needed_frames


def random_emissions(frames, vocab, seed, sharpness=1.0):
    logits = np.random.default_rng(seed).normal(size=(frames, vocab)) * sharpness
    return torch.log_softmax(torch.from_numpy(logits), dim=-1).numpy().astype(np.float32)


def collapse(path):
    return tuple(label for before, label in itertools.pairwise((0, *path)) if label not in (0, before))


def frame_labels(alignment):
    """The label of every frame that an alignment's spans mean."""
    path = [0] * alignment.frames
    for token, start, end in zip(alignment.tokens, alignment.starts, alignment.ends, strict=True):
        path[start:end] = [token] * (end - start)
    return path


@settings(max_examples=150, deadline=None)
@given(
    frames=st.integers(1, 6),
    tokens=st.lists(st.integers(1, 2), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
    beam=st.sampled_from([0.0, 0.5, 3.0, 200.0]),
)
def test_the_path_is_the_best_of_all_that_spell_the_text(frames, tokens, seed, beam):
    log_probs = random_emissions(frames, 3, seed, 2.0)
    spelling = [path for path in itertools.product(range(3), repeat=frames) if collapse(path) == tuple(tokens)]
    if not spelling:
        assert frames < needed_frames(tokens)
        with pytest.raises(AlignmentError, match=f"at least {needed_frames(tokens)} frames"):
            forced_align(log_probs, tokens)
        return
    scores = {path: sum(float(log_probs[t, label]) for t, label in enumerate(path)) for path in spelling}
    alignment = forced_align(log_probs, tokens, beam)
    path = tuple(frame_labels(alignment))
    assert collapse(path) == tuple(tokens)
    assert alignment.score == pytest.approx(max(scores.values()), abs=1e-5)
    assert scores[path] == pytest.approx(alignment.score, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(40, 300),
    share=st.floats(0.02, 0.9),
    vocab=st.integers(2, 6),
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.1, 1.0, 6.0]),
    beam=st.sampled_from([0.0, 2.0, 20.0, 200.0]),
)
def test_pruning_and_saved_rows_change_nothing(frames, share, vocab, seed, sharpness, beam):
    """Against a plain dynamic program over all states, with any beam: the bound makes up for what it lost."""
    log_probs = random_emissions(frames, vocab, seed, sharpness)
    tokens = np.random.default_rng(seed).integers(1, vocab, size=max(1, int(share * frames))).tolist()
    while needed_frames(tokens) > frames:
        tokens.pop()
    alignment = forced_align(log_probs, tokens, beam)
    path = frame_labels(alignment)
    assert collapse(path) == tuple(tokens)
    assert sum(float(log_probs[t, label]) for t, label in enumerate(path)) == pytest.approx(alignment.score, rel=1e-6)
    assert alignment.score == pytest.approx(plain_viterbi(log_probs, tokens), rel=1e-9)
    for i, token in enumerate(tokens):
        span = log_probs[alignment.starts[i] : alignment.ends[i], token]
        assert alignment.posteriors[i] == pytest.approx(float(np.exp(span.max())), rel=1e-6)


def plain_viterbi(log_probs, tokens):
    states = [0] + [label for token in tokens for label in (token, 0)]
    scores = np.full(len(states), -np.inf)
    scores[0], scores[1] = log_probs[0, 0], log_probs[0, states[1]]
    skips = np.array([i > 2 and s != 0 and s != states[i - 2] for i, s in enumerate(states)])
    for row in log_probs[1:].astype(np.float64):
        stay, one = scores, np.concatenate(([-np.inf], scores[:-1]))
        two = np.where(skips, np.concatenate(([-np.inf, -np.inf], scores[:-2])), -np.inf)
        scores = np.maximum(np.maximum(stay, one), two) + row[states]
    return max(scores[-1], scores[-2])


@pytest.mark.parametrize(("frames", "count", "seed"), [(30, 5, 0), (200, 80, 1), (400, 20, 2), (64, 40, 3)])
def test_torchaudio_aligns_alike(frames, count, seed):
    from asr.audio._torchaudio import functional

    log_probs = random_emissions(frames, 8, seed, 3.0)
    tokens = np.random.default_rng(seed).integers(1, 8, size=count)
    while needed_frames(tokens.tolist()) > frames:
        tokens = tokens[:-1]
    try:
        labels, scores = functional.forced_align(torch.from_numpy(log_probs)[None], torch.from_numpy(tokens)[None])
    except (RuntimeError, AttributeError) as error:
        pytest.skip(f"torchaudio's native part does not load here: {error}".splitlines()[0])
    alignment = forced_align(log_probs, tokens.tolist())
    assert float(scores.sum()) == pytest.approx(alignment.score, rel=1e-5)
    assert labels[0].tolist() == frame_labels(alignment)


def test_an_hour_of_peaky_emissions_keeps_few_states():
    """90,000 frames and 40,000 tokens: all cells would be 7e9. The text is found where it was put."""
    generator = np.random.default_rng(4)
    frames = 90_000
    tokens = generator.integers(1, 29, size=40_000)
    tokens[1:] = np.where(tokens[1:] == tokens[:-1], tokens[1:] % 28 + 1, tokens[1:])
    tokens = tokens[np.concatenate(([True], tokens[1:] != tokens[:-1]))]
    places = np.sort(generator.choice(frames, size=len(tokens), replace=False))
    logits = generator.normal(size=(frames, 29)).astype(np.float32)
    logits[:, 0] += 6.0
    logits[places, tokens] += 12.0
    alignment = forced_align(torch.log_softmax(torch.from_numpy(logits), dim=-1), tokens.tolist())
    assert np.mean(alignment.starts == places) > 0.99


def test_what_cannot_be_aligned_is_said_in_one_line():
    log_probs = random_emissions(5, 4, 0)
    with pytest.raises(AlignmentError, match="the text is empty"):
        forced_align(log_probs, [])
    for wrong in ([0], [4], [-1]):
        with pytest.raises(AlignmentError, match="tokens must lie in 1 to 3"):
            forced_align(log_probs, wrong)
    with pytest.raises(AlignmentError, match="needs at least 6 frames, the recording has 5"):
        forced_align(log_probs, [1, 1, 2, 2])
    assert needed_frames([1, 1, 2, 2]) == 6
    assert forced_align(log_probs, [1, 1, 3]).ends[-1] <= 5


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
