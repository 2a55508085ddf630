"""Chooses the weights of a language model in the beam search by the word error rate on a development set.

The acoustic model runs once: its emissions are stored on disk, and every setting is tried on them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.audio.members import file_of
from asr.corpus.download import file_digest
from asr.corpus.manifest import Manifest
from asr.files import file_state, replacing, write_text
from asr.lm.files import Tuned, write_tuned
from asr.model.checkpoint import find_model
from asr.recognition.evaluation import recognize_manifest
from asr.scoring.edits import score
from asr.text.normalize import normalize
from asr.types import AsrError, Failure, Hypothesis, UsageError

if TYPE_CHECKING:
    from asr.decoding.beam.search import BeamSearch
    from asr.recognition.recognizer import Recognizer

ALPHAS, BETAS = (0.0, 3.0), (-1.0, 5.0)
COARSE = 7  # points per axis of the first grid
REFINEMENTS = 3  # times that the step is halved around the best point
WIDTHS = (8, 16, 32, 64, 128, 256)
_TEST_FILE = re.compile(r"test([^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Trial:
    """One setting and the word errors it makes on the development set."""

    alpha: float
    beta: float
    beam_width: int
    errors: int


@dataclass(frozen=True)
class Tuning:
    """All trials, in the order in which they ran, and the one chosen."""

    trials: tuple[Trial, ...]
    best: Trial
    reference_words: int
    utterances: int

    def wer(self, trial: Trial) -> float:
        return trial.errors / max(self.reference_words, 1)


def refuse_test_set(manifest: Manifest) -> None:
    """Raise UsageError if rows of a manifest belong to a test set: results on a set used for tuning mean nothing.

    What counts is the `split` of a row or, if it has none, the name of its file: test.jsonl, test-clean.jsonl.
    """
    advice = "tune on a development set, or the results on this test set mean nothing"
    named = next((path for path in manifest.path.split(", ") if _TEST_FILE.match(Path(path).name)), None)
    for utterance in manifest:
        if (utterance.split or "").lower().startswith("test"):
            raise UsageError(f"{manifest.path}: {utterance.id} belongs to the split '{utterance.split}': {advice}")
        if named and not utterance.split:
            raise UsageError(f"{named}: named like a test set, and {utterance.id} has no other 'split': {advice}")


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
) -> Tuning:
    """Search alpha and beta within bounds on a coarse grid, then on three finer ones around the best point so far.

    Among settings with equally few errors, the one nearest to their mean is chosen, because it is the least likely to
    be best by chance. If `beam_width` is None, the search runs at a width of 64; then, at the best alpha and beta, the
    second smallest of the widths with the fewest errors is chosen, because other utterances may need a little more.
    `references` are the texts as transcribed; `normalizer` is applied to both sides.
    """
    if len(emissions) == 0:
        raise AsrError("tuning: there are no utterances to decode")
    normalized = [normalize(text, normalizer) for text in references]
    if not any(normalized):
        raise AsrError("tuning: the references are empty")
    trials: dict[tuple[float, float, int], Trial] = {}

    def run(alpha: float, beta: float, width: int) -> Trial:
        key = (round(alpha, 4), round(beta, 4), width)
        if key not in trials:
            decoder = search.reweighted(alpha=key[0], beta=key[1], beam_width=width)
            texts = [normalize(best[0].text, normalizer) for best in decoder.decode_many(emissions, jobs)]
            trials[key] = Trial(*key, score(normalized, texts).counts.errors)
        return trials[key]

    width = beam_width or 64
    steps = [(high - low) / (COARSE - 1) for low, high in (alphas, betas)]
    for alpha, beta in product(np.linspace(*alphas, COARSE).tolist(), np.linspace(*betas, COARSE).tolist()):
        run(alpha, beta, width)
    for _ in range(REFINEMENTS):
        steps = [step / 2 for step in steps]
        center = _middle_of_best(list(trials.values()))
        for i, j in product((-1, 0, 1), repeat=2):
            alpha = min(max(center.alpha + i * steps[0], alphas[0]), alphas[1])
            beta = min(max(center.beta + j * steps[1], betas[0]), betas[1])
            run(alpha, beta, width)
    best = _middle_of_best(list(trials.values()))
    if beam_width is None:
        by_width = [run(best.alpha, best.beta, other) for other in WIDTHS]
        fewest = min(trial.errors for trial in by_width)
        best = [trial for trial in by_width if trial.errors == fewest][:2][-1]
    words = sum(len(text.split()) for text in normalized)
    return Tuning(tuple(trials.values()), best, words, len(normalized))


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
    on_result: Callable[[], object] = lambda: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Tuning:
    """Tune the language model file `lm` for a model and store the chosen weights beside it.

    The model's emissions are stored in `folder` and read from there the next time. Utterances whose audio cannot be
    read are left out, each with a warning. Raises UsageError for a manifest with test utterances.
    """
    from asr.decoding.beam.search import BeamSearch
    from asr.decoding.make import DecodingConfig, make_decoder

    refuse_test_set(manifest)
    recognizer.model_file.need_ctc("tuning")
    config = DecodingConfig(lm=lm, lexicon=lexicon)
    search = make_decoder(config, recognizer.tokenizer, recognizer.frame_seconds, warn)
    assert isinstance(search, BeamSearch)
    emissions, failures = cached_emissions(
        recognizer, model, manifest, folder, batch_seconds=batch_seconds, on_result=on_result
    )
    for name, error in failures.items():
        warn(f"{name}: {error}; left out")
    tuning = tune(
        search,
        [array for array in emissions if array is not None],
        [u.text for u, array in zip(manifest, emissions, strict=True) if array is not None],
        recognizer.normalizer,
        alphas=alphas,
        betas=betas,
        beam_width=beam_width,
        jobs=jobs,
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


class _Collector:
    """A decoder that collects emissions and returns the index of each as its text."""

    def __init__(self) -> None:
        self.emissions: list[np.ndarray] = []

    def decode(self, log_probs: np.ndarray) -> list[Hypothesis]:
        self.emissions.append(np.asarray(log_probs, dtype=np.float32))
        return [Hypothesis(text=str(len(self.emissions) - 1), score=0.0, acoustic_score=0.0)]


def cached_emissions(
    recognizer: Recognizer,
    model: str | Path,
    manifest: Manifest,
    folder: str | Path,
    *,
    batch_seconds: float | None = None,
    on_result: Callable[[], object] = lambda: None,
) -> tuple[list[np.ndarray | None], dict[str, str]]:
    """The emissions (time, vocab) of every utterance, None for those that cannot be recognized, and the errors by id.

    They are read from `folder` or else computed and stored there, again if the model file, the manifest's content or
    one of its audio files has changed. The arrays are views of one array, memory-mapped if it was read.
    """
    index, data = Path(folder) / "emissions.json", Path(folder) / "emissions.npy"
    audio = hashlib.sha256()  # of the states of all audio files, so that a corrected recording is noticed
    for path in sorted({file_of(utterance.audio_filepath) for utterance in manifest}):
        audio.update(json.dumps(file_state(Path(path)), sort_keys=True).encode())
    key = {"model": file_digest(find_model(model)), "manifest": manifest.sha256, "audio": audio.hexdigest()}
    try:
        stored = json.loads(index.read_text(encoding="utf-8"))
        joined = np.load(data, mmap_mode="r")
        if stored["key"] == key and len(joined) == sum(stored["frames"]):
            return _split(joined, stored["frames"]), stored["failures"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    index.unlink(missing_ok=True)  # first, so that an interrupted run leaves no index for the wrong data
    collector, decoder = _Collector(), recognizer.decoder
    recognizer.decoder = collector
    try:
        results = recognize_manifest(
            recognizer, manifest, batch_seconds=batch_seconds, on_result=lambda result: on_result()
        )
    finally:
        recognizer.decoder = decoder
    failures = {result.id: result.error for result in results if isinstance(result, Failure)}
    nothing = np.zeros((0, recognizer.tokenizer.vocab_size), np.float32)
    arrays = [nothing if isinstance(result, Failure) else collector.emissions[int(result.text)] for result in results]
    lengths = list(map(len, arrays))
    joined = np.concatenate([nothing, *arrays])
    with replacing(data) as partial, partial.open("wb") as file:
        np.save(file, joined)
    write_text(index, json.dumps({"key": key, "frames": lengths, "failures": failures}, ensure_ascii=False))
    return _split(joined, lengths), failures


def _split(joined: np.ndarray, lengths: Sequence[int]) -> list[np.ndarray | None]:
    ends = np.cumsum(lengths)
    return [joined[end - length : end] if length else None for end, length in zip(ends, lengths, strict=True)]


def table(tuning: Tuning, most: int = 10) -> str:
    """A table of the best settings, best first."""
    rows = sorted(tuning.trials, key=lambda trial: (trial.errors, trial is not tuning.best, trial.alpha, trial.beta))
    lines = ["alpha    beta  beam     WER  errors"]
    for trial in rows[:most]:
        setting = f"{trial.alpha:5.3f}  {trial.beta:6.3f}  {trial.beam_width:4d}"
        mark = "  chosen" if trial == tuning.best else ""
        lines.append(f"{setting}  {tuning.wer(trial):6.2%}  {trial.errors:6d}{mark}")
    return "\n".join(lines)


def write_tuning(tuning: Tuning, folder: Path, title: str) -> None:
    """Write every trial to trials.csv, and a plot of the word error rates over alpha and beta to surface.png."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["alpha", "beta", "beam_width", "errors", "wer"])
    for trial in tuning.trials:
        writer.writerow([trial.alpha, trial.beta, trial.beam_width, trial.errors, f"{tuning.wer(trial):.5f}"])
    write_text(folder / "trials.csv", text.getvalue())
    _draw_surface(tuning, folder / "surface.png", title)


