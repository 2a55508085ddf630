"""Edit counts against a brute-force alignment and jiwer; corpus rates, empty references, the bootstrap."""

from __future__ import annotations

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.scoring import EditCounts, score
from asr.scoring.edits import align_texts, bootstrap_interval, tokens

sentences = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=7).map(" ".join)


def edit_distance(reference: list[str], hypothesis: list[str]) -> int:
    """Textbook recursion over prefixes (Wagner and Fischer, 1974)."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=int)
    table[:, 0] = range(len(reference) + 1)
    table[0, :] = range(len(hypothesis) + 1)
    for i in range(1, len(reference) + 1):
        for j in range(1, len(hypothesis) + 1):
            same = reference[i - 1] == hypothesis[j - 1]
            table[i, j] = min(table[i - 1, j - 1] + (not same), table[i - 1, j] + 1, table[i, j - 1] + 1)
    return int(table[-1, -1])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=4), st.sampled_from(["word", "char"]))
def test_counts_are_those_of_a_minimum_edit_alignment(pairs, unit):
    references, hypotheses = zip(*pairs, strict=True)
    result = score(references, hypotheses, unit)
    for reference, hypothesis, counts in zip(references, hypotheses, result.utterances, strict=True):
        r, h = list(tokens(reference, unit)), list(tokens(hypothesis, unit))
        assert counts.errors == edit_distance(r, h)
        assert counts.reference_length == len(r) == counts.hits + counts.substitutions + counts.deletions
        assert len(h) == counts.hits + counts.substitutions + counts.insertions
    total = sum(len(tokens(reference, unit)) for reference in references)
    assert result.rate == pytest.approx(sum(c.errors for c in result.utterances) / max(total, 1))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=4))
def test_rates_equal_jiwer_with_empty_references_among_them(pairs):
    references, hypotheses = map(list, zip(*pairs, strict=True))
    words = jiwer.process_words(references, hypotheses)
    ours = score(references, hypotheses)
    assert ours.wer == pytest.approx(words.wer)
    assert ours.counts.errors == words.substitutions + words.deletions + words.insertions
    assert score(references, hypotheses, "char").cer == pytest.approx(jiwer.cer(references, hypotheses))


@settings(max_examples=100, deadline=None)
@given(sentences, sentences)
def test_an_alignment_covers_both_sides_once_and_in_order(reference, hypothesis):
    [edits] = align_texts([reference], [hypothesis])
    r = h = 0
    for edit in edits:
        assert (edit.reference_start, edit.hypothesis_start) == (r, h)
        r, h = edit.reference_end, edit.hypothesis_end
        if edit.kind == "equal":
            assert reference.split()[edit.reference_start : r] == hypothesis.split()[edit.hypothesis_start : h]
    assert (r, h) == (len(reference.split()), len(hypothesis.split()))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=4))
def test_alignments_are_jiwers(pairs):
    for unit, process in (("word", jiwer.process_words), ("char", jiwer.process_characters)):
        for reference, hypothesis in pairs:
            if not tokens(reference, unit):  # jiwer makes an empty edit of two empty texts
                continue
            [chunks] = process(reference, hypothesis).alignments
            [edits] = align_texts([reference], [hypothesis], unit)
            theirs = [(c.ref_start_idx, c.ref_end_idx, c.hyp_start_idx, c.hyp_end_idx) for c in chunks]
            assert [edit[1:] for edit in edits] == theirs


def test_the_corpus_rate_is_not_the_mean_of_rates():
    result = score(["a b c d e f g h i", "a"], ["a b c d e f g h i", "b"])
    assert result.wer == pytest.approx(0.1)
    assert result.sentence_errors == 1
    assert result.sentence_error_rate == 0.5


def test_empty_references_count_insertions():
    assert score([""], ["peaceful silence"]).wer == 2.0
    assert score([""], [""]).wer == 0.0
    result = score(["", "a b"], ["x", ""])
    assert result.counts == EditCounts(substitutions=0, deletions=2, insertions=1, hits=0, reference_length=2)
    assert result.wer == 1.5


def test_no_utterances_give_a_rate_of_zero():
    result = score([], [])
    assert (result.rate, result.sentence_error_rate, result.interval) == (0.0, 0.0, (0.0, 0.0))


def test_white_space_does_not_matter_but_spaces_between_words_are_characters():
    assert score([" a\tb  c\n"], ["a b c"]).wer == 0.0
    assert score(["ab  cd"], ["ab cd "], "char").cer == 0.0
    assert score(["ab cd"], ["abcd"], "char").counts.deletions == 1


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="2 references but 1 hypotheses"):
        score(["a", "b"], ["a"])


def test_the_rate_of_one_unit_is_not_given_under_the_name_of_the_other():
    with pytest.raises(AttributeError):
        _ = score(["a"], ["a"], "char").wer
    with pytest.raises(AttributeError):
        _ = score(["a"], ["a"]).cer


def test_the_interval_holds_the_rate_narrows_with_more_data_and_repeats():
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 20, size=3200)
    errors = generator.binomial(lengths, 0.1)
    few, many = bootstrap_interval(errors[:100], lengths[:100]), bootstrap_interval(errors, lengths)
    assert few[0] < errors[:100].sum() / lengths[:100].sum() < few[1]
    assert many[0] < errors.sum() / lengths.sum() < many[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 3
    assert bootstrap_interval(errors, lengths) == many


def test_the_interval_is_that_of_the_normal_approximation_for_independent_words():
    generator = np.random.default_rng(1)
    lengths = np.full(2000, 10)
    errors = generator.binomial(lengths, 0.2)
    low, high = bootstrap_interval(errors, lengths)
    half_width = 1.96 * np.sqrt(0.2 * 0.8 / lengths.sum())
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.15)


def test_draws_in_several_blocks_are_as_good_as_in_one():
    lengths = np.ones(5000, dtype=int)
    errors = (np.arange(5000) % 4 == 0).astype(int)  # 200 of 1000 resamples fit in one block
    low, high = bootstrap_interval(errors, lengths)
    assert low < 0.25 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 * 0.75 / 5000), rel=0.2)
