"""Scores of classifiers against slow, obvious counts; their intervals; the paired test."""

from __future__ import annotations

from itertools import pairwise
from math import comb

import numpy as np
import pytest

from asr.scoring.classes import ClassScores, class_rates, compare_classes


def scores_of(references: np.ndarray, found: np.ndarray, classes: int, speakers: tuple[str, ...] = ()) -> ClassScores:
    labels = tuple("abcdefgh"[:classes])
    ids = tuple(map(str, range(len(references))))
    return ClassScores(labels, ids, references, found, speakers=speakers)


def by_hand(references: list[int], found: list[int], classes: int) -> dict[str, float]:
    recalls, f1s = [], []
    for k in range(classes):
        right = sum(r == k == f for r, f in zip(references, found, strict=True))
        if references.count(k):
            recalls.append(right / references.count(k))
        if references.count(k) + found.count(k):
            precision = right / found.count(k) if found.count(k) else 0.0
            recall = right / references.count(k) if references.count(k) else 0.0
            f1s.append(2 * precision * recall / (precision + recall) if right else 0.0)
    accuracy = sum(r == f for r, f in zip(references, found, strict=True)) / len(references)
    mean = sum(recalls) / len(recalls)
    return {"accuracy": accuracy, "balanced_accuracy": mean, "macro_f1": sum(f1s) / len(f1s)}


@pytest.mark.parametrize("seed", range(20))
def test_rates_are_those_counted_by_hand(seed: int) -> None:
    chance = np.random.default_rng(seed)
    classes, count = int(chance.integers(2, 6)), int(chance.integers(3, 40))
    references = chance.integers(0, classes, count)
    found = np.where(chance.random(count) < 0.5, references, chance.integers(-1, classes, count))
    scores = scores_of(references, found, classes)
    assert scores.table.sum() == count and scores.table[:, -1].sum() == (found < 0).sum()
    assert scores.rates == pytest.approx(by_hand(references.tolist(), found.tolist(), classes))
    assert scores.rates == class_rates(scores.table)
    for k, row in enumerate(scores.classes):
        assert row["utterances"] == (references == k).sum() and row["found"] == (found == k).sum()
        low, high = row["recall_interval_95"]
        assert 0 <= low <= high <= 1
    for name, (low, high) in scores.intervals.items():
        assert 0 <= low <= scores.rates[name] + 1e-9 and scores.rates[name] - 1e-9 <= high <= 1
    assert sum(n for *_, n in scores.confusions()) == scores.wrong.sum() == scores.summary()["errors"]
    assert scores.tables() and len(scores.lines()) == 3


def test_intervals_cover_the_truth_and_know_that_speakers_are_alike() -> None:
    chance = np.random.default_rng(3)
    covered = 0
    for _ in range(40):
        references = chance.integers(0, 2, 60)
        found = np.where(chance.random(60) < 0.8, references, 1 - references)
        low, high = scores_of(references, found, 2).intervals["balanced_accuracy"]
        covered += low <= 0.8 <= high
    assert covered >= 34
    references = np.zeros(60, dtype=np.int64)
    found = np.repeat([0, 0, 0, 0, 0, 1], 10)  # one speaker of six is never understood
    speakers = tuple(np.repeat(list("pqrstu"), 10))
    alone, blocked = scores_of(references, found, 2), scores_of(references, found, 2, speakers)
    assert blocked.errors[1] == "speakers"
    assert np.ptp(blocked.intervals["accuracy"]) > 1.5 * np.ptp(alone.intervals["accuracy"])
    right = scores_of(references, references, 2)
    assert (
        right.intervals["accuracy"] == right.intervals["balanced_accuracy"] == (pytest.approx(0.025 ** (1 / 60)), 1.0)
    )


def test_top_k_needs_the_class_among_the_k_most_probable() -> None:
    chance = np.random.default_rng(4)
    probabilities = chance.dirichlet(np.ones(7), 30)
    references, found = chance.integers(0, 7, 30), probabilities.argmax(axis=1)
    found[3] = -1
    scores = ClassScores(tuple("abcdefg"), tuple(map(str, range(30))), references, found, probabilities)
    ranks = [np.argsort(-row).tolist().index(r) for row, r in zip(probabilities, references, strict=True)]
    for k in range(1, 8):
        assert scores.top(k) == pytest.approx(sum(rank < k and i != 3 for i, rank in enumerate(ranks)) / 30)
    assert scores.top(1) == scores.rates["accuracy"]
    assert all(a <= b for a, b in pairwise([scores.top(k) or 0 for k in range(1, 8)]))


def test_the_paired_test_of_two_classifiers() -> None:
    references = np.arange(40) % 2
    a, b = references.copy(), references.copy()
    a[:12] = 1 - a[:12]
    b[10:13] = 1 - b[10:13]
    result = compare_classes(scores_of(references, a, 2), scores_of(references, b, 2))
    assert (result.only_a, result.only_b) == (1, 10) and result.difference == pytest.approx(9 / 40)
    assert result.mcnemar == pytest.approx(2 * (comb(11, 0) + comb(11, 1)) / 2**11)
    low, high = result.interval
    assert 0 < low < 9 / 40 < high and result.p < 0.05 and result.verdict().startswith("B is better")
    back = compare_classes(result.b, result.a)
    assert back.difference == -result.difference and back.verdict().startswith("B is worse")
    same = compare_classes(result.a, result.a)
    assert same.p == same.mcnemar == 1.0
    with pytest.raises(ValueError, match="different utterances"):
        compare_classes(result.a, scores_of(1 - references, a, 2))
