"""Finds what should be there once and is there twice: copies within a manifest, and test data in the training set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asr.corpus.findings import Finding
from asr.corpus.manifest import Manifest, Utterance, repeats

_SHORT = 3  # words: shorter texts are expected to recur


@dataclass
class Part:
    """A manifest with hashes of its columns (int64 each): ids, texts (0: empty), words per text, and the audio's
    identities as asr.corpus.audio_check gives them. `role` is "train", "test" or "" where unknown."""

    manifest: Manifest
    role: str
    ids: np.ndarray
    texts: np.ndarray
    word_counts: np.ndarray
    speakers: frozenset[str]
    recording: np.ndarray
    content: np.ndarray


def copies(part: Part) -> Iterator[Finding]:
    """Utterances that are another of the same manifest again."""
    manifest = part.manifest
    first: dict[int, str] = {}
    copied: set[int] = set()
    for i in map(int, repeats(part.content)):
        identity = int(part.content[i])
        if not identity:
            continue
        name = manifest[i].id
        if identity in first:
            copied.add(i)
            yield Finding("duplicate audio", manifest.path, name, f"the same audio as '{first[identity]}'")
        else:
            first[identity] = name
    alike: dict[tuple[str, str, float], str] = {}
    for i in map(int, repeats(np.where(part.word_counts >= _SHORT, part.texts, 0))):
        if not part.texts[i] or part.word_counts[i] < _SHORT or i in copied:
            continue
        utterance = manifest[i]
        key = (utterance.speaker, utterance.text, round(utterance.duration, 2))
        other = alike.setdefault(key, utterance.id)
        if utterance.speaker and other != utterance.id:
            yield Finding("probably a copy", manifest.path, utterance.id, f"of '{other}'")


def leaks(train: Part, test: Part) -> Iterator[Finding]:
    """What of `test` also stands in `train`; each utterance is reported once, under its id in `test`."""
    reported: set[int] = set()
    for i, j in _matches(test.content, train.content):
        reported.add(i)
        yield _leak(train, test, i, f"the same audio as '{train.manifest[j].id}' in {train.manifest.path}")
    for i, j in _overlaps(train, test):
        if i not in reported:
            reported.add(i)
            yield _leak(train, test, i, f"overlaps '{train.manifest[j].id}' in {train.manifest.path}")
    for i, j in _matches(test.ids, train.ids):
        ours, theirs = test.manifest[i], train.manifest[j]
        if ours.id != theirs.id or i in reported:
            continue
        if ours.text == theirs.text or abs(ours.duration - theirs.duration) < 0.005:
            yield _leak(train, test, i, f"the same id in {train.manifest.path}")
        else:
            yield Finding("same id", test.manifest.path, ours.id, f"another recording in {train.manifest.path}")
    yield from _in_common(train, test)


def _in_common(train: Part, test: Part) -> Iterator[Finding]:
    voices = test.speakers & train.speakers
    if voices:
        some = ", ".join(sorted(voices)[:5]) + (", ..." if len(voices) > 5 else "")
        detail = f"{len(voices)} of {len(test.speakers)} also speak in {train.manifest.path}: {some}"
        yield Finding("shared speakers", test.manifest.path, "", detail)
    long = test.word_counts >= _SHORT
    shared = int(np.isin(test.texts[long], train.texts).sum())
    if shared:
        detail = f"{shared} of {int(long.sum())} texts of {_SHORT} words or more are also in {train.manifest.path}"
        yield Finding("shared texts", test.manifest.path, "", detail)


def _leak(train: Part, test: Part, i: int, detail: str) -> Finding:
    return Finding("in train and test", test.manifest.path, test.manifest[i].id, detail)


def _matches(ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[int, int]]:
    """(position in ours, first position in theirs) of equal values, 0 excepted."""
    values, positions = np.unique(theirs, return_index=True)
    if not len(values):
        return
    places = np.minimum(np.searchsorted(values, ours), len(values) - 1)
    for i in np.flatnonzero((values[places] == ours) & (ours != 0)):
        yield int(i), int(positions[places[i]])


def _overlaps(train: Part, test: Part) -> Iterator[tuple[int, int]]:
    """(position in test, position in train) of windows of one recording that share time and channel."""
    common = np.intersect1d(train.recording, test.recording)
    common = common[common != 0]
    windows: dict[int, list[tuple[float, float, int | None, int]]] = defaultdict(list)
    for j in np.flatnonzero(np.isin(train.recording, common)):
        windows[int(train.recording[j])].append((*_span(train.manifest[int(j)]), int(j)))
    starts: dict[int, np.ndarray] = {}
    longest: dict[int, float] = {}
    for recording, spans in windows.items():
        spans.sort(key=lambda span: span[0])
        starts[recording] = np.array([span[0] for span in spans])
        longest[recording] = max(end - start for start, end, _, _ in spans)
    for i in map(int, np.flatnonzero(np.isin(test.recording, common))):
        recording = int(test.recording[i])
        start, end, channel = _span(test.manifest[i])
        low, high = np.searchsorted(starts[recording], [start - longest[recording], end])
        for other_start, other_end, other_channel, j in windows[recording][low:high]:
            same_channel = channel is None or other_channel is None or channel == other_channel
            if same_channel and min(end, other_end) - max(start, other_start) > 1e-3:
                yield i, j
                break


def _span(utterance: Utterance) -> tuple[float, float, int | None]:
    return utterance.offset, utterance.offset + utterance.duration, utterance.channel
