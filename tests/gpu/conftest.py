"""Tests that need a GPU, with those of their parts that run without one run on the CPU too."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA GPU")

# The fixtures of training: a tiny language of tones.
_spec = importlib.util.spec_from_file_location("tones", Path(__file__).parents[1] / "training" / "conftest.py")
assert _spec is not None and _spec.loader is not None
_training = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_training)
tones, settings_in, settings, step_losses = (
    getattr(_training, name) for name in ("tones", "settings_in", "settings", "step_losses")
)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=NO_GPU)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each device in turn. On CUDA float32 is float32: TF32, with 3 digits, is off."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield request.param
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    if request.param == "cuda":
        torch.cuda.empty_cache()


@pytest.fixture
def cuda() -> str:
    """For tests of which nothing can be run without a GPU."""
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA GPU")
    return "cuda"
