"""The CTC loss against enumeration of every alignment, and the properties of its normalization."""

from __future__ import annotations

import functools
import itertools
import math
import operator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.training.losses.ctc import blank_share, ctc_loss


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def brute_force(log_probs: torch.Tensor, target: tuple[int, ...]) -> float:
    """-log of the summed probability of every path that collapses to the target."""
    frames, vocab = log_probs.shape
    total = -math.inf
    for path in itertools.product(range(vocab), repeat=frames):
        if collapse(path) == target:
            total = float(torch.logaddexp(torch.tensor(total), log_probs[range(frames), list(path)].sum()))
    return -total


@given(st.integers(1, 5), st.lists(st.integers(1, 2), max_size=3), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_equals_enumeration_of_all_paths(frames: int, target: list[int], seed: int) -> None:
    repeats = sum(a == b for a, b in itertools.pairwise(target))
    log_probs = torch.randn(1, frames, 3, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    result = ctc_loss(log_probs, torch.tensor([frames]), torch.tensor(target), torch.tensor([len(target)]))
    if frames < len(target) + repeats:
        assert int(result.infeasible) == 1 and float(result.loss) == 0.0
        return
    expected = brute_force(log_probs[0], tuple(target))
    assert float(result.loss) * max(1, len(target)) == pytest.approx(expected, abs=1e-4)
    assert int(result.infeasible) == 0


def test_loss_of_a_batch_is_the_sum_over_utterances_divided_by_all_tokens() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(3, 12, 5).log_softmax(-1)
    lengths, targets = torch.tensor([12, 7, 9]), [[1, 2, 3], [4], [2, 2]]
    counts = torch.tensor([len(t) for t in targets])
    together = ctc_loss(log_probs, lengths, torch.tensor(functools.reduce(operator.iadd, targets, [])), counts)
    alone = [
        float(ctc_loss(log_probs[i : i + 1], lengths[i : i + 1], torch.tensor(t), torch.tensor([len(t)])).total)
        for i, t in enumerate(targets)
    ]
    assert float(together.loss) == pytest.approx(sum(alone) / 6, rel=1e-5)


def test_padding_frames_do_not_matter() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(1, 9, 4).log_softmax(-1)
    padded = torch.cat([log_probs, torch.full((1, 5, 4), 3.0)], dim=1)
    arguments = torch.tensor([9]), torch.tensor([1, 2, 2]), torch.tensor([3])
    assert float(ctc_loss(padded, *arguments).loss) == pytest.approx(float(ctc_loss(log_probs, *arguments).loss))


def test_an_infeasible_utterance_is_counted_and_leaves_the_gradient_finite() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    result = ctc_loss(logits.log_softmax(-1), torch.tensor([3, 3]), torch.tensor([1, 1, 1, 2]), torch.tensor([3, 1]))
    result.loss.backward()
    assert int(result.infeasible) == 1
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad[0].abs().max()) == 0.0 and float(logits.grad[1].abs().max()) > 0.0


def test_loss_is_float32_under_autocast() -> None:
    log_probs = torch.randn(1, 6, 4).log_softmax(-1)
    arguments = torch.tensor([6]), torch.tensor([1, 2]), torch.tensor([2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ctc_loss(log_probs, *arguments).loss
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(float(ctc_loss(log_probs, *arguments).loss))


def test_blank_share_counts_valid_frames_only() -> None:
    log_probs = torch.zeros(2, 4, 3)
    log_probs[0, :3, 0] = 1.0  # utterance 0: three frames, all blank; utterance 1: one frame, not blank
    log_probs[1, 0, 1] = 1.0
    assert float(blank_share(log_probs, torch.tensor([3, 1]))) == pytest.approx(0.75)
