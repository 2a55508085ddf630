"""One training run, from a configuration to a model file: checks, trainer, resume, averaging, learning curve."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from asr.config import to_dict
from asr.corpus.manifest import Manifest
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import save_model
from asr.text.normalize import recorded, versioned
from asr.text.tokenizer import Tokenizer, load_tokenizer
from asr.training.average import average_checkpoints, read_checkpoint
from asr.training.callbacks import LAST, DataWait, KeepBest, Progress, SaveOnInterrupt, ema_callback
from asr.training.config import TrainConfig, manifests
from asr.training.curve import draw_learning_curve, read_metrics
from asr.training.data import KeepPosition, SpeechDataModule
from asr.training.module import SpeechModule
from asr.training.prepare import make_tokenizer, training_manifest
from asr.training.provenance import provenance
from asr.training.workers import prepare_workers
from asr.types import AsrError, ConfigError

MODEL = "model.asr"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class TrainResult:
    """What a run produced. `dev_wer` and `dev_cer` are those of the chosen checkpoint(s), as fractions."""

    model_path: Path
    dev_wer: float
    dev_cer: float
    epochs: int
    seconds: float


def train(config: TrainConfig, resume: str = "auto") -> TrainResult:
    """Train a model as `config` says and write it, with logs and checkpoints, to `config.output`.

    resume: "auto" continues from `output/last.ckpt` if there is one, "never" starts afresh (an earlier run in the same
    directory is moved aside, not deleted), anything else is the path of a checkpoint.
    Raises AsrError for bad data or configuration, `Interrupted` after a checkpoint was saved on Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    _quiet()
    output = Path(config.output)
    checkpoint = _find_checkpoint(output, resume)
    output.mkdir(parents=True, exist_ok=True)
    if not manifests(config.data.train) or not manifests(config.data.dev):
        raise ConfigError("data.train and data.dev must each name a manifest")
    saved = _check_resume(checkpoint, config) if checkpoint else None
    rules = saved["normalizer"] if saved else versioned(config.text.normalizer)
    config = replace(config, text=replace(config.text, normalizer=rules))

    train_set = Manifest.read(manifests(config.data.train))
    dev_set = Manifest.read(manifests(config.data.dev))
    tokenizer = _tokenizer(config, train_set, output, resumed=checkpoint is not None)
    train_set = training_manifest(train_set, tokenizer, config, output, _say)

    for remark in prepare_workers():
        _say(f"note: {remark}")
    pl.seed_everything(config.seed, verbose=False)
    module = SpeechModule(config, tokenizer, train_set, dev_set)
    data = SpeechDataModule(config, tokenizer, train_set, dev_set)
    best = KeepBest(
        dirpath=output / "checkpoints",
        filename="epoch{epoch:03d}-wer{dev/wer:.4f}",
        auto_insert_metric_name=False,
        monitor=module.task.monitor,
        mode=module.task.mode,
        save_on_train_epoch_end=False,
        save_top_k=config.averaging.last_k if config.averaging.kind == "last_k" else 1,
    )
    trainer = _trainer(config, output, best)
    if _is_first():
        _record(config, output, train_set, dev_set)
    parameters = sum(p.numel() for p in module.model.parameters())
    hours = float(train_set.durations.sum()) / 3600
    _say(
        f"{config.name}: {len(train_set)} training utterances ({hours:.2f} h), {len(dev_set)} dev, "
        f"{tokenizer.vocab_size} symbols, {parameters / 1e6:.2f} M parameters"
    )
    if saved is not None:
        _say(f"resuming from {checkpoint} (epoch {saved['epoch'] + 1}, step {saved['global_step']})")
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except RuntimeError as error:
        raise _explained(error, config) from error
    if not trainer.is_global_zero:
        return TrainResult(
            output / MODEL, float("nan"), float("nan"), trainer.current_epoch, time.monotonic() - started
        )
    return _finish(config, output, module.model, tokenizer, best, trainer, train_set, time.monotonic() - started)


def _tokenizer(config: TrainConfig, train_set: Manifest, output: Path, resumed: bool) -> Tokenizer:
    if config.text.tokenizer_file:
        tokenizer = load_tokenizer(config.text.tokenizer_file)
    elif resumed and (output / TOKENIZER).exists():
        return load_tokenizer(output / TOKENIZER)
    else:
        # Every rank makes its own: it is deterministic, and no rank must wait for a file.
        tokenizer = make_tokenizer(config.text, train_set)
    if _is_first():
        tokenizer.save(output / TOKENIZER)
    return tokenizer


def _trainer(config: TrainConfig, output: Path, best: KeepBest) -> pl.Trainer:
    callbacks: list[Callback] = [KeepPosition(), DataWait(), Progress(config.blank_plateau_epochs, _say)]
    if config.averaging.kind == "ema":
        callbacks.append(ema_callback(config.averaging.ema_decay))
    if config.early_stopping > 0:
        callbacks.append(EarlyStopping(monitor=str(best.monitor), mode=best.mode, patience=config.early_stopping))
    # After the averaging callback: a checkpoint must hold the average of the step it was saved at.
    callbacks += [SaveOnInterrupt(output, config.checkpoint_minutes), best]
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
        _say("note: float16 does not run on the CPU; using float32 (bf16-mixed works where the processor has it)")
        settings["precision"] = "32-true"
    if settings.get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    logs = output / "logs"
    loggers = [TensorBoardLogger(logs, name="tensorboard", version=""), CSVLogger(logs, name="csv")]
    try:
        return pl.Trainer(
            **settings,
            callbacks=callbacks,
            logger=loggers,
            use_distributed_sampler=False,
            default_root_dir=output,
        )
    except (ValueError, TypeError, pl.utilities.exceptions.MisconfigurationException) as error:
        raise ConfigError(f"trainer: {str(error).splitlines()[0]}") from error


