"""A model's output on a manifest, kept on disk: decoders are tuned and compared without running the model again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr.corpus.download import file_digest
from asr.corpus.manifest import Manifest
from asr.files import file_state, replacing, write_text
from asr.recognition.inputs import as_recording
from asr.types import Failure, Hypothesis

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer


@dataclass(frozen=True)
class Emissions:
    """Log-probabilities (time, vocab) per utterance, in manifest order; None where the audio could not be read.

    `arrays` are views of one memory-mapped file. `failures` are the errors of the unreadable, by utterance id.
    """

    arrays: list[np.ndarray | None]
    failures: dict[str, str]


class _Collector:
    """A decoder that keeps what it is given instead of decoding it."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def decode(self, log_probs: np.ndarray) -> list[Hypothesis]:
        self.seen.append(np.asarray(log_probs, dtype=np.float32))
        return [Hypothesis(text=str(len(self.seen) - 1), score=0.0, acoustic_score=0.0)]


def emissions(
    recognizer: Recognizer,
    model: str | Path,
    manifest: Manifest,
    folder: str | Path,
    *,
    batch_seconds: float | None = None,
    on_result: Callable[[], object] | None = None,
) -> Emissions:
    """The emissions of every utterance, from `folder` if they were made there before, else computed and stored.

    They are computed again when the model file, the manifest's content or one of its audio files has changed.
    """
    folder = Path(folder)
    key = {"model": file_digest(Path(model)), "manifest": manifest.sha256, "audio": _audio_states(manifest)}
    stored = _read(folder, key)
    if stored is not None:
        return stored
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "emissions.json"
    index.unlink(missing_ok=True)  # first: an interrupted run leaves no index that fits the data
    collector, decoder = _Collector(), recognizer.decoder
    utterances = list(manifest)
    longest_first = np.argsort(-manifest.durations, kind="stable").tolist()
    lengths, failures = [0] * len(utterances), {}
    arrays: list[np.ndarray | None] = [None] * len(utterances)
    recognizer.decoder = collector
    try:
        results = recognizer.transcribe_many(
            (as_recording(utterances[i]) for i in longest_first), batch_seconds=batch_seconds
        )
        for i, result in zip(longest_first, results, strict=True):
            if isinstance(result, Failure):
                failures[utterances[i].id] = result.error
            else:
                array = arrays[i] = collector.seen[int(result.text)]
                lengths[i] = len(array)
            if on_result:
                on_result()
    finally:
        recognizer.decoder = decoder
    rows = [array for array in arrays if array is not None]
    joined = np.concatenate(rows) if rows else np.zeros((0, recognizer.tokenizer.vocab_size), np.float32)
    with replacing(folder / "emissions.npy") as partial, partial.open("wb") as file:
        np.save(file, joined)
    write_text(index, json.dumps({"key": key, "frames": lengths, "failures": failures}, ensure_ascii=False))
    return _split(joined, lengths, failures)


def _read(folder: Path, key: dict[str, str]) -> Emissions | None:
    try:
        stored = json.loads((folder / "emissions.json").read_text(encoding="utf-8"))
        if stored["key"] != key:
            return None
        joined = np.load(folder / "emissions.npy", mmap_mode="r")
        return _split(joined, stored["frames"], stored["failures"]) if len(joined) == sum(stored["frames"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _split(joined: np.ndarray, lengths: Sequence[int], failures: dict[str, str]) -> Emissions:
    ends = np.cumsum(lengths)
    arrays = [joined[end - length : end] if length else None for end, length in zip(ends, lengths, strict=True)]
    return Emissions(arrays, failures)


def _audio_states(manifest: Manifest) -> str:
    """Of all audio files together, so that a corrected recording is noticed."""
    digest = hashlib.sha256()
    for path in sorted({utterance.audio_filepath for utterance in manifest}):
        digest.update(json.dumps(file_state(Path(path)), sort_keys=True).encode())
    return digest.hexdigest()
