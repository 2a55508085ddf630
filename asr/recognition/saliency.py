"""Which features a word hangs on: integrated gradients, and their check by deletion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asr.model.acoustic import AcousticModel

Score = Callable[[Tensor], Tensor]  # features (rows, frames, mels) -> (rows,)

TENTH = 0.1  # of the features that the check removes
RANDOM_DRAWS = 10  # of random features, whose mean it takes
COMPLETE = 0.1  # of the difference to explain: the errors of all stretches of the way that are small enough, summed
MOST_STEPS = 256  # gradients; more do not change the picture
STRETCHES = 16  # of the way, at first
BATCH_FRAMES = 8000  # of features, in all rows of a batch


@dataclass(frozen=True)
class Saliency:
    """Attributions (frames, mels) in nats to the features, and what removing some does to the score.

    `score` is the word's on the features, `baseline_score` on the baseline. The attributions add up to the difference
    of the two but for `gap`, an error of the numerical integration. `without_salient` is the score without the tenth of
    the features that has the highest attributions, `without_random` the mean without a random tenth.
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


def explain_score(score: Score, features: Tensor, seed: int = 0) -> Saliency:
    """Integrated gradients of `score` over features (frames, mels), checked by deletion.

    The baseline is the mean of each mel band over the recording: the average sound, in which nothing happens. Silence
    would not do: after normalization over the utterance it is an event of its own. What the check removes is replaced
    by the baseline, too.
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
        generator = torch.Generator().manual_seed(seed)
        for row in removed[1:]:
            row[torch.randperm(features.numel(), generator=generator)[:count]] = True
        masks = removed.view(-1, *features.shape).to(features.device)
        with torch.no_grad():
            without = _scores(score, torch.where(masks, baseline, features))
    return Saliency(attributions.cpu().numpy(), whole, nothing, gap, steps, without[0], sum(without[1:]) / RANDOM_DRAWS)


@dataclass
class _Stretch:
    """A part of the way from the baseline to the features: shares of it, the score at both ends and, once computed, in
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


def integrated_gradients(
    score: Score, features: Tensor, baseline: Tensor, most_steps: int = MOST_STEPS
) -> tuple[Tensor, int]:
    """Attributions (frames, mels), and how many gradients they took: at most `most_steps` and what fills a batch.

    The attributions are the gradient's mean on the straight way from the baseline, times the difference (Sundararajan
    et al., 2017, "Axiomatic attribution for deep networks", eq. 1). They add up to score(features) - score(baseline)
    (completeness), but for the error of the midpoint rule. As the score changes in leaps, the way is divided where they
    are: where the gradient in the middle of a stretch does not explain the difference of the scores at its ends.
    """
    ends = torch.linspace(0.0, 1.0, STRETCHES + 1, device=features.device)
    with torch.no_grad():
        scores = _scores(score, torch.lerp(baseline, features, ends[:, None, None]))
    whole, steps = scores[-1] - scores[0], 0
    done: list[_Stretch] = []
    new = [_Stretch(*row) for row in zip(ends[:-1].tolist(), ends[1:].tolist(), scores[:-1], scores[1:], strict=True)]
    while new:
        middles = torch.tensor([one.middle for one in new], device=features.device)
        rows = torch.lerp(baseline, features, middles[:, None, None])
        pairs = [pair for part in _batches(rows) for pair in _with_gradients(score, part)]
        for one, (value, gradient) in zip(new, pairs, strict=True):
            one.score_middle, one.attributions = value, (features - baseline) * gradient * (one.end - one.begin)
        steps += len(new)
        done = sorted([*done, *new], key=lambda one: abs(one.gap))
        new = []
        if sum(abs(one.gap) for one in done) > COMPLETE * abs(whole) and steps < most_steps:
            for one in done[-STRETCHES // 2 :]:
                new.append(_Stretch(one.begin, one.middle, one.score_begin, one.score_middle))
                new.append(_Stretch(one.middle, one.end, one.score_middle, one.score_end))
            done = done[: -STRETCHES // 2]
    return torch.stack([one.attributions for one in done if one.attributions is not None]).sum(dim=0), steps


def _batches(rows: Tensor) -> tuple[Tensor, ...]:
    """Features (rows, frames, mels) in batches that fit into memory."""
    return rows.split(max(1, BATCH_FRAMES // rows.size(1)))


def _scores(score: Score, rows: Tensor) -> list[float]:
    return [value for part in _batches(rows) for value in score(part).tolist()]


def _with_gradients(score: Score, rows: Tensor) -> list[tuple[float, Tensor]]:
    """The score of each row and its gradient (frames, mels)."""
    points = rows.detach().requires_grad_()
    scores = score(points)
    gradients = torch.autograd.grad(scores.sum(), points)[0]
    return list(zip(scores.tolist(), gradients, strict=True))
