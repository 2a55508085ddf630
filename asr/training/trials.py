"""The trials of `asr tune`, several at a time: each is an `asr train` for every fold, in a process of its own."""

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
from asr.training.process import Signals, available_cores, say, take_over
from asr.training.record import read_metrics
from asr.training.space import Dimension, with_parameters
from asr.training.study import BEAT, Search, TrialState, Watch, current, next_trial, optuna, run_again
from asr.training.tasks import TASKS
from asr.types import ConfigError, ModelFileError

MODEL, SETTINGS, LOG = "model.asr", "trial.yaml", "train.log"
FOLD_STEPS = 10_000  # of the validations of a fold, as Optuna counts the intermediate values of a trial
_POLL = 0.5  # seconds
SAVING = 120.0  # seconds that a training gets to save before it is killed


@dataclass(frozen=True)
class Plan:
    """What `asr tune` is to do. `recipe` are nested plain values with all overrides; `config` is made of them."""

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
        """Whether less of it is better, as Optuna says it."""
        return "maximize" if TASKS[self.config.task].mode == "max" else "minimize"


@dataclass
class Running:
    """A trial that this command runs: the folder of each fold, the values of the finished ones, the process now."""

    trial: optuna.Trial
    place: int
    folds: Sequence[Path]
    values: list[float] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    reported: int = 0  # validations of this fold
    beats: int = 0
    beaten_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    started: float = 0.0


def attributes(plan: Plan) -> dict[str, Any]:
    """What the study keeps: `asked`, by which it is known again, and what its report needs.

    Raises ConfigError and ManifestError where there are no data, or no folds of them.
    """
    data = plan.config.data
    content: dict[str, Any] = {"weights": [one.weight for one in training_sets(data.train)]}
    for name, entry in {"train": data.train, **({} if plan.folds else {"dev": data.dev})}.items():
        if not manifests(entry):
            raise ConfigError(f"data.{name} must name a manifest")
        manifest = Manifest.read(manifests(entry))
        content[name] = manifest.sha256
        if plan.folds:
            speaker_folds(manifest, plan.folds)  # before there is a study that cannot be run
    # What does not change what is learned may differ. Manifests are known by their content.
    recipe = {k: v for k, v in plan.recipe.items() if k not in ("name", "output", "checkpoint_minutes")}
    free = ("train", "dev", "test", "workers", "cache_audio", "eval_batch_seconds")
    recipe["data"] = {k: v for k, v in plan.recipe["data"].items() if k not in free}
    asked = {"recipe": recipe, "space": {d.key: asdict(d) for d in plan.space}, "folds": plan.folds, "data": content}
    label = TASKS[plan.config.task].rates[plan.monitor]
    return {"asked": asked, "recipe": plan.recipe, "monitor": plan.monitor, "label": label}


def checked_gpus(config: TrainConfig, jobs: int | None) -> list[str]:
    """The GPUs that trials may use, none for trainings on the CPU.

    Raises ConfigError where trials would use several each, and run side by side.
    """
    gpus = visible_gpus() if config.trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") else []
    devices = config.trainer.get("devices", 1)
    if devices not in (1, "1") and jobs != 1:
        raise ConfigError(f"trainer.devices={devices}: with --jobs, each trial has one GPU (--jobs 1 gives it all)")
    return gpus


