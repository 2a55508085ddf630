"""Which features a word depends on: integrated gradients, checked by deletion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asr.model.acoustic import AcousticModel

Score = Callable[[Tensor], Tensor]  # features (rows, frames, mels) -> (rows,)

TENTH = 0.1  # share of the features that the check removes
RANDOM_DRAWS = 10  # draws of random features, over which the check takes the mean
COMPLETE = 0.1  # share of the difference to explain that the summed errors of all segments may have
MOST_STEPS = 256  # gradients; more do not change the picture
SEGMENTS = 16  # of the path, at first
BATCH_FRAMES = 8000  # feature frames in all rows of a batch


@dataclass(frozen=True)
class Saliency:
    """Attributions (frames, mels) of the score, in nats, to the features, and what removing features does to the score.

    `score` is that of the word on the features, `baseline_score` that on the baseline. The attributions add up to the
    difference of the two plus `gap`, the error of the numerical integration. `without_salient` is the score without the
    tenth of the features with the highest attributions, `without_random` the mean score without a random tenth.
    """

    attributions: np.ndarray
    score: float
    baseline_score: float
    gap: float
    steps: int
    without_salient: float
    without_random: float


def word_score(model: AcousticModel, tokens: Sequence[int], first: int, last: int) -> Score:
    """ln P that the model spells `tokens` in its frames `first` to `last` (exclusive): CTC, over all alignments."""

    def score(features: Tensor) -> Tensor:
        rows = len(features)
        lengths = torch.full((rows,), features.size(1), device=features.device)
        log_probs = model.recognize(features, lengths).log_probs[:, first:last].transpose(0, 1)
        targets = torch.tensor([list(tokens)] * rows, device=features.device)
        frames = torch.full((rows,), last - first)
        counts = torch.full((rows,), len(tokens))
        return -functional.ctc_loss(log_probs, targets, frames, counts, reduction="none")

    return score


def explain_score(score: Score, features: Tensor) -> Saliency:
    """Integrated gradients of `score` over features (frames, mels), checked by deletion.

    The baseline is the mean of each mel band over the recording: an average sound in which nothing happens. Silence
    would not be neutral, because after normalization over the utterance it is an event of its own. The check replaces
    removed features by the baseline, too.
    """
    baseline = features.mean(dim=0, keepdim=True).expand_as(features)
    # cuDNN differentiates its recurrent cells in training mode only.
    with torch.backends.cudnn.flags(enabled=False):
        with torch.no_grad():
            whole, nothing = _scores(score, torch.stack([features, baseline]))
        attributions, steps = integrated_gradients(score, features, baseline)
        gap = float(attributions.sum(dtype=torch.float64)) - (whole - nothing)
        count = max(1, round(TENTH * features.numel()))
        removed = torch.zeros(1 + RANDOM_DRAWS, features.numel(), dtype=torch.bool)
        removed[0, attributions.flatten().argsort(descending=True)[:count].cpu()] = True
        generator = torch.Generator().manual_seed(0)
        for row in removed[1:]:
            row[torch.randperm(features.numel(), generator=generator)[:count]] = True
        masks = removed.view(-1, *features.shape).to(features.device)
        with torch.no_grad():
            without = _scores(score, torch.where(masks, baseline, features))
    return Saliency(attributions.cpu().numpy(), whole, nothing, gap, steps, without[0], sum(without[1:]) / RANDOM_DRAWS)


@dataclass
class _Segment:
    """A part of the path from the baseline (0) to the features (1): its ends, the score at both and, once computed, in
    the middle, and the attributions by the gradient there.
    """

    begin: float
    end: float
    score_begin: float
    score_end: float
    score_middle: float = 0.0
    attributions: Tensor | None = None

    @property
    def middle(self) -> float:
        return (self.begin + self.end) / 2

    @property
    def gap(self) -> float:
        assert self.attributions is not None
        return float(self.attributions.sum(dtype=torch.float64)) - (self.score_end - self.score_begin)


def integrated_gradients(score: Score, features: Tensor, baseline: Tensor) -> tuple[Tensor, int]:
    """Attributions (frames, mels), and the number of gradients they took, about MOST_STEPS at most.

    The attributions are the mean gradient on the straight path from the baseline, times the difference (Sundararajan
    et al., 2017, "Axiomatic attribution for deep networks", eq. 1). They add up to score(features) - score(baseline)
    (completeness), up to the error of the midpoint rule. Because the score changes in leaps, the path is divided where
    they are: where the gradient in the middle of a segment does not explain the difference of the scores at its ends.
    """
    ends = torch.linspace(0.0, 1.0, SEGMENTS + 1, device=features.device)
    with torch.no_grad():
        scores = _scores(score, torch.lerp(baseline, features, ends[:, None, None]))
    whole, steps = scores[-1] - scores[0], 0
    done: list[_Segment] = []
    new = [_Segment(*row) for row in zip(ends[:-1].tolist(), ends[1:].tolist(), scores[:-1], scores[1:], strict=True)]
    while new:
        middles = torch.tensor([segment.middle for segment in new], device=features.device)
        rows = torch.lerp(baseline, features, middles[:, None, None])
        pairs = [pair for batch in _batches(rows) for pair in _with_gradients(score, batch)]
        for segment, (value, gradient) in zip(new, pairs, strict=True):
            segment.score_middle = value
            segment.attributions = (features - baseline) * gradient * (segment.end - segment.begin)
        steps += len(new)
        done = sorted([*done, *new], key=lambda segment: abs(segment.gap))
        new = []
        if sum(abs(segment.gap) for segment in done) > COMPLETE * abs(whole) and steps < MOST_STEPS:
            for segment in done[-SEGMENTS // 2 :]:
                new.append(_Segment(segment.begin, segment.middle, segment.score_begin, segment.score_middle))
                new.append(_Segment(segment.middle, segment.end, segment.score_middle, segment.score_end))
            done = done[: -SEGMENTS // 2]
    return torch.stack([s.attributions for s in done if s.attributions is not None]).sum(dim=0), steps


def _batches(rows: Tensor) -> tuple[Tensor, ...]:
    """Features (rows, frames, mels) in batches that fit in memory."""
    return rows.split(max(1, BATCH_FRAMES // rows.size(1)))


def _scores(score: Score, rows: Tensor) -> list[float]:
    return [value for batch in _batches(rows) for value in score(batch).tolist()]


def _with_gradients(score: Score, rows: Tensor) -> list[tuple[float, Tensor]]:
    """The score of each row and its gradient (frames, mels)."""
    points = rows.detach().requires_grad_()
    scores = score(points)
    gradients = torch.autograd.grad(scores.sum(), points)[0]
    return list(zip(scores.tolist(), gradients, strict=True))
