"""Points of time and word error rate of the decoders that benchmarks/decoders.py compares, each over its settings."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.decoding.backends import FlashlightDecoder, PyctcdecodeDecoder
from asr.decoding.beam.search import BeamSearch, Pruning
from asr.scoring.edits import score

BLANK_SKIP = Pruning().blank_skip


@dataclass(frozen=True)
class Problem:
    """Utterances with references, and the language model that all decoders use."""

    name: str
    labels: list[str]
    references: list[str]
    arrays: list[np.ndarray]
    lm: Path
    alpha: float
    beta: float

    @property
    def frames(self) -> int:
        return sum(map(len, self.arrays))

    def describe(self) -> dict[str, Any]:
        """Its size and difficulty."""
        rows = np.concatenate(self.arrays)
        greedy = ["".join(self.labels[c] for c, _ in itertools.groupby(a.argmax(axis=1).tolist())) for a in self.arrays]
        return {
            "frames": self.frames,
            "utterances": len(self.references),
            "words": sum(len(text.split()) for text in self.references),
            "labels": len(self.labels),
            "blank_above_0.999": round(float((rows[:, 0] > np.log(BLANK_SKIP)).mean()), 4),
            "greedy_wer": round(score(self.references, [" ".join(t.split()) for t in greedy]).rate, 4),
        }


@dataclass(frozen=True)
class Point:
    """A setting of a decoder: word error rate, and CPU microseconds per frame; `whole` makes the whole calls."""

    decoder: str
    setting: str
    wer: float
    search: float
    whole: Callable[[], Any]
    call: float = float("inf")  # measured only where it matters


def cpu(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least CPU seconds of `work` over its repeats, and its result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        begun = time.process_time()
        result = work()
        best = min(best, time.process_time() - begun)
    return best, result


def ours(problem: Problem, search: BeamSearch, repeats: int, quick: bool) -> Iterable[Point]:
    """Our points."""
    widths = (5, 20, 50) if quick else (3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 50, 100, 200)
    least = (-3.5, -5.0) if quick else (-2.5, -3.5, -5.0, -7.0)
    for width, label, keep in itertools.product(widths, least, (8.0,) if quick else (4.0, 6.0, 8.0, 10.0, 14.0)):
        if width >= 50 and keep < 8.0:
            continue  # such a beam is never full
        setting = Pruning(label=label, score=keep)
        decoder = search.reweighted(beam_width=width, pruning=setting)
        bare = decoder.reweighted(times=False)

        def search_only(bare: BeamSearch = bare) -> list[str]:
            return [found[0].text for found in bare.decode_many(problem.arrays, jobs=1)]

        def whole(decoder: BeamSearch = decoder) -> Any:
            return decoder.decode_many(problem.arrays, jobs=1)

        bare.decode(problem.arrays[0])
        decoder.decode(problem.arrays[0])
        seconds, found = cpu(search_only, repeats)
        yield _point(problem, "ours", f"width {width}, label {label:g}, score {keep:g}", found, seconds, whole)


def flashlight(problem: Problem, words: Sequence[str], dropped: bool, repeats: int, quick: bool) -> Iterable[Point]:
    """flashlight's points, at its best: beam, labels per frame, threshold, sum or maximum of alignments."""
    import torch
    from flashlight.lib.text.decoder import LexiconDecoder

    torch.set_num_threads(1)
    ending = np.full((1, len(problem.labels)), -30.0, np.float32)
    ending[0, problem.labels.index(" ")] = 0.0
    arrays = [_without_blanks(a) if dropped else a for a in problem.arrays]
    tensors = [torch.from_numpy(np.concatenate((a, ending))[None]) for a in arrays]
    name = "flashlight, blanks dropped" if dropped else "flashlight"
    widths, most_labels = ((5, 20), (4,)) if quick else ((3, 5, 8, 12, 20, 35, 60), (2, 3, 4, 6))
    thresholds = (9.0,) if quick else (5.0, 7.0, 9.0, 12.0, 16.0)
    grid = itertools.product(widths, most_labels, thresholds, (False,) if quick else (False, True))
    decoder: Any = FlashlightDecoder(problem.labels, problem.lm, lm_words=words)._decoder
    trie = _trie(decoder, words)
    blank, unknown = decoder.blank, decoder.word_dict.get_index("<unk>")
    for width, most, threshold, add in grid:
        options = _flashlight_options(problem, width, most, threshold, add)
        separator = decoder.tokens_dict.get_index("<space>")
        inner = LexiconDecoder(options, trie, decoder.lm, separator, blank, unknown, [], False)

        def search_only(inner: Any = inner) -> list[Any]:
            return [inner.decode(t.data_ptr(), t.shape[1], t.shape[2])[0] for t in tensors]

        def whole(inner: Any = inner) -> Any:
            decoder.decoder = inner
            return [decoder(t) for t in tensors]

        seconds, spoken = cpu(search_only, repeats)
        found = [" ".join(decoder.word_dict.get_entry(w) for w in best.words if w >= 0) for best in spoken]
        label = f"beam {width}, labels {most}, threshold {threshold:g}{', sum' if add else ''}"
        yield _point(problem, name, label, found, seconds, whole)


