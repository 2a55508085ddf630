"""A training run, from a configuration to a model file: checks, trainer, resume, averaging, learning curve."""

from __future__ import annotations

import errno
import json
import math
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from asr.config import to_dict
from asr.corpus.labels import label_numbers
from asr.corpus.manifest import Manifest
from asr.files import remove_unfinished, write_text
from asr.model.acoustic import out_of_memory
from asr.model.checkpoint import save_model
from asr.model.config import CLASSIFICATION
from asr.text.normalize import versioned
from asr.text.tokenizer import LabelSet, Tokenizer, load_tokenizer
from asr.training.callbacks import DataWait, EpochReport, KeepBest, MovingAverage, SaveOnInterrupt
from asr.training.checkpoints import (
    DAMAGED,
    LAST,
    DurableCheckpoints,
    average_checkpoints,
    check_resume,
    checkpoints,
    find_checkpoint,
    set_aside,
)
from asr.training.config import TrainConfig, manifests, trainer_settings
from asr.training.data import (
    KeepPosition,
    SpeechDataModule,
    describe_mix,
    read_manifest,
    training_manifest,
    training_symbols,
)
from asr.training.dataset import prepare_workers
from asr.training.distribution import PeriodicAverage, lost_process
from asr.training.initial import InitialModel
from asr.training.measure import find_batch, refused
from asr.training.module import SpeechModule
from asr.training.process import Interrupted, handled_signals, is_first_process, locked, quiet_lightning, say
from asr.training.record import draw_learning_curve, provenance, read_metrics
from asr.training.tasks import format_rates
from asr.types import AsrError, ConfigError

MODEL = "model.asr"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class TrainResult:
    """The result of a run: `dev` are the metrics of the best checkpoint by name (`dev/wer`, a fraction), and `scores`
    its rates as text. Both are empty in the other ranks of a distributed run.
    """

    model_path: Path
    dev: dict[str, float]
    scores: str
    epochs: int
    seconds: float


def train(config: TrainConfig, resume: str = "auto") -> TrainResult:
    """Train a model as `config` says and write it, with logs and checkpoints, to `config.output`.

    resume: "auto" continues from the newest intact checkpoint in `output` if there is one; "never" starts afresh, and
    moves an earlier run in the same directory aside; anything else is the path of a checkpoint.
    Raises AsrError for bad data or configuration, or if another run uses `output`; `Interrupted` after Ctrl-C or
    SIGTERM, once everything is saved.
    """
    started = time.monotonic()
    quiet_lightning()
    output = Path(config.output)
    with handled_signals() as signals, locked(output):
        if not manifests(config.data.train) or not manifests(config.data.dev):
            raise ConfigError("data.train and data.dev must each name a manifest")
        if is_first_process():
            for folder in (output, output / "checkpoints"):  # other runs may have their outputs below
                remove_unfinished(folder, below=False)
        path, saved = find_checkpoint(output, resume) or (None, {})
        initial = InitialModel.read(config.init, config.model, config.features) if config.init and not path else None
        rules = check_resume(path, saved, config) if path else versioned(config.text.normalizer)
        if resume == "auto" and path and path.name != LAST and (output / LAST).exists() and is_first_process():
            (output / LAST).replace(output / DAMAGED)  # or the next save would keep it as previous.ckpt
        if resume == "never" and checkpoints(output) and is_first_process():
            say(f"the earlier run in {output} was moved to {set_aside(output, output.with_name(output.name + '.'))}")
        config = replace(config, text=replace(config.text, normalizer=rules))
        train_set = read_manifest(config, manifests(config.data.train))
        dev_set = read_manifest(config, manifests(config.data.dev))
        tokenizer = _tokenizer(config, train_set, output, resumed=path is not None)
        train_set = training_manifest(train_set, tokenizer, config, output)
        if isinstance(tokenizer, LabelSet):
            label_numbers(dev_set, tokenizer)  # raises ManifestError for an unknown label
        for note in prepare_workers():
            say(f"note: {note}")
        pl.seed_everything(config.seed, verbose=False)
        module = SpeechModule(config, tokenizer, train_set, dev_set)
        data = SpeechDataModule(config, tokenizer, train_set, dev_set)
        saver = SaveOnInterrupt(output, config.checkpoint_minutes, signals, config.optimizer.sync_every)
        best = KeepBest(saver, module.task, keep=config.averaging.last_k if config.averaging.kind == "last_k" else 1)
        trainer = _trainer(config, output, module, [saver, best])
        if is_first_process():
            _record(config, output, train_set, dev_set)
        say(_description(config, train_set, dev_set, module))
        if trainer.strategy.root_device.type == "cuda":
            for note in getattr(module.model.encoder, "slow_shapes", lambda _: [])(str(trainer.precision)):
                say(f"note: {note}")
        if initial:
            module.init = initial.record
            say(initial.copy_to(module.model, tokenizer))
        if path:
            say(f"resuming from {path} (epoch {saved['epoch'] + 1}, step {saved['global_step']})")
        with signals.deferred():
            no_memory = False
            try:
                trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
            except SIGTERMException:  # Lightning's own, for a signal just before our handler replaces its handler
                raise Interrupted(signal.SIGTERM) from None
            except Exception as error:
                no_memory = out_of_memory(error)
                if message := _explained(error, config, trainer.global_rank):
                    raise message from error
                if not no_memory:
                    raise
            if no_memory:  # outside the handler, whose traceback keeps what fills the memory alive
                alone = torch.cuda.is_available() and trainer.world_size == 1
                fits = partial(find_batch, config, train_set.durations, tokenizer.vocab_size) if alone else None
                raise AsrError(_memory_advice(config.data.batch_seconds, fits))
            signals.check()
            seconds = time.monotonic() - started
            if not trainer.is_global_zero:
                return TrainResult(output / MODEL, {}, "", trainer.current_epoch, seconds)
            return _finish(config, output, module, best, train_set, seconds)


