"""Checkpoints: whole or not there, whatever happens; a damaged one never costs the run."""

from __future__ import annotations

import errno
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import asr.files
from asr.__main__ import main
from asr.model.checkpoint import load_model
from asr.training.checkpoints import find_checkpoint, read_checkpoint
from asr.training.config import parse_config
from asr.training.run import train
from asr.types import ModelFileError

Settings = Callable[..., dict[str, Any]]
TRAINER = {"max_epochs": 2}


@pytest.fixture(scope="module")
def trained(settings_in: Callable[[Path], Settings], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run of two epochs, with last.ckpt, previous.ckpt and a best one."""
    folder = tmp_path_factory.mktemp("trained")
    train(parse_config(settings_in(folder)(trainer=TRAINER)))
    return folder / "run"


@pytest.fixture
def output(trained: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def flip_a_bit(path: Path) -> None:
    """In the middle of a tensor, where torch itself does not look."""
    with zipfile.ZipFile(path) as archive:
        tensor = max(archive.infolist(), key=lambda member: member.file_size)
        content = archive.read(tensor)
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": truncate,
    "a bit flipped": flip_a_bit,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("not a checkpoint", encoding="utf-8"),
    "a model file": lambda path: shutil.copy(path.with_name("model.asr"), path),
    "weights only": lambda path: torch.save({"state_dict": {}}, path),
    "another object": lambda path: torch.save([1, 2], path),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_next_best_is_taken(
    output: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    last, previous = output / "last.ckpt", output / "previous.ckpt"
    (best,) = (output / "checkpoints").glob("*.ckpt")
    for path, following in ((last, previous), (previous, best)):
        if damage == "a model file" and path == previous:
            break
        DAMAGE[damage](path)
        found = find_checkpoint(output, "auto")
        messages = capsys.readouterr().err.splitlines()
        assert found and found[0] == following and "optimizer_states" in found[1]
        assert messages[0].startswith(f"warning: {last}: ") and all(line.startswith("warning: ") for line in messages)
        assert messages[-1] == f"warning: resuming from {following} instead of {last}"
        with pytest.raises(ModelFileError) as error:
            find_checkpoint(output, str(path))
        assert f"{path}: " in str(error.value) and f"the next best is --resume {following}" in str(error.value)


def test_a_missing_last_checkpoint_does_not_cost_the_run(output: Path) -> None:
    (output / "last.ckpt").unlink()
    found = find_checkpoint(output, "auto")
    assert found and found[0] == output / "previous.ckpt"


def test_when_nothing_can_be_read_it_is_an_error_and_nothing_is_overwritten(output: Path) -> None:
    for path in output.rglob("*.ckpt"):
        path.write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"no other checkpoint can be used: --resume never starts afresh"):
        find_checkpoint(output, "auto")
    assert find_checkpoint(output, "never") is None


def test_a_run_with_a_damaged_checkpoint_ends_as_if_nothing_had_happened(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = parse_config(settings(trainer=TRAINER))
    expected = load_model(train(config).model_path).model.state_dict()
    truncate(tmp_path / "run" / "last.ckpt")
    (tmp_path / "run" / "model.asr").unlink()
    found = load_model(train(config).model_path).model.state_dict()
    assert "previous.ckpt instead of" in capsys.readouterr().err
    for name in ("last.ckpt", "previous.ckpt"):  # the damaged one did not become the one before
        read_checkpoint(tmp_path / "run" / name)
    assert (tmp_path / "run" / "damaged.ckpt").exists()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_a_reader_sees_only_whole_checkpoints_and_tmpdir_is_not_used(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment a new checkpoint is complete but not yet in its place, the one before is whole, in its own."""
    steps: list[int] = []
    flush = asr.files._flush

    def look(path: Path) -> None:
        last = tmp_path / "run" / "last.ckpt"
        if path.name.endswith(".part") and last.exists():
            steps.append(read_checkpoint(last)["global_step"])
            assert path.parent in (last.parent, last.parent / "checkpoints", last.parent / "steps")
        flush(path)

    monkeypatch.setattr(asr.files, "_flush", look)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    killed, other = (tmp_path / "run" / place / ".0123456789ab.part" for place in ("checkpoints", "another run"))
    for path in (killed, other):
        path.parent.mkdir(parents=True)
        path.touch()
    train(parse_config(settings(trainer=TRAINER)))
    assert not killed.exists() and other.exists()
    assert steps[0] == 8 and steps[-1] == 16
    assert read_checkpoint(tmp_path / "run" / "previous.ckpt")["global_step"] == 8


# Each epoch writes a best checkpoint and then last.ckpt; after them the model.
@pytest.mark.parametrize("full_at", ["epoch001*.ckpt", "last.ckpt", "model.asr", "metrics.csv", "learning_curve.png"])
def test_a_full_disk_is_one_line_and_the_run_can_be_resumed(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full_at: str,
) -> None:
    path, output = tmp_path / "tones.yaml", tmp_path / "run"
    averaging = {"kind": "last_k", "last_k": 2}  # so that every epoch is kept
    path.write_text(yaml.safe_dump(settings(trainer=TRAINER, averaging=averaging)), encoding="utf-8")
    with monkeypatch.context() as patch:
        fill_the_disk(patch, full_at, output)
        assert main(["train", str(path)]) == 1
    err = capsys.readouterr().err.splitlines()
    assert sum("No space left on device" in line for line in err) == 1 and err[-1].startswith("asr: error: ")
    assert not any("Traceback" in line for line in err) and not list(output.rglob("*.part"))
    assert read_checkpoint(output / "last.ckpt")["global_step"] in (8, 16)
    assert main(["train", str(path)]) == 0
    assert (output / "model.asr").exists()


def fill_the_disk(patch: pytest.MonkeyPatch, full_at: str, output: Path) -> None:
    """Let the second epoch find no room for a file."""
    full = OSError(errno.ENOSPC, "No space left on device")
    if full_at == "metrics.csv":
        from pytorch_lightning.loggers import CSVLogger

        save = CSVLogger.save

        def save_or_not(self: CSVLogger) -> None:
            if (output / "last.ckpt").exists():
                raise full
            save(self)

        patch.setattr(CSVLogger, "save", save_or_not)
        return
    replacing = asr.files.replacing

    def replacing_or_not(path: Any, *args: Any, **options: Any) -> Any:
        target = Path(path)
        if target.match(full_at) and (output / "last.ckpt").exists():
            patch.setattr(asr.files, "_flush", raise_full)
        elif target.name != "previous.ckpt":  # a second name, made while last.ckpt is being written
            patch.setattr(asr.files, "_flush", flush)
        return replacing(path, *args, **options)

    def raise_full(path: Path) -> None:
        raise full

    flush = asr.files._flush
    for module in ("asr.training.checkpoints", "asr.model.checkpoint", "asr.training.record"):
        patch.setattr(f"{module}.replacing", replacing_or_not)