def _draw_surface(tuning: Tuning, path: Path, title: str) -> None:
    """Plot the response surface of the word error rate, the trials on it and the chosen one, to a PNG."""
    from matplotlib.figure import Figure

    width = tuning.trials[0].beam_width
    trials = [trial for trial in tuning.trials if trial.beam_width == width]
    alpha, beta = (np.array([getattr(trial, name) for trial in trials]) for name in ("alpha", "beta"))
    rates = 100 * np.array([tuning.wer(trial) for trial in trials])
    best = tuning.best
    shown = np.minimum(rates, max(2 * rates.min(), rates.min() + 5.0))  # or the far corners would hide the valley
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.subplots()
    if np.ptp(shown) > 0:
        filled: Any = axes.tricontourf(alpha, beta, shown, levels=14, cmap="viridis_r")
        figure.colorbar(filled, ax=axes, label="WER on the development set (%)")
    axes.plot(alpha, beta, ".", color="black", markersize=3, alpha=0.5)
    axes.plot(best.alpha, best.beta, "o", color="#d1242f")
    place: dict[str, Any] = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
    axes.annotate(f"{100 * tuning.wer(best):.2f} %", (best.alpha, best.beta), **place, fontweight="bold")
    axes.set(xlabel="alpha (weight of the language model)", ylabel="beta (bonus per word)", title=title)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
