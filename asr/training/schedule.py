"""The course of the learning rate, as a pure function of the optimizer step."""

from __future__ import annotations

import math

from asr.training.config import OptimizerConfig

_ONECYCLE_RISE = 0.3  # share of the run that one-cycle climbs (Smith & Topin, 2018)
_ONECYCLE_START = 0.04


def lr_factor(step: int, total_steps: int, config: OptimizerConfig, plateau_drops: int = 0) -> float:
    """Factor on `config.lr` at optimizer step `step` (0-based) of `total_steps`; `plateau_drops` reductions so far."""
    if config.schedule == "onecycle":
        rise = max(1, round(_ONECYCLE_RISE * total_steps))
        if step < rise:
            return _cosine(_ONECYCLE_START, 1.0, step / rise)
        return _cosine(1.0, config.final_lr, (step - rise) / max(1, total_steps - rise))
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        return _cosine(1.0, config.final_lr, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    if config.schedule == "plateau":
        return config.plateau_factor**plateau_drops
    return 1.0


class Plateau:
    """Counts how often the dev WER stopped improving for `patience` validations in a row."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best, self.waited, self.drops = patience, math.inf, 0, 0

    def update(self, wer: float) -> None:
        if wer < self.best:
            self.best, self.waited = wer, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.waited, self.drops = 0, self.drops + 1

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best, "waited": self.waited, "drops": self.drops}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.best, self.waited, self.drops = state["best"], int(state["waited"]), int(state["drops"])


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, share))))
