"""Recordings on their way to the recognizer: read whole where they are short, else opened for one pass."""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from asr.audio.read import Audio, RawFormat, channel_count, from_array, open_stream
from asr.recognition.inputs import Recording
from asr.types import AsrError, Failure, in_words


@dataclass(frozen=True)
class Loaded:
    """A recording with its samples, with what failed, or with None where it is too long to be held."""

    recording: Recording
    audio: Audio | Failure | None

    @property
    def seconds(self) -> float:
        """Of samples in memory, over all channels."""
        return self.audio.samples.size / self.audio.rate if isinstance(self.audio, Audio) else 0.0

    def silent(self, channel: int | None) -> bool:
        """Whether a channel (None: the only one that was read) is constant."""
        return isinstance(self.audio, Audio) and self.audio.silent[channel or 0]

    def waveforms(self) -> list[tuple[int | None, np.ndarray]]:
        if not isinstance(self.audio, Audio):
            return []
        if self.audio.samples.ndim == 1:
            return [(None, self.audio.samples)]
        return list(enumerate(self.audio.samples))


class Samples(Protocol):
    """Blocks of samples at the model's rate; `duration` and `warnings` are complete after the last.

    `silent`: all so far are silence, see `Audio.silent`.
    """

    duration: float
    warnings: tuple[str, ...]
    source_rate: int

    @property
    def silent(self) -> bool: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


def load_recording(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None, longest: float | None
) -> Loaded:
    recording = rereadable(recording)
    try:
        chosen = channel if recording.channel is None else recording.channel
        return Loaded(recording, read_recording(recording, rate, chosen, raw, longest))
    except AsrError as error:
        return Loaded(recording, failure(recording, str(error)))
    except TypeError:  # of what is no recording at all
        raise
    except Exception as error:  # what nobody expected of one recording must not end the work on the others
        return Loaded(recording, failure(recording, f"{name_of(recording)}: {in_words(error)}"))


def read_recording(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None, longest: float | None
) -> Audio | None:
    """The samples; None where they last more than `longest` seconds."""
    source = recording.source
    if isinstance(source, tuple):
        samples, source_rate = windowed(recording)
        if longest is not None and np.shape(samples)[-1:] > (longest * source_rate,):
            return None
        return from_array(samples, source_rate, target_rate=rate, channel=channel, name=name_of(recording))
    with open_stream(
        source,
        rate=rate,
        channel=channel,
        offset=recording.offset,
        duration=recording.duration,
        raw=raw,
        name=None if isinstance(source, str | Path) else name_of(recording),
    ) as stream:
        return None if longest is not None and stream.seconds > longest else stream.read()


def channels_of(recording: Recording, raw: RawFormat | None) -> int:
    if isinstance(recording.source, tuple):
        return len(np.atleast_2d(recording.source[0]))
    return channel_count(recording.source, raw)


class _InMemory:
    """Samples that are there already."""

    def __init__(self, audio: Audio) -> None:
        self.samples, self.duration, self.warnings = audio.samples, audio.duration, audio.warnings
        self.source_rate, self.silent = audio.source_rate, audio.silent[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self.samples


@contextmanager
def open_samples(
    recording: Recording, rate: int, channel: str | int, raw: RawFormat | None, name: str
) -> Iterator[Samples]:
    """The samples of one channel of a recording, for one pass."""
    if isinstance(recording.source, tuple):
        audio = from_array(*windowed(recording), target_rate=rate, channel=channel, name=name)
        yield _InMemory(audio)
        return
    options: dict[str, Any] = {} if isinstance(recording.source, str | Path) else {"name": name}
    with open_stream(
        recording.source,
        rate=rate,
        channel=channel,
        offset=recording.offset,
        duration=recording.duration,
        raw=raw,
        **options,
    ) as stream:
        yield stream


def windowed(recording: Recording) -> tuple[np.ndarray, int]:
    """Samples and rate of a recording given as an array, cut to its window."""
    samples, rate = recording.source
    first = round(recording.offset * rate)
    last = None if recording.duration is None else first + round(recording.duration * rate)
    if first or last is not None:
        samples = np.asarray(samples)[..., first:last]
    return samples, rate


def rereadable(recording: Recording) -> Recording:
    """The recording with the content of a source that can be read only once: a pipe, standard input."""
    source = recording.source
    try:
        if isinstance(source, str | Path):
            return recording if stat.S_ISREG(os.stat(source).st_mode) else _with_content(recording, Path(source))  # noqa: PTH116
        if hasattr(source, "seekable") and not isinstance(source, io.TextIOBase) and not source.seekable():
            return replace(recording, source=source.read())
    except (OSError, ValueError):  # said by the reader, in its words
        pass
    return recording


def _with_content(recording: Recording, path: Path) -> Recording:
    return recording if path.is_dir() else replace(recording, source=path.read_bytes())


def failure(recording: Recording, error: str) -> Failure:
    return Failure(recording.id, recording.audio_filepath, error)


def name_of(recording: Recording) -> str:
    if recording.audio_filepath == "-":
        return "stdin"
    return recording.audio_filepath or recording.id


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
    queue = _Ahead(items, read, cost, limit)
    threads = [threading.Thread(target=queue.work, daemon=True) for _ in range(max(1, workers))]
    for thread in threads:
        thread.start()
    try:
        index = 0
        while queue.wait_for(index):
            yield queue.take(index)
            index += 1
    finally:
        queue.stop()


class _Ahead(Generic[Item, Result]):
    # Items are begun in order. So if the next result wanted has not been begun, none after it has, nothing is waiting,
    # and some worker is free to begin it: the limit cannot lock up.

    def __init__(
        self,
        items: Iterable[Item],
        read: Callable[[Item], Result],
        cost: Callable[[Result], float],
        limit: float,
    ) -> None:
        self._items = iter(items)
        self._read = read
        self._cost = cost
        self._limit = limit
        self._changed = threading.Condition()
        self._ready: dict[int, tuple[Result, float]] = {}
        self._failed: dict[int, BaseException] = {}
        self._waiting = 0.0
        self._begun = 0
        self._stopped = False  # no further item will be begun

    def work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or not self._ready or self._waiting < self._limit)
                if self._stopped:
                    return
                index = self._begun
                try:
                    item = next(self._items)
                except StopIteration:
                    self._stopped = True
                except BaseException as error:
                    self._failed[index] = error
                    self._begun += 1
                    self._stopped = True
                else:
                    self._begun += 1
                if self._stopped:
                    self._changed.notify_all()
                    return
            try:
                result = self._read(item)
                price = self._cost(result)
            except BaseException as error:
                with self._changed:
                    self._failed[index] = error
                    self._stopped = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready[index] = (result, price)
                self._waiting += price
                self._changed.notify_all()

    def wait_for(self, index: int) -> bool:
        """Wait until result `index` can be taken; False when there is none."""
        with self._changed:
            while index not in self._ready and index not in self._failed:
                if self._stopped and index >= self._begun:
                    return False
                self._changed.wait(0.5)  # with a timeout Ctrl-C gets through on every platform
            return True

    def take(self, index: int) -> Result:
        with self._changed:
            if index in self._failed:
                raise self._failed[index]
            result, price = self._ready.pop(index)
            self._waiting -= price
            self._changed.notify_all()
            return result

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
