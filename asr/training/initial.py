"""The model that a training run starts from: its settings, checked against the recipe's, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from asr.audio.features import FeatureConfig
from asr.config import expand_path, from_dict, read_yaml, to_dict
from asr.corpus.download import file_digest
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import ModelFile, find_model, load_model, read_metadata
from asr.model.config import ModelConfig
from asr.text.tokenizer import LabelSet, Tokenizer
from asr.types import ConfigError, ModelFileError

_RECORD = "config.yaml"  # the configuration of a run, in its output folder


def with_initial_model(values: dict[str, Any], resume: str = "never") -> dict[str, Any]:
    """A recipe's nested values with features and encoder of the model that `init` names, if it names one.

    A run that `resume` ("auto", "never" or a checkpoint) continues does not need the model any more: the run's own
    record replaces it, as it does for any run in the output folder if the model cannot be read.
    Raises ConfigError naming both values if the recipe contradicts the model, ModelFileError.
    """
    init = values.get("init")
    if not init or not isinstance(init, str):
        return values
    init = expand_path(init, "init")
    output = Path(expand_path(str(values.get("output") or "exp/run"), "output"))
    described = _resumed(output, resume, init)
    try:
        described = described or read_metadata(init)
    except ModelFileError:
        described = _recorded(output, init)
        if described is None:
            raise
    found: list[str] = []
    result = dict(values)
    for section, kind in (("features", FeatureConfig), ("model", ModelConfig)):
        given = values.get(section) or {}
        if not isinstance(given, Mapping):
            continue  # `from_dict` will refuse its type
        try:
            theirs = from_dict(kind, described[section], section)
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{init}: its {section} do not fit this version of asr-ctc ({error})") from error
        known = to_dict(theirs)
        if given.get("encoder", known.get("encoder")) != known.get("encoder"):
            given = {"encoder": given["encoder"]}
            found += _differences(section, given, known)
            continue
        ours = from_dict(kind, known | dict(given), section)
        found += _differences(section, to_dict(ours), known, ("decoder", *getattr(theirs, "SHAPELESS", ())))
        result[section] = to_dict(ours)
    _refuse(found, init)
    return result


@dataclass(frozen=True)
class InitialModel:
    """A model to start from, and its record: file name, SHA-256, and the name, text normalizer and hours of speech of
    its training.
    """

    file: ModelFile
    record: dict[str, Any]

    @classmethod
    def read(cls, init: str, model: ModelConfig, features: FeatureConfig) -> InitialModel:
        """Read the model named `init`. Raises ModelFileError, and ConfigError if it does not have these settings."""
        path = find_model(init)
        file = load_model(path)
        theirs = to_dict(file.model_config)
        found = _differences("features", to_dict(features), to_dict(file.feature_config))
        found += _differences("model", to_dict(model), theirs, ("decoder", *file.model_config.SHAPELESS))
        _refuse(found, init)
        training = file.training
        record = {
            "file": path.name,
            "sha256": file_digest(path),
            "name": training.get("name"),
            "normalizer": file.normalizer,
            "hours": training.get("train_hours", training.get("hours")),
        }
        return cls(file, record)

    def copy_to(self, model: AcousticModel, tokenizer: Tokenizer) -> str:
        """Copy the encoder's weights to `model`, and the output rows of symbols that both tokenizers have.

        The blank is one of them; a letter that exists only in the other case gets that letter's row. Other rows keep
        their random values, and so does an attention decoder unless its shape and symbols are the same. Returns a line
        that says what was done.
        """
        model.encoder.load_state_dict(self.file.model.encoder.state_dict())  # type: ignore[attr-defined]
        ours, theirs = self._shared(tokenizer)
        here, there = torch.tensor(ours, dtype=torch.int64), torch.tensor(theirs, dtype=torch.int64)
        with torch.no_grad():
            for (mine, dim), (other, _) in zip(model.symbol_weights(), self.file.model.symbol_weights(), strict=True):
                mine.index_copy_(dim, here, other.index_select(dim, there))
        same = len(ours) == tokenizer.vocab_size == self.file.tokenizer.vocab_size
        rows = "its output layer" if same else f"{len(ours)} of {tokenizer.vocab_size} rows of the output layer"
        decoder = self.file.model.decoder
        if model.decoder and decoder and same and model.decoder.config == decoder.config:
            model.decoder.load_state_dict(decoder.state_dict())
            rows += " and its attention decoder"
        return f"beginning from {self.record['file']}: its encoder and {rows}"

    def _shared(self, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
        """The indices, here and there, of the symbols that both have; labels of classes are never shared with texts."""
        if isinstance(tokenizer, LabelSet) is not isinstance(self.file.tokenizer, LabelSet):
            return [], []
        labels = self.file.tokenizer.labels
        places = {label.swapcase(): n for n, label in enumerate(labels)} | {label: n for n, label in enumerate(labels)}
        ours = [new for new, label in enumerate(tokenizer.labels) if label in places]
        return ours, [places[tokenizer.labels[new]] for new in ours]


def _resumed(output: Path, resume: str, init: str) -> dict[str, Any] | None:
    """The settings of the run that `resume` continues, if there is one that started from `init`."""
    if resume == "never":
        return None
    if resume == "auto":
        begun = any(output.glob("*.ckpt")) or any(output.glob("checkpoints/*.ckpt"))
        return _recorded(output, init) if begun else None
    folder = Path(expand_path(resume, "--resume")).absolute().parent
    return _recorded(folder.parent if folder.name == "checkpoints" else folder, init)


def _recorded(output: Path, init: str) -> dict[str, Any] | None:
    """The settings of the run in `output`, if it started from a model of the name of `init`."""
    path = output / _RECORD
    settings = read_yaml(path) if path.is_file() else {}
    return settings if Path(str(settings.get("init", ""))).name == Path(init).name else None


def _differences(
    section: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], free: tuple[str, ...] = ()
) -> list[str]:
    return [
        f"{section}.{key} is {value} here and {theirs.get(key)} in the model"
        for key, value in ours.items()
        if key not in free and value != theirs.get(key)
    ]


def _refuse(found: list[str], init: str) -> None:
    if found:
        raise ConfigError(
            f"init {init}: {'; '.join(found)}. Leave these settings out of the recipe, or begin from another model"
        )