def write_folds(plan: Plan) -> list[list[str]]:
    """Overrides of `data` for each fold, whose manifests are written to `folds/` in the output folder.

    The folds divide `data.train`, whose sets keep their weights; `data.dev` is not used. Without folds, one empty list.
    """
    if not plan.folds:
        return [[]]
    sets = training_sets(plan.config.data.train)
    whole = Manifest.read([one.path for one in sets])
    chosen = speaker_folds(whole, plan.folds)
    overrides = []
    for fold in range(plan.folds):
        folder = plan.output / "folds" / str(fold + 1)
        write_manifest(folder / "dev.jsonl", whole.select(chosen == fold))
        train = []
        for number, one in enumerate(sets):
            rows = whole.select((chosen != fold) & (whole.files == number))
            if len(rows):
                write_manifest(path := folder / f"train-{number + 1}.jsonl", rows)
                train.append({"path": str(path), "weight": one.weight})
        dev = yaml.safe_dump(str(folder / "dev.jsonl"), width=10**6)
        overrides.append(
            [f"data.train={yaml.safe_dump(train, width=10**6, default_flow_style=True)}", f"data.dev={dev}"]
        )
    hours = [float(whole.durations[chosen == fold].sum()) / 3600 for fold in range(plan.folds)]
    say(f"{plan.folds} folds by speaker, held out: {', '.join(f'{h:.2f} h' for h in hours)}")
    return overrides


def run_trials(plan: Plan, study: optuna.Study, signals: Signals) -> None:
    """Run trials until `plan.trials` are there and none runs here. Raises `Interrupted` after a signal.

    Failed trials are recorded with the last line of their log; they and interrupted ones are run again first.
    """
    overrides = write_folds(plan)
    watch, places, running = Watch(study), list(range(plan.jobs)), list[Running]()
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=plan.prune_after)
    study.pruner = pruner if plan.prune else optuna.pruners.NopPruner()
    for trial in current(study):
        if trial.state == TrialState.FAIL:
            run_again(study, trial)
    looked, unsure = -BEAT, 0
    try:
        while True:
            signals.check()
            if time.monotonic() - looked > (BEAT if not unsure or running else BEAT / 10):
                dead, unsure = watch.abandoned([one.trial.number for one in running])
                looked = time.monotonic()
                for trial in dead:
                    if run_again(study, trial):
                        say(f"trial {trial.number} was interrupted and is run again")
            while places and (new := next_trial(study, plan.space, plan.search, plan.config.seed, plan.trials)):
                running.append(_start_trial(plan, new, places.pop(0), overrides))
            if not running and not unsure:
                return
            time.sleep(_POLL)
            for one in list(running):
                if _step(plan, study, one):
                    running.remove(one)
                    places.append(one.place)
    except BaseException:
        _stop(study, running)
        raise


def _start_trial(plan: Plan, trial: optuna.Trial, place: int, overrides: Sequence[Sequence[str]]) -> Running:
    """Write the configuration of each fold. A fold that was finished before keeps its result."""
    Watch.beat(trial, 0)
    folder = plan.output / trial.user_attrs["folder"]
    values = with_parameters(plan.recipe, plan.space, trial.params)
    folds = [folder / f"fold-{i + 1}" for i in range(plan.folds)] or [folder]
    for path, data in zip(folds, overrides, strict=True):
        settings = apply_overrides(values, data) | {"name": f"trial {trial.number}", "output": str(path)}
        if plan.jobs > 1 and plan.config.data.workers < 0:
            from asr.training.dataset import auto_workers

            workers = auto_workers("gpu" if plan.gpus else "cpu", plan.jobs)
            settings["data"] = settings["data"] | {"workers": workers}
        take_over(path, SAVING)
        write_text(path / SETTINGS, yaml.safe_dump(settings, sort_keys=False))
    say(f"trial {trial.number}: {described(plan.space, trial.params)}")
    return Running(trial, place, folds)


