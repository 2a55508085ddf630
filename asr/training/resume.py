"""Where a run goes on: its newest checkpoint that is whole, and settings that fit it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from asr.config import expand_path, to_dict
from asr.text.normalize import recorded
from asr.training.config import TrainConfig
from asr.training.lock import LOCK
from asr.training.record import read_checkpoint
from asr.training.saving import BEFORE_LAST, LAST
from asr.types import ConfigError, ModelFileError

_NEEDED = ("epoch", "global_step", "loops", "optimizer_states", "config")


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints that a run can go on from, best first: last.ckpt, the one before it, the others by age."""
    kept = (output / "checkpoints").glob("*.ckpt")
    others = sorted(kept, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    return [path for path in (output / LAST, output / BEFORE_LAST) if path.is_file()] + others


def find_checkpoint(output: Path, resume: str, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that `--resume` means, and its content; None to start afresh.

    For "auto" a damaged one is named and passed over for the next best. Raises ConfigError for a path that is not
    there, ModelFileError for damaged files; the message names what can be used instead.
    """
    if resume == "never":
        return None
    if resume != "auto":
        path = Path(expand_path(resume, "--resume"))
        if not path.is_file():
            raise ConfigError(f"--resume {resume}: no such checkpoint (use auto, never, or the path of a .ckpt file)")
        try:
            return path, _read_whole(path)
        except ModelFileError as error:
            usable = next(_usable([other for other in checkpoints(output) if not other.samefile(path)], []), None)
            hint = f"the next best is --resume {usable[0]}" if usable else "the output directory has no other one"
            raise ModelFileError(f"{error}: {hint}") from error
    damaged: list[str] = []
    found = next(_usable(checkpoints(output), damaged), None)
    if found is None and damaged:
        raise ModelFileError(f"{damaged[0]}; no other checkpoint can be used: --resume never starts afresh")
    for line in damaged:
        say(f"warning: {line}")
    if found and found[0].name != LAST:
        say(f"warning: going on from {found[0]} instead of {output / LAST}")
    return found


def check_resume(checkpoint: Path, saved: dict[str, Any], config: TrainConfig) -> str:
    """Refuse to continue a run of another shape; what may change (epochs, devices, learning rate) may.

    Returns the versioned name of the normalizer that the run began with, which it goes on with.
    """
    for section in ("model", "features", "text"):
        old, new = saved["config"].get(section, {}), to_dict(getattr(config, section))
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
    return recorded(saved["config"].get("text", {}).get("normalizer", config.text.normalizer))


def set_aside(output: Path, first_choice: Path, stay: Collection[str] = ()) -> Path:
    """Move what is in a folder, but the names in `stay`, to a new folder `FIRST_CHOICE.N`: nothing is deleted."""
    number = 1
    while (aside := first_choice.with_name(f"{first_choice.name}{number}")).exists():
        number += 1
    aside.mkdir()
    for path in list(output.iterdir()):
        if path != aside and path.name not in (*stay, LOCK):
            path.rename(aside / path.name)
    return aside


def _usable(paths: list[Path], damaged: list[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Those that can be read, with their content; what is wrong with the others is added to `damaged`."""
    for path in paths:
        try:
            yield path, _read_whole(path)
        except ModelFileError as error:
            damaged.append(str(error))


def _read_whole(path: Path) -> dict[str, Any]:
    """A checkpoint that training can go on from; ModelFileError for a damaged or foreign one."""
    saved = read_checkpoint(path)
    with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
        damaged = archive.testzip()
    if damaged:
        raise ModelFileError(f"{path}: damaged (the checksum of {damaged} is wrong)")
    if missing := [key for key in _NEEDED if key not in saved]:
        raise ModelFileError(f"{path}: not a training checkpoint of this program (it has no '{missing[0]}')")
    return saved
