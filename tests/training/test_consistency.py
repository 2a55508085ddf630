"""Consistency regularization (CR-CTC): the loss against a slow one in float64, and the step with two views.

Whole runs with it: test_tasks.py; that they resume exactly: test_train.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.audio.augment import spec_augment
from asr.audio.features import LogMel
from asr.corpus.manifest import Manifest
from asr.model.acoustic import Outputs
from asr.training.config import TrainConfig, parse_config
from asr.training.data import make_tokenizer
from asr.training.dataset import Batch, SpeechDataset, collate
from asr.training.losses.consistency import consistency_loss
from asr.training.losses.ctc import ctc_loss
from asr.training.module import SpeechModule
from asr.training.run import train
from asr.types import ConfigError

Settings = Callable[..., dict[str, Any]]

LENGTHS = torch.tensor([6, 1, 0, 9, 4] * 2)  # of 9 frames; a row of length 0 is a filler
TOKENS = torch.tensor([2, 1, 0, 3, 1] * 2)
BOTH = {"ctc": 1.0, "consistency": 0.2}


def random_logits(seed: int = 0) -> Tensor:
    """Logits of two views of five utterances: (10, 9, 4)."""
    return 3 * torch.randn(10, 9, 4, generator=torch.Generator().manual_seed(seed))


def slow_loss(log_probs: Tensor) -> float:
    """The formula of the docstring, term by term, in float64."""
    total = 0.0
    p = log_probs.double().exp().tolist()
    for utterance in range(5):
        for frame in range(int(LENGTHS[utterance])):
            for a, b in zip(p[utterance][frame], p[utterance + 5][frame], strict=True):
                total += b * (math.log(b) - math.log(a)) + a * (math.log(a) - math.log(b))
    return 0.5 * total / 7  # tokens of the utterances


def test_equals_the_formula_term_by_term() -> None:
    for seed in range(5):
        log_probs = random_logits(seed).log_softmax(-1)
        loss = consistency_loss(log_probs, LENGTHS, TOKENS)
        assert loss.dtype == torch.float32 and float(loss) == pytest.approx(slow_loss(log_probs), rel=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(consistency_loss(log_probs, LENGTHS, TOKENS), loss)


def test_each_view_is_pulled_to_the_other_which_stays_where_it_is() -> None:
    logits = random_logits().requires_grad_()
    consistency_loss(logits.log_softmax(-1), LENGTHS, TOKENS).backward()
    p = logits.detach().double().softmax(-1)
    valid = (torch.arange(9)[None, :] < LENGTHS[:, None])[:, :, None]
    # The gradient of KL(constant q || softmax(z)) is softmax(z) - q; without the detachment there were a second term.
    expected = torch.where(valid, p - p.roll(5, dims=0), 0.0) / 14
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits.grad[:5], -logits.grad[5:], atol=1e-6, rtol=0)


def test_equal_views_of_each_utterance_cost_nothing_other_orders_do() -> None:
    half = random_logits()[:5].log_softmax(-1)
    lengths = torch.full((10,), 9)
    assert float(consistency_loss(half.repeat(2, 1, 1), lengths, TOKENS)) == 0.0
    interleaved = half.repeat_interleave(2, dim=0)  # view after view within each utterance
    assert float(consistency_loss(interleaved, lengths, TOKENS)) > 1.0
    assert float(consistency_loss(torch.cat([half, half.flip(0)]), lengths, TOKENS)) > 1.0


def test_padding_and_filler_rows_count_nothing() -> None:
    log_probs = random_logits().log_softmax(-1)
    expected = float(consistency_loss(log_probs, LENGTHS, TOKENS))
    padding = torch.arange(9)[None, :] >= LENGTHS[:, None]
    assert float(consistency_loss(torch.where(padding[:, :, None], 7.0, log_probs), LENGTHS, TOKENS)) == expected
    longer = torch.cat([log_probs, torch.full((10, 3, 4), -5.0)], dim=1)
    assert float(consistency_loss(longer, LENGTHS, TOKENS)) == pytest.approx(expected)
    rows = torch.tensor([0, 1, 3, 4, 5, 6, 8, 9])  # without the fillers
    assert float(consistency_loss(log_probs[rows], LENGTHS[rows], TOKENS[rows])) == pytest.approx(expected)
    nothing = torch.zeros(10, dtype=torch.int64)
    assert float(consistency_loss(log_probs, nothing, nothing)) == 0.0


class Step:
    """The first training step of a run: its batch, what the encoder saw and gave, the losses and what was logged."""

    def __init__(self, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, infeasible: bool = False) -> None:
        train_set, dev_set = (Manifest.read([path]) for path in (config.data.train, config.data.dev))
        tokenizer = make_tokenizer(config.text, train_set)
        torch.manual_seed(0)
        self.module = SpeechModule(config, tokenizer, train_set, dev_set)
        dataset = SpeechDataset(config, train_set, tokenizer, training=True)
        self.batch: Batch = collate([dataset[(2, index)] for index in (5, 3, 11)])
        if infeasible:
            self.batch.tokens, self.batch.token_lengths = torch.ones(302, dtype=torch.int64), torch.tensor([300, 1, 1])
        self.logged: dict[str, float] = {}
        self.outputs: list[Outputs] = []
        self.feature_calls = 0
        recognize, features = self.module.model.recognize, LogMel.forward

        def kept(*arguments: Tensor) -> Outputs:
            self.outputs.append(recognize(*arguments))
            return self.outputs[-1]

        def counted(module: LogMel, *arguments: Tensor) -> Any:
            self.feature_calls += 1
            return features(module, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(self.module.model, "recognize", kept)
            patch.setattr(LogMel, "forward", counted)
            patch.setattr(self.module, "log", lambda name, value, **_: self.logged.update({name: float(value)}))
            patch.setattr(SpeechModule, "current_epoch", 2)
            self.loss = self.module.training_step(self.batch, 0)

    def masked(self, time_masks: int, *view: int) -> Tensor:
        """The batch's features with the masks of a view."""
        augment = self.module.run_config.augment
        with torch.no_grad():
            features, frames = self.module.model.features(self.batch.waveforms, self.batch.lengths)
        config = type(augment)(**augment.__dict__ | {"time_masks": time_masks})
        return spec_augment(features, frames.tolist(), config, [(1, 2, index, *view) for index in (5, 3, 11)])


