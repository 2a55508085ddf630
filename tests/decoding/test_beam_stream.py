"""The beam search in pieces and in bulk: streams, threads, memory, long utterances, skipped blanks, bad input."""

from __future__ import annotations

import gc
import itertools
import random
import tracemalloc

import numpy as np
import pytest
from beam_oracle import arpa, emissions
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.beam.search import BeamSearch, Pruning
from asr.decoding.interface import EmissionError
from asr.lm.ngram import NGramLM
from asr.types import AsrError, UsageError

CHARACTERS = ["", " ", "a", "b", "c"]
PIECES = ["", "\u2581", "a", "\u2581a", "b", "\u2581ba", "ab", "c", "\u2581c"]
WORDS = ["a", "ab", "b", "bab", "abb", "cab", "ca", "acb"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "tiny.arpa"
    path.write_text(arpa(random.Random(3), WORDS), encoding="utf-8")
    return NGramLM.read(path)


@pytest.fixture(scope="module")
def searches(lm):
    made = {}
    for name, labels in (("characters", CHARACTERS), ("pieces", PIECES)):
        common = {"beam_width": 12, "nbest": 3, "pruning": Pruning(blank_skip=0.9)}
        made[name, "free"] = BeamSearch(labels, **common)
        made[name, "lm"] = BeamSearch(labels, lm, alpha=0.6, beta=0.5, hotwords=["ab c", "ca"], **common)
        made[name, "lexicon"] = BeamSearch(labels, lm, oov="forbid", **common)
    return made


def blanky(rng, frames, width, sharpness=3.0):
    """Emissions with runs of blanks that are skipped."""
    scores = rng.standard_normal((frames, width)) * sharpness
    scores[rng.random(frames) < 0.5, 0] += 12.0
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def assert_same(found, expected):
    assert [h.text for h in found] == [h.text for h in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-9)
        assert one.words == other.words


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 5))
def test_a_stream_ends_in_the_hypotheses_of_one_shot(searches, seed, frames, cuts, which):
    search = list(searches.values())[which]
    log_probs = blanky(np.random.default_rng(seed), frames, len(search.alphabet.labels))
    bounds = sorted({0, frames, *(cut for cut in cuts if cut < frames)})
    stream = search.stream()
    stable = []
    for begin, end in itertools.pairwise(bounds):
        stream.feed(log_probs[begin:end])
        stable.append(stream.stable())
        assert f"{stream.best().text} ".startswith(stable[-1])
    final = stream.finish(nbest=3)
    assert_same(final, search.decode(log_probs))
    for text in stable:  # what was said to be stable stays
        assert f"{final[0].text} ".startswith(f"{text} ") or not text
    with pytest.raises(AsrError, match="finished"):
        stream.feed(log_probs)


def test_a_stream_shows_the_word_that_has_begun():
    search = BeamSearch(CHARACTERS)
    labels = {"-": 0, " ": 1, "a": 2, "b": 3, "c": 4}

    def feed(text):
        scores = np.full((len(text), 5), -8.0)
        scores[range(len(text)), [labels[c] for c in text]] = 0.0
        stream.feed((scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32))

    stream = search.stream()
    assert stream.best().text == ""
    feed("ab -c")
    assert stream.best().text == "ab c"
    feed("-b")
    assert stream.best().text == "ab cb"
    assert [word.word for word in stream.best().words] == ["ab", "cb"]
    assert stream.finish()[0].text == "ab cb"


@pytest.mark.parametrize("alphabet", ["characters", "pieces"])
def test_threads_give_what_one_gives(searches, alphabet):
    search = searches[alphabet, "lm"]
    rng = np.random.default_rng(4)
    many = [blanky(rng, int(rng.integers(1, 50)), len(search.alphabet.labels)) for _ in range(40)]
    alone = [search.decode(log_probs) for log_probs in many]
    for together in (search.decode_many(many, jobs=1), search.decode_many(many, jobs=3)):
        for one, other in zip(together, alone, strict=True):
            assert_same(one, other)
    many[7] = np.full((3, len(search.alphabet.labels)), np.nan, np.float32)
    results = search.decode_many([*many, AsrError("earlier")], jobs=2, errors_as_values=True)
    assert isinstance(results[7], EmissionError)
    assert str(results[-1]) == "earlier"
    assert_same(results[8], alone[8])
    with pytest.raises(EmissionError):
        search.decode_many(many, jobs=2)


