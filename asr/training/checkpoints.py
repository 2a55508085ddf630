"""Training checkpoints: atomic writes, the choice of the one to resume from, and the mean of several."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from asr.config import expand_path, from_dict, to_dict
from asr.files import OutputError, replacing
from asr.model.averaging import mean_weights
from asr.model.config import ModelConfig
from asr.text.normalize import recorded
from asr.training.config import TrainConfig
from asr.training.process import LOCK, say
from asr.types import AsrError, ConfigError, ModelFileError

LAST = "last.ckpt"
BEFORE_LAST = "previous.ckpt"
DAMAGED = "damaged.ckpt"  # an unreadable last.ckpt, out of the way
_NEEDED = ("epoch", "global_step", "loops", "optimizer_states", "config")


class DurableCheckpoints(TorchCheckpointIO):
    """Writes every checkpoint atomically and durably, and keeps the previous `last.ckpt`.

    Lightning writes to $TMPDIR first; if that is another file system, it truncates the target and copies.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises AsrError, in one line, if the disk is full; the previous file is kept then."""
        buffer = io.BytesIO()  # torch would report a full disk as an internal error of its zip writer
        torch.save(checkpoint, buffer)
        with replacing(path, AsrError) as partial:
            partial.write_bytes(buffer.getbuffer())
            if Path(path).name == LAST:
                _keep(Path(path))


def _keep(last: Path) -> None:
    """Give `last.ckpt` a second name, which it keeps when it is replaced."""
    if not last.exists():
        return
    before = last.with_name(BEFORE_LAST)
    try:
        with replacing(before, durable=False) as link:
            os.link(last, link)
    except OutputError:  # a file system without hard links
        last.replace(before)


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints that a run can resume from, in order: last.ckpt, the one before it, the others, newest first."""
    kept = (output / "checkpoints").glob("*.ckpt")
    others = sorted(kept, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    return [path for path in (output / LAST, output / BEFORE_LAST) if path.is_file()] + others


def find_checkpoint(output: Path, resume: str) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that `--resume` asks for, and its content; None to start afresh.

    For "auto", a damaged checkpoint is reported and the next one is used. Raises ConfigError for a path that does not
    exist, and ModelFileError, which names an alternative, for damaged files.
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
        say(f"warning: resuming from {found[0]} instead of {output / LAST}")
    return found


def check_resume(checkpoint: Path, saved: dict[str, Any], config: TrainConfig) -> str:
    """Refuse to resume with another task, model or `init`, or other features or text settings; all else may change.

    Returns the versioned name of the run's normalizer, which stays the same.
    """
    before = saved["config"]
    old_init, new_init = (Path(name).name for name in (before.get("init", ""), config.init))  # the file may have moved
    settings: list[tuple[str, Any, Any]] = [
        ("task", before.get("task", "ctc"), config.task),
        ("init", old_init or "nothing", new_init or "nothing"),
        ("model.decoder", before.get("model", {}).get("decoder"), to_dict(config.model).get("decoder")),
        ("encoder_lr_factor", before.get("encoder_lr_factor", 1.0), config.encoder_lr_factor),
    ]
    for section in ("model", "features", "text", "classification"):
        old, new = before.get(section, {}), to_dict(getattr(config, section))
        if section == "model":  # options that did not exist yet had their defaults
            old = to_dict(from_dict(ModelConfig, old, section))
        for key in new:
            if key == "normalizer" and key in old:
                old[key] = recorded(old[key])
                if "@" not in new[key]:  # without a version, the run keeps its own
                    new[key] += "@" + old[key].partition("@")[2]
            settings.append((f"{section}.{key}", old.get(key, new[key]), new[key]))
    for name, was, now in settings:
        if was != now:
            raise ConfigError(
                f"{checkpoint} was trained with {name}={was}, this configuration says {now}: "
                "choose another output directory, or --resume never"
            )
    return recorded(before.get("text", {}).get("normalizer", config.text.normalizer))


def set_aside(output: Path, prefix: Path, keep: Collection[str] = ()) -> Path:
    """Move the contents of a folder, except the names in `keep`, to a new folder PREFIX1, PREFIX2, ..."""
    number = 1
    while (aside := prefix.with_name(f"{prefix.name}{number}")).exists():
        number += 1
    aside.mkdir()
    for path in list(output.iterdir()):
        if path != aside and path.name not in (*keep, LOCK):
            path.rename(aside / path.name)
    return aside


def average_checkpoints(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """The mean of the models' weights in training checkpoints, as a state dict for `AcousticModel`.

    Raises ModelFileError if a file is not a training checkpoint or the models differ in shape.
    """
    return mean_weights((path, model_weights(read_checkpoint(path))) for path in paths)


def model_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The acoustic model's weights in a training checkpoint (the averaged ones if the run keeps an average)."""
    prefix = "model."
    return {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a training checkpoint safely, without pickled objects. Raises ModelFileError, in one line."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch raises many types for other files
        reason = next(iter(str(error).splitlines()), "it is empty or cut off")
        raise ModelFileError(f"{path}: damaged, or not a training checkpoint of this program ({reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ModelFileError(f"{path}: not a training checkpoint of this program")
    return checkpoint


def _usable(paths: list[Path], damaged: list[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The readable checkpoints with their contents; the errors of the others are added to `damaged`."""
    for path in paths:
        try:
            yield path, _read_whole(path)
        except ModelFileError as error:
            damaged.append(str(error))


def _read_whole(path: Path) -> dict[str, Any]:
    """A checkpoint that training can resume from. Raises ModelFileError for any other file."""
    saved = read_checkpoint(path)
    with zipfile.ZipFile(path) as archive:  # torch ignores the checksums
        damaged = archive.testzip()
    if damaged:
        raise ModelFileError(f"{path}: damaged (the checksum of {damaged} is wrong)")
    if missing := [key for key in _NEEDED if key not in saved]:
        raise ModelFileError(f"{path}: not a training checkpoint of this program (it has no '{missing[0]}')")
    return saved
