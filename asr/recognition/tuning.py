"""The weights of a language model in the beam search, chosen by the word error rate on a development set."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.files import replacing, write_text
from asr.scoring.edits import score
from asr.text.normalize import normalize
from asr.types import AsrError, UsageError

if TYPE_CHECKING:
    from asr.corpus.manifest import Manifest
    from asr.decoding.beam.search import BeamSearch
    from asr.recognition.recognizer import Recognizer


ALPHAS, BETAS = (0.0, 3.0), (-1.0, 5.0)
COARSE = 7  # points per axis of the first grid
REFINEMENTS = 3  # times that the step is halved around the best
_TEST_FILE = re.compile(r"test([^a-z]|$)", re.IGNORECASE)
WIDTHS = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Trial:
    """One setting and the word errors it makes on the development set."""

    alpha: float
    beta: float
    beam_width: int
    errors: int


@dataclass(frozen=True)
class Tuning:
    """All trials, in the order they were made, and the setting chosen."""

    trials: tuple[Trial, ...]
    best: Trial
    reference_words: int
    utterances: int

    def wer(self, trial: Trial) -> float:
        return trial.errors / max(self.reference_words, 1)


def refuse_test_set(manifest: Manifest) -> None:
    """Raise UsageError when rows of a manifest belong to a test set: tuning on it falsifies results.

    Their `split` says so or, where they have none, the name of the file: test.jsonl, test-clean.jsonl.
    """
    advice = "tune on a development set, or the results on this test set mean nothing"
    named = next((path for path in manifest.path.split(", ") if _TEST_FILE.match(Path(path).name)), None)
    for utterance in manifest:
        if (utterance.split or "").lower().startswith("test"):
            raise UsageError(f"{manifest.path}: {utterance.id} belongs to the split '{utterance.split}': {advice}")
        if named and not utterance.split:
            raise UsageError(
                f"{named}: by its name a test set, and {utterance.id} has no 'split' to say else: {advice}"
            )


def tune(
    search: BeamSearch,
    emissions: Sequence[np.ndarray],
    references: Sequence[str],
    normalizer: str,
    *,
    alphas: tuple[float, float] = ALPHAS,
    betas: tuple[float, float] = BETAS,
    beam_width: int | None = None,
    jobs: int = 1,
    on_trial: Callable[[Trial], object] | None = None,
) -> Tuning:
    """Search alpha and beta within bounds on a grid, then three times on one half as wide around the best.

    Of settings with equally few errors, that nearest to the middle of them is taken: the least accidental. With
    `beam_width` None the search runs at a width of 64, and afterwards, at the best alpha and beta, the second smallest
    width of those that make the fewest errors is taken: other utterances may need a little more. `references` are
    texts as spoken; both sides go through `normalizer`.
    """
    if len(emissions) == 0:
        raise AsrError("tuning: there is no utterance to decode")
    wanted = [normalize(text, normalizer) for text in references]
    if not any(wanted):
        raise AsrError("tuning: the references are empty")
    trials: dict[tuple[float, float, int], Trial] = {}

    def run(alpha: float, beta: float, width: int) -> Trial:
        key = (round(alpha, 4), round(beta, 4), width)
        if key not in trials:
            decoder = search.reweighted(alpha=key[0], beta=key[1], beam_width=width)
            texts = [normalize(best[0].text, normalizer) for best in decoder.decode_many(emissions, jobs)]
            trials[key] = Trial(*key, score(wanted, texts).counts.errors)
            if on_trial:
                on_trial(trials[key])
        return trials[key]

    width = beam_width or 64
    steps = [(high - low) / (COARSE - 1) for low, high in (alphas, betas)]
    for alpha in np.linspace(*alphas, COARSE):
        for beta in np.linspace(*betas, COARSE):
            run(float(alpha), float(beta), width)
    for _ in range(REFINEMENTS):
        steps = [step / 2 for step in steps]
        centre = _middle_of_best(list(trials.values()))
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                alpha = min(max(centre.alpha + i * steps[0], alphas[0]), alphas[1])
                beta = min(max(centre.beta + j * steps[1], betas[0]), betas[1])
                run(alpha, beta, width)
    best = _middle_of_best(list(trials.values()))
    if beam_width is None:
        tried = [run(best.alpha, best.beta, other) for other in WIDTHS]
        enough = [trial for trial in tried if trial.errors == min(other.errors for other in tried)]
        best = enough[min(1, len(enough) - 1)]
    words = sum(len(text.split()) for text in wanted)
    return Tuning(tuple(trials.values()), best, words, len(wanted))


def _middle_of_best(trials: list[Trial]) -> Trial:
    fewest = min(trial.errors for trial in trials)
    ties = [trial for trial in trials if trial.errors == fewest]
    alpha = sum(trial.alpha for trial in ties) / len(ties)
    beta = sum(trial.beta for trial in ties) / len(ties)
    return min(ties, key=lambda trial: (math.hypot(trial.alpha - alpha, trial.beta - beta), trial.alpha, trial.beta))


def tune_on_manifest(
    recognizer: Recognizer,
    model: str | Path,
    lm: str | Path,
    manifest: Manifest,
    folder: str | Path,
    *,
    alphas: tuple[float, float] = ALPHAS,
    betas: tuple[float, float] = BETAS,
    beam_width: int | None = None,
    lexicon: str | Path | None = None,
    jobs: int = 1,
    batch_seconds: float | None = None,
    on_result: Callable[[], object] | None = None,
    on_trial: Callable[[Trial], object] | None = None,
    warn: Callable[[str], object] = lambda message: None,
) -> Tuning:
    """Tune the language model file `lm` for a model and store the choice beside it.

    The model's output is kept in `folder`, and read from there the next time. Utterances whose audio cannot be read are
    left out, with a warning each. Raises UsageError for a manifest with test utterances.
    """
    from asr.decoding.beam.alphabet import Alphabet
    from asr.decoding.beam.lexicon import read_words
    from asr.decoding.beam.search import BeamSearch
    from asr.lm.check import check_lm
    from asr.lm.files import Tuned, write_tuned
    from asr.lm.ngram import NGramLM
    from asr.recognition.emission_cache import emissions

    refuse_test_set(manifest)
    labels = recognizer.tokenizer.labels
    language_model = NGramLM.read(lm, verify=True)
    words = read_words(lexicon, Alphabet(labels)) if lexicon is not None else None
    for remark in check_lm(language_model, labels, words.words if words else None):
        warn(remark)
    search = BeamSearch(labels, language_model, lexicon=words, frame_seconds=recognizer.frame_seconds)
    found = emissions(recognizer, model, manifest, folder, batch_seconds=batch_seconds, on_result=on_result)
    for name, error in found.failures.items():
        warn(f"{name}: {error}; left out")
    heard = [
        (array, utterance.text) for array, utterance in zip(found.arrays, manifest, strict=True) if array is not None
    ]
    tuning = tune(
        search,
        [array for array, _ in heard],
        [text for _, text in heard],
        recognizer.normalizer,
        alphas=alphas,
        betas=betas,
        beam_width=beam_width,
        jobs=jobs,
        on_trial=on_trial,
    )
    details = {
        "model": str(model),
        "manifest": manifest.path,
        "utterances": tuning.utterances,
        "reference_words": tuning.reference_words,
        "wer": tuning.wer(tuning.best),
    }
    write_tuned(lm, Tuned(tuning.best.alpha, tuning.best.beta, tuning.best.beam_width, details))
    return tuning


def table(tuning: Tuning, most: int = 10) -> str:
    """The best settings for people, best first."""
    rows = sorted(tuning.trials, key=lambda trial: (trial.errors, trial is not tuning.best, trial.alpha, trial.beta))
    lines = ["alpha    beta  beam     WER  errors"]
    for trial in rows[:most]:
        setting = f"{trial.alpha:5.3f}  {trial.beta:6.3f}  {trial.beam_width:4d}"
        mark = "  chosen" if trial == tuning.best else ""
        lines.append(f"{setting}  {tuning.wer(trial):6.2%}  {trial.errors:6d}{mark}")
    return "\n".join(lines)


def write_trials(tuning: Tuning, path: Path) -> None:
    """Every trial as a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["alpha", "beta", "beam_width", "errors", "wer"])
    for trial in tuning.trials:
        writer.writerow([trial.alpha, trial.beta, trial.beam_width, trial.errors, f"{tuning.wer(trial):.5f}"])
    write_text(path, text.getvalue())