@pytest.mark.parametrize(("alphabet", "utterance_count"), [("characters", 10_000), ("pieces", 6_000)])
def test_memory_does_not_grow_over_utterances(searches, alphabet, utterance_count):
    search = searches[alphabet, "lm"]
    rng = np.random.default_rng(1)
    utterances = [blanky(rng, 12, len(search.alphabet.labels)) for _ in range(20)]

    def held_after(count):
        for i in range(count):
            search.decode(utterances[i % len(utterances)])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        held = [held_after(utterance_count // 4) for _ in range(4)]
    finally:
        tracemalloc.stop()
    # A leak grows in every round; what other threads of this process allocate comes and goes.
    assert min(after - before for before, after in itertools.pairwise(held)) < 15_000


@pytest.mark.parametrize("alphabet", ["characters", "pieces"])
@pytest.mark.parametrize("kind", ["free", "lm"])
def test_long_utterances_outgrow_the_trace_without_loss(searches, alphabet, kind):
    search = searches[alphabet, kind]
    width = len(search.alphabet.labels)
    rng = np.random.default_rng(2)
    log_probs = blanky(rng, 12_000, width, sharpness=4.0)
    [best, *_] = search.decode(log_probs)
    stream = search.stream()
    for begin in range(0, len(log_probs), 500):
        stream.feed(log_probs[begin : begin + 500])
    [again] = stream.finish()
    assert again.text == best.text
    words = best.words
    assert len(words) > 500
    assert " ".join(word.word for word in words) == best.text
    assert all(0.0 <= word.confidence <= 1.0 and word.start < word.end for word in words)
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(words))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60))
def test_frames_that_are_all_but_blank_are_skipped_within_a_tolerance(seed, frames):
    rng = np.random.default_rng(seed)
    log_probs = blanky(rng, frames, 5)
    log_probs[np.exp(log_probs[:, 0]) > 0.5] = np.log([0.9995, *[0.000125] * 4])
    exact = BeamSearch(CHARACTERS, beam_width=2000, pruning=Pruning.nothing()).decode(log_probs)[0]
    skipped = BeamSearch(CHARACTERS, beam_width=2000, pruning=Pruning.nothing()._replace(blank_skip=0.999))
    [hypothesis] = skipped.decode(log_probs)
    assert hypothesis.score == pytest.approx(exact.score, abs=frames * 1e-3 + 1e-3)


def test_half_precision_and_other_layouts_are_decoded_alike():
    log_probs = emissions(np.random.default_rng(0), 20, 5)
    search = BeamSearch(CHARACTERS)
    expected = search.decode(log_probs)
    frozen = log_probs.copy()
    frozen.setflags(write=False)
    for other in (log_probs.astype(np.float64), np.asfortranarray(log_probs), frozen):
        assert_same(search.decode(other), expected)
    assert search.decode(log_probs.astype(np.float16))[0].text


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 5), np.float32), "no frames"),
        (np.full((3, 5), np.nan, np.float32), "nan at frame 0"),
        (np.log(np.full((3, 4), 0.25, np.float32)), "4 columns but 5 labels"),
        (np.full((3, 5), 0.2, np.float32), "pass their natural logarithm"),
        (np.full((3, 5), 4.0, np.float32), "log_softmax"),
        (np.full((3, 5), -9.0, np.float32), "log_softmax"),
        (np.where(np.arange(15).reshape(3, 5) == 7, -np.inf, np.log(0.25)).astype(np.float32), "-inf at frame 1"),
    ],
)
def test_what_is_no_emission_is_refused_with_the_reason(array, message):
    search = BeamSearch(CHARACTERS)
    with pytest.raises(EmissionError, match=message):
        search.decode(array)
    assert search.decode(np.log(np.full((2, 5), 0.2, np.float32)))  # and the search goes on


def test_impossible_emissions_still_have_a_hypothesis(lm):
    log_probs = np.full((30, 5), -200.0, np.float32)
    log_probs[:, 4] = 0.0  # "c" alone is no word
    for oov, texts in (("forbid", {""}), ("penalize", {"c"})):
        [hypothesis] = BeamSearch(CHARACTERS, lm, oov=oov, beam_width=4).decode(log_probs)
        assert hypothesis.text in texts


def test_settings_that_cannot_be_are_refused(lm):
    for wrong in ({"beam_width": -1}, {"nbest": 0}, {"alpha": -1.0}, {"oov": "maybe"}, {"jobs": 0}):
        with pytest.raises(UsageError):
            BeamSearch(CHARACTERS, lm, **wrong)
    with pytest.raises(UsageError, match="needs the words"):
        BeamSearch(CHARACTERS, oov="forbid")


def test_weights_can_be_changed_without_building_anew(lm):
    log_probs = emissions(np.random.default_rng(5), 30, 5)
    search = BeamSearch(CHARACTERS, lm, alpha=0.2, beta=0.1)
    changed = search.reweighted(alpha=1.1, beta=-0.4, beam_width=9)
    made = BeamSearch(CHARACTERS, lm, alpha=1.1, beta=-0.4, beam_width=9)
    assert_same(changed.decode(log_probs), made.decode(log_probs))
    assert_same(search.decode(log_probs), BeamSearch(CHARACTERS, lm, alpha=0.2, beta=0.1).decode(log_probs))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from(["allow", "penalize", "forbid"]))
def test_pieces_of_one_character_are_decoded_as_characters(lm, seed, frames, oov):
    """Two searches that share little code: the same texts, scores and times where the labels mean the same."""
    log_probs = blanky(np.random.default_rng(seed), frames, len(CHARACTERS))
    common = {"alpha": 0.7, "beta": 0.4, "beam_width": 5000, "nbest": 5, "oov": oov, "hotwords": ["ab c"]}
    common["pruning"] = Pruning.nothing()
    pieces = ["", "\u2581", *CHARACTERS[2:]]
    found, expected = (BeamSearch(labels, lm, **common).decode(log_probs) for labels in (pieces, CHARACTERS))
    assert [h.text for h in found] == [h.text for h in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-9)
        assert one.lm_score == pytest.approx(other.lm_score, rel=1e-9, abs=1e-12)
        assert [word.word for word in one.words] == [word.word for word in other.words]
