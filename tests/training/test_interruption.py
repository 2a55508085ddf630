"""A run told to stop at any moment saves, says so in one line, and gives the status that schedulers understand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import asr.training.run
from asr.__main__ import main
from asr.model.checkpoint import load_model
from asr.training.checkpoints import DurableCheckpoints, read_checkpoint
from asr.training.module import SpeechModule
from asr.training.process import Interrupted, handled_signals

Settings = Callable[..., dict[str, Any]]
Losses = Callable[[Path], dict[int, float]]
Send = Callable[..., None]


@pytest.fixture(autouse=True)
def no_signal_gets_out() -> Iterator[None]:
    """A signal that no handler of ours takes is a failure of the test, not the end of all tests."""

    def stray(number: int, frame: object) -> None:
        raise AssertionError(f"signal {number} was not handled")

    before = {number: signal.signal(number, stray) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is stray  # put back in their place
        signal.signal(number, handler)


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Send:
    """`send(owner, name, call)`: SIGTERM, or another signal, in the midst of that call of a function."""

    def at(owner: Any, name: str, call: int, number: int = signal.SIGTERM) -> None:
        original, calls = getattr(owner, name), 0

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), number)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapper)

    return at


def recipe(settings: Settings, tmp_path: Path, **sections: Any) -> Path:
    path = tmp_path / "tones.yaml"
    noise = {"noise": ["white", "babble"], "noise_snr_db": [10, 30]}  # of other utterances: resumed exactly, too
    sections = {
        "trainer": {"max_epochs": 2, "log_every_n_steps": 1, "accelerator": "cpu"},
        "augment": noise,
    } | sections
    path.write_text(yaml.safe_dump(settings(**sections)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def unbroken(
    settings_in: Callable[[Path], Settings], step_losses: Losses, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Losses and weights of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert main(["train", str(recipe(settings_in(folder), folder))]) == 0
    return {"losses": step_losses(folder / "run"), "weights": load_model(folder / "run/model.asr").model.state_dict()}


# 8 steps an epoch, one batch of dev, for the sanity check too; a best checkpoint and then last.ckpt for each epoch.
@pytest.mark.parametrize(
    ("owner", "name", "call", "steps"),
    [
        pytest.param(asr.training.run, "training_manifest", 1, None, id="set-up"),
        pytest.param(SpeechModule, "configure_optimizers", 1, None, id="set-up of the trainer"),
        pytest.param(SpeechModule, "validation_step", 1, None, id="sanity check"),
        pytest.param(SpeechModule, "training_step", 3, 3, id="step"),
        pytest.param(SpeechModule, "training_step", 8, 9, id="last step of an epoch"),
        pytest.param(SpeechModule, "validation_step", 2, 9, id="validation"),
        pytest.param(DurableCheckpoints, "save_checkpoint", 1, 9, id="saving the best"),
        pytest.param(DurableCheckpoints, "save_checkpoint", 2, 9, id="saving the last"),
        pytest.param(SpeechModule, "training_step", 16, 16, id="last step of all"),
        pytest.param(SpeechModule, "validation_step", 3, 16, id="last validation"),
        pytest.param(asr.training.run, "save_model", 1, 16, id="writing the model"),
        pytest.param(asr.training.run, "draw_learning_curve", 1, 16, id="learning curve"),
    ],
)
def test_sigterm_at_any_moment_saves_and_is_status_143(
    settings: Settings,
    tmp_path: Path,
    send: Send,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step_losses: Losses,
    unbroken: dict[str, Any],
    owner: Any,
    name: str,
    call: int,
    steps: int | None,
) -> None:
    path, output = recipe(settings, tmp_path), tmp_path / "run"
    send(owner, name, call)
    assert main(["train", str(path)]) == 143
    err = capsys.readouterr().err
    assert err.count("stopped; everything is saved") == 1 and "Traceback" not in err
    last = output / "last.ckpt"
    assert (read_checkpoint(last)["global_step"] if last.exists() else None) == steps
    assert not list(output.rglob("*.part")) and not (output / ".lock").exists()
    monkeypatch.undo()
    assert main(["train", str(path)]) == 0
    losses = step_losses(output)
    assert losses.items() <= unbroken["losses"].items()
    assert len(unbroken["losses"]) - len(losses) <= 1  # a step whose log the signal prevented
    for key, tensor in load_model(output / "model.asr").model.state_dict().items():
        assert torch.equal(tensor, unbroken["weights"][key]), key


@pytest.mark.parametrize("validations", [1, 3])
def test_sigterm_after_the_last_step_of_a_run_that_does_not_end_with_a_validation(
    settings: Settings, tmp_path: Path, send: Send, validations: int
) -> None:
    trainer = {"max_steps": 11, "max_epochs": -1, "check_val_every_n_epoch": validations}
    send(SpeechModule, "on_before_zero_grad", 11)
    assert main(["train", str(recipe(settings, tmp_path, trainer=trainer))]) == 143
    assert read_checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 11


def test_ctrl_c_is_status_130(settings: Settings, tmp_path: Path, send: Send) -> None:
    send(SpeechModule, "validation_step", 2, signal.SIGINT)
    assert main(["train", str(recipe(settings, tmp_path))]) == 130


def test_the_same_signal_from_scheduler_and_launcher_counts_once_and_a_later_one_ends_the_process() -> None:
    """In a process of its own, which the second signal ends by the system's rules."""
    code = (
        "import os, signal, asr.training.process as i\n"
        "def send(): os.kill(os.getpid(), signal.SIGTERM)\n"
        "with i.handled_signals() as signals, signals.deferred():\n"
        "    send(); send(); print('saving', flush=True)\n"
        "    i._REPEAT_SECONDS = 0\n"
        "    send(); print('still here', flush=True)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (-signal.SIGTERM, "saving\n")
    assert result.stderr == "interrupted: saving first (again to stop at once)\n"


@pytest.mark.parametrize("ends", [False, True])
def test_an_exception_that_python_drops_is_raised_again_or_at_the_end(
    capfd: pytest.CaptureFixture[str], ends: bool
) -> None:
    """Python drops what a destructor raises, and what a callback of compiled code raises, with a traceback."""

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    reached = False
    with pytest.raises(Interrupted) as stop, handled_signals():
        dying = Dying()
        del dying
        reached = True
        if not ends:
            threading.Event().wait()  # for ever
    assert reached and stop.value.status == 143
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("works", [True, False])
def test_slurm_requeues_after_our_own_save_instead_of_lightnings(
    settings: Settings,
    tmp_path: Path,
    send: Send,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    works: bool,
) -> None:
    """`#SBATCH --signal=SIGUSR1@90`: saved at a step's end, queued again once, and the next life goes on from there."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit {0 if works else 1}\n', encoding="utf-8")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    slurm = {"JOB_ID": "77", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "tones"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    send(SpeechModule, "training_step", 3, signal.SIGUSR1)
    assert main(["train", str(recipe(settings, tmp_path))]) == 128 + signal.SIGUSR1
    assert (tmp_path / "calls").read_text(encoding="utf-8") == "requeue 77\n"
    assert ("could not be queued again" in capsys.readouterr().err) is not works
    assert read_checkpoint(tmp_path / "run/last.ckpt")["global_step"] == 3
    assert not list((tmp_path / "run").glob("hpc_ckpt*"))


def test_a_signal_while_libraries_start_up_waits_until_they_have() -> None:
    """An exception out of a signal handler in the midst of an import can abort the process (status 134)."""
    code = (
        "import os, signal, sys\n"
        "class Terminate:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'asr.training.config':\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Terminate())\n"
        "from asr.__main__ import main\n"
        "status = main(['train', 'none.yaml'])\n"
        "print('asr.training.config' in sys.modules)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "True\n"), done.stderr
    assert "stopped; training had not started" in done.stderr and "Traceback" not in done.stderr