def _step(plan: Plan, study: optuna.Study, one: Running) -> bool:
    """Go on with a trial: report what is new, prune, begin its next fold. True where the trial has ended."""
    if time.monotonic() - one.beaten_at > BEAT:
        one.beats, one.beaten_at = one.beats + 1, time.monotonic()
        if not Watch.beat(one.trial, one.beats):
            say(f"trial {one.trial.number} was taken over by another command")
            _end(one)
            return True
    folder = one.folds[len(one.values)]
    if one.process is None:
        if (value := _result(folder, plan.monitor)) is None:
            one.process, one.reported, one.started = launch(plan, one.place, folder), 0, time.monotonic()
            return False
    else:
        ended = one.process.poll() is not None
        worse = _prunable(plan, one, folder)
        if worse and not ended:
            _end(one)
            remove_checkpoints(one.folds)
            study.tell(one.trial, state=TrialState.PRUNED)
            say(f"trial {one.trial.number}: pruned")
            return True
        if not ended:
            return False
        status, one.process = one.process.returncode, None
        one.seconds += time.monotonic() - one.started
        value = _result(folder, plan.monitor) if status == 0 else None
        if value is None:
            error = _last_line(folder / LOG) or f"status {status}"
            one.trial.set_user_attr("error", error)
            study.tell(one.trial, state=TrialState.FAIL)
            say(f"trial {one.trial.number}: failed: {error} (see {folder / LOG})")
            return True
    one.values.append(value)
    if len(one.values) < len(one.folds):
        return False
    one.trial.set_user_attr("seconds", round(one.seconds, 1))
    one.trial.set_user_attr("folds", one.values)
    remove_checkpoints(one.folds)
    study.tell(one.trial, statistics.fmean(one.values))
    best = study.best_trial
    reached = f"{TASKS[plan.config.task].rates[plan.monitor]} {statistics.fmean(one.values):.2%}"
    say(f"trial {one.trial.number}: {reached} (best: {best.value:.2%}, trial {best.number})")
    return True


def launch(plan: Plan, place: int, folder: Path) -> subprocess.Popen[bytes]:
    """Begin or resume a training; what it prints is added to its log. Places share the GPUs out, or else the cores."""
    environment = dict(os.environ)
    if plan.gpus and plan.jobs > 1:
        environment["CUDA_VISIBLE_DEVICES"] = plan.gpus[place % len(plan.gpus)]
    if not plan.gpus:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // plan.jobs)))
    command = [sys.executable, "-m", "asr", "train", str(folder / SETTINGS)]
    with (folder / LOG).open("ab") as log:
        # In a session of its own, so that Ctrl-C reaches it once, from here.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return chosen.split(",")[:count] if chosen else [str(i) for i in range(count)]


def described(space: Sequence[Dimension], parameters: Mapping[str, Any]) -> str:
    """The parameters of a trial in one line."""
    return "  ".join(f"{d.key}={shown(parameters[d.key])}" for d in space)


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value)


def _prunable(plan: Plan, one: Running, folder: Path) -> bool:
    """Report the validations since the last time: the mean of finished folds and the best of this one so far."""
    if not plan.prune:
        return False
    task = TASKS[plan.config.task]
    try:
        history = read_metrics(folder / "logs" / "csv").dev
    except ValueError:  # a row is just being written
        return False
    found = [metrics[plan.monitor] for _, metrics in sorted(history.items()) if plan.monitor in metrics]
    if len(found) <= one.reported:
        return False
    for count in range(one.reported + 1, len(found) + 1):
        best = (min if task.mode == "min" else max)(found[:count])
        one.trial.report(statistics.fmean([*one.values, best]), len(one.values) * FOLD_STEPS + count)
    one.reported = len(found)
    return one.trial.should_prune()


def _result(folder: Path, monitor: str) -> float | None:
    """The metric of a finished training, None where it is not finished."""
    try:
        training = read_metadata(folder / MODEL)["training"]
    except ModelFileError:
        return None
    return float(training[monitor.replace("/", "_")])


def _stop(study: optuna.Study, running: Sequence[Running]) -> None:
    """Let all trainings save, and queue their trials again."""
    for one in running:
        if one.process:
            one.process.terminate()
    for one in running:
        _end(one)
        frozen = next(t for t in study.get_trials(deepcopy=False) if t.number == one.trial.number)
        if not frozen.state.is_finished():
            run_again(study, frozen)


def _end(one: Running) -> None:
    if one.process and one.process.poll() is None:
        one.process.terminate()
        try:
            one.process.wait(SAVING)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()


def remove_checkpoints(folders: Sequence[Path]) -> None:
    """Delete what a trial that has ended does not need any more; its models and logs stay."""
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