def draw_surface(tuning: Tuning, path: Path, title: str) -> None:
    """Word error rate over alpha and beta as a PNG: the response surface, its trials and the choice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = tuning.trials[0].beam_width
    trials = [trial for trial in tuning.trials if trial.beam_width == width]
    alpha, beta = (np.array([getattr(trial, name) for trial in trials]) for name in ("alpha", "beta"))
    rates = 100 * np.array([tuning.wer(trial) for trial in trials])
    best = tuning.best
    shown = np.minimum(rates, max(2 * rates.min(), rates.min() + 5.0))  # the far corners would hide the valley
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if np.ptp(shown) > 0:
        filled: Any = axes.tricontourf(alpha, beta, shown, levels=14, cmap="viridis_r")
        figure.colorbar(filled, ax=axes, label="WER on the development set (%)")
    axes.plot(alpha, beta, ".", color="black", markersize=3, alpha=0.5)
    axes.plot(best.alpha, best.beta, "o", color="#d1242f")
    axes.annotate(
        f"{100 * tuning.wer(best):.2f} %",
        (best.alpha, best.beta),
        textcoords="offset points",
        xytext=(0, 8),
        ha="center",
        color="black",
        fontweight="bold",
    )
    axes.set(xlabel="alpha (weight of the language model)", ylabel="beta (bonus per word)", title=title)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
