"""All settings of a training run with their defaults: typed dataclasses that recipes and overrides are checked against.

`~` and environment variables are expanded in names of files and folders. Numbers may be written as 1e3.
"""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asr.audio.augment import AugmentConfig
from asr.audio.features import FeatureConfig
from asr.config import TYPE_NAMES, FilePath, apply_overrides, as_number, expand_path, from_dict, nearest, read_yaml
from asr.model.config import CLASSIFICATION, ModelConfig, Pool, RecurrentConfig
from asr.training.initial import with_initial_model
from asr.types import ConfigError


@dataclass(frozen=True)
class TrainingSet:
    """A manifest, and how often an epoch uses each of its utterances: 2 is twice, 0.5 is every second epoch."""

    path: FilePath = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a manifest")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight must be above 0, found {self.weight:g} (leave the set out to train without it)")


@dataclass(frozen=True)
class DataConfig:
    """Manifests and batches. Paths are relative to the directory the command runs in. Durations are seconds.

    `train` names manifests, or mappings `{path, weight}`: an epoch uses each utterance of such a manifest `weight`
    times. With `mix_temperature` T above 1, the share of a manifest in an epoch is proportional to
    (weight * hours) ^ (1 / T): small corpora are used more often, large ones less, and an epoch has as many hours as
    before. `sorted_first_epoch` runs the batches of the first epoch shortest first (SortaGrad). With several manifests
    in `dev`, the WER of each is logged too.

    If all of `train` is in shards (`asr data shard`) and neither weighted nor sorted, shards are read front to back:
    each device draws its batches from successive windows of `window_hours` of audio.

    `batch_seconds` limits the padded audio of a batch on one device; lower it if memory runs out. `workers` -1 chooses
    by the number of cores. `cache_audio` keeps decoded audio in memory (for small sets).
    """

    train: FilePath | TrainingSet | tuple[FilePath | TrainingSet, ...] = ()
    mix_temperature: float = 1.0
    sorted_first_epoch: bool = False
    window_hours: float = 4.0
    dev: FilePath | tuple[FilePath, ...] = ()
    test: dict[str, FilePath] = field(default_factory=dict)
    batch_seconds: float = 120.0
    eval_batch_seconds: float = 240.0
    max_batch_size: int = 64
    buckets: int = 20
    min_duration: float = 0.1
    max_duration: float = 30.0
    workers: int = -1
    cache_audio: bool = False
    allow_skips: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.mix_temperature < math.inf:
            raise ValueError(f"mix_temperature must be at least 1, found {self.mix_temperature:g}")
        if not 0 < self.window_hours < math.inf:
            raise ValueError(f"window_hours must be above 0, found {self.window_hours:g}")


@dataclass(frozen=True)
class TextConfig:
    """How transcripts become tokens. `vocab_size` is for bpe and unigram; `tokenizer_file` names a trained tokenizer.

    The tokenizer `word` has a token for each word: for phones, or for characters separated by spaces.
    """

    normalizer: str = "basic"
    tokenizer: Literal["char", "bpe", "unigram", "word"] = "char"
    vocab_size: int = 500
    tokenizer_file: FilePath = ""


@dataclass(frozen=True)
class ClassificationConfig:
    """Settings of the task `classification`: how states are pooled into one vector (see asr.model.classifier.Pooling),
    and the metric for the best checkpoint, the schedule `plateau` and `early_stopping`.
    """

    pooling: Pool = "mean"
    metric: Literal["accuracy", "balanced_accuracy", "macro_f1"] = "accuracy"


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter, 2019) and the learning rate schedule.

    Every schedule but `onecycle`, which has its own, starts with `warmup_steps` optimizer steps of linear warm-up.
    `plateau` multiplies the rate by `plateau_factor` after more than `plateau_patience` validations in a row without
    improvement. `final_lr` is the fraction of `lr` at which cosine and one-cycle end; `gradient_clip` limits the
    gradient norm.

    With several processes, `sync_every` 1 averages the gradients in every step (DDP). With N above 1, each process
    takes N steps on its own batches before all average their weights (local SGD).
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "plateau", "onecycle", "constant"] = "cosine"
    warmup_steps: int = 500
    final_lr: float = 0.01
    plateau_factor: float = 0.5
    plateau_patience: int = 3
    gradient_clip: float = 5.0
    sync_every: int = 1

    def __post_init__(self) -> None:
        if self.sync_every < 1:
            raise ValueError(f"sync_every must be at least 1, found {self.sync_every}")
        for name in ("lr", "eps", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name):g}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), found {self.betas[0]:g} and {self.betas[1]:g}")


