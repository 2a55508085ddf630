"""Long pauses may end a sentence: the beam search against brute force, streams, batches, and where nothing changes."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict

import numpy as np
import pytest
from beam_oracle import arpa, language_part, pauses_of, texts_with_pauses
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.beam.search import BeamSearch, Pruning
from asr.lm.ngram import NGramLM

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


@settings(max_examples=30, deadline=None)
@given(problems, st.floats(0.1, 2.0), st.floats(-1.0, 2.0), st.sampled_from(["allow", "penalize", "forbid"]))
def test_a_text_has_the_sum_of_its_alignments_each_with_its_pauses(lm, problem, alpha, beta, oov):
    seed, (labels, frames), least, sharpness = problem
    log_probs = resting(seed, frames, labels, sharpness)
    offset, per_character = (-0.5, -0.7) if oov == "penalize" else (0.0, 0.0)
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


@pytest.fixture(scope="module")
def searches(lm):
    made = []
    for labels, nbest in itertools.product((CHARACTERS, PIECES), (1, 3)):
        common = {"beam_width": 12, "nbest": nbest, "sentence_pause": 2 * FRAME, "pruning": Pruning(blank_skip=0.9)}
        made.append(BeamSearch(labels, lm, alpha=0.6, beta=0.5, hotwords=["ab a", "ba"], **common))
        made.append(BeamSearch(labels, lm, alpha=1.2, beta=0.5, oov="forbid", **common))
    return made


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.lists(st.integers(0, 80), max_size=8), st.integers(0, 7))
def test_a_stream_in_any_blocks_and_a_batch_end_in_the_hypotheses_of_one_shot(searches, seed, frames, cuts, which):
    search = searches[which]
    log_probs = resting(seed, frames, search.alphabet.labels, 3.0)
    expected = search.decode(log_probs)
    stream, stable = search.stream(), []
    for begin, end in itertools.pairwise(sorted({0, frames, *(cut for cut in cuts if cut < frames)})):
        stream.feed(log_probs[begin:end])
        stable.append(stream.stable())
        assert f"{stream.best().text} ".startswith(stable[-1])
    final = stream.finish(search.nbest)
    assert [h.text for h in final] == [h.text for h in expected]
    for one, other in zip(final, expected, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-9)
        assert one.lm_score == pytest.approx(other.lm_score, rel=1e-9, abs=1e-12)
        assert one.words == other.words
        assert " ".join(word.word for word in one.words) == one.text
        assert all(0.0 <= word.confidence <= 1.0 and word.start < word.end for word in one.words)
    for text in stable:  # what was said to be stable stays
        assert f"{final[0].text} ".startswith(f"{text} ") or not text
    [batch] = search.decode_many([log_probs])
    assert [h.text for h in batch] == [h.text for h in expected]
    assert batch[0].lm_score == pytest.approx(expected[0].lm_score, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(problems, st.sampled_from([1, 2, 100000]))
def test_what_is_forgotten_after_a_pause_could_not_have_been_the_best(lm, problem, nbest):
    """An exhaustive search that keeps one alternative finds the best text and the score of one that keeps all."""
    seed, (labels, frames), least, sharpness = problem
    log_probs = resting(seed, frames, labels, sharpness)
    common = {"alpha": 0.8, "beta": 0.3, "sentence_pause": least * FRAME, **EXACT}
    whole = BeamSearch(labels, lm, **common).decode(log_probs)
    found = BeamSearch(labels, lm, **common | {"nbest": nbest}).decode(log_probs)
    scores = {h.text: h.score for h in whole}
    assert all(h.score <= scores[h.text] + 1e-6 for h in found)
    # Mass of alignments that end the word later may be lost: the best is found, or one as good within that.
    assert scores[found[0].text] > whole[0].score - 0.5
    if nbest > 2:
        assert [h.text for h in found] == [h.text for h in whole]


def spoken(*parts):
    """Emissions that are sure of a text, "-" for a quiet frame, and not sure where two characters are given."""
    rows = []
    for part in parts:
        row = np.full(len(CHARACTERS), 0.002)
        for c in part:
            row[CHARACTERS.index("" if c == "-" else c)] = 0.9 / len(part)
        rows.append(row / row.sum())
    return np.log(np.array(rows)).astype(np.float32)


def write_bigrams(path, words, bigrams):
    """A language model with these bigrams (log10); all others are of log10 p -4."""
    unigrams = {"<unk>": -4.0, "<s>": -99.0, "</s>": -1.0, **dict.fromkeys(words, -1.0)}
    lines = ["\\data\\", f"ngram 1={len(unigrams)}", f"ngram 2={len(bigrams)}", "", "\\1-grams:"]
    lines += [f"{p}\t{word}\t{-1.0 if word == '</s>' else -3.0}" for word, p in unigrams.items()]
    lines += ["", "\\2-grams:", *(f"{p}\t{gram}" for gram, p in bigrams.items()), "", "\\end\\", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """A model to which nearly every sentence is `a b`, and which hardly knows how a sentence would go on after `b`."""
    grams = {"<s> a": -0.1, "<s> b": -1.5, "a b": -0.1, "b </s>": -0.05, "b a": -1.5}
    return NGramLM.read(write_bigrams(tmp_path_factory.mktemp("sentences") / "s.arpa", ["a", "b"], grams))


def test_a_long_pause_lets_the_language_model_begin_anew_and_a_short_one_does_not(sentences):
    search = BeamSearch(CHARACTERS, sentences, alpha=1.0, beta=0.0, frame_seconds=FRAME)
    ln10 = math.log(10)
    for rest, expected in ((7, -0.1 - 0.1 - 1.5 - 0.1 - 0.05), (8, -0.1 - 0.1 - 0.05 - 0.1 - 0.1 - 0.05)):
        quiet = rest - 1  # and the separator
        [found] = search.decode(spoken("a", " ", "b", *["-"] * quiet, " ", "a", " ", "b"))
        assert found.text == "a b a b"
        assert found.lm_score == pytest.approx(expected * ln10, abs=1e-4)
    never = search.reweighted(sentence_pause=0.0)
    [found] = never.decode(spoken("a", " ", "b", *["-"] * 50, " ", "a", " ", "b"))
    assert found.lm_score == pytest.approx((-0.1 - 0.1 - 1.5 - 0.1 - 0.05) * ln10, abs=1e-4)


@pytest.mark.parametrize("quiet", [["-"] * 8, [*["-"] * 8, " "], [" ", *["-"] * 8], [*["-"] * 4, " ", *["-"] * 4]])
def test_a_word_that_is_not_clear_after_a_pause_is_one_that_begins_sentences(sentences, quiet):
    """Whenever the separator comes: before the pause, in it, or after it, where the pause found the word unfinished."""
    search = BeamSearch(CHARACTERS, sentences, alpha=1.0, beta=0.0, frame_seconds=FRAME)
    separated = quiet if " " in quiet else [*quiet, " "]
    parts = ["a", " ", "b", *separated, "ab", " ", "ab", "-"]
    [found] = search.decode(spoken(*parts))
    assert found.text == "a b a b"
    assert found.lm_score == pytest.approx(2 * (-0.1 - 0.1 - 0.05) * math.log(10), abs=1e-4)
    # Silence before the first word, and after the last one, ends no sentence.
    [padded] = search.decode(spoken(*["-"] * 20, *parts, *["-"] * 20))
    assert padded.text == found.text
    assert padded.lm_score == pytest.approx(found.lm_score, abs=1e-6)


def test_a_pause_inside_a_word_changes_nothing(lm):
    search = BeamSearch(CHARACTERS, lm, alpha=1.0, beta=0.0, frame_seconds=FRAME)
    for rest in (2, 30):
        [found] = search.decode(spoken("a", "b", *["-"] * rest, "b", " ", "a"))
        assert found.text == "abb a"
        assert found.lm_score == pytest.approx(language_part("abb a", lm, 1.0, known=lm), abs=1e-4)


@pytest.mark.parametrize("labels", [CHARACTERS, PIECES])
def test_without_a_long_pause_or_a_language_model_nothing_changes(lm, labels):
    for seed in range(20):
        log_probs = resting(seed, 60, labels)
        longest = max(len(list(run)) for _, run in itertools.groupby(np.exp(log_probs[:, :2]).sum(axis=1) > 0.5))
        for model, pause in ((None, FRAME), (lm, (longest + 1) * FRAME)):
            search = BeamSearch(labels, model, beam_width=10, nbest=3, sentence_pause=pause, frame_seconds=FRAME)
            assert search.decode(log_probs) == search.reweighted(sentence_pause=0.0).decode(log_probs)


def test_many_pauses_do_not_fill_the_beam_with_what_was_ambiguous_before(tmp_path):
    """After words of two readings each, a word that only the next one makes clear is found by a beam of 8."""
    grams = {"<s> aa": -0.3, "<s> ab": -0.31, "<s> a": -0.6, "<s> b": -1.2, "a a": -3.0, "b a": -0.05}
    grams |= {f"{word} </s>": -0.05 for word in ("aa", "ab", "a")}
    path = write_bigrams(tmp_path / "two.arpa", ["a", "b", "aa", "ab"], grams)
    search = BeamSearch(CHARACTERS, NGramLM.read(path), alpha=1.0, beta=0.0, beam_width=8, frame_seconds=FRAME)
    unclear, last = ["a", "-", "ab", *["-"] * 9, " "], ["ab", " ", "a"]
    assert search.decode(spoken(*last))[0].text == "b a"
    [found] = search.decode(spoken(*unclear * 30, *last))
    assert found.text == " ".join(["aa"] * 30 + ["b", "a"])
