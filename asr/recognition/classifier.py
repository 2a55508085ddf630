"""A loaded classifier: recordings in, labels with probabilities out; a long recording has a label for each window."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import numpy as np

from asr.audio.read import Audio, AudioStream, RawFormat
from asr.decoding.interface import check_emissions
from asr.model.checkpoint import ModelFile
from asr.recognition.acoustics import Acoustics, Windows, usual_seconds
from asr.recognition.inputs import Recording
from asr.recognition.loading import open_recording
from asr.recognition.recognizer import Recognizer
from asr.types import Classification, Failure, Hypothesis, Transcript, Word


class Classifier(Recognizer):
    """The model file of a classifier on a device; `labels` are its classes.

    A recording much longer than the training utterances is cut into windows of about their mean length. Its
    probabilities are the means of those of its windows, weighted by length, and neighboring windows with the same label
    are merged into one.
    """

    classifies = True

    def __init__(self, model: ModelFile) -> None:
        self.labels = list(model.tokenizer.labels)
        super().__init__(model, LabelDecoder(self.labels))
        self.acoustics = _Pieces(model)

    def classify(self, source: Any, *, channel: str | int = "mix", raw: RawFormat | None = None) -> Classification:
        """Classify one recording, given as for `Recognizer.transcribe`. Raises AudioError naming the file."""
        result = self.transcribe(source, channel=channel, raw=raw)
        assert isinstance(result, Classification)
        return result

    def classify_many(self, sources: Iterable[Any], **options: Any) -> Iterator[Classification | Failure]:
        """Classify many recordings, in input order, with the options of `Recognizer.transcribe_many`."""
        for result in self.transcribe_many(sources, **options):
            assert isinstance(result, Classification | Failure)
            yield result

    def transcribe(self, source: Any, **options: Any) -> Transcript:
        return super().transcribe(source, **{**options, "nbest": len(self.labels)})

    def recognize(
        self, recordings: Iterable[Recording], **options: Any
    ) -> Iterator[tuple[Recording, list[Transcript] | Failure]]:
        return super().recognize(recordings, **{**options, "nbest": len(self.labels)})

    def _transcribe_long(
        self,
        recording: Recording,
        read_channel: str | int,
        channel: int | None,
        nbest: int,
        raw: RawFormat | None,
        batch_seconds: float,
    ) -> Transcript:
        longest = (self.windows or Windows()).length
        size = max(1, round(min(longest, usual_seconds(self.model_file.training)) * self.rate))
        many = max(1, int(batch_seconds * self.rate / size))
        scores: list[np.ndarray] = []
        lengths: list[int] = []
        with open_recording(recording, self.rate, read_channel, raw) as samples:
            batch: list[np.ndarray] = []
            for piece in chain(cut(samples, size), [None]):
                if batch and (piece is None or len(batch) == many):
                    scores += self.acoustics.emissions_unless_silent(batch, False)
                    batch = []
                if piece is not None:
                    batch.append(piece)
                    lengths.append(len(piece))
            hypotheses = merged(self.labels, np.concatenate(scores), np.array(lengths) / self.rate)
            return self._transcript(recording, samples, channel, samples.silent, hypotheses)

    def _transcript(
        self,
        recording: Recording,
        audio: Audio | AudioStream,
        channel: int | None,
        silent: bool,
        hypotheses: Sequence[Hypothesis],
    ) -> Transcript:
        transcript = super()._transcript(recording, audio, channel, silent, hypotheses)
        return Classification(**vars(replace(transcript, confidence=math.exp(hypotheses[0].score))))


class LabelDecoder:
    """A decoder whose hypotheses are the labels, the most probable first."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels

    def decode(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """`log_probs` (1, classes), natural logarithms, of a whole recording, whose length is not known here."""
        return merged(self.labels, check_emissions(log_probs, len(self.labels)), np.full(len(log_probs), math.inf))


def merged(labels: Sequence[str], log_probs: np.ndarray, seconds: np.ndarray) -> list[Hypothesis]:
    """All labels, the best first, for successive windows with `log_probs` (windows, classes) that last `seconds` each.

    The words of the best one are the stretches of windows with the same label; their confidence is its mean probability
    in the stretch.
    """
    posteriors = np.exp(np.asarray(log_probs, dtype=np.float64))
    weights = np.ones(len(seconds)) if np.isinf(seconds).any() else seconds
    means = weights @ posteriors / weights.sum()
    best = posteriors.argmax(axis=1)
    edges = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
    ends = np.concatenate([[0.0], np.cumsum(seconds)])
    stretches = [
        Word(labels[best[a]], float(ends[a]), float(ends[b]), float(posteriors[a:b, best[a]].mean()))
        for a, b in pairwise(edges)
    ]
    scores = np.log(np.maximum(means, 1e-30))
    order = np.argsort(-scores, kind="stable").tolist()
    hypotheses = [Hypothesis(labels[i], float(scores[i]), float(scores[i])) for i in order]
    return [replace(hypotheses[0], words=tuple(stretches)), *hypotheses[1:]]


def cut(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Cut blocks (time,) of samples into pieces (size,); the last one has half to one and a half times as many."""
    held = np.zeros(0, dtype=np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= 2 * size:
            yield held[:size]
            held = held[size:]
    if len(held) >= 1.5 * size:
        yield held[:size]
        held = held[size:]
    if len(held):
        yield held


class _Pieces(Acoustics):
    """An acoustic model that emits one frame, (1, classes), for each waveform."""

    def silence(self, samples: int, states: bool = False) -> np.ndarray:
        """To a classifier, digital silence is a sound like any other."""
        return self.emissions([np.zeros(samples, dtype=np.float32)])[0]