@dataclass(frozen=True)
class AveragingConfig:
    """Weight averaging: an exponential moving average (`ema`), the mean of the `last_k` best checkpoints, or none."""

    kind: Literal["ema", "last_k", "none"] = "ema"
    ema_decay: float = 0.999
    last_k: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), found {self.ema_decay:g}")
        if self.last_k < 1:
            raise ValueError(f"last_k must be at least 1, found {self.last_k}")


@dataclass(frozen=True)
class LanguageModelConfig:
    """The word n-gram model that a recipe builds after training, tunes on the dev set and evaluates with.

    It has up to `order` words (0: no language model) and is estimated from the training transcripts and the files
    `text`, with a sentence per line; or it is read from `file` (ARPA or binary). `asr train` ignores it.
    """

    order: int = 0
    text: FilePath | tuple[FilePath, ...] = ()
    file: FilePath = ""


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    `task` is one of `asr.training.tasks.TASKS`; `classification` is for the task of that name, whose manifests need a
    `label` in each row. `objectives` are weights by name in `asr.training.objectives.OBJECTIVES`; a step minimizes the
    weighted sum. An objective with options may be a mapping of `weight` and its options. `trainer` goes to
    `pytorch_lightning.Trainer` (max_epochs, devices, precision, ...).

    `init` names a model to start from, a file or a bundled one. Its features, encoder and weights are used, including
    the output weights of symbols that the new tokenizer shares. The recipe may change the encoder's dropout; other
    settings of `features` and `model` must agree with it. The encoder is frozen for the first `freeze_epochs`, and
    then learns with `encoder_lr_factor` times the learning rate.

    If an objective compares two views of each utterance (`consistency`), each view gets `view_time_masks` times
    `augment.time_masks`, rounded down; 2.5 is the factor of the CR-CTC paper.

    `early_stopping` > 0 ends the run after that many validations in a row without improvement. `checkpoint_minutes`
    limits how much work a power failure can cost.
    """

    name: str = "run"
    output: FilePath = "exp/run"
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    task: str = "ctc"
    classification: ClassificationConfig = field(default_factory=ClassificationConfig)
    model: ModelConfig = field(default_factory=RecurrentConfig)
    init: FilePath = ""
    freeze_epochs: int = 0
    encoder_lr_factor: float = 1.0
    objectives: dict[str, float | dict[str, Any]] = field(default_factory=lambda: {"ctc": 1.0})
    view_time_masks: float = 2.5
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    lm: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    early_stopping: int = 0
    checkpoint_minutes: float = 10.0
    blank_plateau_epochs: int = 20
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2^32), found {self.seed}")
        if not 0 <= self.view_time_masks < math.inf:
            raise ValueError(f"view_time_masks must not be negative, found {self.view_time_masks:g}")
        for name, setting in self.objectives.items():
            weight = setting.get("weight", 1.0) if isinstance(setting, dict) else setting
            if isinstance(weight, bool) or not isinstance(weight, float | int):
                raise ValueError(f"objectives.{name}.weight: expected a number, found {weight!r}")
        if self.freeze_epochs < 0:
            raise ValueError(f"freeze_epochs must not be negative, found {self.freeze_epochs}")
        if self.freeze_epochs and not self.init:
            raise ValueError("freeze_epochs is for a run that starts from a model: set init")
        if not 0 <= self.encoder_lr_factor < math.inf:
            raise ValueError(f"encoder_lr_factor must not be negative, found {self.encoder_lr_factor:g}")


# Arguments that the run sets itself; setting them in a recipe would silently break invariants.
_OWNED_TRAINER_KEYS = {
    "callbacks": "it is set by the training run",
    "logger": "TensorBoard and CSV logs are always written to the output directory",
    "use_distributed_sampler": "the batch sampler knows its rank",
    "gradient_clip_val": "set optimizer.gradient_clip",
    "gradient_clip_algorithm": "set optimizer.gradient_clip",
    "default_root_dir": "set output",
    "enable_checkpointing": "checkpoints are always written",
    "reload_dataloaders_every_n_epochs": "the data loaders keep their position for resume",
}


def read_config(path: str | Path, overrides: Sequence[str] = (), resume: str = "never") -> TrainConfig:
    """Read a recipe, following `extends: other.yaml` (relative to the file), and apply `key=value` overrides.

    A run with `init` that `resume` ("auto", "never" or a checkpoint) continues does not read that model again.
    Raises ConfigError naming the unknown key and the nearest valid one.
    """
    return parse_config(apply_overrides(read_extended(path), overrides), resume)


def parse_config(values: dict[str, Any], resume: str = "never") -> TrainConfig:
    """A TrainConfig from nested plain values; `trainer` keys and values are checked against Lightning's signature.

    With `init`, features and encoder are those of its model. Raises ConfigError, ModelFileError.
    """
    if values.get("task") == CLASSIFICATION:
        values = {"objectives": {CLASSIFICATION: 1.0}, **values}
    config = from_dict(TrainConfig, with_initial_model(values, resume))
    if not config.objectives:
        raise ConfigError("objectives: name at least one, for example {ctc: 1.0}")
    if config.model.decoder and "attention" not in config.objectives:
        raise ConfigError(
            "objectives: nothing trains model.decoder: add attention, for example {ctc: 0.3, attention: 0.7}, or set "
            "model.decoder: null"
        )
    if "attention" in config.objectives and "ctc" not in config.objectives and config.task.startswith("ctc"):
        raise ConfigError(f"task: {config.task} decodes with CTC, which no objective trains: set task: attention")
    names = [config.task, *config.objectives]
    if CLASSIFICATION in names and names != [CLASSIFICATION, CLASSIFICATION]:
        found = f"task is {config.task}, objectives {', '.join(config.objectives)}"
        raise ConfigError(f"objectives: task classification goes with the objective of that name, alone: {found}")
    if config.task == CLASSIFICATION and config.augment.join:
        raise ConfigError("augment.join: joined utterances have no label: leave it out with task classification")
    if not config.trainer:
        return config
    from pytorch_lightning import Trainer

    hints = typing.get_type_hints(Trainer.__init__)
    settings: dict[str, Any] = {}
    for key, value in config.trainer.items():
        if key in _OWNED_TRAINER_KEYS:
            raise ConfigError(f"'trainer.{key}' cannot be set here: {_OWNED_TRAINER_KEYS[key]}")
        if key not in hints or key == "return":
            raise ConfigError(f"unknown configuration key 'trainer.{key}'{nearest(key, set(hints) - {'return'})}")
        settings[key] = _trainer_setting(value, hints[key], f"trainer.{key}")
    if settings.get("accumulate_grad_batches", 1) < 1:  # Lightning divides by it
        raise ConfigError("trainer.accumulate_grad_batches: must be at least 1")
    return dataclasses.replace(config, trainer=settings)


def trainer_settings(config: TrainConfig) -> dict[str, Any]:
    """The arguments of `pytorch_lightning.Trainer`: our defaults, changed by the section `trainer`."""
    import torch

    settings: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "max_epochs": 50,
        "precision": "32-true",
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    } | config.trainer
    if settings["accelerator"] == "auto" and not torch.cuda.is_available():
        settings["accelerator"] = "cpu"  # MPS has no CTC kernel
    if settings["accelerator"] == "cpu" and str(settings["precision"]).startswith("16"):
        settings["precision"] = "32-true"  # float16 does not run on the CPU
    if settings.get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return settings


def _trainer_setting(value: Any, hint: Any, path: str) -> Any:
    """`value` as the type that Lightning declares; numbers may be written as text.

    If both a count and a share are allowed (limit_train_batches), numbers up to 1 that are not whole, or are written as
    1.0 or 1e0, are shares.
    """
    kinds = typing.get_args(hint) or (hint,)
    literals = [choice for kind in kinds if typing.get_origin(kind) is Literal for choice in typing.get_args(kind)]
    if (number := as_number(value)) is not None:
        whole = isinstance(number, int) or (number.is_integer() and (abs(number) > 1 or float not in kinds))
        if whole and int in kinds:
            return int(number)
        if float in kinds:
            return float(number)
    types = [typing.get_origin(kind) or kind for kind in kinds if typing.get_origin(kind) is not Literal]
    if value in literals or (bool in types if isinstance(value, bool) else isinstance(value, tuple(types))):
        return value
    names = list(dict.fromkeys(map(str, literals))) or [TYPE_NAMES[kind] for kind in types if kind in TYPE_NAMES]
    raise ConfigError(f"{path}: expected {' or '.join(names)}, found {value!r}")


def read_extended(path: str | Path, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The nested mapping in a YAML file, merged over that of the file that it `extends`, if any."""
    path = Path(path)
    if path.resolve() in _seen:
        raise ConfigError(f"{path}: 'extends' leads back to this file")
    values = read_yaml(path)
    base = values.pop("extends", None)
    if base is None:
        return values
    base = expand_path(str(base), f"{path}: extends")
    return _merge(read_extended(path.parent / base, (*_seen, path.resolve())), values)


def manifests(entry: str | TrainingSet | tuple[str | TrainingSet, ...]) -> list[str]:
    """A manifest setting as a list of paths."""
    return [training_set.path for training_set in training_sets(entry)]


def training_sets(entry: str | TrainingSet | tuple[str | TrainingSet, ...]) -> list[TrainingSet]:
    """A manifest setting as a list of manifests with their weights."""
    entries = entry if isinstance(entry, tuple | list) else (entry,) if entry else ()
    return [TrainingSet(entry) if isinstance(entry, str) else entry for entry in entries]


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
