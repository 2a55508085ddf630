"""Decoding with attention against enumerating all texts and all CTC alignments of tiny problems."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.decoding.attention import COVERED, AttentionSearch, Rescoring, in_loop
from asr.decoding.beam.search import BeamSearch, Pruning
from asr.decoding.ctc_prefix import PrefixScores
from asr.decoding.interface import Encoded
from asr.decoding.make import DecodingConfig
from asr.decoding.word_scores import WordScores
from asr.lm.ngram import NGramLM
from asr.model.config import DecoderConfig
from asr.model.decoder import AttentionDecoder
from asr.text.tokenizer import CharTokenizer
from asr.types import UsageError

TOKENIZER = CharTokenizer(["", " ", "a", "b"])
FRAMES, STATES = 4, 3
ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.2 <unk>
-99 <s> -0.3
-0.9 </s>
-0.5 a -0.2
-0.8 ab -0.1

\\2-grams:
-0.4 <s> ab
-0.3 ab a
-0.6 a </s>

\\end\\
"""


def decoder_of(seed: int = 0) -> AttentionDecoder:
    torch.manual_seed(seed)
    options = DecoderConfig(hidden_size=5, embedding_size=3, attention_size=4, location_width=3, dropout=0.0)
    decoder = AttentionDecoder(options, STATES, TOKENIZER.vocab_size).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(3.0)
    return decoder


def utterance(seed: int = 0, frames: int = FRAMES) -> Encoded:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((frames, TOKENIZER.vocab_size)) * 1.5
    log_probs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return Encoded(log_probs.astype(np.float32), rng.standard_normal((frames, STATES)).astype(np.float32))


def alignments(log_probs: np.ndarray) -> Iterator[tuple[tuple[int, ...], float]]:
    """The labels and the probability of every alignment."""
    frames, width = log_probs.shape
    for path in itertools.product(range(width), repeat=frames):
        labels = tuple(label for label, _ in itertools.groupby(path) if label)
        yield labels, math.exp(log_probs[np.arange(frames), path].astype(np.float64).sum())


def attention_of(decoder: AttentionDecoder, encoded: Encoded, tokens: tuple[int, ...]) -> tuple[float, int]:
    """ln P of tokens and their end, and how many frames are covered."""
    memory, state = decoder.start(torch.from_numpy(encoded.states)[None], torch.tensor([len(encoded.states)]))
    total = 0.0
    with torch.no_grad():
        for before, token in zip((0, *tokens), (*tokens, 0), strict=True):
            log_probs, state = decoder.step(torch.tensor([before]), state, memory)
            total += float(log_probs[0, token])
    return total, int((state.covered > COVERED).sum())


@pytest.mark.parametrize("seed", range(3))
def test_prefix_scores_sum_over_all_alignments(seed: int) -> None:
    log_probs = utterance(seed, frames=5).log_probs.astype(np.float64)
    log_probs -= np.logaddexp.reduce(log_probs, axis=1, keepdims=True)  # what rows do not sum to in float32
    prefixes, ends = defaultdict(float), defaultdict(float)
    for labels, probability in alignments(log_probs):
        ends[labels] += probability
        for length in range(len(labels) + 1):
            prefixes[labels[:length]] += probability
    scores = PrefixScores(log_probs)
    running: list[tuple[int, ...]] = [()]
    for _ in range(5):
        found = scores.next()
        for row, prefix in enumerate(running):
            wanted = [ends[prefix], *(prefixes[(*prefix, token)] for token in (1, 2, 3))]
            np.testing.assert_allclose(np.exp(found[row]), wanted, rtol=1e-9, atol=1e-300)
        chosen = [(row, token) for row in range(len(running)) for token in (3, 1, 2)]
        chosen = [(row, token) for row, token in chosen if prefixes[(*running[row], token)] > 0]
        running = [(*running[row], token) for row, token in chosen]
        scores.extend(*zip(*chosen, strict=True))


def enumerated(decoder: AttentionDecoder, encoded: Encoded, score: Any) -> dict[str, float]:
    """The best score of each text, over all token sequences of up to FRAMES tokens."""
    ctc = defaultdict(float)
    for labels, probability in alignments(encoded.log_probs):
        ctc[labels] += probability
    best: dict[str, float] = {}
    for length in range(FRAMES + 1):
        for tokens in itertools.product((1, 2, 3), repeat=length):
            likelihood, covered = attention_of(decoder, encoded, tokens)
            text = TOKENIZER.decode(tokens)
            ln_ctc = math.log(ctc[tokens]) if ctc[tokens] else -math.inf
            best[text] = max(best.get(text, -math.inf), score(tokens, likelihood, ln_ctc, covered))
    return best


@pytest.mark.parametrize(
    ("weight", "bonus", "coverage"), [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.3, 0.0, 0.0), (0.4, 0.7, 0.3)]
)
def test_a_wide_beam_finds_the_best_texts_of_all(weight: float, bonus: float, coverage: float) -> None:
    def score(tokens: tuple[int, ...], attention: float, ctc: float, covered: int) -> float:
        parts = [part for part in ((1 - weight, attention), (weight, ctc)) if part[0]]
        return sum(w * part for w, part in parts) + bonus * len(tokens) + coverage * covered

    for seed in range(2):
        decoder, encoded = decoder_of(seed), utterance(seed)
        options = {"length_bonus": bonus, "coverage": coverage, "beam_width": 1000, "nbest": 3}
        search = AttentionSearch(decoder, TOKENIZER, 0.04, ctc_weight=weight, **options)  # type: ignore[arg-type]
        found = search.decode(encoded)
        expected = sorted(enumerated(decoder, encoded, score).items(), key=lambda item: -item[1])[:3]
        assert [hypothesis.text for hypothesis in found] == [text for text, _ in expected]
        for hypothesis, (text, value) in zip(found, expected, strict=True):
            assert hypothesis.score == pytest.approx(value, abs=1e-4), text
        narrow = AttentionSearch(decoder, TOKENIZER, 0.04, ctc_weight=weight, beam_width=1).decode(encoded)
        assert len(narrow) == 1


