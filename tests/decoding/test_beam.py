"""The beam search against brute force over all alignments: with and without LM, lexicon, hotwords; both alphabets."""

from __future__ import annotations

import random

import numpy as np
import pytest
from beam_oracle import arpa, emissions, hotword_part, language_part, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.beam.search import BeamSearch, Pruning
from asr.lm.ngram import NGramLM

CHARACTERS = ["", " ", "a", "b"]
PIECES = ["", "\u2581", "a", "\u2581a", "b", "\u2581ba", "ab"]
WORDS = ["", "\u2581a", "\u2581b", "\u2581ba"]
EXACT = {"beam_width": 20000, "nbest": 100000, "pruning": Pruning.nothing()}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "tiny.arpa"
    path.write_text(arpa(random.Random(3), ["a", "ab", "b", "bab", "abb"]), encoding="utf-8")
    return NGramLM.read(path)


def least_score(lm):
    return float(lm.arrays.unigram["logp"][3:].min())


def assert_equal_to(hypotheses, expected):
    assert sorted(h.text for h in hypotheses) == sorted(expected)
    for hypothesis in hypotheses:
        score, language = expected[hypothesis.text]
        assert hypothesis.score == pytest.approx(score, abs=1e-4)
        assert hypothesis.lm_score == pytest.approx(language, abs=1e-4)
        assert hypothesis.acoustic_score == pytest.approx(score - language, abs=1e-4)
        assert " ".join(word.word for word in hypothesis.words) == hypothesis.text
    scores = [h.score for h in hypotheses]
    assert scores == sorted(scores, reverse=True)


problems = st.tuples(
    st.integers(0, 2**32 - 1), st.sampled_from([CHARACTERS, PIECES, WORDS]), st.integers(1, 4), st.floats(0.5, 4.0)
)


def make(problem):
    seed, labels, frames, sharpness = problem
    return labels, emissions(np.random.default_rng(seed), frames, len(labels), sharpness)


@settings(max_examples=60, deadline=None)
@given(problems)
def test_without_a_language_model_every_text_has_the_sum_of_its_alignments(problem):
    labels, log_probs = make(problem)
    found = BeamSearch(labels, **EXACT).decode(log_probs)
    assert_equal_to(found, {text: (score, 0.0) for text, score in texts(labels, log_probs).items()})


@settings(max_examples=60, deadline=None)
@given(problems, st.floats(0.0, 2.0), st.floats(-1.0, 2.0), st.sampled_from(["allow", "penalize", "forbid"]))
def test_with_a_language_model(lm, problem, alpha, beta, oov):
    labels, log_probs = make(problem)
    search = BeamSearch(
        labels, lm, alpha=alpha, beta=beta, oov=oov, unk_score_offset=-0.5, unk_char_score=-0.7, **EXACT
    )
    offset, per_character = (-0.5, -0.7) if oov == "penalize" else (0.0, 0.0)
    expected = {}
    for text, score in texts(labels, log_probs).items():
        if oov == "forbid" and any(word not in lm for word in text.split()):
            continue
        part = language_part(text, lm, alpha, beta, lm, offset, per_character, least_score(lm))
        expected[text] = (score + part, part)
    assert_equal_to(search.decode(log_probs), expected)


@settings(max_examples=40, deadline=None)
@given(problems, st.sets(st.sampled_from(["a", "b", "ab", "ba", "aab", "abab", "bb"]), min_size=1), st.booleans())
def test_with_a_lexicon(lm, problem, words, scored):
    labels, log_probs = make(problem)
    model = lm if scored else None
    search = BeamSearch(labels, model, alpha=0.7, beta=0.3, lexicon=sorted(words), **EXACT)
    expected = {}
    for text, score in texts(labels, log_probs).items():
        if words.issuperset(text.split()):
            part = language_part(text, model, 0.7, 0.3, words, least=least_score(lm))
            expected[text] = (score + part, part)
    assert_equal_to(search.decode(log_probs), expected)


phrases = st.dictionaries(
    st.sampled_from(["a", "b", "ab", "a b", "b a", "bb", "aba", "ab a", "a a", "b b a"]),
    st.floats(-2.0, 6.0),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(problems, phrases, st.booleans())
def test_with_hotwords(lm, problem, hotwords, scored):
    labels, log_probs = make(problem)
    model = lm if scored else None
    search = BeamSearch(labels, model, alpha=0.5, beta=0.4, hotwords=hotwords, unk_char_score=-0.7, **EXACT)
    known = {*lm.words, *" ".join(hotwords).split()}  # hotwords are words, whatever the language model says
    expected = {}
    for text, score in texts(labels, log_probs).items():
        part = language_part(text, model, 0.5, 0.4, known, 0.0, -0.7, least_score(lm))
        part += hotword_part(text, hotwords)
        expected[text] = (score + part, part)
    assert_equal_to(search.decode(log_probs), expected)
