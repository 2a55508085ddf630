"""Utterances decoded together in one compiled call: the hypotheses of a stream, whatever fits into the call or not."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from beam_oracle import arpa
from hypothesis import given, settings
from hypothesis import strategies as st

import asr.decoding.beam.search as beam
import asr.decoding.beam.stream as stream
from asr.decoding.beam.search import BeamSearch, Pruning
from asr.decoding.interface import EmissionError
from asr.lm.ngram import NGramLM

LABELS = ["", " ", "a", "b", "c"]
WORDS = ["a", "ab", "b", "bab", "abb", "cab", "ca", "acb"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "tiny.arpa"
    path.write_text(arpa(random.Random(3), WORDS), encoding="utf-8")
    return NGramLM.read(path)


@pytest.fixture(scope="module")
def searches(lm):
    common = {"beam_width": 8, "pruning": Pruning(blank_skip=0.9)}
    return [
        BeamSearch(LABELS, **common),
        BeamSearch(LABELS, lm, alpha=0.6, beta=0.5, hotwords=["ab c", "ca"], **common),
        BeamSearch(LABELS, lm, oov="forbid", **common),
    ]


def blanky(rng, frames):
    scores = rng.standard_normal((frames, len(LABELS))) * 3.0
    scores[rng.random(frames) < 0.5, 0] += 12.0
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def streamed(search, log_probs):
    stream = search.stream()
    stream.feed(log_probs)
    return stream.finish()


def check(search, many):
    for found, log_probs in zip(search.decode_many(many, jobs=1), many, strict=True):
        (expected,) = streamed(search, log_probs)
        (best,) = found
        assert best.text == expected.text
        assert best.words == expected.words
        assert best.score == pytest.approx(expected.score, rel=1e-9)
        assert best.lm_score == pytest.approx(expected.lm_score, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(0, 2))
def test_a_batch_is_decoded_as_streams_are(searches, seed, lengths, which):
    rng = np.random.default_rng(seed)
    check(searches[which], [blanky(rng, frames) for frames in lengths])


@pytest.fixture
def fresh(lm):
    """`fresh()`: a search that has no workspace yet."""
    return lambda: BeamSearch(LABELS, lm, beam_width=8)


@pytest.mark.parametrize("room", [(2, 1), (40, 12), (400, 3)])
def test_texts_that_do_not_fit_are_given_room(fresh, room):
    search = fresh()
    workspace = search._take()
    workspace.make_room_for_text(*room)
    search._free.append(workspace)
    rng = np.random.default_rng(0)
    check(search, [blanky(rng, int(frames)) for frames in rng.integers(1, 80, size=20)])
    assert len(workspace.texts.symbols) > 2


def test_a_full_trace_is_left_to_a_stream(fresh, monkeypatch):
    monkeypatch.setattr(stream, "TRACE_RECORDS", 1)
    search = fresh()
    rng = np.random.default_rng(1)
    check(search, [blanky(rng, frames) for frames in (3, 700, 5, 900, 4)])


def test_long_utterances_are_left_to_a_stream(fresh, monkeypatch):
    monkeypatch.setattr(beam, "MOST_FRAMES", 10)
    rng = np.random.default_rng(2)
    check(fresh(), [blanky(rng, frames) for frames in (9, 10, 11, 40, 1)])


def test_arrays_of_every_kind(fresh):
    log_probs = blanky(np.random.default_rng(3), 30)
    frozen = log_probs.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(bytearray(b"\0" + log_probs.tobytes()), np.uint8)[1:].view(np.float32).reshape(30, -1)
    assert not unaligned.flags.aligned
    kinds = [
        log_probs,
        log_probs.astype(np.float64),
        np.asfortranarray(log_probs),
        np.repeat(log_probs, 2, axis=0)[::2],
        frozen,
        unaligned,
        log_probs.astype(">f4"),
        torch.from_numpy(log_probs),
    ]
    search = fresh()
    (expected,) = streamed(search, log_probs)
    for (found,) in search.decode_many(kinds, jobs=2):
        assert (found.text, found.words) == (expected.text, expected.words)


def test_one_that_is_none_does_not_harm_the_others(fresh):
    search = fresh()
    good = blanky(np.random.default_rng(4), 20)
    wrong = [good * 2, np.full_like(good, np.nan), good[:, :3], good[:0], np.exp(good)]
    found = search.decode_many([good, *wrong, good], jobs=1, errors_as_values=True)
    assert found[0] == found[-1] == search.decode(good)
    assert all(isinstance(error, EmissionError) for error in found[1:-1])
    with pytest.raises(EmissionError, match="sum to"):
        search.decode_many([good, *wrong], jobs=1)


def test_frames_that_can_only_be_blanks_change_no_probability():
    """Below the threshold labels are impossible; in a frame where the blank is best it is all that remains."""
    search = BeamSearch(["", "a"], pruning=Pruning(label=-3.0, blank_skip=1.0))
    exact = BeamSearch(["", "a"], pruning=Pruning.nothing())
    rows = np.log(np.array([[0.4, 0.6], [0.98, 0.02], [0.3, 0.7]]))
    with_blank = rows.copy()
    with_blank[1] = [np.log(0.98), -1e4]  # the same, the label impossible indeed
    total = np.logaddexp.reduce(with_blank, axis=1)
    expected = exact.decode((with_blank - total[:, None]).astype(np.float32))[0]
    found = search.decode(rows.astype(np.float32))[0]
    assert found.text == expected.text
    assert found.score == pytest.approx(expected.score + total.sum(), abs=1e-5)
    (sure,) = BeamSearch(["", "a"], pruning=Pruning(label=-0.1)).decode(np.log(np.float32([[0.45, 0.55]])))
    assert sure.text == "a"  # the best label stays where it is better than the blank