def _tokenizer(config: TrainConfig, train_set: Manifest, output: Path, resumed: bool) -> Tokenizer:
    if config.text.tokenizer_file:
        tokenizer = load_tokenizer(config.text.tokenizer_file)
    elif resumed and (output / TOKENIZER).exists():
        return load_tokenizer(output / TOKENIZER)
    else:
        # Every rank makes it, deterministically, so that none has to wait for a file.
        tokenizer = training_symbols(config, train_set)
    if is_first_process():
        tokenizer.save(output / TOKENIZER)
    return tokenizer


def _description(config: TrainConfig, train_set: Manifest, dev_set: Manifest, module: SpeechModule) -> str:
    parameters = sum(p.numel() for p in module.model.parameters())
    hours = float(train_set.durations.sum()) / 3600
    symbols = "classes" if config.task == CLASSIFICATION else "symbols"
    lines = [
        f"{config.name}: {len(train_set)} training utterances ({hours:.2f} h), {len(dev_set)} dev, "
        f"{module.tokenizer.vocab_size} {symbols}, {parameters / 1e6:.2f} M parameters"
    ]
    lines += filter(None, [describe_mix(config.data, train_set)])
    if module.views > 1:
        lines.append(
            f"note: {module.views} views of each utterance, each with {module.augment.time_masks} time masks "
            f"(view_time_masks={config.view_time_masks:g} x augment.time_masks={config.augment.time_masks})"
        )
    return "\n".join(lines)


def _trainer(config: TrainConfig, output: Path, module: SpeechModule, saving: list[Callback]) -> pl.Trainer:
    task = module.task
    callbacks: list[Callback] = [KeepPosition(), DataWait(), EpochReport(task, config.blank_plateau_epochs)]
    moving_average = MovingAverage(config.averaging.ema_decay) if config.averaging.kind == "ema" else None
    if moving_average:
        callbacks.append(moving_average)
    if (every := config.optimizer.sync_every) > 1:
        callbacks.append(PeriodicAverage(every, module.step, moving_average))
    if config.early_stopping > 0:
        callbacks.append(EarlyStopping(monitor=task.monitor, mode=task.mode, patience=config.early_stopping))
    # After the averaging callback, because a checkpoint must hold the average of its step.
    callbacks += saving
    settings = trainer_settings(config)
    if settings["precision"] != config.trainer.get("precision", settings["precision"]):
        say("note: float16 does not run on the CPU; using float32 (bf16-mixed works if the processor supports it)")
    plugins = settings.pop("plugins", None) or []
    plugins = [*(plugins if isinstance(plugins, list) else [plugins]), DurableCheckpoints()]
    if SLURMEnvironment.detect():  # `handled_signals` requeues jobs; Lightning would save within a step
        plugins.append(SLURMEnvironment(auto_requeue=False))
    logs = output / "logs"
    loggers = [TensorBoardLogger(logs, name="tensorboard", version=""), CSVLogger(logs, name="csv")]
    try:
        trainer = pl.Trainer(
            **settings,
            plugins=plugins,
            callbacks=callbacks,
            logger=loggers,
            use_distributed_sampler=False,
            default_root_dir=output,
        )
    except Exception as error:  # only the settings can be wrong
        raise refused(error) from error
    if every > 1 and trainer.world_size > 1 and not isinstance(trainer.strategy, DDPStrategy):
        raise ConfigError("optimizer.sync_every needs trainer.strategy=ddp (or auto)")
    return trainer


