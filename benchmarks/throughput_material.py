"""What benchmarks run on: a model file or random weights of a given shape, a manifest or noise, a precision."""

from __future__ import annotations

import copy
import re
import string
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from asr.audio.features import FeatureConfig
from asr.config import to_dict
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import ModelFile, load_model
from asr.model.config import RecurrentConfig, described_options
from asr.text.tokenizer import CharTokenizer
from asr.types import UsageError

PRECISIONS = ("float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Clip:
    """A recording to work on; `text` is "" where what is said is not known."""

    path: str
    offset: float
    duration: float | None
    text: str


def load(path: str | None, shape: str, device: str) -> ModelFile:
    """The model file `path`, or without one an untrained bidirectional LSTM of `shape`: "5x512" is 5 layers of 512."""
    if path is not None:
        return load_model(path, device)
    match = re.fullmatch(r"(\d{1,2})x(\d{1,5})", shape)
    if match is None or "0" in match.groups():
        raise UsageError(f"--random takes layers x width, 5x512 for one; found '{shape}'")
    tokenizer = CharTokenizer(["", " ", "'", *string.ascii_lowercase])
    config = RecurrentConfig(layers=int(match[1]), hidden_size=int(match[2]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AcousticModel(config, FeatureConfig(), tokenizer.vocab_size)
    return ModelFile(model.to(device).eval(), tokenizer, "basic")


def clips_of(manifest: str | None, limit: int, folder: Path, rate: int, seconds: float) -> list[Clip]:
    """The first `limit` utterances of a manifest; without one that many files of noise, written to `folder`."""
    if manifest is not None:
        from asr.corpus.manifest import Manifest

        rows = Manifest.read(manifest, require_text=False)
        found = [Clip(u.audio_filepath, *u.window, u.text) for u, _ in zip(rows, range(limit), strict=False)]
        if not found:
            raise UsageError(f"{manifest}: no utterances to measure with")
        return found
    import soundfile

    generator = np.random.default_rng(0)
    clips = []
    for i in range(limit):
        path = folder / f"{i}.wav"
        soundfile.write(path, generator.standard_normal(round(seconds * rate)) * 0.1, rate)
        clips.append(Clip(str(path), 0.0, None, ""))
    return clips


def with_precision(model: AcousticModel, precision: str) -> AcousticModel:
    """A copy of a model for inference: weights and activations in bfloat16, or weights in int8 (LSTM, GRU and linear
    layers, activations quantized as they come; CPU only). Features and log-probabilities stay float32.

    int8 is the one precision without batch invariance: PyTorch takes the scale of the activations over the whole batch,
    padding included, so that log-probabilities of an utterance depend on its neighbors. Alone it is deterministic.
    """
    if precision == "float32":
        return model
    changed = copy.deepcopy(model)
    if precision == "bfloat16":
        encoder = cast(nn.Module, changed.encoder)
        for part in (encoder, changed.output):
            part.to(torch.bfloat16)
        encoder.register_forward_pre_hook(_to_bfloat16)
        return changed
    if precision != "int8":
        raise UsageError(f"precision '{precision}' is not one of {', '.join(PRECISIONS)}")
    if next(model.parameters()).device.type != "cpu":
        raise UsageError("int8 runs on the CPU only: --device cpu, or leave int8 out of --precision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that quantization moves to another package
        quantized: AcousticModel = torch.ao.quantization.quantize_dynamic(
            changed, {nn.LSTM, nn.GRU, nn.Linear}, dtype=torch.qint8
        )
    return quantized


def described(file: ModelFile) -> dict[str, Any]:
    """The shape of a model, for reports."""
    return {
        "architecture": described_options(to_dict(file.model_config)),
        "parameters": sum(parameter.numel() for parameter in file.model.parameters()),
        "vocabulary": file.model.vocab_size,
    }


def _to_bfloat16(module: nn.Module, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return (inputs[0].to(torch.bfloat16), *inputs[1:])
