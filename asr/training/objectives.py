"""The registry of objectives: named losses, whose weighted sum a training step minimizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from asr.config import from_dict, nearest
from asr.model.acoustic import AcousticModel
from asr.training.losses.attention import AttentionObjective
from asr.training.losses.autoencoder import AutoEncoderObjective
from asr.training.losses.classification import ClassificationObjective
from asr.training.losses.consistency import ConsistencyObjective
from asr.training.losses.ctc import CTCObjective
from asr.training.losses.entropy import EntropyObjective, LabelSmoothingObjective
from asr.training.losses.intermediate import IntermediateCTCObjective
from asr.training.losses.penalties import L1Objective, L2Objective
from asr.training.losses.stability import StabilityObjective
from asr.types import ConfigError

# An objective is a module made with the acoustic model, and with its options if it has a dataclass `Options`. Its
# `forward(outputs, batch)` returns an ObjectiveLoss. Its parameters are trained, but are not part of the model file.
# With a class attribute `views` of 2, outputs and batch hold two views of each utterance (see SpeechModule); with
# `needs_layers`, outputs hold the output of each layer of the encoder. Optional methods: `prepare(tokenizer)`, called
# before the training, `mixed(batch) -> batch` before each step, and `forget()` after each step, even a failed one.
OBJECTIVES: dict[str, Any] = {
    "ctc": CTCObjective,
    "consistency": ConsistencyObjective,
    "intermediate_ctc": IntermediateCTCObjective,
    "auto_encoder": AutoEncoderObjective,
    "stability": StabilityObjective,
    "l1": L1Objective,
    "l2": L2Objective,
    "entropy": EntropyObjective,
    "label_smoothing": LabelSmoothingObjective,
    "attention": AttentionObjective,
    "classification": ClassificationObjective,
}


def build_objective(name: str, setting: float | Mapping[str, Any], model: AcousticModel) -> nn.Module:
    """The objective of that name and setting. Raises ConfigError for an unknown name or option."""
    if name not in OBJECTIVES:
        raise ConfigError(f"objectives: unknown '{name}'{nearest(name, OBJECTIVES)}")
    kind = OBJECTIVES[name]
    if getattr(kind, "needs_layers", False) and not getattr(model.encoder, "layer_sizes", ()):
        raise ConfigError(f"objectives: {name} needs inner layers, which encoder {model.config.encoder} does not give")
    options = {} if isinstance(setting, float | int) else {k: v for k, v in setting.items() if k != "weight"}
    if hasattr(kind, "Options"):
        return kind(model, from_dict(kind.Options, options, f"objectives.{name}"))
    if options:
        raise ConfigError(f"objectives.{name}: it has no options but 'weight', found '{next(iter(options))}'")
    return kind(model)


def objective_weight(setting: float | Mapping[str, Any]) -> float:
    """The weight in an objective's setting: a number, or a mapping of `weight` (default 1) and options."""
    return float(setting if isinstance(setting, float | int) else setting.get("weight", 1.0))
