"""A recipe's results: every test set on its own, decoded greedily and, with a language model, by beam search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.corpus.manifest import Manifest
from asr.scoring.tables import RATE_HEADER, rate_cells, table
from asr.training.config import TrainConfig, manifests

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer
    from asr.recognition.tuning import Tuning


GREEDY, BEAM, BEAM_LM = "greedy", "beam", "beam+lm"


def result_folders(results: Path, tests: Mapping[str, str], lm: Path | None) -> dict[tuple[str, str], Path]:
    """Where the results of each test set and decoding go."""
    decodings = (GREEDY, BEAM, BEAM_LM) if lm else (GREEDY,)
    return {(name, decoding): results / name / decoding for name in tests for decoding in decodings}


def evaluate_sets(
    model_file: Path, tests: Mapping[str, str], results: Path, lm: Path | None, say: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Evaluate and write all results; the figures, a row for each test set and decoding, for `results_table`."""
    import asr
    from asr.recognition.evaluation import evaluate

    recognizer = asr.load(model_file, decoder="greedy")
    rows = []
    for (name, decoding), folder in result_folders(results, tests, lm).items():
        if decoding != GREEDY:
            _search(recognizer, lm if decoding == BEAM_LM else None)
        evaluation = evaluate(recognizer, tests[name])
        evaluation.write(folder, {"model": str(model_file), "decoder": decoding})
        if decoding == GREEDY:  # what is wrong with the audio or the texts is the same for all
            for warning in evaluation.warnings:
                say(f"warning: {name}: {warning}")
            for failure in evaluation.failures:
                say(f"error: {name}: {failure.id}: {failure.error}")
        rows.append({"set": name, "decoding": decoding} | evaluation.summary())
    return rows


def results_table(rows: list[dict[str, Any]]) -> str:
    """One line for each test set and decoding, under a heading."""
    cells = [
        [row["set"], row["decoding"], str(row["utterances"]), *rate_cells(row["wer"]), f"{row['cer']['rate']:.2%}"]
        for row in rows
    ]
    return table(["test set", "decoder", "utterances", "WER", *RATE_HEADER, "CER"], cells, left=2)


def _search(recognizer: Recognizer, lm: Path | None) -> None:
    from asr.decoding.make import DecodingConfig, make_decoder

    config = DecodingConfig(decoder="beam", lm=str(lm) if lm else None)
    recognizer.decoder = make_decoder(config, recognizer.tokenizer, recognizer.frame_seconds)


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
    from asr.lm.estimate import encode_corpus, estimate, read_sentences
    from asr.text.normalize import normalizer

    texts = [*manifests(config.data.train), *manifests(config.lm.text)]
    corpus = encode_corpus(read_sentences(texts, normalizer(config.text.normalizer)))
    NGramLM.from_tables(estimate(corpus, config.lm.order, warn=warn).tables).write_binary(path)


def tune_language_model(
    config: TrainConfig, model_file: Path, path: Path, folder: Path, warn: Callable[[str], None]
) -> Tuning:
    """Choose alpha, beta and beam width on the dev set and store them beside the language model; trials in `folder`."""
    import asr
    from asr.recognition.tuning import draw_surface, tune_on_manifest, write_trials

    recognizer = asr.load(model_file)
    dev = Manifest.read(manifests(config.data.dev))
    tuning = tune_on_manifest(recognizer, model_file, path, dev, folder, warn=warn)
    write_trials(tuning, folder / "trials.csv")
    draw_surface(tuning, folder / "surface.png", config.name)
    return tuning
