"""Tokenizers: exact round trips, word boundaries, vocabularies that do not fit, files and processes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.text.normalize import normalize
from asr.text.tokenizer import (
    CharTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
    tokenizer_from_dict,
    train_char,
    train_sentencepiece,
    train_word,
)
from asr.types import ConfigError, ModelFileError, TextError

TEXTS = [
    "the cat sat on the mat",
    "she sells sea shells on the sea shore",
    "don't stop the music it's only the beginning",
    "the theory of the thing is that nothing thrills",
    "caf\u00e9 na\u00efve \u4f60\u597d",
    "the sea the sea",
]
ALPHABET = "".join(sorted(set("".join(TEXTS))))


def train(kind: str, vocab_size: int = 60) -> Tokenizer:
    if kind == "word":
        return train_word(TEXTS)
    return train_char(TEXTS) if kind == "char" else train_sentencepiece(TEXTS, vocab_size, kind)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["char", "bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train(request.param)


def test_labels_have_the_blank_at_0_and_no_unknown(tokenizer: Tokenizer) -> None:
    assert tokenizer.labels[0] == ""
    assert len(tokenizer.labels) == tokenizer.vocab_size == len(set(tokenizer.labels))
    assert not {"<unk>", "<s>", "</s>", "<pad>"} & set(tokenizer.labels)
    assert (" " in tokenizer.labels) == (tokenizer.kind == "char")


@settings(max_examples=300)
@given(text=st.text(alphabet=ALPHABET, max_size=60))
def test_round_trip_is_exact(tokenizer: Tokenizer, text: str) -> None:
    text = normalize(text, "none")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 < i < tokenizer.vocab_size for i in ids)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["char", "bpe", "unigram"]),
    texts=st.lists(st.text(min_size=1, max_size=20).map(lambda t: normalize(t, "none")), min_size=1, max_size=5),
    vocab_size=st.integers(min_value=2, max_value=400),
)
def test_round_trip_on_arbitrary_training_texts(kind: str, texts: list[str], vocab_size: int) -> None:
    try:
        tokenizer = train_char(texts) if kind == "char" else train_sentencepiece(texts, vocab_size, kind)  # type: ignore[arg-type]
    except (ConfigError, TextError):
        return  # no text, too small, or a character that SentencePiece keeps for itself: refused in words
    for text in texts:
        assert not tokenizer.unknown_symbols(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == len(tokenizer.labels)


def test_decoding_equals_sentencepiece_own() -> None:
    for kind in ("bpe", "unigram"):
        tokenizer = train(kind)
        assert isinstance(tokenizer, SentencePieceTokenizer)
        for text in TEXTS:
            assert tokenizer._processor.DecodeIds(tokenizer.encode(text)) == text


@given(text=st.text(alphabet=ALPHABET, max_size=60))
def test_words_partition_the_tokens(tokenizer: Tokenizer, text: str) -> None:
    text = normalize(text, "none")
    ids = tokenizer.encode(text)
    words = tokenizer.words(ids)
    assert [word for word, _, _ in words] == text.split()
    position = 0
    for word, start, end in words:
        assert position <= start < end <= len(ids)
        spelled = "".join(tokenizer.labels[i] for i in ids[start:end])
        assert spelled.replace("\u2581", "") == word
        assert all(tokenizer.labels[i] in (" ", "\u2581") for i in ids[position:start])
        position = end


@given(data=st.data())
def test_any_ids_decode_to_normalized_text(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(1, tokenizer.vocab_size - 1), max_size=30))
    text = tokenizer.decode(ids)
    assert text == " ".join(text.split(" ")).strip(" ")
    assert "  " not in text


def test_unknown_symbols_are_named(tokenizer: Tokenizer) -> None:
    assert tokenizer.unknown_symbols("the Zoo \U0001f600") == {"Z", "\U0001f600"}
    with pytest.raises(TextError, match="'Z' not in the alphabet, in 'the Zoo'"):
        tokenizer.encode("the Zoo")
    with pytest.raises(TextError, match=r"U\+0007"):
        tokenizer.encode("the \x07")
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_word_mark_in_text_is_unknown(kind: str) -> None:
    tokenizer = train(kind)
    assert tokenizer.unknown_symbols("sea\u2581shore") == {"\u2581"}
    with pytest.raises(TextError, match=r"U\+2581"):
        train_sentencepiece(["a\u2581b"], 50, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_too_large_vocabulary_is_cut_with_a_warning(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = train_sentencepiece(TEXTS, 5000, kind)  # type: ignore[arg-type]
    assert tokenizer.vocab_size < 5000
    assert f"trained {tokenizer.vocab_size}" in caplog.text
    caplog.clear()
    again = train_sentencepiece(TEXTS, tokenizer.vocab_size, kind)  # type: ignore[arg-type]
    assert again == tokenizer and not caplog.text


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("texts", [["a"], ["ab"], ["a b"], ["x", "x"], ["hello world"] * 3, ["", "a"]])
def test_tiny_corpora(kind: str, texts: list[str]) -> None:
    tokenizer = train_sentencepiece(texts, 1000, kind)  # type: ignore[arg-type]
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"vocab_size 5 .* at least \d+"):
        train_sentencepiece(TEXTS, 5)
    with pytest.raises(ConfigError, match="not one of char, bpe, unigram"):
        train_sentencepiece(TEXTS, 50, "word")  # type: ignore[arg-type]
    for empty in ([], ["", " "][:1]):
        with pytest.raises(TextError, match="every training transcript is empty"):
            train_char(empty)
        with pytest.raises(TextError, match="every training transcript is empty"):
            train_sentencepiece(empty, 50)


def test_long_texts_keep_all_characters() -> None:
    tokenizer = train_sentencepiece(["ab " * 5000 + "z"], 20)
    assert not tokenizer.unknown_symbols("z")


def test_identity_normalization_keeps_compatibility_characters() -> None:
    text = "\ufb01ne \u2460 \uff21 \u212b \u1100\u1161"  # all of these change under NFKC
    tokenizer = train_sentencepiece([text], 100, "unigram")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_training_is_repeatable() -> None:
    for kind in ("bpe", "unigram"):
        assert train(kind) == train(kind)


def test_json_file_and_pickle_round_trips(tokenizer: Tokenizer, tmp_path: Path) -> None:
    described = json.loads(json.dumps(tokenizer.to_dict()))
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    for copy in (tokenizer_from_dict(described), load_tokenizer(path), pickle.loads(pickle.dumps(tokenizer))):
        assert copy == tokenizer and copy.kind == tokenizer.kind and copy.labels == tokenizer.labels
        assert copy.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    assert list(tmp_path.iterdir()) == [path]


def test_spawned_process_gets_the_same_tokenizer() -> None:
    tokenizers = [train(kind) for kind in ("char", "bpe")]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for tokenizer in tokenizers:
            assert pool.apply(tokenizer.encode, (TEXTS[1],)) == tokenizer.encode(TEXTS[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a tokenizer file"),
        ("[]", "not a tokenizer file"),
        ('{"kind": "words"}', "unknown tokenizer kind 'words'"),
        ('{"kind": "char"}', "damaged"),
        ('{"kind": "char", "labels": ["a", "b"]}', "''.*blank"),
        ('{"kind": "char", "labels": ["", " ", "a", "a"]}', "twice"),
        ('{"kind": "bpe", "sentencepiece": "AAAA"}', "damaged|no <unk>"),
    ],
)
def test_damaged_files_are_one_clear_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelFileError, match=message) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nowhere\.json"):
        load_tokenizer(tmp_path / "nowhere.json")


def test_foreign_sentencepiece_model_with_sentence_marks_is_refused() -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=50, model_type="bpe", minloglevel=2
    )
    with pytest.raises(ModelFileError, match="sentence marks"):
        SentencePieceTokenizer(model.getvalue(), "bpe")


def test_characters_need_no_sentencepiece_and_training_is_silent() -> None:
    program = (
        "import sys; sys.modules['sentencepiece'] = None\n"
        "from asr.text.tokenizer import train_char, tokenizer_from_dict\n"
        "t = tokenizer_from_dict(train_char(['a b']).to_dict()); assert t.decode(t.encode('a b')) == 'a b'\n"
        "del sys.modules['sentencepiece']\n"
        "from asr.text.tokenizer import train_sentencepiece\n"
        "train_sentencepiece(['hello world'], 13, 'bpe')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_char_alphabet_order_is_fixed() -> None:
    assert train_char(["b a", "'"]).labels == ["", " ", "'", "a", "b"]
    assert isinstance(train_char(["x"]), CharTokenizer)


def test_a_word_is_a_token_for_phones() -> None:
    tokenizer = train_word(["sil aa b sil", "sil ih"])
    assert tokenizer.labels == ["", "\u2581aa", "\u2581b", "\u2581ih", "\u2581sil"]
    assert tokenizer.encode("sil b aa") == [4, 2, 1]
    assert tokenizer.words([4, 4, 2]) == [("sil", 0, 1), ("sil", 1, 2), ("b", 2, 3)]
    assert tokenizer.decode([4, 4, 2]) == "sil sil b"
    assert tokenizer.unknown_symbols("sil q ax") == {"q", "ax"}
    with pytest.raises(TextError, match="'ax', 'q' not in the alphabet"):
        tokenizer.encode("sil q ax")
    assert tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict()))) == tokenizer


def test_word_vocabularies_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for texts, message in ([""], "every training transcript is empty"), (["a\u2581b"], r"U\+2581"):
        with pytest.raises(TextError, match=message):
            train_word(texts)
    monkeypatch.setattr("asr.text.tokenizer.MOST_WORDS", 2)
    with pytest.raises(TextError, match=r"3 different words are too many .* char or bpe"):
        train_word(["a b c"])
    for labels in (["", "a"], ["\u2581a"], ["", "\u2581"], ["", "\u2581a b"], ["", "\u2581a", "\u2581a"]):
        with pytest.raises(ModelFileError):
            WordTokenizer(labels)
