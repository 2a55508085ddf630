"""Looks at the recordings behind manifests: can they be read, are they as long as said, which hold the same audio."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from asr.audio.read import AudioInfo, probe, read
from asr.corpus.check import Finding
from asr.corpus.manifest import Manifest, Utterance, repeats
from asr.types import AudioError

_CHUNK = 2048  # utterances in flight
_TOLERANCE_SECONDS, _TOLERANCE_SHARE = 0.1, 0.01  # of durations: lossy codecs pad, tools round


@dataclass
class AudioFacts:
    """Of each utterance of a manifest, as int64: `recording`, equal for equal files, and `content`, equal for the same
    audio (the same window of equal files, or with decoding the same samples); 0 where it could not be read."""

    findings: list[Finding]
    recording: np.ndarray
    content: np.ndarray


def examine(
    manifests: Sequence[Manifest], *, decode: bool = False, advance: Callable[[int], object] = lambda n: None
) -> list[AudioFacts]:
    """Probe every recording; with `decode` read it all, which also finds damage behind the header, and silence.

    Files are compared by hash, but only where their sizes are equal, so that most need not be read. `advance` is told
    how many utterances are done.
    """
    examiner = _Examiner(decode)
    facts = []
    sizes = []
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for manifest in manifests:
            findings: list[Finding] = []
            size, heard = np.zeros(len(manifest), dtype=np.int64), np.zeros(len(manifest), dtype=np.int64)
            for i, (utterance, result) in enumerate(_in_order(pool, examiner, manifest)):
                size[i], heard[i] = result.size, result.heard
                findings += [Finding(kind, manifest.path, utterance.id, detail) for kind, detail in result.problems]
                advance(1)
            facts.append(AudioFacts(findings, size, heard))
            sizes.append(size)
        _identify(manifests, facts, decode)
    return facts


def _identify(manifests: Sequence[Manifest], facts: Sequence[AudioFacts], decode: bool) -> None:
    """Turn file sizes into identities: hash the files of which there are several of one size."""
    sizes = np.concatenate([f.recording for f in facts])
    shared = np.zeros(len(sizes), dtype=bool)
    shared[repeats(sizes)] = True
    digest = lru_cache(maxsize=65536)(_file_digest)
    start = 0
    for manifest, fact in zip(manifests, facts, strict=True):
        for i in range(len(manifest)):
            if not fact.recording[i]:
                continue
            if not shared[start + i]:
                fact.recording[i] = -(start + i + 1)  # no other file has this size: different from all
                if not decode:
                    fact.content[i] = fact.recording[i]
                continue
            utterance = manifest[i]
            fact.recording[i] = digest(utterance.audio_filepath)
            if not decode:
                fact.content[i] = hash((int(fact.recording[i]), *utterance.window, utterance.channel))
        start += len(manifest)


@dataclass
class _Result:
    problems: list[tuple[str, str]]
    size: int = 0
    heard: int = 0


class _Examiner:
    def __init__(self, decode: bool) -> None:
        self.decode = decode
        self._probe = lru_cache(maxsize=4096)(_probe)  # segments of one recording follow each other

    def __call__(self, utterance: Utterance) -> _Result:
        info, size = self._probe(utterance.audio_filepath)
        if isinstance(info, str):
            return _Result([("unreadable audio", info)])
        result = _Result(list(_disagreements(utterance, info)), size)
        if self.decode and not any(kind in ("no such channel", "window outside audio") for kind, _ in result.problems):
            self._listen(utterance, result)
        return result

    def _listen(self, utterance: Utterance, result: _Result) -> None:
        offset, duration = utterance.window
        channel: str | int = "mix" if utterance.channel is None else utterance.channel
        try:
            audio = read(utterance.audio_filepath, rate=None, channel=channel, offset=offset, duration=duration)
        except AudioError as error:
            result.problems.append(("unreadable audio", str(error)))
            return
        result.problems += [("damaged audio", warning) for warning in audio.warnings]
        if all(audio.silent):
            value = f"{audio.samples.flat[0]:.4g}" if audio.samples.any() else "zero"
            result.problems.append(("silent audio", f"{utterance.audio_filepath}: every sample is {value}"))
            return
        pcm = np.rint(np.clip(audio.samples, -1, 1) * 32767).astype(np.int16)  # the same from wav and from flac
        result.heard = _digest(pcm.tobytes() + str(audio.rate).encode())


def _probe(path: str) -> tuple[AudioInfo | str, int]:
    try:
        return probe(path), Path(path).stat().st_size
    except (AudioError, OSError, ValueError) as error:  # ValueError: a null byte in the name
        return str(error), 0


def _disagreements(utterance: Utterance, info: AudioInfo) -> Iterator[tuple[str, str]]:
    tolerance = max(_TOLERANCE_SECONDS, _TOLERANCE_SHARE * info.duration)
    end = utterance.offset + utterance.duration
    if utterance.channel is not None and utterance.channel >= info.channels:
        yield "no such channel", f"channel {utterance.channel} of {info.channels} (counted from 0)"
    if utterance.window[1] is not None:
        if end > info.duration + tolerance:
            yield "window outside audio", f"{utterance.offset:.2f} to {end:.2f} s of {info.duration:.2f} s"
    elif abs(utterance.duration - info.duration) > tolerance:
        yield "wrong duration", f"{utterance.duration:.2f} s in the manifest, {info.duration:.2f} s in the file"


def _in_order(pool: ThreadPoolExecutor, examiner: _Examiner, manifest: Manifest) -> Iterator[tuple[Utterance, _Result]]:
    """Examine in several threads; map() alone would queue a whole corpus at once."""
    utterances = iter(manifest)
    while chunk := list(islice(utterances, _CHUNK)):
        yield from zip(chunk, pool.map(examiner, chunk), strict=True)


def _file_digest(path: str) -> int:
    digest = hashlib.blake2b(digest_size=8)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return _as_identity(digest.digest())


def _digest(data: bytes) -> int:
    return _as_identity(hashlib.blake2b(data, digest_size=8).digest())


def _as_identity(digest: bytes) -> int:
    """A positive int64: 0 stands for unknown, negative numbers for files without an equal."""
    return int.from_bytes(digest, "big") >> 1 or 1