def test_words_are_scored_as_the_language_model_scores_the_text(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text(ARPA)
    lm = NGramLM.read(tmp_path / "lm.arpa")
    alpha, beta = 0.8, 0.5

    def score(tokens: tuple[int, ...], attention: float, ctc: float, covered: int) -> float:
        text = TOKENIZER.decode(tokens)
        unknown = sum(len(word) for word in text.split() if word not in lm)
        words = alpha * lm.score(text) * math.log(10.0) + beta * len(text.split()) - 3.0 * unknown
        return 0.7 * attention + 0.3 * ctc + words

    for seed in range(2):
        decoder, encoded = decoder_of(seed), utterance(seed)
        words = WordScores(lm, TOKENIZER, alpha, beta)
        search = AttentionSearch(decoder, TOKENIZER, 0.04, ctc_weight=0.3, beam_width=1000, words=words)
        [found] = search.decode(encoded)
        text, value = max(enumerated(decoder, encoded, score).items(), key=lambda item: item[1])
        assert found.text == text and found.score == pytest.approx(value, abs=1e-4)
        assert found.lm_score == pytest.approx(found.score - found.acoustic_score, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_rescoring_ranks_the_search_s_hypotheses_by_both(weight: float) -> None:
    search = BeamSearch(TOKENIZER.labels, nbest=1, beam_width=100, pruning=Pruning.nothing(), frame_seconds=0.04)
    for seed in range(2):
        decoder, encoded = decoder_of(seed), utterance(seed)
        of_ctc = search.reweighted(nbest=50).decode(encoded.log_probs)
        scores = {}
        for hypothesis in of_ctc:
            likelihood, _ = attention_of(decoder, encoded, tuple(TOKENIZER.encode(hypothesis.text)))
            scores[hypothesis.text] = (1 - weight) * likelihood + weight * hypothesis.acoustic_score
        found = Rescoring(decoder, TOKENIZER, search, weight, nbest=3).decode(encoded)
        assert [h.text for h in found] == sorted(scores, key=lambda text: -scores[text])[:3]
        assert [h.score for h in found] == pytest.approx(sorted(scores.values(), reverse=True)[:3], abs=1e-4)
        times = {h.text: [(w.word, w.start, w.end) for w in h.words] for h in of_ctc}
        assert all(times[h.text] == [(w.word, w.start, w.end) for w in h.words] for h in found)
    if weight == 1.0:
        assert found[0].text == of_ctc[0].text


def test_no_frames_are_no_text_and_windows_are_joined_in_time() -> None:
    decoder = decoder_of()
    search = AttentionSearch(decoder, TOKENIZER, 0.5, ctc_weight=0.3, nbest=2)
    nothing = Encoded(np.zeros((0, 4), np.float32), np.zeros((0, STATES), np.float32))
    assert [h.text for h in search.decode(nothing)] == [""]
    parts = [utterance(seed, frames=6) for seed in range(3)]
    alone = [search.decode(part) for part in parts]
    stream = search.stream()
    for part in parts:
        stream.feed(Encoded(part.log_probs, part.states, before=2, after=1))
    found = stream.finish(2)
    assert found[0].text == " ".join(filter(None, (hypotheses[0].text for hypotheses in alone)))
    assert found[0].score == pytest.approx(sum(hypotheses[0].score for hypotheses in alone))
    assert found[1].score == pytest.approx(found[0].score - min(first.score - second.score for first, second in alone))
    shifted = [(w.start + 0.5 * (2 + 9 * i)) for i, hypotheses in enumerate(alone) for w in hypotheses[0].words]
    assert [w.start for w in found[0].words] == pytest.approx(shifted) and len(shifted) >= 2
    assert search.stream().finish()[0].text == ""


def test_a_decoder_that_repeats_itself_is_stopped() -> None:
    assert in_loop([3, 1, 1] + [2] * 12) and not in_loop([2] * 11) and not in_loop([1, 2, 3, 1, 2, 3, 1, 2, 3])
    assert in_loop([1, 2] * 6) and in_loop([9, *[1, 2, 3, 1] * 6]) and not in_loop([*[1, 2] * 6, 3])
    decoder = decoder_of()
    with torch.no_grad():
        decoder.output.bias.copy_(torch.tensor([-30.0, -30.0, 30.0, -30.0]))  # ever the same letter, never the end
    search = AttentionSearch(decoder, TOKENIZER, 0.04, aligned=False)
    [found] = search.decode(utterance(frames=400))
    assert len(found.text) <= 12 and not found.words


def test_options_that_do_not_go_together_are_refused() -> None:
    for options, message in (
        ({"decoder": "attention", "ctc_weight": 0.5}, "--ctc-weight has no effect with --decoder attention"),
        ({"decoder": "beam", "ctc_weight": 0.5}, "--ctc-weight has no effect with --decoder beam"),
        ({"decoder": "rescore", "coverage": 0.5}, "--coverage has no effect with --decoder rescore"),
        ({"decoder": "joint", "hotwords": "a"}, "--hotwords has no effect with --decoder joint"),
        ({"decoder": "joint", "ctc_weight": 1.5}, "--ctc-weight must lie between 0 and 1, found 1.5"),
    ):
        with pytest.raises(UsageError, match=message):
            DecodingConfig(**options).check()  # type: ignore[arg-type]
