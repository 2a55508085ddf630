"""Greedy decoding against a frame-by-frame reading of CTC's collapse rule; the check on emissions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import GreedyDecoder
from asr.decoding.interface import EmissionError, check_emissions
from asr.types import AsrError

LABELS = ["", " ", "a", "b", "c"]
FRAME_SECONDS = 0.04


class Letters:
    """A character tokenizer, the blank first, small enough to see through."""

    labels = LABELS
    vocab_size = len(LABELS)

    def decode(self, ids):
        return "".join(LABELS[i] for i in ids)

    def words(self, ids):
        found = []
        for spaces, group in itertools.groupby(enumerate(ids), key=lambda pair: LABELS[pair[1]] == " "):
            members = list(group)
            if not spaces:
                text = "".join(LABELS[i] for _, i in members)
                found.append((text, members[0][0], members[-1][0] + 1))
        return found


def emissions(path, probability=0.9):
    """Log-probabilities with the best path `path`, its labels having `probability` (one, or one per frame)."""
    path = np.asarray(path)
    best = np.broadcast_to(np.asarray(probability, dtype=np.float64), path.shape)
    array = np.repeat(((1 - best) / (len(LABELS) - 1))[:, None], len(LABELS), axis=1)
    array[np.arange(len(path)), path] = best
    return np.log(array).astype(np.float32)


def spell(text):
    return [LABELS.index(symbol) if symbol != "-" else 0 for symbol in text]


def decode(text, probability=0.9):
    [hypothesis] = GreedyDecoder(Letters(), FRAME_SECONDS).decode(emissions(spell(text), probability))
    return hypothesis


def collapse(path):
    """CTC's rule, frame by frame: a label counts where it differs from the frame before and is not blank."""
    return [label for before, label in itertools.pairwise([0, *path]) if label not in (0, before)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(LABELS) - 1), min_size=1, max_size=30))
def test_text_and_first_frames_follow_the_collapse_rule(path):
    decoder = GreedyDecoder(Letters(), FRAME_SECONDS)
    [hypothesis] = decoder.decode(emissions(path))
    assert hypothesis.text == Letters().decode(collapse(path))
    begins = [t for t, (before, label) in enumerate(itertools.pairwise([0, *path])) if label not in (0, before)]
    assert [round(word.start / FRAME_SECONDS) for word in hypothesis.words] == [
        begins[first] for _, first, _ in Letters().words(collapse(path))
    ]
    assert [word.word for word in hypothesis.words] == hypothesis.text.split()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(LABELS) - 1), st.floats(0.3, 0.99)), min_size=1, max_size=30),
)
def test_word_times_increase_and_confidences_are_probabilities(frames):
    path, probabilities = zip(*frames, strict=True)
    log_probs = emissions(path, probabilities)
    [hypothesis] = GreedyDecoder(Letters(), FRAME_SECONDS).decode(log_probs)
    before = 0.0
    for word in hypothesis.words:
        assert before <= word.start < word.end <= len(path) * FRAME_SECONDS + 1e-9
        assert 0.0 <= word.confidence <= 1.0
        before = word.end
    assert hypothesis.score == hypothesis.acoustic_score == pytest.approx(log_probs.max(axis=1).sum(), abs=1e-3)


def test_words_begin_at_their_first_peak_and_end_after_their_last():
    hypothesis = decode("--ab- -cc-")
    assert hypothesis.text == "ab c"
    first, second = hypothesis.words
    assert (first.start, first.end) == pytest.approx((2 * FRAME_SECONDS, 4 * FRAME_SECONDS))
    assert (second.start, second.end) == pytest.approx((7 * FRAME_SECONDS, 9 * FRAME_SECONDS))


def test_a_letter_is_doubled_only_across_a_blank():
    assert decode("aa-a-aab").text == "aaab"


def test_confidence_is_that_of_the_most_doubtful_letter_at_its_peak():
    probability = [0.9, 0.5, 0.6, 0.9, 0.9, 0.7]
    hypothesis = decode("abb-- c"[:6], probability)
    assert hypothesis.words[0].confidence == pytest.approx(0.6, abs=1e-4)
    assert decode("a bb-c", probability).words[0].confidence == pytest.approx(0.9, abs=1e-4)


def test_only_blanks_and_only_spaces_give_no_words():
    for text in ("----", "    "):
        hypothesis = decode(text)
        assert hypothesis.words == ()
        assert hypothesis.text.strip() == ""


def test_a_torch_tensor_decodes_as_its_numpy_array():
    array = emissions(spell("a-b c"))
    decoder = GreedyDecoder(Letters(), FRAME_SECONDS)
    assert decoder.decode(torch.from_numpy(array).requires_grad_()) == decoder.decode(array)


def test_emissions_in_half_precision_are_accepted():
    array = emissions(spell("a-b c"))
    for other in (array.astype(np.float16), array.astype(np.float64), torch.from_numpy(array).bfloat16()):
        checked = check_emissions(other, len(LABELS))
        assert checked.dtype == np.float32
        assert checked.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 5), dtype=np.float32), "no frames"),
        (np.zeros(5, dtype=np.float32), r"expected shape \(time, vocab\), found \(5,\)"),
        (np.zeros((1, 3, 5), dtype=np.float32), "one by one"),
        (np.zeros((3, 5), dtype=np.int64), "floating-point"),
        (np.log(np.full((3, 4), 0.25)), "4 columns but 5 labels"),
        (np.full((3, 5), np.nan), "nan at frame 0"),
        (np.where(np.arange(15).reshape(3, 5) == 7, -np.inf, np.log(0.2)), "-inf at frame 1, label 2"),
        (np.full((3, 5), 0.2), "pass their natural logarithm"),
        (np.full((3, 5), 4.0), "log_softmax"),
        (np.full((3, 5), -9.0), "log_softmax"),
    ],
)
def test_what_is_no_emission_is_refused_with_the_reason(array, message):
    with pytest.raises(EmissionError, match=message) as failure:
        GreedyDecoder(Letters(), FRAME_SECONDS).decode(array)
    assert isinstance(failure.value, AsrError)
    assert isinstance(failure.value, ValueError)
    assert "\n" not in str(failure.value)