def _finish(
    config: TrainConfig, output: Path, module: SpeechModule, best: KeepBest, train_set: Manifest, seconds: float
) -> TrainResult:
    """Choose the best checkpoints, average them, write the model file and the learning curve."""
    task, trainer, kept = module.task, module.trainer, best.best_first()
    if not kept:
        raise ConfigError("training ended before the first validation: raise trainer.max_epochs or max_steps")
    chosen, metric = [path for path, _ in kept], kept[0][1]
    module.model.load_state_dict(average_checkpoints(chosen))
    history = read_metrics(output / "logs" / "csv")
    validations = [metrics for metrics in history.dev.values() if task.monitor in metrics]
    dev = min(validations, key=lambda metrics: abs(metrics[task.monitor] - metric), default={})
    dev = {name: dev.get(name, math.nan) for name in task.rates} | {task.monitor: metric}
    summary = provenance() | {
        "name": config.name,
        **{name.replace("/", "_"): rate for name, rate in dev.items()},
        "averaging": config.averaging.kind,
        "checkpoints": [Path(path).name for path in chosen],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "train_utterances": len(train_set),
        "train_hours": round(float(train_set.durations.sum()) / 3600, 3),
        "train_longest": round(float(train_set.durations.max()), 3),
        "config": to_dict(config),
    }
    if module.init:
        summary["init"] = module.init
    path = save_model(output / MODEL, module.model, module.tokenizer, config.text.normalizer, summary, config.task)
    draw_learning_curve(history, task, output / "learning_curve.png", config.name)
    return TrainResult(path, dev, f"dev {format_rates(task, dev)}", trainer.current_epoch, seconds)


def _record(config: TrainConfig, output: Path, train_set: Manifest, dev_set: Manifest) -> None:
    """Write what is needed to repeat the run: configuration, seed, revision, versions, hashes of the data."""
    import yaml

    write_text(output / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))
    record = {"train_sha256": train_set.sha256, "dev_sha256": dev_set.sha256, "seed": config.seed}
    write_text(output / "run.json", json.dumps(provenance() | record, indent=1) + "\n")


def _memory_advice(bound: float, largest: Callable[[float], float] | None) -> str:
    """Which setting to lower after memory ran out; `largest` finds a value that fits by trying it on the GPU."""
    advice = f"try data.batch_seconds={bound / 2:g}"
    if largest:
        say(f"out of memory with data.batch_seconds={bound:g}; looking for the largest that fits")
        if not (found := largest(0.95 * bound)):
            return "out of memory, even with the longest utterance alone: lower data.max_duration"
        advice = f"data.batch_seconds={int(found)} fits"
    return (
        f"out of memory with data.batch_seconds={bound:g}: {advice} (and trainer.accumulate_grad_batches=2 keeps the "
        "step the same), or lower data.max_duration"
    )


def _explained(error: Exception, config: TrainConfig, rank: int) -> AsrError | None:
    """An error during training explained in one line; None for unexpected errors."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AsrError(f"{error.filename or config.output}: cannot be written: {error.strerror}")
    if lost_process(error):
        last = Path(config.output) / LAST
        effect = f"to resume from {last}" if last.exists() else "from the beginning: nothing was saved yet"
        return AsrError(
            f"process {rank + 1} has lost another process of this run, which has ended (see its messages) or "
            f"cannot be reached: start all of them again {effect}"
        )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, ValueError | TypeError | MisconfigurationException) and "lightning" in frame.filename:
        return refused(error)
    return None
