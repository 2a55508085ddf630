"""A classifier from Python: labels with probabilities, in batches as alone, and long recordings window by window."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import asr
from asr.recognition.classifier import cut, merged
from asr.recognition.writers import json_object, txt
from asr.types import UsageError


def test_a_recording_gets_a_label_and_the_probabilities_of_all(
    tiny_classifier: Path, write_audio: Callable[..., Path], tmp_path: Path
) -> None:
    model = asr.load(tiny_classifier)
    assert isinstance(model, asr.Classifier) and model.labels == ["bird", "cat", "dog"]
    paths = [write_audio(tmp_path / f"{i}.wav", 0.3 + 0.2 * i, seed=i) for i in range(5)]
    alone = [model.classify(path) for path in paths]
    for found in alone:
        assert set(found.probabilities) == set(model.labels)
        assert sum(found.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
        assert max(found.probabilities, key=found.probabilities.__getitem__) == found.label
        assert found.probability == pytest.approx(found.probabilities[found.label])
    together = list(model.classify_many([*paths, tmp_path / "missing.wav"]))
    assert isinstance(together.pop(), asr.Failure)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, asr.Classification) and other.label == one.label
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-4)
    assert txt(alone[0]) == f"{alone[0].label}\t{alone[0].probability:.4f}\n"
    row = json_object(alone[0])
    assert row["label"] == alone[0].label and len(row["probabilities"]) == 3 and "text" not in row


def test_a_long_recording_is_the_mean_of_its_windows(tiny_classifier: Path, noise: Callable[..., np.ndarray]) -> None:
    model = asr.Classifier.load(tiny_classifier)
    samples = np.concatenate([noise(1.5, 1), 0.05 * noise(1.2, 2)])
    found = model.classify((samples, 16000))
    pieces = [samples[i * 8000 : (i + 1) * 8000 if i < 4 else None] for i in range(5)]
    posteriors = np.stack([np.exp(model.emissions([piece])[0][0]) for piece in pieces])
    weights = np.array([len(piece) for piece in pieces])
    expected = weights @ posteriors / len(samples)
    assert [found.probabilities[label] for label in model.labels] == pytest.approx(expected.tolist(), abs=1e-4)
    times = [(window.start, window.end) for window in found.windows]
    assert times[0][0] == 0.0 and times[-1][1] == pytest.approx(found.duration)
    assert all(end == start for (_, end), (start, _) in pairwise(times))
    assert all(a.word != b.word for a, b in pairwise(found.windows))


def test_neighboring_windows_of_one_label_are_merged() -> None:
    posteriors = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    best, other = merged(["a", "b"], np.log(posteriors), np.array([1.0, 1.0, 2.0]))
    assert (best.text, other.text) == ("b", "a") and np.exp(best.score) == pytest.approx((0.2 + 0.4 + 1.8) / 4)
    assert [(w.word, w.start, w.end, round(w.confidence, 6)) for w in best.words] == [
        ("a", 0.0, 2.0, 0.7),
        ("b", 2.0, 4.0, 0.9),
    ]


@pytest.mark.parametrize("total", [1, 4, 9, 10, 14, 15, 16, 37])
@pytest.mark.parametrize("block", [1, 7, 100])
def test_pieces_hold_every_sample_once(total: int, block: int) -> None:
    samples = np.arange(total, dtype=np.float32)
    pieces = list(cut((samples[i : i + block] for i in range(0, total, block)), 10))
    assert np.array_equal(np.concatenate(pieces), samples)
    assert all(len(piece) == 10 for piece in pieces[:-1]) and len(pieces[-1]) < 15
    assert len(pieces) == 1 or len(pieces[-1]) >= 5


def test_silence_is_classified_and_said(tiny_classifier: Path) -> None:
    model = asr.Classifier.load(tiny_classifier)
    found = model.classify((np.zeros(8000, dtype=np.float32), 16000))
    assert found.label in model.labels and any("silence" in warning for warning in found.warnings)


def test_a_model_of_the_other_kind_is_refused(tiny_classifier: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"words\.asr: a classifier \(3 classes\)"):
        asr.Recognizer.load(tiny_classifier)
    with pytest.raises(UsageError, match=r"tiny\.asr: a recognizer \(task ctc\)"):
        asr.Classifier.load(tiny_model)
    with pytest.raises(UsageError, match="a classifier"):
        asr.load(tiny_classifier, decoder="greedy")
