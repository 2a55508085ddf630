"""Scores of classifiers, overall and by class, with bootstrap intervals; and the comparison of two classifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asr.files import replacing
from asr.scoring.breakdown import text_table
from asr.scoring.comparison import verdict
from asr.scoring.edits import (
    TAIL,
    Difference,
    bootstrap_interval,
    expanded_interval,
    paired_bootstrap,
    resampling_units,
)

RESAMPLES = 1000
WIDEST_MATRIX = 20  # classes; with more, tables show the most frequent confusions instead of the matrix
TOP = 5
NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}

Interval = tuple[float, float]


def class_rates(table: np.ndarray) -> dict[str, float]:
    """The metrics of a table (classes, classes + 1) of utterances by class and class found; last column: none found.

    Balanced accuracy is the mean recall of the classes that occur, macro F1 the mean F1 of those that occur or
    are found.
    """
    classes = table[:, :-1]
    rates = _rates(np.diagonal(classes), table.sum(axis=1), classes.sum(axis=0))
    return {name: float(value) for name, value in rates.items()}


def _rates(right: np.ndarray, support: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics from counts (..., classes) of right, of actual and of found utterances."""
    _, recall, f1 = _by_class(right, support, found)
    return {
        "accuracy": right.sum(axis=-1) / np.maximum(support.sum(axis=-1), 1),
        "balanced_accuracy": _mean(recall, support > 0),
        "macro_f1": _mean(f1, support + found > 0),
    }


