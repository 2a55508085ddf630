"""The trials of `asr tune`, several at a time: each runs `asr train` for every fold, in a separate process."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from asr.config import apply_overrides
from asr.corpus.folds import speaker_folds
from asr.corpus.manifest import Manifest, write_manifest
from asr.files import write_text
from asr.model.checkpoint import read_metadata
from asr.training.checkpoints import BEFORE_LAST, LAST
from asr.training.config import TrainConfig, manifests, training_sets
from asr.training.dataset import auto_workers
from asr.training.process import Signals, available_cores, launch_job, say, take_over, visible_gpus
from asr.training.record import read_metrics
from asr.training.space import Dimension, described, override, with_parameters
from asr.training.study import (
    HEARTBEAT,
    HeartbeatMonitor,
    Search,
    TrialState,
    current,
    heartbeat,
    next_trial,
    optuna,
    run_again,
)
from asr.training.tasks import TASKS
from asr.types import ConfigError, ModelFileError

MODEL, SETTINGS, LOG = "model.asr", "trial.yaml", "train.log"
FOLD_STEPS = 10_000  # step numbers per fold, under which Optuna stores the validations of a trial
_POLL = 0.5  # seconds
SAVING = 120.0  # seconds that a training run has to save before it is killed


@dataclass(frozen=True)
class Plan:
    """The task of `asr tune`. `recipe` holds nested plain values with all overrides; `config` is made from it."""

    recipe: Mapping[str, Any]
    config: TrainConfig
    space: Sequence[Dimension]
    output: Path
    search: Search
    trials: int
    folds: int = 0
    jobs: int = 1
    prune: bool = False
    prune_after: int = 5
    gpus: Sequence[str] = ()

    @property
    def monitor(self) -> str:
        """The metric, such as `dev/wer`."""
        return str(TASKS[self.config.task].monitor)

    @property
    def mode(self) -> Literal["minimize", "maximize"]:
        """The direction of the metric, in Optuna's terms."""
        return "maximize" if TASKS[self.config.task].mode == "max" else "minimize"


@dataclass
class Running:
    """A trial that this command runs: the folders of its folds, the values of finished ones, the current process."""

    trial: optuna.Trial
    place: int
    folds: Sequence[Path]
    values: list[float] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    reported: int = 0  # validations of the current fold
    heartbeats: int = 0
    heartbeat_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    started: float = 0.0


def attributes(plan: Plan) -> dict[str, Any]:
    """What the study stores: `asked`, which identifies it, and what its report needs.

    Raises ConfigError and ManifestError if there are no data, or too few speakers for the folds.
    """
    data = plan.config.data
    content: dict[str, Any] = {"weights": [training_set.weight for training_set in training_sets(data.train)]}
    for name, entry in {"train": data.train, **({} if plan.folds else {"dev": data.dev})}.items():
        if not manifests(entry):
            raise ConfigError(f"data.{name} must name a manifest")
        manifest = Manifest.read(manifests(entry))
        content[name] = manifest.sha256
        if plan.folds:
            speaker_folds(manifest, plan.folds)  # raises before the study is created
    # Settings that do not change the training result may differ. Manifests are identified by their content.
    recipe = {k: v for k, v in plan.recipe.items() if k not in ("name", "output", "checkpoint_minutes")}
    free = ("train", "dev", "test", "workers", "cache_audio", "eval_batch_seconds")
    recipe["data"] = {k: v for k, v in plan.recipe["data"].items() if k not in free}
    asked = {"recipe": recipe, "space": {d.key: asdict(d) for d in plan.space}, "folds": plan.folds, "data": content}
    label = TASKS[plan.config.task].rates[plan.monitor]
    return {"asked": asked, "recipe": plan.recipe, "monitor": plan.monitor, "label": label}


def checked_gpus(config: TrainConfig, jobs: int | None) -> list[str]:
    """The GPUs that trials may use, none for training on the CPU.

    Raises ConfigError if trials would use several GPUs each and run in parallel.
    """
    gpus = visible_gpus() if config.trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") else []
    devices = config.trainer.get("devices", 1)
    if devices not in (1, "1") and jobs != 1:
        raise ConfigError(f"trainer.devices={devices}: with --jobs, each trial has one GPU (--jobs 1 gives it all)")
    return gpus


