"""A training step never waits for the GPU: no value is read back, and nothing is copied to it but without blocking.

No GPU is needed. Tensors on the device "meta" have no values: to read one fails, and copies to it can be seen.
"""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import asr
from asr.training.config import parse_config
from asr.training.measure import Shape, measure, noise_batch, stand_in
from asr.training.module import SpeechModule

ASR = str(Path(asr.__file__).parent)


class Watched(TorchDispatchMode):
    """Copies from one device to another that block, and the stacks in which a number was read from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.blocking: list[str] = []
        self.copies = 0
        self.read: list[list[str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func)
        if name.startswith(("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten._unique")):
            self.read.append([frame.filename for frame in traceback.extract_stack()])
        if name.startswith(("aten._to_copy", "aten.copy_")) and len({t.device for t in (*args[:2], out) if _is(t)}) > 1:
            self.copies += 1
            if not ((kwargs or {}).get("non_blocking") or (len(args) > 2 and args[2])):
                self.blocking.append("".join(traceback.format_stack(limit=12)))
        return out


def _is(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


@pytest.fixture
def config(settings):
    augment = {"time_masks": 2, "frequency_masks": 1, "frequency_mask_width": 3}
    model = {"hidden_size": 8, "layers": 2, "subsampling_channels": 2, "projection": 8}
    return parse_config(settings(augment=augment, model=model, objectives={"ctc": 1.0, "consistency": 0.2}))


def test_the_step_itself(config, monkeypatch: pytest.MonkeyPatch) -> None:
    def ctc(log_probs, tokens, lengths, token_lengths, **_):
        """The native kernel takes the lengths from the CPU."""
        assert (tokens.device.type, lengths.device.type, token_lengths.device.type) == ("meta", "cpu", "cpu")
        assert len(lengths) == len(token_lengths) == log_probs.size(1)
        return log_probs.sum(dim=(0, 2))

    logged = []
    module = stand_in(config, 9).to("meta")
    monkeypatch.setattr("torch.nn.functional.ctc_loss", ctc)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no "meta"
    monkeypatch.setattr(SpeechModule, "current_epoch", 0)
    monkeypatch.setattr(SpeechModule, "global_rank", 0)
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.append((name, value)))
    batch = module.transfer_batch_to_device(noise_batch(config, Shape(3, 0.3), 9), torch.device("meta"), 0)
    with Watched() as watched:
        loss = module.training_step(batch, 0)
        loss.backward()
        module.configure_gradient_clipping(None)
        module.on_before_zero_grad(torch.optim.AdamW(module.parameters()))
    assert loss.device.type == "meta" and all(p.grad is not None for p in module.model.parameters())
    assert watched.copies and not watched.blocking, watched.blocking[0]
    # Of a number Lightning makes a tensor on the GPU, which waits for it.
    assert {"train/loss_step", "train/gradient_norm", "train/lr"} <= {name for name, _ in logged}
    assert all(isinstance(value, torch.Tensor) for _, value in logged)


def test_the_loop_around_it(config) -> None:
    """What is read on the CPU, by Lightning and the callbacks too, would be waited for on a GPU."""
    with Watched() as watched:
        measure(config, stand_in(config, 9), Shape(3, 1.0), steps=3)
    steps = [files for files in watched.read if any(f.endswith("training_epoch_loop.py") for f in files)]
    # The count of averages, once, before the first.
    assert [next(Path(f).name for f in reversed(files) if ASR in f) for files in steps] == ["callbacks.py"]