def test_a_step_masks_two_views_of_features_computed_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(parse_config(settings(objectives=BOTH, augment={"time_masks": 3})), monkeypatch)
    [outputs] = step.outputs
    assert step.feature_calls == 1
    first, second = outputs.features.chunk(2)
    assert torch.equal(first, step.masked(7)) and torch.equal(second, step.masked(7, 1))
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(*outputs.lengths.chunk(2))
    # CTC is the mean over the views; the divergence has the configured weight.
    tokens = step.batch.tokens, step.batch.token_lengths
    log_probs = outputs.log_probs.detach()
    views = [ctc_loss(log_probs[r], outputs.lengths[r], *tokens).loss for r in (slice(0, 3), slice(3, 6))]
    ctc, apart = (views[0] + views[1]) / 2, consistency_loss(log_probs, outputs.lengths, tokens[1].repeat(2))
    assert step.logged["train/ctc"] == pytest.approx(float(ctc))
    assert step.logged["train/consistency"] == pytest.approx(float(apart)) and float(apart) > 0
    assert float(step.loss.detach()) == pytest.approx(float(ctc + 0.2 * apart))


def test_a_step_without_views_is_what_it_was(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: the masks of (seed, epoch, utterance), as many as configured, the dropout of the step's seed."""
    step = Step(parse_config(settings(augment={"time_masks": 3})), monkeypatch)
    module, batch = step.module, step.batch
    with monkeypatch.context() as patch:
        patch.setattr(SpeechModule, "current_epoch", 2)
        module._seed_step(0)
    frames = module.model.features(batch.waveforms, batch.lengths)[1]
    expected = module.model.recognize(step.masked(3), frames)
    assert torch.equal(step.outputs[0].log_probs, expected.log_probs) and len(expected.log_probs) == 3
    assert torch.equal(
        step.loss, ctc_loss(expected.log_probs, expected.lengths, batch.tokens, batch.token_lengths).loss
    )


def test_what_is_counted_is_counted_once_for_both_views(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for objectives in ({"ctc": 1.0}, BOTH):
        step = Step(parse_config(settings() | {"objectives": objectives}), monkeypatch, infeasible=True)
        assert step.logged["train/infeasible"] == 1.0


def test_the_factor_of_time_masks_is_a_setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    values = settings(objectives=BOTH, augment={"time_masks": 2}, view_time_masks=1)
    step = Step(parse_config(values), monkeypatch)
    assert torch.equal(step.outputs[0].features[3:], step.masked(2, 1))
    with pytest.raises(ConfigError, match="view_time_masks must not be negative, found -1"):
        parse_config(values | {"view_time_masks": -1})


def test_views_without_masks_are_refused(settings: Settings) -> None:
    values = settings(objectives=BOTH, augment={"time_masks": 0, "frequency_masks": 0})
    with pytest.raises(ConfigError, match=r"objectives: consistency .* set augment\.time_masks"):
        train(parse_config(values))