def _by_class(right: np.ndarray, support: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1, (..., classes); 0 where undefined."""
    return right / np.maximum(found, 1), right / np.maximum(support, 1), 2 * right / np.maximum(support + found, 1)


def _mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    return (values * known).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)


@dataclass(frozen=True)
class ClassScores:
    """The results of a classifier on a test set, with an entry for each utterance.

    `references` (utterances,) and `found` (utterances,), the classifier's answers, are indices into `labels`, -1 for
    no answer; `probabilities` are (utterances, classes). Intervals are over speakers if these are known, see
    `resampling_units`.
    """

    labels: tuple[str, ...]
    ids: tuple[str, ...]
    references: np.ndarray
    found: np.ndarray
    probabilities: np.ndarray | None = None
    speakers: tuple[str, ...] = ()

    @cached_property
    def table(self) -> np.ndarray:
        """Utterances by class and class found (classes, classes + 1) int64; last column: none found."""
        classes = len(self.labels)
        places = self.references * (classes + 1) + np.where(self.found < 0, classes, self.found)
        return np.bincount(places, minlength=classes * (classes + 1)).reshape(classes, classes + 1)

    @cached_property
    def rates(self) -> dict[str, float]:
        return class_rates(self.table)

    @property
    def wrong(self) -> np.ndarray:
        """Which utterances are wrong, (utterances,) bool."""
        return self.found != self.references

    @property
    def certainty(self) -> np.ndarray:
        """The probability of the class found, (utterances,); 0 where unknown."""
        known = np.zeros(len(self.ids)) if self.probabilities is None else self.probabilities.max(axis=1)
        return np.where(self.found < 0, 0.0, known)

    def top(self, count: int) -> float | None:
        """The share of utterances whose class is among the `count` most probable; None without probabilities."""
        if self.probabilities is None or not len(self.references):
            return None
        own = np.take_along_axis(self.probabilities, self.references[:, None], axis=1)
        before = (self.probabilities > own).sum(axis=1)
        return float(((before < count) & (self.found >= 0)).mean())

    @cached_property
    def errors(self) -> tuple[np.ndarray, str]:
        """Errors and utterances of each resampling unit, (units, 2), and what the units are."""
        counts = np.stack([self.wrong, np.ones_like(self.wrong)], axis=1).astype(np.int64)
        return resampling_units(counts, self.speakers)

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """95 % bootstrap intervals of `rates`."""
        units, _ = self.errors
        low, high = bootstrap_interval(units[:, 0], units[:, 1])
        resampled = _rates(*self._resampled)
        others = {k: self._interval(v, len(self.references)) for k, v in resampled.items() if k != "accuracy"}
        return {"accuracy": (1.0 - high, 1.0 - low), **others}

    @cached_property
    def classes(self) -> list[dict[str, Any]]:
        """Figures of each class: utterances, how often it was found, precision, recall and F1 with their intervals."""
        right, support, found = np.diagonal(self.table[:, :-1]), self.table.sum(axis=1), self.table[:, :-1].sum(axis=0)
        precision, recall, f1 = _by_class(right, support, found)
        _, recalls, f1s = _by_class(*self._resampled)
        return [
            {
                "label": label,
                "utterances": int(support[i]),
                "found": int(found[i]),
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "recall_interval_95": list(self._interval(recalls[:, i], int(support[i]))),
                "f1": float(f1[i]),
                "f1_interval_95": list(self._interval(f1s[:, i], int(support[i]))),
            }
            for i, label in enumerate(self.labels)
        ]

    @cached_property
    def _resampled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Right, actual and found utterances of each class (RESAMPLES, classes), over units drawn with replacement."""
        units, names = len(self.errors[0]), np.asarray(self.speakers, dtype=object).astype(str)
        by_speaker = self.errors[1] == "speakers"
        unit = np.unique(names, return_inverse=True)[1] if by_speaker else np.arange(len(self.references))
        generator = np.random.default_rng(1)  # fixed, so that a report can be repeated
        chosen = ~self.wrong, np.ones_like(self.wrong), self.found >= 0
        numbers = self.references, self.references, self.found
        counts = np.zeros((3, RESAMPLES, len(self.labels)))
        for i in range(RESAMPLES):
            weights = np.bincount(generator.integers(0, units, units), minlength=units)[unit]
            for row, mask, classes in zip(counts, chosen, numbers, strict=True):
                row[i] = np.bincount(classes[mask], weights=weights[mask], minlength=len(self.labels))
        return counts[0], counts[1], counts[2]

    def _interval(self, values: np.ndarray, utterances: int) -> Interval:
        """The interval of a resampled rate; exact binomial limits if all resamples are 0 or 1, without any spread."""
        units = len(self.errors[0])
        if not utterances or units < 2:
            return (0.0, 1.0)
        chance = TAIL ** (1.0 / utterances)
        if values.min() == 1.0 or values.max() == 0.0:
            return (chance, 1.0) if values.min() == 1.0 else (0.0, 1.0 - chance)
        low, high = expanded_interval(values, units)
        return (max(low, 0.0), min(high, 1.0))

    def confusions(self, limit: int | None = None) -> list[tuple[str, str, int]]:
        """(class, class found, utterances), the most frequent first; "" where none was found."""
        names = [*self.labels, ""]
        pairs = [(self.labels[i], names[j], int(n)) for (i, j), n in np.ndenumerate(self.table) if n and i != j]
        return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))[:limit]

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values; rates are fractions."""
        top = {f"top_{k}": self.top(k) for k in (2, TOP) if k < len(self.labels)}
        return {
            "utterances": len(self.references),
            "errors": int(self.wrong.sum()),
            **{name: {"rate": rate, "interval_95": list(self.intervals[name])} for name, rate in self.rates.items()},
            **{name: share for name, share in top.items() if share is not None},
            "interval_over": self.errors[1],
            "classes": self.classes,
            "labels": list(self.labels),
            "confusion_matrix": self.table[:, :-1].tolist(),
            "not_classified": self.table[:, -1].tolist(),
        }

    def lines(self) -> list[str]:
        """The figures for people."""
        width = max(map(len, NAMES.values()))
        lines = [
            f"{label:<{width}} {self.rates[name]:7.2%}  95 % interval {_shown(self.intervals[name])}"
            for name, label in NAMES.items()
        ]
        lines[0] += f"  ({int(self.wrong.sum())} of {len(self.references)} utterances wrong)"
        shares = {k: share for k in (2, TOP) if k < len(self.labels) and (share := self.top(k)) is not None}
        lines += [f"{f'top {k}':<{width}} {share:7.2%}" for k, share in shares.items()]
        return lines

    def tables(self, limit: int | None = None) -> str:
        """The classes and the confusion matrix, or for many classes the most frequent confusions."""
        rows = []
        for row in self.classes:
            rates = [f"{row[key]:.2%}" for key in ("precision", "recall", "f1")]
            rates.insert(2, _shown(row["recall_interval_95"]))
            rows.append([row["label"], str(row["utterances"]), str(row["found"]), *rates])
        header = ["class", "utterances", "found", "precision", "recall", "95 % interval", "F1"]
        text = text_table(header, rows)
        if len(self.labels) > WIDEST_MATRIX:
            pairs = [[label, found or "(none)", str(n)] for label, found, n in self.confusions(limit)]
            return f"{text}\n\n" + text_table(["class", "found", "utterances"], pairs, left=2) if pairs else text
        columns = [*self.labels, "(none)"] if self.table[:, -1].any() else list(self.labels)
        cells = [[label, *map(str, row[: len(columns)])] for label, row in zip(self.labels, self.table, strict=True)]
        return f"{text}\n\n" + text_table(["class \\ found", *columns], cells)

    def draw(self, path: Path) -> None:
        """Write the confusion matrix as a PNG: shares of each class as colors, counts as numbers."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        size = 3.0 + 0.32 * len(self.labels)
        figure = Figure(figsize=(size, size), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        matrix = self.table[:, :-1]
        shares = matrix / np.maximum(self.table.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        places = range(len(self.labels))
        axes.set_xticks(places, self.labels, rotation=90)
        axes.set_yticks(places, self.labels)
        axes.set(xlabel="found", ylabel="class", title=f"accuracy {self.rates['accuracy']:.2%}")
        for (i, j), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(count), ha="center", va="center", color=color, fontsize=7)
        with replacing(path) as partial:
            figure.savefig(partial, dpi=120, format="png")


@dataclass(frozen=True)
class ClassComparison(Difference):
    """Two classifiers on the same utterances: the accuracy of B minus that of A, by a paired bootstrap over `units`.

    `only_a` and `only_b` count the utterances that only one of them has right, for the exact McNemar test.
    """

    a: ClassScores
    b: ClassScores
    units: str
    only_a: int
    only_b: int

    @property
    def mcnemar(self) -> float:
        """The two-sided p-value of the exact test (McNemar 1947; binomial)."""
        total, fewer = self.only_a + self.only_b, min(self.only_a, self.only_b)
        tail = sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total
        return min(1.0, 2.0 * tail)

    def summary(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return {
            "accuracy_a": self.a.rates["accuracy"],
            "accuracy_b": self.b.rates["accuracy"],
            "difference": self.difference,
            "interval_95": list(self.interval),
            "interval_over": self.units,
            "p": self.p,
            "only_a_right": self.only_a,
            "only_b_right": self.only_b,
            "mcnemar_p": self.mcnemar,
        }

    def verdict(self) -> str:
        """The result of the paired bootstrap, in one line."""
        if not self.only_a and not self.only_b:
            return "A and B are right about the same utterances"
        return verdict(self, better=self.difference > 0)


def compare_classes(a: ClassScores, b: ClassScores) -> ClassComparison:
    """Compare two classifiers. Raises ValueError if their utterances or references differ."""
    if a.ids != b.ids or not np.array_equal(a.references, b.references):
        raise ValueError("the two were scored on different utterances")
    (errors_a, units), (errors_b, _) = a.errors, b.errors
    errors = paired_bootstrap(errors_a, errors_b)
    low, high = errors.interval
    only_a, only_b = int((~a.wrong & b.wrong).sum()), int((a.wrong & ~b.wrong).sum())
    return ClassComparison(-errors.difference, (-high, -low), errors.p, errors.bounded, a, b, units, only_a, only_b)


def _shown(interval: Sequence[float]) -> str:
    return f"{interval[0]:.2%} to {interval[1]:.2%}"