def _finish(
    config: TrainConfig,
    output: Path,
    model: AcousticModel,
    tokenizer: Tokenizer,
    best: KeepBest,
    trainer: pl.Trainer,
    train_set: Manifest,
    seconds: float,
) -> TrainResult:
    """Choose by dev WER, average, write the model file and the learning curve."""
    chosen = sorted(best.best_k_models, key=lambda path: float(best.best_k_models[path]))
    if not chosen:
        raise ConfigError("training ended before the first validation: raise trainer.max_epochs or max_steps")
    model.load_state_dict(average_checkpoints(chosen))
    metrics = read_metrics(output / "logs" / "csv")
    dev_wer = float(best.best_k_models[chosen[0]])
    row = min(metrics.dev, key=lambda r: abs(r.wer - dev_wer), default=None)
    dev_cer = row.cer if row else float("nan")
    summary = provenance() | {
        "name": config.name,
        "dev_wer": dev_wer,
        "dev_cer": dev_cer,
        "averaging": config.averaging.kind,
        "checkpoints": [Path(path).name for path in chosen],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "train_utterances": len(train_set),
        "train_hours": round(float(train_set.durations.sum()) / 3600, 3),
        "train_longest": round(float(train_set.durations.max()), 3),
        "config": to_dict(config),
    }
    path = save_model(output / MODEL, model, tokenizer, config.text.normalizer, summary)
    draw_learning_curve(metrics, output / "learning_curve.png", config.name)
    return TrainResult(path, dev_wer, dev_cer, trainer.current_epoch, seconds)


def _find_checkpoint(output: Path, resume: str) -> Path | None:
    last = output / LAST
    if resume == "auto":
        return last if last.is_file() else None
    if resume == "never":
        if last.is_file() and _is_first():
            number = 1
            while (aside := output.with_name(f"{output.name}.{number}")).exists():
                number += 1
            output.rename(aside)
            _say(f"the earlier run in {output} was moved to {aside}")
        return None
    if not Path(resume).is_file():
        raise ConfigError(f"--resume {resume}: no such checkpoint (use auto, never, or the path of a .ckpt file)")
    return Path(resume)


def _check_resume(checkpoint: Path, config: TrainConfig) -> dict[str, Any]:
    """Refuse to continue a run of another shape; what may change (epochs, devices, learning rate) may."""
    saved = read_checkpoint(checkpoint)
    for section in ("model", "features", "text"):
        old, new = saved.get("config", {}).get(section, {}), to_dict(getattr(config, section))
        for key in new:
            if key == "normalizer" and key in old:
                old[key] = recorded(old[key])
                if "@" not in new[key]:  # the run goes on with the rules it began with
                    new[key] += "@" + old[key].partition("@")[2]
            if key in old and old[key] != new[key]:
                raise ConfigError(
                    f"{checkpoint} was trained with {section}.{key}={old[key]}, this configuration says {new[key]}: "
                    "choose another output directory, or --resume never"
                )
    rules = recorded(saved.get("config", {}).get("text", {}).get("normalizer", config.text.normalizer))
    return {"normalizer": rules} | {key: saved[key] for key in ("epoch", "global_step")}


def _record(config: TrainConfig, output: Path, train_set: Manifest, dev_set: Manifest) -> None:
    """What is needed to repeat the run: configuration, seed, revision, versions, hashes of the data."""
    import yaml

    (output / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
    record = provenance() | {
        "train_sha256": train_set.sha256,
        "dev_sha256": dev_set.sha256,
        "seed": config.seed,
    }
    (output / "run.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _explained(error: RuntimeError, config: TrainConfig) -> Exception:
    """An out-of-memory error as one line naming the setting; any other error unchanged."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        lower = replace(config.data, batch_seconds=config.data.batch_seconds / 2).batch_seconds
        return AsrError(
            f"out of memory with data.batch_seconds={config.data.batch_seconds:g}: try data.batch_seconds={lower:g} "
            f"(and trainer.accumulate_grad_batches=2 to keep the step the same), or a lower data.max_duration"
        )
    return error


def _quiet() -> None:
    """Lightning's notices are for its developers; ours say what a user needs."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    messages = ("does not have many workers", "Checkpoint directory", "number of training batches", "LeafSpec")
    for message in messages:
        warnings.filterwarnings("ignore", f".*{message}.*")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")


def _say(line: str) -> None:
    if _is_first():
        print(line, file=sys.stderr, flush=True)


def _is_first() -> bool:
    """Whether this is rank 0, known from the environment also before the trainer has started the others."""
    return getattr(rank_zero_only, "rank", 0) == 0
