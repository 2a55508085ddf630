"""Averaging the weights of several checkpoints (Izmailov et al., 2018): often the cheapest gain in word error rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr.types import ModelFileError


def average_checkpoints(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """The mean of the models' weights in training checkpoints, as a state dict for `AcousticModel`.

    Raises ModelFileError when a file is not a training checkpoint or the models differ in shape.
    """
    if not paths:
        raise ModelFileError("no checkpoints to average")
    total: dict[str, Tensor] = {}
    for path in paths:
        weights = model_weights(read_checkpoint(path))
        if total and {k: v.shape for k, v in total.items()} != {k: v.shape for k, v in weights.items()}:
            raise ModelFileError(f"{path}: holds a model of another shape than {paths[0]}")
        for name, tensor in weights.items():
            value = tensor.double() if tensor.is_floating_point() else tensor
            total[name] = total[name] + value if name in total and tensor.is_floating_point() else value
    return {k: (v / len(paths)).float() if v.is_floating_point() else v for k, v in total.items()}


def model_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The acoustic model's weights in a training checkpoint (the averaged ones where the run keeps an average)."""
    prefix = "model."
    return {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint safely (no pickled objects); ModelFileError, in one line, when it is not one."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch raises many kinds for foreign files
        reason = next(iter(str(error).splitlines()), "it is empty or cut off")
        raise ModelFileError(f"{path}: damaged, or not a training checkpoint of this program ({reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ModelFileError(f"{path}: not a training checkpoint of this program")
    return checkpoint
