"""Writing a corpus as tar files of several hundred megabytes in WebDataset's layout: KEY.flac, KEY.json, and so on.

`index.jsonl` beside them is an ordinary manifest with paths that point into the tar files (see asr.audio.members). Two
runs write the same bytes; a run that was killed continues with the first incomplete shard.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import re
import signal
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr.audio.formats import open_file
from asr.audio.members import file_of, member_path
from asr.audio.read import probe, read
from asr.corpus.manifest import Manifest, Utterance, manifest_row
from asr.files import Stamp, replacing, write_text
from asr.types import AsrError, AudioError, UsageError

INDEX = "index.jsonl"
_COPIED = {"FLAC": "flac", "OGG": "ogg", "MP3": "mp3"}  # whole files in these formats are stored as they are
_COMPRESSED = (".flac", ".mp3", ".ogg", ".oga", ".opus")
_FLAC_SHARE, _SPEECH_BYTES = 0.55, 32000  # size of FLAC relative to WAV; bytes of a second of WAV at 16 kHz
_MOST_CHANNELS = 8  # that FLAC allows
_CHUNK = 4096  # files whose sizes are requested at once


@dataclass(frozen=True)
class Shards:
    """What was written: the manifest and the tar files; and messages about audio left out and doubtful audio."""

    index: Path
    tars: list[Path]
    left_out: list[str]
    notes: list[str]


@dataclass(frozen=True)
class _Task:
    manifest: Manifest
    order: np.ndarray  # (utterances,) indices of the manifest
    ends: list[int]  # where in `order` each shard ends
    folder: Path

    def shard(self, number: int) -> Manifest:
        return self.manifest.select(self.order[([0, *self.ends])[number] : self.ends[number]])

    def tar(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.tar"

    def report(self, number: int) -> dict[str, Any] | None:
        """The report of `_write` on a shard, None unless the shard is complete."""
        stored = Stamp(self._report(number)).read()
        whole = stored and self.tar(number).exists() and self.tar(number).stat().st_size == stored["bytes"]
        return stored if whole else None

    def write_report(self, number: int, report: dict[str, Any]) -> None:
        write_text(self._report(number), json.dumps(report, ensure_ascii=False), durable=True)

    def remove_report(self, number: int) -> None:
        self._report(number).unlink(missing_ok=True)

    def _report(self, number: int) -> Path:
        return self.folder / f".shard-{number:06d}.json"


def write_shards(
    manifest: Manifest,
    folder: Path,
    *,
    size: int = 500_000_000,
    most: int = 0,
    shuffle: bool = True,
    jobs: int = 1,
    advance: Callable[[int], object] = lambda n: None,
) -> Shards:
    """Write `manifest` to `folder` as shards of about `size` bytes and at most `most` utterances (0: no bound).

    Whole FLAC, Ogg and MP3 files are copied. Other audio, and windows of recordings, become lossless FLAC at their own
    rate, of the row's channel, in 24 bits if 16 are not enough. The utterances are shuffled, always in the same way,
    because batches are drawn from neighbors (with `shuffle` false they stay in order). Audio that cannot be read is
    left out. `advance` is called with the number of utterances done since its last call. Raises UsageError if the
    folder has other shards, OutputError if it cannot be written.
    """
    settings = {"version": 1, "manifest": manifest.sha256, "size": size, "utterances": most, "shuffle": shuffle}
    stamp = Stamp(folder / "shards.json")
    stored = stamp.read()
    if stored.get("inputs", settings) != settings or (not stored and any(folder.glob("shard-*.tar"))):
        raise UsageError(f"{folder} has shards of other data or with other settings: choose another folder")
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(manifest)) if shuffle else np.arange(len(manifest))
    ends = stored["result"]["ends"] if stored else list(_ends(manifest.select(order), size, most))
    task = _Task(manifest, order, ends, folder)
    if not (stored.get("finished") and (folder / INDEX).exists()):
        stamp.write(settings, finished=False, result={"ends": ends})
        for abandoned in folder.glob(".*.part"):
            abandoned.unlink()
        _write_all(task, jobs, advance)
        stamp.write(settings, result={"ends": ends, **_write_index(task)})
        for number in range(len(ends)):
            task.remove_report(number)
    result = stamp.read()["result"]
    tars = [task.tar(number) for number in range(len(ends))]
    return Shards(folder / INDEX, tars, result["left_out"], result["notes"])


def _ends(ordered: Manifest, size: int, most: int) -> Iterator[int]:
    """Where each shard ends, by the estimated size of its members."""
    count, taken = 0, 0.0
    with ThreadPoolExecutor(16) as pool:  # remote disks answer slowly
        for start in range(0, len(ordered), _CHUNK):
            for place, needed in enumerate(pool.map(_estimated_bytes, ordered[start : start + _CHUNK]), start):
                if count and (taken + needed > size or count == most):
                    yield place
                    count, taken = 0, 0.0
                count, taken = count + 1, taken + needed
    yield len(ordered)


def _estimated_bytes(utterance: Utterance) -> float:
    path = utterance.audio_filepath
    if utterance.window[1] is not None or file_of(path) != path:
        return utterance.duration * _SPEECH_BYTES * _FLAC_SHARE
    try:
        size = os.stat(path).st_size  # noqa: PTH116 - for every utterance
    except OSError:
        return 0.0  # it will be left out
    return size if path.lower().endswith(_COMPRESSED) else size * _FLAC_SHARE


def _write_index(task: _Task) -> dict[str, list[str]]:
    """Write the manifest from the reports on all shards, and return their messages."""
    messages: dict[str, list[str]] = {"left_out": [], "notes": []}
    with (
        replacing(task.folder / INDEX) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as file,
    ):
        for number in range(len(task.ends)):
            report = task.report(number)
            if report is None:
                raise AsrError(f"{task.tar(number)}: it was removed or changed meanwhile: run the command again")
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in report["rows"])
            for kind, lines in messages.items():
                lines += report[kind]
    return messages


# Globals of a process that writes shards.
_task: _Task
_done: Any  # number of utterances that all processes have written
_stop: Any  # event set when the command is interrupted


def _begin(task: _Task, done: Any, stop: Any) -> None:
    global _task, _done, _stop
    _task, _done, _stop = task, done, stop
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process stops the others


def _write_all(task: _Task, jobs: int, advance: Callable[[int], object]) -> None:
    missing = [number for number in range(len(task.ends)) if task.report(number) is None]
    written = len(task.order) - sum(len(task.shard(number)) for number in missing)
    advance(written)
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    if min(jobs, len(missing)) < 2:
        _begin(task, done, stop)
        for number in missing:
            _write(number, advance)
        return
    shown = 0
    with ProcessPoolExecutor(min(jobs, len(missing)), context, _begin, (task, done, stop)) as pool:
        try:
            waiting = {pool.submit(_write, number) for number in missing}
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                advance(done.value - shown)
                shown = done.value
                for future in finished:
                    future.result()
        except BrokenProcessPool as error:
            raise AsrError("a process that wrote a shard was killed (out of memory?): run the command again") from error
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _write(number: int, advance: Callable[[int], object] = lambda n: None) -> None:
    """Write one shard, which appears when complete, followed by its report."""
    report: dict[str, Any] = {"rows": [], "left_out": [], "notes": []}
    path = _task.tar(number)
    with (
        replacing(path) as partial,
        partial.open("wb") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for utterance in _task.shard(number):
            if _stop.is_set():
                raise AsrError("interrupted")
            try:
                content, suffix, stored, warnings = _stored(utterance)
            except AudioError as error:
                report["left_out"].append(f"utterance '{utterance.id}': {error}")
            else:
                key = _key(utterance.id)
                name = member_path(path.name, file.tell(), f"{key}.{suffix}")
                row = manifest_row(stored, name)
                _add(tar, f"{key}.{suffix}", content)
                about = {k: v for k, v in row.items() if k != "audio_filepath"}
                _add(tar, f"{key}.json", json.dumps(about, ensure_ascii=False).encode())
                report["rows"].append(row)
                report["notes"] += [f"utterance '{utterance.id}': {warning}" for warning in warnings]
            with _done.get_lock():
                _done.value += 1
            advance(1)
    _task.write_report(number, {**report, "bytes": path.stat().st_size})


def _key(name: str) -> str:
    """The id of an utterance if it can be a file name without extension, else one derived from it."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _stored(utterance: Utterance) -> tuple[bytes, str, Utterance, tuple[str, ...]]:
    """The bytes of the member, its extension, the utterance to write in the manifest, and warnings about its audio."""
    path = utterance.audio_filepath
    offset, duration = utterance.window
    suffix = _COPIED.get(probe(path).format) if duration is None else None
    if suffix:
        with ExitStack() as stack:
            return open_file(path, None, stack)[0].read(), suffix, utterance, ()
    channel: int | str = "each" if utterance.channel is None else utterance.channel
    audio = read(path, rate=None, channel=channel, offset=offset, duration=duration)
    samples = np.atleast_2d(audio.samples)
    if len(samples) > _MOST_CHANNELS:
        samples = samples.mean(axis=0, keepdims=True)
    scaled = samples * np.float32(32768)
    exact = np.array_equal(scaled, np.rint(scaled)) and scaled.max() <= 32767
    flac = io.BytesIO()
    soundfile.write(flac, samples.T, audio.rate, format="FLAC", subtype="PCM_16" if exact else "PCM_24")
    whole = replace(utterance, offset=0.0, segment=False, channel=None)
    return flac.getvalue(), "flac", whole, audio.warnings


def holds_shards(manifest: Manifest) -> bool:
    """Whether the manifest is stored in shards, judged by the first utterance of each of its files."""
    firsts = np.unique(manifest.files, return_index=True)[1]
    return all(file_of(path := manifest[int(i)].audio_filepath) != path for i in firsts)
