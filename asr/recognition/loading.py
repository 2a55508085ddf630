"""Reading recordings for the recognizer: short ones whole and ahead of time, long ones in blocks."""

from __future__ import annotations

import io
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from asr.audio.live import LiveReader
from asr.audio.read import Audio, AudioStream, RawFormat, open_stream
from asr.recognition.inputs import Recording
from asr.types import Failure


class Waveform(NamedTuple):
    """One channel of a recording; `channel` is None if only one was read, `silent` is as in `Audio`."""

    channel: int | None
    samples: np.ndarray
    silent: bool


@dataclass(frozen=True)
class LoadedRecording:
    """A recording with its samples, or a Failure, or None if it is live or too long to keep in memory."""

    recording: Recording
    audio: Audio | Failure | None

    @property
    def seconds(self) -> float:
        """Seconds of samples in memory, over all channels."""
        return self.audio.samples.size / self.audio.rate if isinstance(self.audio, Audio) else 0.0

    @property
    def waveforms(self) -> list[Waveform]:
        """The channels that were read."""
        if not isinstance(self.audio, Audio):
            return []
        samples = self.audio.samples
        numbers = [None] if samples.ndim == 1 else range(len(samples))
        return [Waveform(*row) for row in zip(numbers, np.atleast_2d(samples), self.audio.silent, strict=True)]


def load_recording(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None, longest: float | None
) -> LoadedRecording:
    """The recording with the result of `read_recording`, or with the error as a Failure."""
    if recording.live:
        return LoadedRecording(recording, None)
    recording = rereadable(recording)
    try:
        if recording.change is not None:
            with open_recording(recording, rate, recording.channel_or("mix"), raw) as stream:
                samples = recording.change(stream.read().samples)
            recording = replace(
                recording, source=(samples, rate), offset=0.0, duration=None, channel="mix", change=None
            )
            raw = None
        return LoadedRecording(recording, read_recording(recording, rate, channel, raw, longest))
    except TypeError:  # the source is not a recording at all
        raise
    except Exception as error:  # an unexpected error in one recording must not stop the others
        return LoadedRecording(recording, recording.failure(error))


def open_recording(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None
) -> AbstractContextManager[AudioStream]:
    """One or more channels of a recording, to be read at once or in blocks."""
    if recording.live and raw is not None:
        return nullcontext(AudioStream(LiveReader(recording.source, raw), recording.name, rate, channel, 0.0, None))
    return open_stream(
        recording.source,
        rate=rate,
        channel=channel,
        offset=recording.offset,
        duration=recording.duration,
        raw=raw,
        name=None if isinstance(recording.source, str | Path) else recording.name,  # a path names itself
    )


def read_recording(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None, longest: float | None
) -> Audio | None:
    """The samples, of `channel` if the recording names none; None if they last longer than `longest` seconds."""
    with open_recording(recording, rate, recording.channel_or(channel), raw) as stream:
        return None if longest is not None and stream.seconds > longest else stream.read()


def rereadable(recording: Recording) -> Recording:
    """The recording with a source that can be read only once (a pipe, stdin) replaced by its content."""
    source = recording.source
    try:
        if isinstance(source, str | Path):
            path = Path(source)
            if not (stat.S_ISREG(path.stat().st_mode) or path.is_dir()):
                return replace(recording, source=path.read_bytes())
        elif hasattr(source, "seekable") and not isinstance(source, io.TextIOBase) and not source.seekable():
            return replace(recording, source=source.read())
    except (OSError, ValueError):  # the reader will report it
        pass
    return recording


Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
    items: Iterable[Item],
    read: Callable[[Item], Result],
    *,
    cost: Callable[[Result], float],
    limit: float,
    workers: int = 1,
) -> Iterator[Result]:
    """Yield `read(item)` for every item, in order, computed by `workers` threads ahead of the consumer.

    No new item is started while results with a total `cost` of `limit` or more wait to be taken, so at most `limit`
    plus one item per worker is held. Exceptions of `read` or of the iterable are raised here, in order.
    """
    source = ((item,) for item in items)
    changed = threading.Condition()
    # The limit cannot cause a deadlock, because items are started in order: if the next result has not been started,
    # no later one has been, so nothing is waiting and a worker is free. None stands for the end of the items.
    begun: deque[Future[tuple[Result, float] | None]] = deque()
    waiting = 0.0  # cost of the results that have not been taken yet
    ended = False  # no further item will be started

    def may_continue() -> bool:
        return ended or waiting < limit

    def end() -> None:
        nonlocal ended
        with changed:
            ended = True
            changed.notify_all()

    def work() -> None:
        nonlocal waiting
        while True:
            future: Future[tuple[Result, float] | None] = Future()
            try:
                with changed:
                    changed.wait_for(may_continue)
                    if ended:
                        return
                    begun.append(future)
                    changed.notify_all()
                    if (item := next(source, None)) is None:
                        future.set_result(None)
                        return end()
                result = read(*item)
                price = cost(result)
            except BaseException as error:
                future.set_exception(error)
                return end()
            with changed:
                waiting += price
            future.set_result((result, price))

    for _ in range(max(1, workers)):
        threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            with changed:
                # All waits have a timeout, so that Ctrl-C gets through on every platform.
                while not changed.wait_for(lambda: begun or ended, timeout=0.5):
                    pass
                if not begun:
                    return
                future = begun.popleft()
            while not future.done():
                wait([future], timeout=0.5)
            if (priced := future.result()) is None:
                return
            with changed:
                waiting -= priced[1]
                changed.notify_all()
            yield priced[0]
    finally:
        end()
