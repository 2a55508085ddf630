"""Ctrl-C and SIGTERM during a run: an exception where a step can be done again, a mark where saving comes first."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

# Schedulers and launchers both send the signal to a process; only a later one is a second request.
_REPEAT_SECONDS = 1.0


class Interrupted(BaseException):
    """A run was told to stop, and everything is saved.

    No Exception, so that no `except Exception` on the way takes it for a bad recording; no KeyboardInterrupt, because
    Lightning turns that into exit status 1.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number

    @property
    def status(self) -> int:
        """The exit status by which shells and schedulers know what happened: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal_number


class Signals:
    """What has arrived since `handled_signals`: the number of the first signal, or 0."""

    def __init__(self) -> None:
        self.received = 0
        self.handled: list[int] = []
        self._received_at = 0.0
        self._dropped: threading.Timer | None = None
        self._again = False
        # The other ranks never leave on their own: the first would wait for them.
        self._deferred = 0 if is_first_process() else 1

    def check(self) -> None:
        """Raise `Interrupted` if a signal has arrived."""
        if self.received:
            raise Interrupted(self.received)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it a signal only sets `received`: the code inside saves and stops by itself."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler; a second signal ends the process as if there were no handler.

        SLURM's early warning is no first one: the SIGTERM at the time limit must not cut off the saving.
        """
        now = time.monotonic()
        if self._again:
            self._again = False
            if not self._deferred:
                raise Interrupted(self.received)
            return
        if self.received:
            if self.received in (signal.SIGINT, signal.SIGTERM) and now - self._received_at >= _REPEAT_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received, self._received_at = number, now
        if not self._deferred:
            raise Interrupted(number)
        if is_first_process():  # not by print, which fails in a handler when the signal came in the midst of another
            os.write(2, b"interrupted: saving first (again to stop at once)\n")

    def unraisable(self, hook: Callable[[Any], object], error: Any) -> None:
        """`sys.unraisablehook`: where Python drops our exception (destructors, callbacks from C), try again shortly."""
        if not isinstance(error.exc_value, Interrupted):
            hook(error)
            return
        self._dropped = threading.Timer(0.1, self._send_again)
        self._dropped.daemon = True
        self._dropped.start()

    def forget(self) -> None:
        """Nothing is tried again after this."""
        self._deferred += 1
        if self._dropped:
            self._dropped.cancel()
            self._dropped.join()

    def _send_again(self) -> None:
        self._again = True
        os.kill(os.getpid(), self.received)


_active: Signals | None = None


@contextlib.contextmanager
def handled_signals() -> Iterator[Signals]:
    """Take over SIGINT and SIGTERM, in a SLURM job SIGUSR1 too (`#SBATCH --signal=SIGUSR1@90`), until the end.

    Nested uses share the signals of the outermost. At the end `Interrupted` is raised if a signal came, whatever became
    of it inside. After SIGUSR1 the job is queued again. Outside the main thread nothing is handled.
    """
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        yield _active or Signals()
        return
    _active = signals = Signals()
    previous: dict[int, Any] = {}
    hook, sys.unraisablehook = sys.unraisablehook, partial(signals.unraisable, sys.unraisablehook)
    try:
        for number in _numbers():
            previous[number] = signal.signal(number, signals.receive)
            signals.handled.append(number)
        yield signals
        signals.check()
    except Interrupted as stop:
        if stop.signal_number not in (signal.SIGINT, signal.SIGTERM) and is_first_process():
            _requeue()
        raise
    finally:
        _active = None
        signals.forget()
        sys.unraisablehook = hook
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _numbers() -> list[int]:
    slurm = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ and hasattr(signal, "SIGUSR1") else []
    return [signal.SIGINT, signal.SIGTERM, *slurm]


def _requeue() -> None:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        print(f"warning: the SLURM job {job} could not be queued again: {reason.strip()}", file=sys.stderr)


_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def is_first_process() -> bool:
    """True in an ordinary process and in rank 0; the others leave preparation, locks and messages to it."""
    return all(os.environ.get(name, "0").strip() in ("", "0") for name in _RANKS)
