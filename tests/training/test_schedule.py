"""The learning rate's course: warm-up, ends, monotony, plateau reductions."""

from __future__ import annotations

import itertools

import pytest

from asr.training.config import OptimizerConfig
from asr.training.module import Plateau, lr_factor


def test_cosine_rises_linearly_then_falls_to_the_final_share() -> None:
    config = OptimizerConfig(schedule="cosine", warmup_steps=10, final_lr=0.05)
    factors = [lr_factor(step, 100, config) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[10:]))
    assert factors[100] == pytest.approx(0.05)


def test_one_cycle_peaks_once_and_ends_low() -> None:
    config = OptimizerConfig(schedule="onecycle", final_lr=0.001)
    factors = [lr_factor(step, 1000, config) for step in range(1001)]
    top = factors.index(max(factors))
    assert factors[top] == pytest.approx(1.0) and 0 < top < 500
    assert factors[:top] == sorted(factors[:top]) and factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] == pytest.approx(0.001)


def test_plateau_drops_after_patience_and_forgets_on_improvement() -> None:
    plateau = Plateau(patience=1)
    drops = []
    for wer in (0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.7):
        plateau.update(wer)
        drops.append(plateau.drops)
    assert drops == [0, 0, 0, 1, 1, 1, 2]
    config = OptimizerConfig(schedule="plateau", warmup_steps=5, plateau_factor=0.5)
    assert lr_factor(50, 100, config, plateau_drops=2) == pytest.approx(0.25)
    copy = Plateau(patience=1)
    copy.load_state_dict(plateau.state_dict())
    assert copy.state_dict() == plateau.state_dict()