def write_folds(plan: Plan) -> list[list[str]]:
    """Write the manifests of each fold to `folds/` in the output folder, and return the overrides of `data` for each.

    The folds divide `data.train`, whose sets keep their weights; `data.dev` is not used. Without folds, there is one
    empty list.
    """
    if not plan.folds:
        return [[]]
    sets = training_sets(plan.config.data.train)
    whole = Manifest.read([training_set.path for training_set in sets])
    chosen = speaker_folds(whole, plan.folds)
    overrides = []
    for fold in range(plan.folds):
        folder = plan.output / "folds" / str(fold + 1)
        write_manifest(folder / "dev.jsonl", whole.select(chosen == fold))
        train = []
        for number, training_set in enumerate(sets):
            rows = whole.select((chosen != fold) & (whole.files == number))
            if len(rows):
                write_manifest(path := folder / f"train-{number + 1}.jsonl", rows)
                train.append({"path": str(path), "weight": training_set.weight})
        overrides.append([override("data.train", train), override("data.dev", str(folder / "dev.jsonl"))])
    hours = [float(whole.durations[chosen == fold].sum()) / 3600 for fold in range(plan.folds)]
    say(f"{plan.folds} folds by speaker, held out: {', '.join(f'{h:.2f} h' for h in hours)}")
    return overrides


def run_trials(plan: Plan, study: optuna.Study, signals: Signals) -> None:
    """Run trials until `plan.trials` exist and none is running here. Raises `Interrupted` after a signal.

    Failed trials are recorded with the last line of their log. Failed and interrupted trials of earlier commands are
    run again first.
    """
    overrides = write_folds(plan)
    monitor, places, active = HeartbeatMonitor(study), list(range(plan.jobs)), list[Running]()
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=plan.prune_after)
    study.pruner = pruner if plan.prune else optuna.pruners.NopPruner()
    for trial in current(study):
        if trial.state == TrialState.FAIL:
            run_again(study, trial)
    checked_at, unsure = -HEARTBEAT, 0
    try:
        while True:
            signals.check()
            if time.monotonic() - checked_at > (HEARTBEAT if not unsure or active else HEARTBEAT / 10):
                dead, unsure = monitor.abandoned([running.trial.number for running in active])
                checked_at = time.monotonic()
                for trial in dead:
                    if run_again(study, trial):
                        say(f"trial {trial.number} was interrupted and is run again")
            while places and (new := next_trial(study, plan.space, plan.search, plan.config.seed, plan.trials)):
                active.append(_start_trial(plan, new, places.pop(0), overrides))
            if not active and not unsure:
                return
            time.sleep(_POLL)
            for running in list(active):
                if _advance(plan, study, running):
                    active.remove(running)
                    places.append(running.place)
    except BaseException:
        _stop(study, active)
        raise


def _start_trial(plan: Plan, trial: optuna.Trial, place: int, overrides: Sequence[Sequence[str]]) -> Running:
    """Write the configuration of each fold. Folds that are finished keep their results."""
    heartbeat(trial, 0)
    folder = plan.output / trial.user_attrs["folder"]
    values = with_parameters(plan.recipe, plan.space, trial.params)
    folds = [folder / f"fold-{i + 1}" for i in range(plan.folds)] or [folder]
    for path, data in zip(folds, overrides, strict=True):
        settings = apply_overrides(values, data) | {"name": f"trial {trial.number}", "output": str(path)}
        if plan.jobs > 1 and plan.config.data.workers < 0:
            workers = auto_workers("gpu" if plan.gpus else "cpu", plan.jobs)
            settings["data"] = settings["data"] | {"workers": workers}
        take_over(path, SAVING)
        write_text(path / SETTINGS, yaml.safe_dump(settings, sort_keys=False))
    say(f"trial {trial.number}: {described(plan.space, trial.params)}")
    return Running(trial, place, folds)


