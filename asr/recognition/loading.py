"""Reading recordings for the recognizer: short ones whole and ahead of time, long ones as a stream of blocks."""

from __future__ import annotations

import io
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from asr.audio.read import Audio, AudioStream, RawFormat, channel_count, from_array, open_stream
from asr.recognition.inputs import Recording
from asr.types import Failure


class Waveform(NamedTuple):
    """One channel of a recording; `channel` is None for the only one that was read, `silent` as in `Audio`."""

    channel: int | None
    samples: np.ndarray
    silent: bool


@dataclass(frozen=True)
class LoadedRecording:
    """A recording with its samples, with what failed, or with None where it is too long to be held."""

    recording: Recording
    audio: Audio | Failure | None

    @property
    def seconds(self) -> float:
        """Of samples in memory, over all channels."""
        return self.audio.samples.size / self.audio.rate if isinstance(self.audio, Audio) else 0.0

    @property
    def waveforms(self) -> list[Waveform]:
        return waveforms_of(self.audio) if isinstance(self.audio, Audio) else []


def waveforms_of(audio: Audio) -> list[Waveform]:
    """The channels that were read."""
    if audio.samples.ndim == 1:
        return [Waveform(None, audio.samples, audio.silent[0])]
    return [Waveform(channel, row, audio.silent[channel]) for channel, row in enumerate(audio.samples)]


def load_recording(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None, longest: float | None
) -> LoadedRecording:
    """What `read_recording` gives, errors as values."""
    recording = rereadable(recording)
    try:
        return LoadedRecording(recording, read_recording(recording, rate, channel, raw, longest))
    except TypeError:  # the source is no recording at all
        raise
    except Exception as error:  # an unexpected error in one recording must not end the work on the others
        return LoadedRecording(recording, recording.failure(error))


def read_recording(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None, longest: float | None
) -> Audio | None:
    """The samples, of `channel` where the recording names none; None where they last more than `longest` seconds."""
    source, channel = recording.source, recording.channel_or(channel)
    if isinstance(source, tuple):
        samples, source_rate = _cut_array(recording)
        if longest is not None and np.shape(samples)[-1:] > (longest * source_rate,):
            return None
        return from_array(samples, source_rate, target_rate=rate, channel=channel, name=recording.name)
    with open_stream(
        source,
        rate=rate,
        channel=channel,
        offset=recording.offset,
        duration=recording.duration,
        raw=raw,
        name=_label(recording),
    ) as stream:
        return None if longest is not None and stream.seconds > longest else stream.read()


def channels_of(recording: Recording, raw: RawFormat | None) -> int:
    """How many channels a recording has. Raises AudioError."""
    if isinstance(recording.source, tuple):
        return len(np.atleast_2d(recording.source[0]))
    return channel_count(recording.source, raw)


class ArrayStream:
    """An array as an AudioStream: all its samples in one block."""

    def __init__(self, audio: Audio) -> None:
        self.samples, self.duration, self.warnings = audio.samples, audio.duration, audio.warnings
        self.source_rate, self.silent = audio.source_rate, audio.silent[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self.samples


@contextmanager
def open_samples(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None
) -> Iterator[AudioStream | ArrayStream]:
    """The samples of one channel of a recording in blocks, for one pass."""
    if isinstance(recording.source, tuple):
        samples, source_rate = _cut_array(recording)
        yield ArrayStream(from_array(samples, source_rate, target_rate=rate, channel=channel, name=recording.name))
        return
    with open_stream(
        recording.source,
        rate=rate,
        channel=channel,
        offset=recording.offset,
        duration=recording.duration,
        raw=raw,
        name=_label(recording),
    ) as stream:
        yield stream


def rereadable(recording: Recording) -> Recording:
    """The recording with the content of a source that can be read only once: a pipe, standard input."""
    source = recording.source
    try:
        if isinstance(source, str | Path):
            path = Path(source)
            if not (stat.S_ISREG(path.stat().st_mode) or path.is_dir()):
                return replace(recording, source=path.read_bytes())
        elif hasattr(source, "seekable") and not isinstance(source, io.TextIOBase) and not source.seekable():
            return replace(recording, source=source.read())
    except (OSError, ValueError):  # the reader reports it, in its words
        pass
    return recording


def _label(recording: Recording) -> str | None:
    """What messages call a source; None: its own path."""
    return None if isinstance(recording.source, str | Path) else recording.name


def _cut_array(recording: Recording) -> tuple[np.ndarray, int]:
    """Samples and rate of a recording given as an array, cut to its window."""
    samples, rate = recording.source
    first = round(recording.offset * rate)
    last = None if recording.duration is None else first + round(recording.duration * rate)
    if first or last is not None:
        samples = np.asarray(samples)[..., first:last]
    return samples, rate


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

    No new item is begun while results of a total `cost` of `limit` or more are waiting to be taken, so at most
    `limit` and one item per worker are held. What `read` or the iterable raises is raised here, in its place.
    """
    source = iter(items)
    changed = threading.Condition()
    # Items are begun in order: while the next result wanted has not been begun, none after it has, so nothing is
    # waiting and some worker is free to begin it. The limit cannot lock up.
    begun: deque[Future[tuple[Result, float]]] = deque()
    waiting = 0.0  # cost of the results that nobody has taken yet
    ended = False  # no further item will be begun

    def may_go_on() -> bool:
        return ended or waiting < limit

    def end() -> None:
        nonlocal ended
        with changed:
            ended = True
            changed.notify_all()

    def work() -> None:
        nonlocal waiting
        while True:
            future: Future[tuple[Result, float]] = Future()
            try:
                with changed:
                    changed.wait_for(may_go_on)
                    if ended:
                        return
                    begun.append(future)
                    try:
                        item = next(source)
                    except StopIteration:
                        begun.pop()
                        end()
                        return
                    changed.notify_all()
                result = read(item)
                price = cost(result)
            except BaseException as error:
                future.set_exception(error)
                end()
                return
            with changed:
                waiting += price
            future.set_result((result, price))

    for _ in range(max(1, workers)):
        threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            with changed:
                while not begun and not ended:
                    changed.wait(0.5)  # with a timeout Ctrl-C gets through on every platform
                if not begun:
                    return
                future = begun.popleft()
            while not future.done():
                wait([future], timeout=0.5)
            result, price = future.result()
            with changed:
                waiting -= price
                changed.notify_all()
            yield result
    finally:
        end()
