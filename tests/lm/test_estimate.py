"""Kneser-Ney estimates against lmplz's own output, the definition, hand-computed numbers, and the sum 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_oracles import EXAMPLES, KneserNey, as_dict

from asr.lm.automaton import lm_step
from asr.lm.estimate import (
    Estimate,
    closed_form_discounts,
    count_ngrams,
    encode_corpus,
    estimate,
    ngram_words,
    pruning_thresholds,
)
from asr.lm.ngram import NGramLM, read_ngrams
from asr.lm.tables import LMError

TEXT = (EXAMPLES / "text.txt").read_text(encoding="utf-8").splitlines()
WORDS = st.sampled_from(["a", "b", "c", "d", "e"])
SENTENCES = st.lists(st.lists(WORDS, max_size=7).map(" ".join), min_size=1, max_size=25).filter(any)


def train(sentences: Sequence[str], order: int, **options: object) -> Estimate:
    return estimate(encode_corpus(sentences), order, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("example", "lines", "order", "options"),
    [
        ("trigram.arpa.gz", len(TEXT), 3, {}),
        ("pruned.arpa", len(TEXT), 4, {"prune": [0, 1]}),
        (
            "limited.arpa",
            len(TEXT),
            2,
            {"limit_vocabulary": (EXAMPLES / "vocabulary.txt").read_text(encoding="utf-8").split()},
        ),
        ("fallback.arpa", 3, 3, {}),
    ],
)
def test_probabilities_are_those_of_lmplz(example: str, lines: int, order: int, options: dict[str, object]) -> None:
    expected = as_dict(read_ngrams(EXAMPLES / example))
    found = as_dict(train(TEXT[:lines], order, **options).tables)
    assert found.keys() == expected.keys()
    for gram, numbers in expected.items():
        assert found[gram] == pytest.approx(numbers, abs=1e-5), gram


@settings(max_examples=40, deadline=None)
@given(SENTENCES, st.integers(1, 4))
def test_probabilities_are_those_of_the_definition(sentences: list[str], order: int) -> None:
    text = [*sentences, "last"]
    reference = KneserNey(text, order, (0.5, 1.0, 1.5))
    found = train(text, order)
    for k, discounts in enumerate(found.discounts, 1):
        assert discounts == pytest.approx(reference.discounts[k - 1][1:])
    lm = NGramLM.from_tables(found.tables)
    grams = as_dict(found.tables)
    for gram in grams:
        if gram != ("<s>",):
            assert grams[gram][0] == pytest.approx(reference.log10(gram[:-1], gram[-1]), abs=1e-5)
    sentence = "a b e last a c"
    history = ["<s>"]
    for word, (log10, _, _) in zip([*sentence.split(), "</s>"], lm.full_scores(sentence), strict=True):
        known = word if word in reference.vocabulary else "<unk>"
        context = tuple(history[-(order - 1) :]) if order > 1 else ()
        while context and (context not in grams or not any(g[:-1] == context for g in grams)):
            context = context[1:]  # never seen: no definition but that of the shorter one
        assert log10 == pytest.approx(reference.log10(context, known), abs=1e-5)
        history.append(known)


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(1, 4), st.sampled_from([[], [0, 1], [0, 0, 1], [1]]), st.booleans())
def test_probabilities_sum_to_one_after_every_history(
    sentences: list[str], order: int, prune: list[int], limited: bool
) -> None:
    options = {"limit_vocabulary": ["a", "b", "c"]} if limited else {}
    lm = NGramLM.from_tables(train(sentences, order, prune=prune[:order], **options).tables)
    words = [i for i in range(lm.vocab_size) if lm.words[i] != "<s>"]
    for state in range(len(lm.state_length)):
        total = sum(math.exp(lm_step(lm.arrays, state, word)[0]) for word in words)
        assert total == pytest.approx(1.0, abs=1e-5)


def test_a_bigram_model_computed_by_hand() -> None:
    # unigrams count what precedes them: a 1 (<s>), b 2 (a, c), c 1 (b), </s> 1 (b): five in all
    # p(b) = (2 - 1) / 5 + gamma / 5, gamma = (3 * 0.5 + 1 * 1) / 5 = 0.5, five words with <unk>
    # bigrams: <s> a 2, a b 2, b </s> 2, b c 1, c b 1: p(c | b) = (1 - 0.5) / 3 + (1 + 0.5) / 3 * p(c)
    found = as_dict(train(["a b", "a b c b"], 2).tables)
    p_b, p_c = 1 / 5 + 0.5 / 5, 0.5 / 5 + 0.5 / 5
    assert 10 ** found["b",][0] == pytest.approx(p_b)
    assert 10 ** found["c",][0] == pytest.approx(p_c)
    assert 10 ** found["<unk>",][0] == pytest.approx(0.1)
    assert 10 ** found["b", "c"][0] == pytest.approx(0.5 / 3 + 0.5 * p_c)
    assert 10 ** found["b",][1] == pytest.approx(0.5)
    assert 10 ** found["a", "b"][0] == pytest.approx((2 - 1) / 2 + 1 / 2 * p_b)
    assert 10 ** found["c",][1] == pytest.approx(0.5)
    assert found["<s>",][0] == 0.0
    assert found["</s>",][1] == 0.0


def test_discounts_of_counts_of_counts() -> None:
    # n = 100, 40, 20, 10: y = 100 / 180; D1 = 1 - 2y 40/100, D2 = 2 - 3y 20/40, D3 = 3 - 4y 10/20
    y = 100 / 180
    assert closed_form_discounts([100, 40, 20, 10]) == pytest.approx((1 - 0.8 * y, 2 - 1.5 * y, 3 - 2 * y))
    with pytest.raises(ValueError, match="none has count 3"):
        closed_form_discounts([10, 5, 0, 1])
    with pytest.raises(ValueError, match="D2 would be"):
        closed_form_discounts([10, 1, 50, 1])


def test_falling_back_names_the_order() -> None:
    said: list[str] = []
    found = train(["a b", "a c"], 2, fallback=(0.1, 0.2, 0.3), warn=said.append)
    assert found.fell_back == [1, 2]
    assert [message.split(" are ")[0] for message in said] == ["discounts for 1-grams", "discounts for 2-grams"]
    assert found.discounts == [(0.1, 0.2, 0.3)] * 2


def test_a_discount_of_zero_gives_a_large_number_not_infinity() -> None:
    # D2 of the bigrams is exactly 0, and "a" is followed by </s> twice and by nothing else
    result = train(["e", "d b d d b a", "b b a", "b e", "b e c", "d b e"], 2)
    assert result.discounts[1] == (0.5, 0.0, 3.0)
    assert as_dict(result.tables)["a",][1] == -100
    lm = NGramLM.from_tables(result.tables)
    assert lm.score("a b") < -99 and math.isfinite(lm.score("a b a c"))


def test_counts_of_a_text() -> None:
    corpus = encode_corpus(["a b <s> a", "", "b"])
    assert corpus.words == ["<unk>", "<s>", "</s>", "a", "b"]
    assert (corpus.sentences, corpus.skipped) == (3, 1)
    counts = count_ngrams(corpus, 3)
    spelled = [
        {
            " ".join(corpus.words[i] for i in gram): int(n)
            for gram, n in zip(ngram_words(counts, k, np.arange(len(own.count))), own.count, strict=True)
        }
        for k, own in enumerate(counts, 1)
    ]
    assert spelled[0] == {"<unk>": 0, "<s>": 0, "</s>": 3, "a": 2, "b": 2}
    assert spelled[1] == {"<s> </s>": 1, "<s> a": 1, "<s> b": 1, "a b": 1, "b a": 1, "a </s>": 1, "b </s>": 1}
    assert spelled[2] == {"<s> a b": 1, "a b a": 1, "b a </s>": 1, "<s> b </s>": 1}


def test_an_empty_text_and_bad_thresholds_are_refused() -> None:
    with pytest.raises(LMError, match="it has no words"):
        encode_corpus(["", " "])
    with pytest.raises(LMError, match="must not decrease"):
        pruning_thresholds([1, 0], 3)
    with pytest.raises(LMError, match="4 pruning thresholds"):
        pruning_thresholds([0, 0, 0, 1], 3)
    assert pruning_thresholds([0, 1], 4) == [0, 1, 1, 1]
