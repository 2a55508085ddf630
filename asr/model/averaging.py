"""The mean of models: of weights, and of whole model files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from asr.config import to_dict
from asr.corpus.download import file_digest
from asr.model.checkpoint import ModelFile, find_model, load_model
from asr.types import ModelFileError


def mean_weights(models: Iterable[tuple[str | Path, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The mean of state dicts, each given with the name of its file. Sums are float64.

    Raises ModelFileError if they differ in names or shapes, or if there are none.
    """
    total: dict[str, Tensor] = {}
    count, first = 0, ""
    for path, weights in models:
        if total and {k: v.shape for k, v in total.items()} != {k: v.shape for k, v in weights.items()}:
            raise ModelFileError(f"{path}: its model has another shape than that of {first}")
        for name, tensor in weights.items():
            value = tensor.double() if tensor.is_floating_point() else tensor
            total[name] = total[name] + value if name in total and tensor.is_floating_point() else value
        count, first = count + 1, first or str(path)
    if not count:
        raise ModelFileError("no models to average")
    return {k: (v / count).float() if v.is_floating_point() else v for k, v in total.items()}


def average_models(models: Sequence[str | Path]) -> ModelFile:
    """The mean of model files. Raises ModelFileError naming the difference if they do not match.

    The training record is that of the first model without scores and calibration. Its `averaged` lists file names and
    SHA-256.
    """
    paths = [find_model(model) for model in models]
    files = [load_model(path) for path in paths]
    first = files[0]
    for path, file in zip(paths[1:], files[1:], strict=True):
        if difference := _difference(first, file):
            raise ModelFileError(f"{path} cannot be averaged with {paths[0]}: {difference}")
    states = [(path, file.model.state_dict()) for path, file in zip(paths, files, strict=True)]
    first.model.load_state_dict(mean_weights(states))
    kept = {k: v for k, v in first.training.items() if not k.startswith(("dev_", "test_")) and k != "confidence"}
    averaged = [{"file": path.name, "sha256": file_digest(path)} for path in paths]
    return ModelFile(first.model, first.tokenizer, first.normalizer, kept | {"averaged": averaged}, first.task)


def _difference(first: ModelFile, other: ModelFile) -> str:
    """The first difference between two models that changes what their weights mean; "" if there is none."""
    free = {f"model.{name}" for name in first.model_config.SHAPELESS}
    mine, theirs = _settings(first), _settings(other)
    for name in {**mine, **theirs}:
        if name not in free and mine.get(name) != theirs.get(name):
            return f"{name} is {mine.get(name)} in one and {theirs.get(name)} in the other"
    return "" if first.tokenizer == other.tokenizer else "their tokenizers differ"


def _settings(file: ModelFile) -> dict[str, Any]:
    sections = {"model": to_dict(file.model_config), "features": to_dict(file.feature_config)}
    nested = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
    return nested | {
        "the number of symbols": file.tokenizer.vocab_size,
        "the normalizer": file.normalizer,
        "the task": file.task,
        "the pooling": getattr(getattr(file.model, "pooling", None), "kind", None),
    }
