"""The labels of manifests for classifiers: rows have a `label` and need no text."""

from __future__ import annotations

from collections import Counter

import numpy as np

from asr.corpus.manifest import Manifest, Utterance
from asr.text.tokenizer import LabelSet
from asr.types import ManifestError, TextError


def label_of(utterance: Utterance) -> str:
    """The label of a row, "" if it has none; integers are accepted as labels too."""
    label = utterance.extra.get("label", "")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    return label.strip() if isinstance(label, str) else ""


def label_set(manifest: Manifest) -> LabelSet:
    """The classes of a training set, sorted. Raises ManifestError for a row without a label and for a single class."""
    counts: Counter[str] = Counter()
    for i, utterance in enumerate(manifest):
        counts[_checked(label_of(utterance), manifest, i)] += 1
    if len(counts) < 2:
        raise ManifestError(
            f"{manifest.path}: all {len(manifest)} rows have the label '{next(iter(counts))}': a classifier needs "
            "utterances of at least two classes"
        )
    names = sorted(counts)
    return LabelSet(names, [counts[name] for name in names])


def label_numbers(manifest: Manifest, labels: LabelSet) -> np.ndarray:
    """The class of each row, (rows,) int64. Raises ManifestError for a row without a label or of an unknown class."""
    numbers = np.empty(len(manifest), dtype=np.int64)
    for i, utterance in enumerate(manifest):
        try:
            [numbers[i]] = labels.encode(_checked(label_of(utterance), manifest, i))
        except TextError as error:
            raise ManifestError(
                f"{manifest.where(i)}: {error} that the training set has: correct it, or remove the row"
            ) from error
    return numbers


def _checked(label: str, manifest: Manifest, i: int) -> str:
    if not label:
        utterance = manifest[i]
        keys = ", ".join(["audio_filepath", *(["text"] if utterance.text else []), *utterance.extra])
        problem = "'label' is not a name" if "label" in utterance.extra else f"the row has no 'label' (it has: {keys})"
        raise ManifestError(f"{manifest.where(i)}: {problem}: a classifier needs one in every row")
    return label
