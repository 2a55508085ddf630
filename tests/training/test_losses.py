"""Objectives beside CTC: each against a slow formula over single utterances, which no padding or filler row is part of.

`consistency`: test_consistency.py. CTC itself: test_objectives.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import asr
from asr.model import encoders
from asr.model.acoustic import AcousticModel, Outputs
from asr.model.checkpoint import load_model
from asr.model.config import ModelConfig
from asr.training.config import parse_config
from asr.training.dataset import Batch, Sample, collate
from asr.training.losses.stability import stability_loss
from asr.training.measure import stand_in
from asr.training.module import SpeechModule
from asr.training.run import train
from asr.types import ConfigError

VOCAB = 6
MELS = 10
RECURRENT = {"hidden_size": 6, "layers": 3, "subsampling_channels": 2, "dropout": 0.0}
SECONDS = (0.31, 0.5, 0.043)
TOKENS = ([1, 2], [3, 3, 5, 1], [2])


@dataclass(frozen=True)
class FunnelConfig(ModelConfig):
    encoder: str = "funnel"


class FunnelEncoder(nn.Module):
    """Layers of several widths, of which the first two halve the frames."""

    layer_sizes = (5, 7, 4)
    output_size, stride = 4, 4

    def __init__(self, config: FunnelConfig, n_mels: int) -> None:
        super().__init__()
        widths = (n_mels, *self.layer_sizes)
        self.layers = nn.ModuleList(nn.Linear(widths[i], widths[i + 1]) for i in range(3))

    def output_length(self, frames: int) -> int:
        return -(-frames // 4)

    def initialize(self) -> None:
        pass

    def forward(self, x: Tensor, lengths: Tensor, after_layer: Any = None) -> tuple[Tensor, Tensor]:
        for number, layer in enumerate(self.layers, 1):
            x = torch.tanh(layer(x))
            if number < 3:
                x, lengths = x[:, ::2], (lengths + 1) // 2
            x = after_layer(number, x, lengths) if after_layer else x
        return x, lengths


@pytest.fixture(autouse=True)
def funnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.ENCODERS, "funnel", FunnelEncoder)


def module(objectives: dict[str, Any], model: dict[str, Any] = RECURRENT, **sections: Any) -> SpeechModule:
    torch.manual_seed(1)
    values = {"features": {"n_mels": MELS}, "model": model, "objectives": objectives}
    made = stand_in(parse_config(values | {"augment": {"time_masks": 2, "frequency_masks": 1}} | sections), VOCAB)
    return made.train()


def batch(*which: int) -> Batch:
    waves = [torch.randn(round(s * 16000), generator=torch.Generator().manual_seed(i)) for i, s in enumerate(SECONDS)]
    return collate([Sample(i, 0.1 * waves[i], torch.tensor(TOKENS[i]), SECONDS[i]) for i in which])


def masked(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """In the place of SpecAugment."""
    return features * (torch.arange(MELS) % 3 > 0), lengths


def run(trained: SpeechModule, name: str, data: Batch) -> tuple[Tensor, Outputs]:
    outputs = trained.model.outputs(data.waveforms, data.lengths, masked)
    return trained.objectives[name](outputs, data).loss, outputs


def slow_intermediate(trained: SpeechModule) -> float:
    layers, total = trained.objectives["intermediate_ctc"].layers, 0.0
    for i in range(3):
        _, outputs = run(trained, "intermediate_ctc", batch(i))
        for number in layers:
            x, _ = outputs.layers[number - 1]
            own = trained.objectives["intermediate_ctc"].heads
            head = own[str(x.size(-1))] if str(x.size(-1)) in own else trained.model.head(x.size(-1))
            log_probs = head(x[0]).log_softmax(-1)
            total += float(
                functional.ctc_loss(log_probs, torch.tensor(TOKENS[i]), [len(x[0])], [len(TOKENS[i])], reduction="sum")
            )
    return total / len(layers) / 7


def slow_reconstruction(trained: SpeechModule) -> float:
    objective, errors, frames = trained.objectives["auto_encoder"], 0.0, 0
    for i in range(3):
        _, outputs = run(trained, "auto_encoder", batch(i))
        assert outputs.clean is not None and not torch.equal(outputs.clean, outputs.features)
        found = objective.decoder(outputs.layers[objective.layer - 1][0][0])
        for frame, target in enumerate(outputs.clean[0]):
            state, place = divmod(frame, objective.stride)
            errors += float((found[state, place * MELS : (place + 1) * MELS] - target).square().sum())
            frames += 1
    return errors / frames / MELS


def slow_stability(trained: SpeechModule) -> float:
    objective, encoder = trained.objectives["stability"], trained.model.encoder
    losses = []
    for number in (1, 3):
        for cell in (encoder.layers[number - 1].forward_cell, encoder.layers[number - 1].backward_cell):
            changes = []
            for i in range(3):
                kept: list[Tensor] = []
                handle = cell.register_forward_hook(lambda _, __, result, kept=kept: kept.append(result[0][0]))
                run(trained, "stability", batch(i))
                handle.remove()
                for before, after in zip(kept[0][:-1], kept[0][1:], strict=True):
                    if objective.kind == "norm":
                        changes.append(float((after.norm() - before.norm()) ** 2))
                    else:
                        changes.append(float((after - before).square().mean()))
            losses.append(sum(changes) / len(changes))
    return sum(losses) / len(losses)


def slow_posteriors(term: Callable[[float], float]) -> Callable[[SpeechModule], float]:
    def slow(trained: SpeechModule) -> float:
        total = 0.0
        for i in range(3):
            data = batch(i)
            for frame in trained.model.outputs(data.waveforms, data.lengths, masked).log_probs[0].tolist():
                total += sum(term(math.exp(log_prob)) for log_prob in frame)
        return total / 7

    return slow


PYRAMID = RECURRENT | {"subsampling": 2, "time_reduction": [2], "cell": "gru"}
FUNNEL_CONDITIONED = {"encoder": "funnel", "self_conditioning": [2]}
CASES: dict[str, tuple[str, Any, dict[str, Any], Callable[[SpeechModule], float]]] = {
    "intermediate": ("intermediate_ctc", {"layers": [1, 2]}, RECURRENT, slow_intermediate),
    "conditioned": ("intermediate_ctc", 1.0, RECURRENT | {"self_conditioning": [1, 2]}, slow_intermediate),
    "widths": ("intermediate_ctc", {"layers": [1, 2]}, {"encoder": "funnel"}, slow_intermediate),
    "widths fed back": ("intermediate_ctc", {"layers": [1, 2]}, FUNNEL_CONDITIONED, slow_intermediate),
    "linear": ("auto_encoder", 0.5, RECURRENT, slow_reconstruction),
    "hidden": ("auto_encoder", {"layer": 1, "hidden": 5}, {"encoder": "funnel"}, slow_reconstruction),
    "norm": ("stability", {"layers": [1, 3]}, RECURRENT, slow_stability),
    "difference": ("stability", {"layers": [1, 3], "kind": "difference"}, RECURRENT | {"cell": "gru"}, slow_stability),
    "pyramid": ("stability", {"layers": [1, 3]}, PYRAMID, slow_stability),
    "pyramid, CTC": ("intermediate_ctc", {"layers": [1, 2]}, PYRAMID, slow_intermediate),
    "pyramid, features": ("auto_encoder", {"layer": 2}, PYRAMID, slow_reconstruction),
    "entropy": ("entropy", 0.1, RECURRENT, slow_posteriors(lambda p: p * math.log(p * VOCAB))),
    "label smoothing": ("label_smoothing", 0.1, RECURRENT, slow_posteriors(lambda p: -math.log(p * VOCAB) / VOCAB)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_batch_costs_what_the_formula_says_of_its_utterances(case: str) -> None:
    name, setting, model, slow = CASES[case]
    trained = module({"ctc": 1.0, name: setting}, model)
    loss, _ = run(trained, name, batch(0, 1, 2))
    with torch.no_grad():
        loss = loss.detach()
        assert loss.dtype == torch.float32 and float(loss) == pytest.approx(slow(trained), rel=1e-4) and float(loss) > 0
        trained.model.row_multiple = 8  # rows that only fill up
        assert float(run(trained, name, batch(0, 1, 2))[0]) == pytest.approx(float(loss), rel=1e-5)
        longer = batch(0, 1, 2)
        longer.waveforms = functional.pad(longer.waveforms, (0, 9000), value=3.0)
        assert float(run(trained, name, longer)[0]) == pytest.approx(float(loss), rel=1e-5)
        nothing = batch(2, 2)
        nothing.lengths, nothing.token_lengths = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
        nothing.tokens = nothing.tokens[:0]
        assert math.isfinite(float(run(trained, name, nothing)[0]))


FRONT, LAYERS = "encoder.subsampling", [f"encoder.layers.{i}." for i in range(3)]
REACHED: dict[str, tuple[str, Any, set[str]]] = {
    "intermediate": ("intermediate_ctc", {"layers": [2]}, {FRONT, *LAYERS[:2], "output"}),
    "auto_encoder": ("auto_encoder", {"layer": 1}, {FRONT, LAYERS[0], "objectives"}),
    "stability": ("stability", {"layers": [2]}, {FRONT, *LAYERS[:2]}),
    "entropy": ("entropy", 1.0, {FRONT, *LAYERS, "output"}),
    "label_smoothing": ("label_smoothing", 1.0, {FRONT, *LAYERS, "output"}),
    "l1": ("l1", 1.0, {FRONT, *LAYERS, "output"}),
    "l2 recurrent": ("l2", {"which": "recurrent"}, set(LAYERS)),
    "l1 output": ("l1", {"which": "output"}, {"output"}),
}


@pytest.mark.parametrize("case", REACHED)
def test_gradients_reach_what_an_objective_looks_at_and_nothing_else(case: str) -> None:
    name, setting, parts = REACHED[case]
    trained = module({name: setting})
    run(trained, name, batch(0, 1, 2))[0].backward()
    reached = {n.removeprefix("model.") for n, p in trained.named_parameters() if p.grad is not None and p.grad.any()}
    every = {FRONT, *LAYERS, "output", "objectives"}
    assert {part for part in every if any(name.startswith(part) for name in reached)} == parts
    if case == "stability":  # the states of the cells, not what their layer makes of them
        assert not any(n.startswith("encoder.layers.1.norm") for n in reached)
    for parameter in trained.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_penalties_pull_at_matrices_by_their_sign_or_size() -> None:
    for name, pull in (("l1", torch.sign), ("l2", lambda w: w)):
        trained = module({name: 1.0})
        loss, _ = run(trained, name, batch(0))
        loss.backward()
        expected = 0.0
        for parameter in trained.model.parameters():
            if parameter.dim() < 2:
                assert parameter.grad is None
                continue
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, pull(parameter.detach()))
            for weight in parameter.detach().flatten().tolist():
                expected += abs(weight) if name == "l1" else weight * weight / 2
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_a_cell_at_rest_has_no_gradient_that_is_not_a_number() -> None:
    states = torch.zeros(2, 5, 3, requires_grad=True)
    stability_loss(states, torch.tensor([5, 0]), "norm").backward()
    assert states.grad is not None and not states.grad.any()


def test_a_step_that_failed_keeps_no_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would fill the memory that it failed for; and what a graph hangs on cannot be copied."""
    trained = module({"ctc": 1.0, "stability": 0.1})

    def fail(*_: Any) -> None:
        assert len(trained.objectives["stability"].states) == 6
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trained.objectives["ctc"], "forward", fail)
    with pytest.raises(torch.OutOfMemoryError):
        trained.training_step(batch(0, 1), 0)
    assert not trained.objectives["stability"].states
    copy.deepcopy(trained)