def pyctcdecode(problem: Problem, words: Sequence[str], share: float, quick: bool) -> Iterable[Point]:
    """pyctcdecode's points, on a share of the utterances."""
    count = part_of(problem, share)
    part = Problem(
        problem.name,
        problem.labels,
        problem.references[:count],
        problem.arrays[:count],
        problem.lm,
        problem.alpha,
        problem.beta,
    )
    decoder = PyctcdecodeDecoder(part.labels, part.lm, lm_words=words, alpha=part.alpha, beta=part.beta)
    widths = (15,) if quick else (5, 15, 50, 150)
    least, scores = ((-5.0,), (10.0,)) if quick else ((-3.0, -5.0, -7.0), (6.0, 10.0, 15.0))
    for width, label, keep in itertools.product(widths, least, scores):
        inner = decoder._decoder

        def decode(width: int = width, label: float = label, keep: float = keep, inner: Any = inner) -> list[str]:
            return [
                inner.decode_beams(a, beam_width=width, token_min_logp=label, beam_prune_logp=-keep)[0][0]
                for a in part.arrays
            ]

        seconds, found = cpu(decode, 1)
        setting = f"width {width}, label {label:g}, score {keep:g} ({count} utterances)"
        yield _point(part, "pyctcdecode", setting, found, seconds, decode)


def _flashlight_options(problem: Problem, width: int, most: int, threshold: float, add: bool) -> Any:
    from flashlight.lib.text.decoder import CriterionType, LexiconDecoderOptions

    return LexiconDecoderOptions(
        beam_size=width,
        beam_size_token=min(most, len(problem.labels)),
        beam_threshold=threshold,
        lm_weight=problem.alpha * float(np.log(10.0)),
        word_score=problem.beta,
        unk_score=-float("inf"),
        sil_score=0.0,
        log_add=add,
        criterion_type=CriterionType.CTC,
    )


def _trie(decoder: Any, words: Sequence[str]) -> Any:
    """The words with their unigram scores smeared over the tree, as torchaudio builds it."""
    from flashlight.lib.text.decoder import SmearingMode, Trie

    separator = decoder.tokens_dict.get_index("<space>")
    trie = Trie(decoder.tokens_dict.index_size(), separator)
    start = decoder.lm.start(False)
    for word in words:
        index = decoder.word_dict.get_index(word)
        spelling = [*(decoder.tokens_dict.get_index(letter) for letter in word), separator]
        trie.insert(spelling, index, decoder.lm.score(start, index)[1])
    trie.smear(SmearingMode.MAX)
    return trie


def _without_blanks(array: np.ndarray) -> np.ndarray:
    """Without the frames that our search skips; of a run of them the first is kept."""
    blank = array[:, 0] > np.log(BLANK_SKIP)
    keep = np.ones(len(array), bool)
    keep[1:] = ~(blank[1:] & blank[:-1])
    return np.ascontiguousarray(array[keep])


def _point(
    problem: Problem, decoder: str, setting: str, found: Sequence[str], seconds: float, whole: Callable[[], Any]
) -> Point:
    rate = score(problem.references, [" ".join(text.split()) for text in found]).rate
    return Point(decoder, setting, rate, seconds / problem.frames * 1e6, whole)


def part_of(problem: Problem, share: float) -> int:
    """How many utterances a share of them is: at least five."""
    return max(5, round(len(problem.arrays) * share))
