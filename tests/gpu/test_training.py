"""Training on a GPU: resumes, does not wait, loses nothing in bfloat16, and says what fits into memory."""

from __future__ import annotations

import csv
import json
import re
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from asr.__main__ import main
from asr.model.checkpoint import load_model
from asr.training.callbacks import MovingAverage, SaveOnInterrupt
from asr.training.config import parse_config
from asr.training.measure import Shape, measure, stand_in
from asr.training.process import Interrupted
from asr.training.run import train
from asr.types import AsrError

WIDE = {"hidden_size": 128, "layers": 2, "subsampling_channels": 16}


def on(device: str, **trainer: Any) -> dict[str, Any]:
    return {"accelerator": "gpu" if device == "cuda" else "cpu", "devices": 1, **trainer}


def column(output: Path, name: str) -> dict[int, float]:
    """A logged metric by step."""
    found = {}
    for path in sorted((output / "logs" / "csv").glob("version_*/metrics.csv")):
        for row in csv.DictReader(path.open(encoding="utf-8")):
            if row.get(name):
                found[int(row["step"])] = float(row[name])
    return found


def test_a_run_stopped_in_the_midst_of_an_epoch_goes_on(
    device: str, settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on the CPU, but nearly: sums on a GPU are not always added in the same order."""
    values = settings("whole", trainer=on(device, max_epochs=1))
    train(parse_config(values))
    original = SaveOnInterrupt.on_train_batch_end

    def stop(self: SaveOnInterrupt, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == 4:
            self.signals.received = signal.SIGTERM
        original(self, trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SaveOnInterrupt, "on_train_batch_end", stop)
        with pytest.raises(Interrupted):
            train(parse_config(values | {"output": str(tmp_path / "parts")}))
    train(parse_config(values | {"output": str(tmp_path / "parts")}))
    whole, parts = (column(tmp_path / name, "train/loss_step") for name in ("whole", "parts"))
    assert set(whole) - set(parts) <= {3} and max(parts) == max(whole) > 4  # the interruption cuts a line of the log
    tolerance = 0 if device == "cpu" else 0.02
    assert all(loss == pytest.approx(whole[step], rel=tolerance) for step, loss in parts.items())
    weights = [load_model(tmp_path / name / "model.asr").model.state_dict() for name in ("whole", "parts")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=5e-3 if device == "cuda" else 0, rtol=0)


def test_bfloat16_learns_as_float32_does(device: str, settings, tmp_path: Path) -> None:
    """About 200 steps (8 on the CPU): losses, and norms of gradients, which small ones that are lost would lower."""
    epochs = 25 if device == "cuda" else 1
    augment = {"time_masks": 0, "frequency_masks": 0, "speed": []}
    for precision in ("32-true", "bf16-mixed"):
        trainer = on(device, max_epochs=epochs, check_val_every_n_epoch=epochs, precision=precision)
        model = WIDE | {"dropout": 0.0} if device == "cuda" else {"dropout": 0.0, "hidden_size": 8}
        optimizer = {"lr": 0.003, "warmup_steps": 20}
        train(parse_config(settings(precision, trainer=trainer, model=model, augment=augment, optimizer=optimizer)))
    losses, norms = (
        [np.array(list(column(tmp_path / precision, name).values())) for precision in ("32-true", "bf16-mixed")]
        for name in ("train/loss_step", "train/gradient_norm")
    )
    assert len(losses[0]) == len(losses[1]) >= 6 * epochs and np.isfinite([*losses, *norms]).all()
    assert np.allclose(losses[0][:3], losses[1][:3], rtol=0.03)
    assert np.allclose(norms[0][:3], norms[1][:3], rtol=0.1)
    if device == "cuda":
        print(json.dumps({"losses": [x[::20].tolist() for x in losses], "norms": [x[::20].tolist() for x in norms]}))
        assert abs(np.mean(losses[0][-50:]) - np.mean(losses[1][-50:])) < 0.1 * np.mean(losses[0][:10])
        assert np.median(norms[1] / norms[0]) == pytest.approx(1.0, abs=0.15)


def test_no_gradient_is_lost_in_bfloat16(device: str, settings) -> None:
    """PyTorch casts recurrent cells to float16 for cuDNN, which has no numbers below 6e-8, and few below 6e-5.

    The loss is divided by the tokens of the whole batch: the larger the batch, the smaller each frame's gradient.
    """
    found = {}
    shape = Shape(32, 12.0) if device == "cuda" else Shape(4, 0.5)
    model = (WIDE if device == "cuda" else {"hidden_size": 8}) | {"dropout": 0.0}
    for precision in ("32-true", "bf16-mixed"):
        config = parse_config(settings(trainer=on(device, precision=precision), model=model))
        torch.manual_seed(4)
        module = stand_in(config, 30)

        def clip(*_: Any, module: Any = module, precision: str = precision, **__: Any) -> None:
            cells = [p.grad.flatten() for n, p in module.named_parameters() if "weight_hh" in n]
            found[precision] = torch.cat(cells).double().cpu()

        module.configure_gradient_clipping = clip
        measure(config, module, shape, steps=1)
    exact, half = found["32-true"], found["bf16-mixed"]
    zeros, norms = [float((g == 0).double().mean()) for g in (exact, half)], [float(g.norm()) for g in (exact, half)]
    angle = float(torch.nn.functional.cosine_similarity(exact, half, dim=0))
    print(json.dumps({"device": device, "share of zeros": zeros, "norms": norms, "cosine": angle}))
    assert zeros[1] < zeros[0] + 0.02 and norms[1] == pytest.approx(norms[0], rel=0.1) and angle > 0.97


def test_the_step_does_not_wait(cuda: str, settings) -> None:
    """What PyTorch itself reports as waiting for the GPU, but for the native CTC kernel, which copies its lengths."""
    config = parse_config(settings(trainer=on("cuda", precision="bf16-mixed", log_every_n_steps=1000), model=WIDE))
    module = stand_in(config, 30)
    begin, steps = module.on_train_batch_start, 0

    def start(*arguments: Any) -> None:
        nonlocal steps
        steps += 1
        torch.cuda.set_sync_debug_mode("warn" if steps > 1 else "default")  # the first step chooses kernels
        begin(*arguments)

    def finish(*_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    module.on_train_batch_start, module.on_train_batch_end = start, finish
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            measure(config, module, Shape(8, 2.0), steps=4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = {(w.filename, w.lineno) for w in caught if "synchronizing CUDA operation" in str(w.message)}
    # The clock of `measure` waits on purpose.
    expected = r"nn.functional\.py|autograd|losses|torch.cuda.__init__|measure\.py"
    assert steps >= 2 and not {place for place in places if not re.search(expected, place[0])}


def test_the_average_is_on_the_device_of_the_model(device: str, settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where the model was before the run: all weights would be copied to the CPU in every step."""
    seen = set()
    original = MovingAverage.on_train_batch_end

    def look(self: MovingAverage, trainer: Any, *arguments: Any) -> None:
        original(self, trainer, *arguments)
        assert self._average_model is not None
        seen.update(p.device.type for p in self._average_model.parameters())

    monkeypatch.setattr(MovingAverage, "on_train_batch_end", look)
    config = parse_config(settings(trainer=on(device)))
    measure(config, stand_in(config, 9), Shape(2, 0.5), steps=2)
    assert seen == {device}


def test_without_enough_memory_a_batch_that_fits_is_found(cuda: str, settings) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    model = {"hidden_size": 1024, "layers": 3, "subsampling_channels": 32}
    values = settings(trainer=on("cuda", max_epochs=1), model=model, data={"batch_seconds": 40.0})
    config = parse_config(values)
    step = measure(config, stand_in(config, 6), Shape(20, 2.0), steps=1)
    half = measure(config, stand_in(config, 6), Shape(10, 2.0), steps=1)
    torch.cuda.set_per_process_memory_fraction((step.memory + half.memory) / 2 / total)
    try:
        with pytest.raises(AsrError, match=r"out of memory with data.batch_seconds=40: data.batch_seconds=") as error:
            train(config)
        fitting = float(re.findall(r"data.batch_seconds=([\d.]+) fits", str(error.value))[0])
        assert 5 <= fitting < 40
        train(parse_config(values | {"data": values["data"] | {"batch_seconds": fitting}}), resume="never")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_plan_is_measured(cuda: str, settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings(trainer=on("cuda"), model=WIDE)), encoding="utf-8")
    assert main(["train", str(recipe), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["memory_from"] == "measured" and plan["memory"] > 1e6 and plan["throughput"] > 10
    assert torch.cuda.get_device_name() in plan["throughput_from"]
    assert main(["train", str(recipe), "--find-batch"]) == 0
    assert re.fullmatch(r"data\.batch_seconds=\d+\n", capsys.readouterr().out)
