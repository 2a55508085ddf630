"""Entropy pruning against the definition by brute force, the sum 1 after every history, and KenLM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_oracles import EXAMPLES, as_dict, back_off_score

from asr.lm.arpa import write_arpa
from asr.lm.automaton import lm_step
from asr.lm.estimate import Corpus, encode_corpus, estimate
from asr.lm.ngram import NGramLM, perplexity, read_ngrams
from asr.lm.prune import NGramIndex, history_log10, prune_entropy, relative_entropies
from asr.lm.tables import LMError, NGramTable, NGramTables

TEXT = (EXAMPLES / "text.txt").read_text(encoding="utf-8").splitlines()
WORDS = st.sampled_from(["a", "b", "c", "d", "e"])
SENTENCES = st.lists(st.lists(WORDS, max_size=7).map(" ".join), min_size=1, max_size=25).filter(any)
THRESHOLDS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def model(sentences: Sequence[str], order: int, prune: Sequence[int] = ()) -> NGramTables:
    return estimate(encode_corpus(sentences), order, prune=prune).tables


def entropies(tables: NGramTables, k: int, corpus: Corpus | None = None) -> np.ndarray:
    index = NGramIndex(tables)
    return relative_entropies(tables, index, k, history_log10(tables, index, corpus)[k - 2])


def assert_sums_to_one(tables: NGramTables) -> None:
    lm = NGramLM.from_tables(tables)
    words = [i for i in range(lm.vocab_size) if lm.words[i] != "<s>"]
    for state in range(len(lm.state_length)):
        assert sum(math.exp(lm_step(lm.arrays, state, word)[0]) for word in words) == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(SENTENCES, st.integers(1, 4), st.sampled_from([(), (0, 1)]), st.sampled_from(THRESHOLDS), st.booleans())
def test_probabilities_sum_to_one_after_every_history(
    sentences: list[str], order: int, cut_off: tuple[int, ...], threshold: float, from_text: bool
) -> None:
    full = model(sentences, order, cut_off[:order])
    pruned = prune_entropy(full, threshold, encode_corpus(sentences) if from_text else None)
    assert_sums_to_one(pruned)
    before, after = as_dict(full), as_dict(pruned)
    assert all(before[gram][0] == logp for gram, (logp, _) in after.items())  # only back-off weights change
    assert {gram for gram in before if len(gram) == 1} <= after.keys()
    assert all(gram[:-1] in after for gram in after if len(gram) > 1)


@settings(max_examples=25, deadline=None)
@given(SENTENCES, st.integers(2, 4))
def test_the_increase_of_relative_entropy_is_that_of_the_definition(sentences: list[str], order: int) -> None:
    full = model(sentences, order)
    words = [word for word in full.words if word != "<s>"]
    for k in range(2, order + 1):
        grams = as_dict(NGramTables(full.words, full.tables[:k]))
        found = entropies(full, k)
        for ids, entropy in zip(full.tables[k - 1].words.tolist(), found, strict=True):
            *history, last = (full.words[i] for i in ids)
            context = tuple(history)
            p = {word: 10 ** back_off_score(grams, context, word)[0] for word in words}
            shorter = {word: 10 ** back_off_score(grams, context[1:], word)[0] for word in words}
            explicit = [word for word in words if (*context, word) in grams and word != last]
            weight = (1 - sum(p[w] for w in explicit)) / (1 - sum(shorter[w] for w in explicit))
            without = p | {word: weight * shorter[word] for word in words if word not in explicit}
            pieces = [context[:n] for n in range(1, k)]
            of_history = 10 ** sum(grams[("</s>",) if piece == ("<s>",) else piece][0] for piece in pieces)
            expected = of_history * sum(p[word] * math.log(p[word] / without[word]) for word in words)
            assert entropy == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_the_text_tells_how_often_a_history_occurs() -> None:
    sentences = ["a b c", "a b", "c a b b"]
    corpus, full = encode_corpus(sentences), model(sentences, 3)
    by_model, by_text = entropies(full, 3), entropies(full, 3, corpus)
    grams = as_dict(full)
    text = [["<s>", *line.split(), "</s>"] for line in sentences]
    tokens = sum(len(line) - 1 for line in text)
    for ids, one, other in zip(full.tables[2].words.tolist(), by_model, by_text, strict=True):
        history = [full.words[i] for i in ids[:2]]
        share = sum(line[i : i + 2] == history for line in text for i in range(len(line))) / tokens
        first = "</s>" if history[0] == "<s>" else history[0]
        assert other == pytest.approx(one * share / 10 ** (grams[first,][0] + grams[tuple(history)][0]), rel=1e-4)


def test_a_threshold_of_zero_removes_nothing_and_a_large_one_all_but_the_words() -> None:
    full = model(TEXT, 3)
    assert as_dict(prune_entropy(full, 0.0)) == as_dict(full)
    alone = prune_entropy(full, 0.99)
    assert alone.counts == full.counts[:1]
    assert NGramLM.from_tables(alone).score("the of") == pytest.approx(
        sum(as_dict(full)[word,][0] for word in ("the", "of", "</s>")), abs=1e-5
    )


@pytest.mark.parametrize("from_text", [False, True])
def test_size_falls_and_perplexity_grows_with_the_threshold(from_text: bool) -> None:
    full = model(TEXT, 3)
    pruned = [prune_entropy(full, t, encode_corpus(TEXT) if from_text else None) for t in (0.0, *THRESHOLDS)]
    sizes = [sum(tables.counts) for tables in pruned]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 2 * sizes[-1]
    found = [perplexity(NGramLM.from_tables(tables), TEXT).with_unknown for tables in pruned]
    assert found == sorted(found) and found[-1] > 1.2 * found[0]


def test_kenlm_scores_a_pruned_model_as_we_do(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm, the oracle, is not installed")
    pruned = prune_entropy(model(TEXT, 4), 1e-3)
    assert pruned.counts[1] < model(TEXT, 4).counts[1]
    write_arpa(tmp_path / "x.arpa", pruned)
    ours, theirs = NGramLM.read(tmp_path / "x.arpa"), kenlm.Model(str(tmp_path / "x.arpa"))
    for line in [*TEXT, "the xyz of", ""]:
        assert ours.score(line) == pytest.approx(theirs.score(line), abs=1e-4)
    assert as_dict(read_ngrams(tmp_path / "x.arpa")) == as_dict(pruned)


def test_contexts_that_a_file_leaves_out_are_no_obstacle() -> None:
    full = model(TEXT, 3)
    ids, logp, backoff = full.tables[1]
    weightless = np.arange(len(logp)) % 3 != 0
    tables = [full.tables[0], NGramTable(ids[weightless], logp[weightless], backoff[weightless]), full.tables[2]]
    assert_sums_to_one(prune_entropy(NGramTables(full.words, tables), 1e-4))


def test_what_is_no_probability_distribution_is_refused() -> None:
    full = model(["a b", "a c", "b a"], 2)
    ids, logp, backoff = full.tables[1]
    wrong = NGramTables(full.words, [full.tables[0], NGramTable(ids, np.zeros_like(logp), backoff)])
    with pytest.raises(LMError, match=r"the probabilities after '.*' sum to 3: this model cannot be pruned"):
        prune_entropy(wrong, 1e-6)
    with pytest.raises(LMError, match="0 or more"):
        prune_entropy(full, -1.0)
