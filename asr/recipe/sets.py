"""From the recordings of a corpus to training, dev and test sets: conversion to FLAC, splits by speaker, manifests."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from asr.audio.members import file_of
from asr.audio.read import probe, read
from asr.config import shard as shard_argument
from asr.corpus.manifest import Utterance, write_manifest
from asr.files import remove_unfinished, replacing
from asr.training.process import available_cores
from asr.types import AudioError, ManifestError, UsageError

RATE = 16000  # hertz
_NAMED = 5  # unreadable recordings that are named individually


class ShardConverted(Exception):
    """Ends a preparation with `--shard` once its part is converted, because the sets need all parts."""


def add_shard_argument(parser: argparse.ArgumentParser) -> None:
    """`--shard I/N`, for recipes that pass it to `to_flac`."""
    help = "convert only the I-th of N equal parts of the recordings, while other machines convert theirs"
    parser.add_argument("--shard", type=shard_argument, metavar="I/N", help=help)


def to_flac(utterances: Sequence[Utterance], folder: Path, *, shard: tuple[int, int] | None = None) -> list[Utterance]:
    """The utterances as mono 16-bit FLAC files at 16 kHz, `folder`/SPEAKER/ID.flac, with their durations.

    Uses all cores. Files that are no older than their recordings are kept (each appears only when complete), so that an
    interrupted conversion continues where it stopped. Recordings that cannot be read are named and left out; raises
    AudioError if none can be read. With `shard` (I, N), converts the I-th of N equal parts, while other processes
    convert the others, and raises ShardConverted.
    """

    def convert(utterance: Utterance) -> Utterance:
        target = folder / utterance.speaker / f"{utterance.id}.flac"
        if not _is_current(target, utterance.audio_filepath):
            offset, duration = utterance.window
            channel = "mix" if utterance.channel is None else utterance.channel
            audio = read(utterance.audio_filepath, rate=RATE, channel=channel, offset=offset, duration=duration)
            pcm = np.clip(np.rint(audio.samples * 32768), -32768, 32767).astype(np.int16)
            with replacing(target, durable=False) as partial:
                soundfile.write(partial, pcm, RATE, subtype="PCM_16", format="FLAC")
        seconds = soundfile.info(target).duration
        return replace(utterance, audio_filepath=str(target), duration=seconds, offset=0.0, channel=None, segment=False)

    if shard:
        number, count = shard
        _each(convert, utterances[number - 1 :: count], "converting")
        raise ShardConverted
    remove_unfinished(folder)
    return _each(convert, utterances, "converting")


def _is_current(target: Path, recording: str) -> bool:
    source = Path(file_of(recording))
    return target.exists() and not (source.exists() and source.stat().st_mtime > target.stat().st_mtime)


def with_durations(utterances: Sequence[Utterance]) -> list[Utterance]:
    """The utterances with durations from the headers of their recordings; unreadable ones as in `to_flac`."""
    return _each(lambda u: replace(u, duration=probe(u.audio_filepath).duration), utterances, "reading headers")


def split_by(
    group: Callable[[Utterance], str], utterances: Sequence[Utterance], dev: float = 0.05, test: float = 0.05
) -> dict[str, list[Utterance]]:
    """Sets {"train", "dev", "test"}: whole groups (speakers, chapters) with about these shares of the audio held out.

    A hash of its name decides where a group goes, so that the split is the same on every machine. Groups that are too
    large for a held-out set stay in training. A set with a share of 0 is left out. Raises UsageError if there are not
    enough groups.
    """
    seconds: dict[str, float] = defaultdict(float)
    for utterance in utterances:
        seconds[group(utterance)] += utterance.duration
    shares = {name: share for name, share in (("test", test), ("dev", dev)) if share}
    if len(seconds) <= len(shares):
        raise UsageError(f"{len(shares) + 1} sets need as many speakers (or chapters), found {len(seconds)}")
    ordered = sorted(seconds, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    total = sum(seconds.values())
    chosen: dict[str, str] = {}
    for name, share in shares.items():
        free = [key for key in ordered if key not in chosen]
        room = share * total
        fitting = [key for key in free if seconds[key] <= 1.5 * room] or [min(free, key=lambda key: seconds[key])]
        for key in fitting:
            if room <= 0 or len(chosen) + len(shares) - len(set(chosen.values()) | {name}) >= len(seconds) - 1:
                break
            chosen[key] = name
            room -= seconds[key]
    sets: dict[str, list[Utterance]] = {"train": [], **{name: [] for name in reversed(shares)}}
    for utterance in utterances:
        sets[chosen.get(group(utterance), "train")].append(utterance)
    return sets


def split_by_first(
    groups: Mapping[str, Callable[[Utterance], str]], utterances: Sequence[Utterance]
) -> dict[str, list[Utterance]]:
    """`split_by` the first of the named groupings with enough groups; prints which one unless it is the first."""
    for name, group in groups.items():
        if len({group(utterance) for utterance in utterances}) > 2:
            if name != next(iter(groups)):
                print(f"too few {next(iter(groups))}s to hold some out: split by {name}", file=sys.stderr)
            return split_by(group, utterances)
    raise UsageError(f"{len(utterances)} utterances are too few to hold some out")


def write_sets(data: Path, sets: Mapping[str, Iterable[Utterance]]) -> None:
    """Write each set to `data`/NAME.jsonl and print its hours. Raises ManifestError for an empty set."""
    for name, utterances in sets.items():
        rows = [replace(utterance, split=name) for utterance in utterances]
        if not rows:
            raise ManifestError(f"{name}: the corpus has no utterances for this set")
        write_manifest(data / f"{name}.jsonl", rows)
        voices = len({row.speaker for row in rows} - {""})
        speakers = f", {voices} speaker{'s' * (voices != 1)}" if voices else ""
        hours = sum(row.duration for row in rows) / 3600
        print(f"{name}: {len(rows)} utterances, {hours:.2f} h{speakers}", file=sys.stderr)


def _each(work: Callable[[Utterance], Utterance], utterances: Sequence[Utterance], title: str) -> list[Utterance]:
    """Apply `work` to all utterances on all cores, in order, with a progress bar; see `to_flac` for failures."""
    from tqdm import tqdm

    def attempt(utterance: Utterance) -> Utterance | AudioError:
        try:
            return work(utterance)
        except AudioError as error:
            return error

    kept: list[Utterance] = []
    failed: list[AudioError] = []
    with ThreadPoolExecutor(available_cores()) as pool:  # decoding and encoding release the interpreter lock
        try:
            done = pool.map(attempt, utterances)
            for result in tqdm(done, title, len(utterances), leave=False, unit="file", disable=None):
                (failed if isinstance(result, AudioError) else kept).append(result)  # type: ignore[arg-type]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for error in failed[:_NAMED]:
        print(f"left out: {error}", file=sys.stderr)
    if len(failed) > _NAMED:
        print(f"left out: {len(failed) - _NAMED} more recordings that cannot be read", file=sys.stderr)
    if failed and not kept:
        raise failed[0]
    return kept
