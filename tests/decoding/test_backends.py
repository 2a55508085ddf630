"""Other decoders behind the same interface: they agree with ours where they solve the same problem."""

from __future__ import annotations

import builtins
import random

import numpy as np
import pytest
from beam_oracle import arpa

from asr.decoding.beam.search import BeamSearch
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.interface import EmissionError
from asr.decoding.make import DECODERS, DecodingConfig, make_decoder
from asr.lm.ngram import NGramLM
from asr.scoring.edits import score
from asr.text.tokenizer import CharTokenizer, train_sentencepiece
from asr.types import UsageError

TOKENIZER = CharTokenizer(["", " ", *"abcde"])
WORDS = ["a", "bad", "cab", "dab", "bee", "deed", "ace"]


def peaky(seed, words=5, least=0.2):
    """Emissions whose best path spells random words, with doubts."""
    rng = np.random.default_rng(seed)
    text = " ".join(rng.choice(WORDS, size=words))
    rows = []
    for c in TOKENIZER.encode(text):
        row = rng.random(7) * [0.02, 0.02, *[0.15] * 5]  # letters are taken for one another
        row[c] += rng.uniform(least, 1.0)
        rows += [row, np.array([2.0, *(rng.random(6) * 0.02)])]
    array = np.array(rows)
    return text, np.log(array / array.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def lm_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "words.arpa"
    path.write_text(arpa(random.Random(2), WORDS, order=2), encoding="utf-8")
    return str(path)


def make(name, **options):
    return make_decoder(DecodingConfig(decoder=name, **options), TOKENIZER, 0.04)


def assert_is_sound(hypothesis, log_probs):
    assert [word.word for word in hypothesis.words] == hypothesis.text.split()
    before = 0.0
    for word in hypothesis.words:
        assert before <= word.start < word.end <= len(log_probs) * 0.04 + 1e-9
        assert 0.0 <= word.confidence <= 1.0
        before = word.end


@pytest.mark.parametrize("name", ["flashlight", "pyctcdecode"])
def test_without_a_language_model_a_wide_beam_agrees_with_ours(name):
    pytest.importorskip({"flashlight": "flashlight.lib.text"}.get(name, name))
    other, ours = make(name, beam_width=200), BeamSearch(TOKENIZER.labels, beam_width=200)
    agree = 0
    for seed in range(20):
        _, log_probs = peaky(seed)
        [found] = other.decode(log_probs)
        assert_is_sound(found, log_probs)
        agree += found.text == ours.decode(log_probs)[0].text
    assert agree >= 19  # flashlight and pyctcdecode do not add up everything that ours does


@pytest.mark.parametrize(("name", "least"), [("flashlight", 19), ("pyctcdecode", 14)])
def test_with_a_language_model_they_agree_with_ours(name, least, lm_path):
    """pyctcdecode's beam loses more; what it says of the texts that both find is what ours says."""
    pytest.importorskip({"flashlight": "flashlight.lib.text"}.get(name, name))
    pytest.importorskip("kenlm")
    options = {"lm": lm_path, "alpha": 0.6, "beta": 0.8, "beam_width": 100, "nbest": 20}
    ours, other = make("beam", oov="forbid", **options), make(name, **options)
    agree = common = 0
    for seed in range(20):
        _, log_probs = peaky(seed)
        mine, found = ours.decode(log_probs), other.decode(log_probs)
        assert_is_sound(found[0], log_probs)
        agree += found[0].text == mine[0].text
        scores = {hypothesis.text: hypothesis for hypothesis in mine}
        for hypothesis in found:
            if name == "pyctcdecode" and hypothesis.text in scores:
                common += 1
                assert hypothesis.lm_score == pytest.approx(scores[hypothesis.text].lm_score, abs=1e-3)
                assert hypothesis.acoustic_score <= scores[hypothesis.text].acoustic_score + 0.05
    assert agree >= least
    assert common > 50 or name == "flashlight"


def test_pyctcdecode_takes_hotwords_and_gives_several_hypotheses():
    pytest.importorskip("pyctcdecode")
    _, log_probs = peaky(3)
    found = make("pyctcdecode", hotwords="bee", nbest=3).decode(log_probs)
    assert len(found) == 3
    assert found[0].score >= found[1].score


def test_the_beam_without_a_language_model_is_not_worse_than_greedy():
    greedy, beam = GreedyDecoder(TOKENIZER, 0.04), make("beam")
    errors = {greedy: 0, beam: 0}
    for seed in range(150):
        text, log_probs = peaky(seed, words=3, least=0.02)
        for decoder in errors:
            [best] = decoder.decode(log_probs)
            errors[decoder] += score([text], [best.text]).counts.errors
            assert best.lm_score == 0.0
            assert_is_sound(best, log_probs)
    assert 20 < errors[beam] <= errors[greedy]


def test_pieces_and_characters_agree_on_words(lm_path):
    """The same words in both alphabets, from emissions that are sure of them."""
    pieces = train_sentencepiece([" ".join(WORDS)] * 3, 22)
    lm = NGramLM.read(lm_path)
    rng = np.random.default_rng(0)
    for _ in range(20):
        text = " ".join(rng.choice(WORDS, size=4))
        for oov in ("penalize", "forbid"):
            for tokenizer in (pieces, TOKENIZER):
                rows = []
                for c in tokenizer.encode(text):
                    row = rng.random(tokenizer.vocab_size) * 0.01
                    row[c] += 1.0
                    rows += [row, np.array([1.0, *([0.001] * (tokenizer.vocab_size - 1))])]
                array = np.array(rows)
                log_probs = np.log(array / array.sum(axis=1, keepdims=True)).astype(np.float32)
                [best] = BeamSearch(tokenizer.labels, lm, oov=oov, alpha=0.3, beta=0.0).decode(log_probs)
                assert best.text == text
                assert [word.word for word in best.words] == text.split()
                assert min(word.confidence for word in best.words) > 0.5


def test_the_weights_tuned_for_a_language_model_are_taken(lm_path, tmp_path):
    from asr.lm.files import Tuned, write_tuned

    copy = tmp_path / "tuned.arpa"
    copy.write_bytes(open(lm_path, "rb").read())  # noqa: PTH123, SIM115
    write_tuned(copy, Tuned(1.25, -0.5, 33))
    search = make("beam", lm=str(copy))
    assert (search.alpha, search.beta, search.beam_width) == (1.25, -0.5, 33)
    search = make("beam", lm=str(copy), alpha=0.1, beam_width=7)
    assert (search.alpha, search.beta, search.beam_width) == (0.1, -0.5, 7)
    search = make("beam", lm=lm_path)
    assert (search.alpha, search.beta, search.beam_width) == (0.5, 1.5, 50)


def test_words_that_cannot_be_spelled_are_reported(tmp_path):
    said = []
    path = tmp_path / "words.txt"
    path.write_text("bad\nworse\n", encoding="utf-8")
    make_decoder(DecodingConfig(lexicon=str(path), hotwords="dab,xylophone"), TOKENIZER, 0.04, said.append)
    assert said == [
        "1 hotwords cannot be spelled with the model's alphabet and are left out: 'xylophone'",
        "1 words of the lexicon cannot be spelled with the model's alphabet and are left out: 'worse'",
    ]


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_no_emission_is_refused_by_all_alike(name):
    pytest.importorskip({"flashlight": "flashlight.lib.text", "pyctcdecode": "pyctcdecode"}.get(name, "numpy"))
    decoder = make(name)
    good = np.log(np.full((3, 7), 1 / 7, np.float32))
    nan = good.copy()
    nan[1, 2] = np.nan
    for array, message in (
        (nan, "nan at frame 1, label 2; all must be finite"),
        (good[:, :6], "6 columns but 7 labels"),
        (good[:0], "no frames to decode"),
        (np.exp(good), "these are probabilities: pass their natural logarithm"),
        (good + 1.0, "pass the output of log_softmax"),
        (good[None], "decode the utterances of a batch one by one"),
        (np.zeros((3, 7), np.int64), "expected floating-point log-probabilities, found int64"),
    ):
        with pytest.raises(EmissionError, match=message):
            decoder.decode(array)
    assert decoder.decode(good)  # and the decoder goes on


@pytest.mark.parametrize("name", ["flashlight", "pyctcdecode"])
def test_a_binary_language_model_serves_the_others_too(name, lm_path, tmp_path):
    pytest.importorskip({"flashlight": "flashlight.lib.text"}.get(name, name))
    pytest.importorskip("kenlm")
    NGramLM.read(lm_path).write_binary(tmp_path / "words.lm")
    one, other = make(name, lm=lm_path, alpha=1.0), make(name, lm=tmp_path / "words.lm", alpha=1.0)
    for seed in range(5):
        _, log_probs = peaky(seed)
        [ours], [theirs] = one.decode(log_probs), other.decode(log_probs)
        assert (ours.text, ours.words) == (theirs.text, theirs.words)
        assert ours.score == pytest.approx(theirs.score, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "missing", "line", "with_lm"),
    [
        ("flashlight", "flashlight", "flashlight-text", False),
        ("flashlight", "kenlm", "pip install kenlm", True),
        ("pyctcdecode", "pyctcdecode", "asr-ctc\\[pyctcdecode\\]", False),
        ("pyctcdecode", "kenlm", "pip install kenlm", True),
    ],
)
def test_what_is_not_installed_is_named_with_the_line_that_installs_it(
    monkeypatch, lm_path, name, missing, line, with_lm
):
    import sys

    if missing == "kenlm":
        pytest.importorskip({"flashlight": "flashlight.lib.text"}.get(name, name))
        monkeypatch.setitem(sys.modules, "flashlight.lib.text.decoder.kenlm", None)
    for module in [m for m in sys.modules if m.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, module)
    real = builtins.__import__
    monkeypatch.setitem(sys.modules, missing, None)

    def fail(module, *arguments, **keywords):
        if module.partition(".")[0] == missing:
            raise ImportError(module)
        return real(module, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(UsageError, match=line):
        make(name, lm=lm_path if with_lm else None)
