"""The language model of a recipe: estimated from training transcripts or taken from a file, tuned on the dev set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from asr.corpus.manifest import Manifest
from asr.training.config import TrainConfig, manifests

if TYPE_CHECKING:
    from asr.recognition.tuning import Tuning


def has_language_model(config: TrainConfig) -> bool:
    """Whether a recipe asks for one."""
    return bool(config.lm.order or config.lm.file)


def make_language_model(config: TrainConfig, path: Path, warn: Callable[[str], None]) -> None:
    """Write the binary language model `path`: that of `lm.file`, or one of `lm.order` from the training transcripts.

    `lm.text` are further texts (a sentence a line) to learn from; all goes through the recipe's normalizer.
    """
    from asr.lm.ngram import NGramLM

    path.parent.mkdir(parents=True, exist_ok=True)
    if config.lm.file:
        NGramLM.read(config.lm.file, verify=True).write_binary(path)
        return
    from asr.lm.estimate import estimate, read_corpus
    from asr.lm.text import read_sentences
    from asr.text.normalize import normalizer

    texts = [*manifests(config.data.train), *manifests(config.lm.text)]
    corpus = read_corpus(read_sentences(texts, normalizer(config.text.normalizer)))
    NGramLM.from_tables(estimate(corpus, config.lm.order, warn=warn).tables).write_binary(path)


def tune_language_model(
    config: TrainConfig, model_file: Path, path: Path, folder: Path, warn: Callable[[str], None]
) -> Tuning:
    """Choose alpha, beta and beam width on the dev set and store them beside the language model; trials in `folder`."""
    import asr
    from asr.recognition.tuning import tune_on_manifest
    from asr.recognition.tuning_report import draw_surface, write_trials

    recognizer = asr.load(model_file)
    dev = Manifest.read(manifests(config.data.dev))
    tuning = tune_on_manifest(recognizer, model_file, path, dev, folder, warn=warn)
    write_trials(tuning, folder / "trials.csv")
    draw_surface(tuning, folder / "surface.png", config.name)
    return tuning
