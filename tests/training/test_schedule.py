"""The learning rate's course: warm-up, ends, monotony, plateau reductions; and the moving average of the weights."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from asr.training.callbacks import MovingAverage, SaveOnInterrupt
from asr.training.config import OptimizerConfig
from asr.training.module import Plateau, lr_factor
from asr.training.process import Signals


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


def test_the_moving_average_is_that_of_every_step_and_goes_on_after_a_checkpoint():
    torch.manual_seed(3)
    model = pl.LightningModule()
    model.layer = torch.nn.Linear(3, 2)
    model.register_buffer("count", torch.zeros(1, dtype=torch.int64))
    model.register_buffer("mean", torch.zeros(2))  # as of batch norm
    trainer = SimpleNamespace(global_step=0, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    averages = [MovingAverage(0.6)]
    averages[0].setup(trainer, model, "fit")
    expected: list[torch.Tensor] = []
    for step in range(8):
        with torch.no_grad():
            for tensor in (*model.parameters(), model.mean):
                tensor += torch.randn_like(tensor)
            model.count += 1
        trainer.global_step = step + 1
        if step == 4:  # a resumed run
            checkpoint = {"state_dict": model.state_dict()}
            averages[0].on_save_checkpoint(trainer, model, checkpoint)
            averages.append(MovingAverage(0.6))
            averages[1].setup(trainer, model, "fit")
            averages[1].on_load_checkpoint(trainer, model, checkpoint)
            averages[1].load_state_dict(averages[0].state_dict())
        for average in averages:
            average.on_train_batch_end(trainer, model, None, None, step)
            average.on_train_batch_end(trainer, model, None, None, step)  # accumulated: not a step of the optimizer
        decay = min(0.6, (1 + step) / (10 + step)) if step else 0.0
        current = [tensor.detach().clone() for tensor in (*model.parameters(), model.mean)]
        expected = [decay * a + (1 - decay) * c for a, c in zip(expected or current, current, strict=True)]
        for average in averages:
            found = average._average_model.module
            for mine, wanted in zip((*found.parameters(), found.mean), expected, strict=True):
                torch.testing.assert_close(mine, wanted)
            assert average._average_model.n_averaged == step + 1 == found.count
    assert len(averages) == 2


def test_the_average_has_the_name_of_older_checkpoints():
    assert MovingAverage(0.5).state_key == pl.callbacks.WeightAveraging().state_key


@pytest.mark.parametrize(("accumulate", "batches"), [(1, [4, 9]), (2, [3, 7, 11]), (8, [7]), (4, [3, 7, 11])])
def test_ranks_ask_each_other_about_every_five_batches(tmp_path, accumulate, batches):
    """A scheduler gives them seconds to save, so accumulated batches must not make them ask less often."""
    asked = []
    trainer = SimpleNamespace(accumulate_grad_batches=accumulate, world_size=2, is_last_batch=False)
    module = SimpleNamespace(device="cpu")
    callback = SaveOnInterrupt(tmp_path, 60, Signals())
    for batch in range(12):
        trainer.strategy = SimpleNamespace(reduce=lambda state, reduce_op, at=batch: (asked.append(at), state)[1])
        callback.on_train_batch_end(trainer, module, None, None, batch)
    assert asked == batches