def _advance(plan: Plan, study: optuna.Study, running: Running) -> bool:
    """Report new validations of a trial, prune it, or start its next fold. True once the trial has ended."""
    trial = running.trial
    if time.monotonic() - running.heartbeat_at > HEARTBEAT:
        running.heartbeats, running.heartbeat_at = running.heartbeats + 1, time.monotonic()
        if not heartbeat(trial, running.heartbeats):
            say(f"trial {trial.number} was taken over by another command")
            _end(running)
            return True
    folder = running.folds[len(running.values)]
    if running.process is None:
        if (value := _result(folder, plan.monitor)) is None:
            running.process, running.reported = launch(plan, running.place, folder), 0
            running.started = time.monotonic()
            return False
    else:
        ended = running.process.poll() is not None
        worse = _prunable(plan, running, folder)
        if not ended:
            if worse:
                _end(running)
                remove_checkpoints(running.folds)
                study.tell(trial, state=TrialState.PRUNED)
                say(f"trial {trial.number}: pruned")
            return worse
        status, running.process = running.process.returncode, None
        running.seconds += time.monotonic() - running.started
        value = _result(folder, plan.monitor) if status == 0 else None
        if value is None:
            error = _last_line(folder / LOG) or f"status {status}"
            trial.set_user_attr("error", error)
            study.tell(trial, state=TrialState.FAIL)
            say(f"trial {trial.number}: failed: {error} (see {folder / LOG})")
            return True
    running.values.append(value)
    if len(running.values) < len(running.folds):
        return False
    trial.set_user_attr("seconds", round(running.seconds, 1))
    trial.set_user_attr("folds", running.values)
    remove_checkpoints(running.folds)
    mean = statistics.fmean(running.values)
    study.tell(trial, mean)
    best, label = study.best_trial, TASKS[plan.config.task].rates[plan.monitor]
    say(f"trial {trial.number}: {label} {mean:.2%} (best: {best.value:.2%}, trial {best.number})")
    return True


def launch(plan: Plan, place: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start or resume a training run, logged to its folder. Places share the GPUs, or else the cores."""
    command = [sys.executable, "-m", "asr", "train", str(folder / SETTINGS)]
    gpu = plan.gpus[place % len(plan.gpus)] if plan.gpus and plan.jobs > 1 else ""
    shared = not plan.gpus and "OMP_NUM_THREADS" not in os.environ
    return launch_job(command, folder / LOG, gpu, max(1, available_cores() // plan.jobs) if shared else 0)


def _prunable(plan: Plan, running: Running, folder: Path) -> bool:
    """Report new validations, each as the mean of the finished folds and the best so far of the current one."""
    if not plan.prune:
        return False
    task = TASKS[plan.config.task]
    try:
        history = read_metrics(folder / "logs" / "csv").dev
    except ValueError:  # a row is being written
        return False
    values = [metrics[plan.monitor] for _, metrics in sorted(history.items()) if plan.monitor in metrics]
    if len(values) <= running.reported:
        return False
    for count in range(running.reported + 1, len(values) + 1):
        best = (min if task.mode == "min" else max)(values[:count])
        running.trial.report(statistics.fmean([*running.values, best]), len(running.values) * FOLD_STEPS + count)
    running.reported = len(values)
    return running.trial.should_prune()


def _result(folder: Path, monitor: str) -> float | None:
    """The metric of a finished training run, None if it is not finished."""
    try:
        training = read_metadata(folder / MODEL)["training"]
    except ModelFileError:
        return None
    return float(training[monitor.replace("/", "_")])


def _stop(study: optuna.Study, active: Sequence[Running]) -> None:
    """Let all training runs save, and queue their trials again."""
    for running in active:
        if running.process:
            running.process.terminate()
    for running in active:
        _end(running)
        frozen = next(t for t in study.get_trials(deepcopy=False) if t.number == running.trial.number)
        if not frozen.state.is_finished():
            run_again(study, frozen)


def _end(running: Running) -> None:
    """End the process of a trial after it has saved."""
    if running.process and running.process.poll() is None:
        running.process.terminate()
        try:
            running.process.wait(SAVING)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()


def remove_checkpoints(folders: Sequence[Path]) -> None:
    """Delete the checkpoints of an ended trial; its models and logs stay."""
    for folder in folders:
        for name in (LAST, BEFORE_LAST):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].removeprefix("asr: error: ") if lines else ""
