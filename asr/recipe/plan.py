"""What a recipe would do: the data and its size, the steps and the reasons for them, and the training."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asr.corpus.download import part_of
from asr.recipe.corpus import Archive, size
from asr.recipe.steps import Run
from asr.training.config import manifests
from asr.training.plan import corpus, expected_vocabulary, in_words, plan, spread_durations

H100 = (2000.0, 2700.0)  # seconds of audio per second in trainings of this project's models on one H100


def lines(run: Run, chosen: Sequence[str], forced: Sequence[str]) -> list[str]:
    """The plan, as `--dry-run` prints it. Nothing is done, downloaded or written."""
    facts = run.preparation.CORPUS
    steps = run.reasons(chosen, forced)
    written = [f"{run.folder.name}: {run.config.name}", *(f"{name:<10}{value}" for name, value in facts.facts())]
    existing = next(path for path in (run.args.data, *run.args.data.absolute().parents) if path.exists())
    written.append(f"{'data in':<10}{run.args.data}, with {size(shutil.disk_usage(existing).free / 1e9)} free")
    if "prepare" in steps and steps["prepare"][0]:
        named = run.sources()
        written += [f"{'source':<10}{path}" for path in named]
        if not named or _folder(run):
            written += [f"{'archive':<10}{_state(run, archive)}" for archive in _wanted(run)]
    written += ["", "steps"]
    written += [f"  {name:<10}{'to do: ' if due else ''}{reason}" for name, (due, reason) in steps.items()]
    if "train" in steps:
        written += ["", "training", *(f"  {line}" for line in _training(run))]
    return written


def _wanted(run: Run) -> list[Archive]:
    """The archives that the recipe's `archives` names, or else those named like sets of the configuration, or all."""
    if choose := getattr(run.preparation, "archives", None):
        return list(choose(run.args))
    archives = run.preparation.CORPUS.archives
    stems = {path.stem for path in run.args.manifests}
    return [a for a in archives if a.name.partition(".")[0] in stems] or list(archives)


def _folder(run: Run) -> Path | None:
    """The folder of archives, if the user named one."""
    archive = getattr(run.args, "archive", None)
    return archive if archive and archive.is_dir() else None


def _state(run: Run, archive: Archive) -> str:
    if folder := _folder(run):
        exists = (folder / archive.name).exists()
        return f"{folder / archive.name}: {'here' if exists else f'missing; it comes from {archive.url}'}"
    kept = run.args.data / "archives" / archive.name
    if kept.exists():
        return f"{kept}: here"
    arrived = part_of(kept)
    part = f", {size(arrived / 1e9)} of it here" if arrived else ""
    state = "will be downloaded" if getattr(run.args, "download", False) else "is downloaded only with --download"
    return f"{archive.url} ({size(archive.gigabytes)}{part}): {state}"


def _training(run: Run) -> list[str]:
    config, facts = run.config, run.preparation.CORPUS
    paths = [Path(path) for path in manifests(config.data.train)]
    if all(path.exists() for path in paths):
        return _lines(run, *corpus(config))
    hours = _hours(run, [path.stem for path in paths])
    if not hours:
        return ["its size is unknown until the data is prepared"]
    mean = facts.mean_seconds
    durations = spread_durations(hours, max(1, round(hours * 3600 / mean)), min(4 * mean, config.data.max_duration))
    assumed = f"{hours:.4g} hours" if facts.set_hours else f"{hours:.4g} hours at most"
    plan_lines = _lines(run, durations, expected_vocabulary(config))
    return [f"{assumed}, if utterances last {mean:g} s on average", *plan_lines]


def _lines(run: Run, durations: np.ndarray, vocabulary: int) -> list[str]:
    slow, fast = (plan(run.config, durations, vocabulary, throughput=speed) for speed in H100)
    time = f"{in_words(fast.days)} to {in_words(slow.days)}"
    speed = f"at {H100[0]:,.0f} to {H100[1]:,.0f} s of audio per second; `asr train --dry-run` measures it here"
    return [*slow.lines()[:-1], f"time    {time} on one H100, {speed}"]


def _hours(run: Run, sets: Sequence[str]) -> float:
    """The hours of the training set, before it is prepared; 0 if unknown."""
    facts = run.preparation.CORPUS
    if facts.set_hours:
        return sum(facts.set_hours.get(name, 0.0) for name in sets)
    known = facts.hours if isinstance(facts.hours, int | float) else 0.0
    return getattr(run.args, "train_hours", known)  # set by the recipe `custom`, which has read the data
