"""Scores of the automaton against the definition of back-off and against KenLM; words, states, tuned weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_oracles import EXAMPLES, as_dict, back_off_score, sentence_score

from asr.lm.arpa import write_arpa
from asr.lm.automaton import lm_step
from asr.lm.estimate import encode_corpus, estimate
from asr.lm.files import Tuned, write_tuned
from asr.lm.ngram import NGramLM, check_lm, perplexity, spelled_share, token_level
from asr.lm.tables import LMError, NGramTable, NGramTables, with_case

WORDS = ["a", "b", "c", "d", "e"]
SENTENCES = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), min_size=1, max_size=20).filter(any)
QUERIES = ["", "a", "a b c d e a b", "e e e", "x a b", "a x x b c", "d c b a e d c"]


@st.composite
def models(draw: st.DrawFn) -> NGramTables:
    """Models of random text of which some of the longer n-grams are taken out, as pruning does."""
    tables = estimate(encode_corpus(draw(SENTENCES)), draw(st.integers(1, 4))).tables
    share = draw(st.sampled_from([1.0, 0.7, 0.4]))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    kept = [tables.tables[0]]
    for table in tables.tables[1:]:
        rows = generator.random(len(table.logp)) <= share
        rows[:1] = True
        kept.append(NGramTable(*(column[rows] for column in table)))
    return NGramTables(tables.words, kept)


@settings(max_examples=60, deadline=None)
@given(models())
def test_scores_are_those_of_the_definition(model: NGramTables) -> None:
    grams, lm = as_dict(model), NGramLM.from_tables(model)
    for sentence in QUERIES:
        assert lm.score(sentence) == pytest.approx(sentence_score(grams, model.order, sentence), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(models())
def test_full_scores_steps_and_listing_agree(model: NGramTables) -> None:
    grams, lm = as_dict(model), NGramLM.from_tables(model)
    complete = all(gram[:-1] in grams for gram in grams if len(gram) > 1)
    for sentence in QUERIES:
        history, state = ["<s>"], lm.begin_state
        words = [word if word in lm else "<unk>" for word in sentence.split()] + ["</s>"]
        for word, (log10, length, unknown) in zip(words, lm.full_scores(sentence), strict=True):
            context = tuple(history[-(lm.order - 1) :]) if lm.order > 1 else ()
            expected = back_off_score(grams, context, word)
            assert log10 == pytest.approx(expected[0], abs=1e-4)
            assert length == expected[1] or not complete
            assert unknown == (word == "<unk>")
            logp, state = lm_step(lm.arrays, state, lm.index[word])
            assert logp / np.log(10) == pytest.approx(log10, abs=1e-6)
            history.append(word)
    listed = as_dict(lm.to_tables())
    assert all(listed[gram] == pytest.approx(numbers, rel=1e-6, abs=1e-7) for gram, numbers in grams.items())
    assert not complete or len(listed) == len(grams)


@pytest.mark.parametrize("example", ["trigram.arpa.gz", "pruned.arpa", "limited.arpa", "fallback.arpa"])
def test_scores_are_those_of_kenlm(example: str, tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm, the oracle, is not installed")
    lm, theirs = NGramLM.read(EXAMPLES / example), kenlm.Model(str(EXAMPLES / example))
    assert lm.order == theirs.order
    for sentence in [*(EXAMPLES / "text.txt").read_text(encoding="utf-8").splitlines(), "the xyz of to", "must"]:
        for bos in (True, False):
            for eos in (True, False):
                assert lm.score(sentence, bos, eos) == pytest.approx(theirs.score(sentence, bos, eos), abs=1e-4)
                ours = list(lm.full_scores(sentence, bos, eos))
                for (log10, length, oov), expected in zip(ours, theirs.full_scores(sentence, bos, eos), strict=True):
                    assert (log10, length, oov) == (pytest.approx(expected[0], abs=1e-5), expected[1], expected[2])
        assert perplexity(lm, [sentence]).with_unknown == pytest.approx(theirs.perplexity(sentence), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(SENTENCES, st.integers(2, 4), st.sampled_from([[], [0, 1], [0, 0, 1]]))
def test_kenlm_reads_our_files_and_gives_our_scores(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[str], order: int, prune: list[int]
) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm, the oracle, is not installed")
    model = estimate(encode_corpus(sentences), order, prune=prune[:order]).tables
    if 0 in model.counts:
        return  # KenLM wants an n-gram of every order
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    write_arpa(path, model)
    lm, theirs = NGramLM.from_tables(model), kenlm.Model(str(path))
    for sentence in QUERIES:
        assert lm.score(sentence) == pytest.approx(theirs.score(sentence), abs=1e-4)


def test_words_and_ids() -> None:
    lm = NGramLM.read(EXAMPLES / "pruned.arpa")
    assert lm.words[:3] == ["<unk>", "<s>", "</s>"]
    assert (lm.index["the"], lm.index["</s>"]) == (lm.words.index("the"), 2)
    assert "the" in lm and "nowhere" not in lm and "<unk>" not in lm
    assert lm.vocab_size == len(lm.words) == lm.counts[0]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LMError, match=r"none\.lm: cannot be read: No such file"):
        NGramLM.read(tmp_path / "none.lm")


def test_tuned_weights_come_with_the_model(tmp_path: Path) -> None:
    path = tmp_path / "x.arpa"
    path.write_bytes((EXAMPLES / "pruned.arpa").read_bytes())
    assert NGramLM.read(path).tuned is None
    write_tuned(path, Tuned(0.7, 1.5, 32, {"wer": 5.9}))
    assert NGramLM.read(path).tuned == Tuned(0.7, 1.5, 32, {"wer": 5.9})
    sidecar = tmp_path / "x.arpa.tuned.json"
    for damage in ("{", "[]", '{"alpha": 1}', json.dumps({"alpha": "x", "beta": 1}), '{"alpha": NaN, "beta": 1}'):
        sidecar.write_text(damage, encoding="utf-8")
        with pytest.raises(LMError, match=r"x\.arpa\.tuned\.json: .*asr lm tune"):
            NGramLM.read(path)


def lm_of(*sentences: str) -> NGramLM:
    return NGramLM.from_tables(estimate(encode_corpus(sentences), 2).tables, name="lm.arpa")


LOWER = ["", " ", *"abcdefghijklmnopqrstuvwxyz'"]


def test_a_model_that_fits_and_ones_of_the_wrong_case() -> None:
    assert check_lm(lm_of("the cat", "the dog sat"), LOWER) == []
    with pytest.raises(LMError, match=r"lm\.arpa: .* 0%.* UPPER case, but the model is in lower case.*--case lower"):
        check_lm(lm_of("THE CAT", "THE DOG SAT"), LOWER)
    with pytest.raises(LMError, match=r"in lower case, but the model is in UPPER case.*--case upper"):
        check_lm(lm_of("the cat"), ["", " ", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"])
    with pytest.raises(LMError, match="another language"):
        check_lm(lm_of("кот сидел", "cat"), LOWER)
    lm = lm_of("the cat", "the dog sat")
    assert spelled_share(lm, ["", " ", *"thecasd"]) < 1 == spelled_share(lm, LOWER)
    assert check_lm(lm, ["", "\u2581the", "\u2581", *"catdogs"]) == []


def test_models_of_tokens_are_told_from_models_of_words() -> None:
    characters = lm_of("t h e c a t", "t h e d o g")
    assert "single characters" in check_lm(characters, LOWER)[0]
    assert check_lm(characters, ["", *(f"\u2581{letter}" for letter in "acdeghot")]) == []  # of which each is a word
    assert token_level(lm_of("i see a cat and a dog")) == ""
    with pytest.raises(LMError, match="SentencePiece pieces"):
        check_lm(lm_of("\u2581the \u2581c at \u2581s at", "\u2581the \u2581do g"), LOWER)


def test_changing_the_case_of_a_model() -> None:
    tables = estimate(encode_corpus(["The cat", "A dog"]), 2).tables
    lower = NGramLM.from_tables(with_case(tables, str.lower))
    assert lower.score("the cat") == pytest.approx(NGramLM.from_tables(tables).score("The cat"))
    with pytest.raises(LMError, match="'The' and 'the' both become 'the'"):
        with_case(estimate(encode_corpus(["The the"]), 2).tables, str.lower)
