"""Hotwords: recovered though the language model does not know them, given back when they fail, read from files."""

from __future__ import annotations

import random

import numpy as np
import pytest
from beam_oracle import arpa

from asr.decoding.beam.hotwords import read_hotwords
from asr.decoding.beam.search import BeamSearch
from asr.lm.ngram import NGramLM
from asr.types import UsageError

LABELS = ["", " ", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "words.arpa"
    path.write_text(arpa(random.Random(1), ["call", "the", "lady", "love", "lace", "is", "hear"]), encoding="utf-8")
    return NGramLM.read(path)


def heard(text, rivals, certainty=0.55):
    """Emissions of `text` where each letter competes with that of `rivals`; a blank after each."""
    rows = []
    for letter, rival in zip(text, rivals, strict=True):
        row = np.full(len(LABELS), 1e-4)
        row[LABELS.index(letter)] += certainty
        row[LABELS.index(rival)] += 1.0 - certainty
        rows += [row, np.where(np.arange(len(LABELS)) == 0, 0.99, 1e-4)]
    array = np.array(rows)
    return np.log(array / array.sum(axis=1, keepdims=True)).astype(np.float32)


def test_a_name_that_the_language_model_does_not_know_is_recovered(lm):
    log_probs = heard("call lada love", "call lady love", 0.4)
    plain = BeamSearch(LABELS, lm)
    assert plain.decode(log_probs)[0].text == "call lady love"
    for oov in ("penalize", "forbid"):
        search = BeamSearch(LABELS, lm, hotwords=["lada love"], hotword_weight=8.0, oov=oov)
        [best] = search.decode(log_probs)
        assert best.text == "call lada love"
        assert best.lm_score != 0.0
    assert search.unspellable_hotwords == ()


def test_a_hotword_that_is_not_there_changes_nothing(lm):
    log_probs = heard("call the lady", "call the lady")
    expected = BeamSearch(LABELS, lm).decode(log_probs)[0]
    found = BeamSearch(LABELS, lm, hotwords=["ladyship", "the law", "callthe"], hotword_weight=6.0).decode(log_probs)[0]
    assert found.text == expected.text
    assert found.score == pytest.approx(expected.score, abs=1e-4)


def test_hotwords_that_cannot_be_spelled_are_reported(lm):
    search = BeamSearch(LABELS, lm, hotwords=["ada", "Ada", "naïve art", " "])
    assert search.unspellable_hotwords == ("Ada", "naïve art", " ")
    with pytest.raises(UsageError, match="not a string"):
        BeamSearch(LABELS, lm, hotwords="ada")
    with pytest.raises(UsageError, match="weight"):
        BeamSearch(LABELS, lm, hotwords={"ada": float("nan")})


def test_a_thousand_hotwords_are_all_heeded(lm):
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 9))) for _ in range(1000)]
    search = BeamSearch(LABELS, lm, hotwords=words)
    for word in words[::97]:
        rival = word[:-1] + ("a" if word[-1] != "a" else "b")
        assert search.decode(heard(word, rival, 0.45))[0].text == word


def test_files_and_lists_of_hotwords_are_read(tmp_path):
    path = tmp_path / "hot.txt"
    path.write_text("\ufeffada lovelace\n\ncharles\t3.5\n", encoding="utf-8")
    assert read_hotwords(str(path), 9.0) == {"ada lovelace": 9.0, "charles": 3.5}
    assert read_hotwords("ada, love lace", 2.0) == {"ada": 2.0, "love lace": 2.0}
    path.write_text("ada\tmuch\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"hot\.txt:1: 'much' is not a weight"):
        read_hotwords(str(path), 9.0)
    with pytest.raises(UsageError, match="no such file"):
        read_hotwords(str(tmp_path / "missing.txt"), 1.0)
