"""Long pauses may end a sentence: the beam search against brute force, streams, batches, and where nothing changes."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict

import numpy as np
import pytest
from beam_oracle import arpa, emissions, language_part, pauses_of, texts, texts_with_pauses
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.beam import BeamSearch, Pruning
from asr.decoding.ngram import NGramLM

CHARACTERS = ["", " ", "a", "b"]
PIECES = ["", "\u2581", "a", "\u2581a", "b", "\u2581ba", "ab"]
EXACT = {"beam_width": 20000, "nbest": 100000, "pruning": Pruning.nothing()}
FRAME = 0.04


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "tiny.arpa"
    path.write_text(arpa(random.Random(3), ["a", "ab", "b", "bab", "abb"]), encoding="utf-8")
    return NGramLM.read(path)


def resting(seed, frames, labels, sharpness=2.0):
    """Emissions of which about half of the frames are quiet, some as a separator."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((frames, len(labels))) * sharpness
    quiet = rng.random(frames) < 0.5
    scores[quiet, 0] += 3.0
    scores[quiet & (rng.random(frames) < 0.3), 1] += 5.0
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


problems = st.tuples(
    st.integers(0, 2**32 - 1), st.sampled_from([(CHARACTERS, 6), (PIECES, 5)]), st.integers(1, 3), st.floats(0.5, 3.0)
)


@settings(max_examples=60, deadline=None)
@given(problems, st.floats(0.1, 2.0), st.floats(-1.0, 2.0), st.sampled_from(["allow", "penalise", "forbid"]))
def test_a_text_has_the_sum_of_its_alignments_each_with_its_pauses(lm, problem, alpha, beta, oov):
    seed, (labels, frames), least, sharpness = problem
    log_probs = resting(seed, frames, labels, sharpness)
    offset, per_character = (-0.5, -0.7) if oov == "penalise" else (0.0, 0.0)
    unknown = float(lm.arrays.unigram["logp"][3:].min())
    expected, parts = defaultdict(float), defaultdict(list)
    for (text, pauses), score in texts_with_pauses(labels, log_probs, pauses_of(log_probs, least)).items():
        if oov == "forbid" and any(word not in lm for word in text.split()):
            continue
        part = language_part(text, lm, alpha, beta, lm, offset, per_character, unknown, pauses)
        expected[text] += math.exp(score + part)
        parts[text].append(part)
    search = BeamSearch(
        labels,
        lm,
        alpha=alpha,
        beta=beta,
        oov=oov,
        unk_score_offset=-0.5,
        unk_char_score=-0.7,
        sentence_pause=least * FRAME,
        frame_seconds=FRAME,
        **EXACT,
    )
    found = search.decode(log_probs)
    assert sorted(h.text for h in found) == sorted(expected)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(math.log(expected[hypothesis.text]), abs=1e-4)
        assert min(abs(hypothesis.lm_score - part) for part in parts[hypothesis.text]) < 1e-4
        assert hypothesis.acoustic_score == pytest.approx(hypothesis.score - hypothesis.lm_score)