def test_views_are_reconstructed_from_the_same_clean_features(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = module({"ctc": 1.0, "consistency": 0.2, "auto_encoder": 0.3, "intermediate_ctc": 0.4, "stability": 0.1})
    seen: list[tuple[Outputs, Batch, Tensor]] = []
    objective = trained.objectives["auto_encoder"]
    objective.register_forward_hook(lambda _, given, result: seen.append((*given, result.loss)))
    data = batch(0, 1, 2)
    trained.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    assert bool(trained.training_step(data, 0).isfinite())
    [(outputs, both, loss)] = seen
    assert len(outputs.features) == 6 == len(both) and outputs.clean is not None and len(outputs.clean) == 3
    halves = []
    for rows in (slice(0, 3), slice(3, 6)):
        layers = tuple((x[rows], lengths[rows]) for x, lengths in outputs.layers)
        one = Outputs(outputs.log_probs[rows], outputs.lengths[rows], outputs.states[rows], outputs.features[rows],
                      outputs.feature_lengths[rows], outputs.clean, layers)  # fmt: skip
        halves.append(float(objective(one, data).loss.detach()))
    assert float(loss.detach()) == pytest.approx(sum(halves) / 2, rel=1e-5) and halves[0] != halves[1]


@pytest.mark.parametrize(
    ("objectives", "model", "message"),
    [
        ({"intermediate_ctc": {"layers": [3]}}, RECURRENT, r"intermediate_ctc: layer 3 .* from 1 to 2"),
        ({"intermediate_ctc": 1.0}, RECURRENT | {"layers": 1}, r"intermediate_ctc: .* no valid layer"),
        ({"auto_encoder": {"layer": 4}}, RECURRENT, r"auto_encoder: layer 4 .* from 1 to 3"),
        ({"auto_encoder": {"hidden": -1}}, RECURRENT, "auto_encoder: hidden must be 0"),
        ({"auto_encoder": {"layers": 1}}, RECURRENT, r"'objectives.auto_encoder.layers' \(did you mean 'layer'\?\)"),
        ({"stability": {"layers": [2]}}, {"encoder": "funnel"}, "layer 2 has no recurrent cells"),
        ({"stability": 1.0}, {"encoder": "funnel"}, "encoder funnel has no recurrent cells"),
        ({"stability": {"kind": "size"}}, RECURRENT, "stability.kind: 'size' is not one of norm, difference"),
        ({"l1": {"which": "recurrent"}}, {"encoder": "funnel"}, "encoder funnel has no recurrent weight matrices"),
        ({"entropy": {"layer": 1}}, RECURRENT, "it has no options but 'weight'"),
        ({"ctc": 1.0}, RECURRENT | {"self_conditioning": [3]}, r"model.self_conditioning: layer 3 .* from 1 to 2"),
    ],
)
def test_what_cannot_be_is_one_line(objectives: dict[str, Any], model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        module(objectives, model)


def test_a_run_with_all_of_them_logs_each_and_its_model_holds_self_conditioning_only(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    others = {"intermediate_ctc": 0.4, "auto_encoder": {"weight": 0.2, "hidden": 8}, "stability": 0.1}
    penalties = {"l1": 1e-6, "l2": {"weight": 1e-6, "which": "output"}, "entropy": 0.01, "label_smoothing": 0.01}
    values = settings(
        objectives={"ctc": 1.0} | others | penalties,
        model={"layers": 2, "self_conditioning": [1]},
        trainer={"max_epochs": 1, "limit_train_batches": 3},
    )
    path = train(parse_config(values)).model_path
    header = (tmp_path / "run/logs/csv/version_0/metrics.csv").read_text(encoding="utf-8").partition("\n")[0]
    assert {f"train/{name}" for name in values["objectives"]} <= set(header.split(","))
    file = load_model(path)
    plain = AcousticModel(
        parse_config(settings(model={"layers": 2})).model, file.feature_config, file.tokenizer.vocab_size
    )
    assert set(file.model.state_dict()) - set(plain.state_dict()) == {"conditioning.feedback.48.weight"}
    audio = torch.randn(2, 12000, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        log_probs, _ = file.model(audio, torch.tensor([12000, 12000]))
    emissions = asr.load(path, decoder="greedy").emissions(list(audio.numpy()))
    torch.testing.assert_close(torch.from_numpy(emissions[1]), log_probs[1], atol=1e-4, rtol=0)
