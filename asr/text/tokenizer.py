"""Lossless tokenizers: characters, SentencePiece pieces (BPE or unigram), or words. Token 0 is the blank."""

from __future__ import annotations

import base64
import io
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from asr.config import nearest
from asr.files import read_text, write_text
from asr.types import ConfigError, ModelFileError, TextError

WORD_MARK = "\u2581"  # SentencePiece's "▁", with which a piece that begins a word begins
MOST_WORDS = 20_000  # of a word tokenizer: more than the characters of any language, fewer than the words of most
_log = logging.getLogger(__name__)


class Tokenizer(ABC):
    """Spells normalized text with the labels of the output layer. labels[0] is the CTC blank, which spells nothing."""

    kind: str  # char, bpe, unigram, word or labels
    labels: list[str]
    _symbols: set[str]  # the characters that can be spelled, or words if each is a token
    _word_mark: str  # the prefix of labels that begin a word

    @property
    def vocab_size(self) -> int:
        """Width of the output layer, blank included."""
        return len(self.labels)

    def encode(self, text: str) -> list[int]:
        """Token ids of normalized text. Raises TextError listing the symbols outside the alphabet."""
        if unknown := self.unknown_symbols(text):
            beginning = text if len(text) <= 60 else text[:57] + "..."
            raise TextError(
                f"{shown_symbols(unknown)} not in the alphabet, in {beginning!r}: "
                "normalize it, or train the tokenizer on it"
            )
        return self._encode(text)

    @abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of collapsed token ids without blanks, with single spaces and none at the ends."""
        return " ".join(word for word, _, _ in self.words(ids))

    def words(self, ids: Sequence[int]) -> list[tuple[str, int, int]]:
        """The words in `ids` as (word, index of its first token, one past its last token).

        A label with the word mark begins a word; a lone mark, the space among characters, only separates.
        """
        words: list[tuple[str, int, int]] = []
        start, spelled = 0, ""
        for i, token in enumerate(ids):
            label = self.labels[token]
            if label.startswith(self._word_mark):
                if spelled:
                    words.append((spelled, start, i))
                spelled = label[1:]
                start = i if spelled else i + 1
            else:
                spelled += label
        return [*words, (spelled, start, len(ids))] if spelled else words

    def symbols(self, text: str) -> Sequence[str]:
        """The units of a text for this tokenizer: its characters, or its words if each is a token."""
        return text

    def unknown_symbols(self, text: str) -> set[str]:
        """The symbols of `text` that no token spells."""
        return set(self.symbols(text)).difference(self._symbols)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The tokenizer as JSON-able values for model files, read by `tokenizer_from_dict`."""

    def save(self, path: str | Path) -> None:
        """Write the tokenizer to a JSON file, atomically."""
        write_text(path, json.dumps(self.to_dict(), ensure_ascii=False) + "\n", durable=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.labels))


class CharTokenizer(Tokenizer):
    """One token per character (Unicode code point); labels[1] is the space."""

    kind = "char"
    _word_mark = " "

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        if self.labels[:2] != ["", " "] or any(len(c) != 1 for c in self.labels[1:]):
            raise ModelFileError("a character alphabet is '' (blank), ' ' and then single characters")
        self._ids = {c: i for i, c in enumerate(self.labels) if i > 0}
        self._symbols = set(self._ids)
        if len(self._ids) != len(self.labels) - 1:
            raise ModelFileError("a character occurs twice in the alphabet")

    def _encode(self, text: str) -> list[int]:
        return [self._ids[c] for c in text]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "labels": list(self.labels)}


class WordTokenizer(Tokenizer):
    """One token per word: phones, or the characters of a text with spaces between all of them.

    Its labels begin with the word mark, like pieces that begin a word, so that decoders treat them like pieces.
    """

    kind = "word"
    _word_mark = WORD_MARK

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        words = [label[1:] for label in self.labels[1:] if label.startswith(WORD_MARK)]
        if self.labels[:1] != [""] or len(words) != len(self.labels) - 1 or any(w.split() != [w] for w in words):
            raise ModelFileError(f"a vocabulary of words is '' (blank) and then words, each after '{WORD_MARK}'")
        self._ids = {word: i for i, word in enumerate(words, start=1)}
        self._symbols = set(words)
        if len(self._symbols) != len(words):
            raise ModelFileError("a word occurs twice in the vocabulary")

    def symbols(self, text: str) -> Sequence[str]:
        return text.split()

    def _encode(self, text: str) -> list[int]:
        return [self._ids[word] for word in text.split()]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "labels": list(self.labels)}


class SentencePieceTokenizer(Tokenizer):
    """Sub-word pieces of a trained SentencePiece model (Kudo and Richardson 2018, arXiv 1808.06226).

    The model is trained with its unknown piece at id 0 and without sentence marks, and the blank takes the place of
    the unknown piece: piece ids are token ids, and no label spells <unk>.
    """

    _word_mark = WORD_MARK

    def __init__(self, proto: bytes, kind: Literal["bpe", "unigram"]) -> None:
        import sentencepiece

        self.kind, self._proto = kind, proto
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(proto)
        except RuntimeError as error:
            raise ModelFileError("the tokenizer's SentencePiece model is damaged: train the tokenizer again") from error
        size = self._processor.GetPieceSize()
        if self._processor.unk_id() != 0 or any(self._processor.IsControl(i) for i in range(size)):
            raise ModelFileError("the SentencePiece model has no <unk> at 0, or has sentence marks")
        self.labels = ["", *(self._processor.IdToPiece(i) for i in range(1, size))]
        self._symbols = {label for label in self.labels if len(label) == 1 and label != WORD_MARK} | {" "}

    def _encode(self, text: str) -> list[int]:
        return self._processor.EncodeAsIds(text)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "sentencepiece": base64.b64encode(self._proto).decode("ascii")}

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self._proto, self.kind)  # the processor itself cannot be pickled


def train_char(texts: Iterable[str]) -> CharTokenizer:
    """The alphabet of normalized texts: blank, space, then the other characters in code point order."""
    symbols: set[str] = set()
    for text in texts:
        symbols.update(text)
    symbols.discard(" ")
    if not symbols:
        raise TextError("no text to make an alphabet of: every training transcript is empty")
    return CharTokenizer(["", " ", *sorted(symbols)])


def train_word(texts: Iterable[str]) -> WordTokenizer:
    """The words of normalized texts, in code point order. Raises TextError for more than MOST_WORDS of them."""
    words = {word for text in texts for word in text.split()}
    if not words:
        raise TextError("no text to make a vocabulary of: every training transcript is empty")
    if any(WORD_MARK in word for word in words):
        raise TextError(f"a training text contains '{WORD_MARK}' (U+2581), which marks words: remove it")
    if len(words) > MOST_WORDS:
        raise TextError(
            f"{len(words)} different words are too many for one token each (at most {MOST_WORDS}): "
            "use the tokenizer char or bpe"
        )
    return WordTokenizer(["", *(WORD_MARK + word for word in sorted(words))])


def train_sentencepiece(
    texts: Iterable[str], vocab_size: int, kind: Literal["bpe", "unigram"] = "bpe"
) -> SentencePieceTokenizer:
    """Train pieces on normalized texts; `vocab_size` includes the blank.

    If the texts do not have that many pieces, the largest possible vocabulary is trained, with a logged warning.
    Raises ConfigError if `vocab_size` is too small for all characters, TextError if there is no text.
    """
    if kind not in ("bpe", "unigram"):
        raise ConfigError(f"tokenizer kind '{kind}' is not one of char, bpe, unigram")
    sentences = [text for text in texts if text]
    symbols = set().union(*sentences) - {" "}
    if not symbols:
        raise TextError("no text to train a tokenizer on: every training transcript is empty")
    if WORD_MARK in symbols:
        raise TextError(f"a training text contains '{WORD_MARK}' (U+2581), which SentencePiece reserves: remove it")
    smallest = len(symbols) + 2  # with the blank and the word mark
    if vocab_size < smallest:
        raise ConfigError(f"vocab_size {vocab_size} is too small: {len(symbols)} characters need at least {smallest}")
    try:
        tokenizer = SentencePieceTokenizer(_train(sentences, vocab_size, kind), kind)
    except RuntimeError as error:
        raise TextError(f"SentencePiece cannot train on these texts: {' '.join(str(error).split())}") from error
    if (size := tokenizer.vocab_size) != vocab_size:
        _log.warning(
            "the texts have fewer pieces than vocab_size %d: trained %d, the most they allow", vocab_size, size
        )
    missing = symbols - tokenizer._symbols
    if missing:
        raise TextError(f"SentencePiece cannot spell {shown_symbols(missing)}: remove these characters from the texts")
    return tokenizer


class LabelSet(Tokenizer):
    """The classes of a classifier, without a blank: a label is one token, its number.

    `counts` are the numbers of utterances of each class in the training set.
    """

    kind = "labels"
    _word_mark = " "

    def __init__(self, labels: Sequence[str], counts: Sequence[int] = ()) -> None:
        self.labels, self.counts = list(labels), list(counts)
        self._ids = {label: i for i, label in enumerate(self.labels)}
        self._symbols = set(self._ids)
        if len(self._ids) != len(self.labels) or len(self.counts) not in (0, len(self.labels)):
            raise ModelFileError("classes need distinct names, and a count for each or none at all")

    def encode(self, text: str) -> list[int]:
        """The number of the class with this label. Raises TextError if there is none."""
        if text not in self._ids:
            raise TextError(f"the label '{text}' is none of the {len(self.labels)} classes{nearest(text, self.labels)}")
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return [self._ids[text]]

    def symbols(self, text: str) -> Sequence[str]:
        return [text]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "labels": self.labels, "counts": self.counts}


def tokenizer_from_dict(values: dict[str, Any]) -> Tokenizer:
    """The tokenizer from the values of `to_dict`. Raises ModelFileError for anything else."""
    kind = values.get("kind")
    try:
        if kind == "char":
            return CharTokenizer(values["labels"])
        if kind == "word":
            return WordTokenizer(values["labels"])
        if kind == "labels":
            return LabelSet(values["labels"], values.get("counts", ()))
        if kind in ("bpe", "unigram"):
            return SentencePieceTokenizer(base64.b64decode(values["sentencepiece"]), kind)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"the tokenizer description is damaged ({type(error).__name__}: {error})") from error
    raise ModelFileError(f"unknown tokenizer kind {kind!r}: made by a newer version of asr, or not a tokenizer")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer saved as JSON. Raises ModelFileError naming the file."""
    try:
        values = json.loads(read_text(path, ModelFileError))
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ModelFileError(f"{path}: not a tokenizer file (a JSON object expected)")
    try:
        return tokenizer_from_dict(values)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error


def _train(sentences: list[str], size: int, kind: str) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type=kind,
        vocab_size=size,
        normalization_rule_name="identity",  # the default (NFKC) would silently change normalized text
        character_coverage=1.0,
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        hard_vocab_limit=False,  # fewer pieces if the texts do not have as many
        max_sentence_length=1 << 20,  # longer texts are silently dropped, with their characters
        num_threads=4,  # fixed, so that the result does not depend on the machine
        minloglevel=2,
    )
    return model.getvalue()


def shown_symbol(symbol: str) -> str:
    """A character or word for messages: quoted, with code points if glyphs alone may mislead."""
    codes = " ".join(f"U+{ord(c):04X}" for c in symbol)
    if not symbol.isprintable():
        return codes
    return f"'{symbol}'" if symbol.isascii() else f"'{symbol}' ({codes})"


def shown_symbols(symbols: Iterable[str]) -> str:
    """Symbols for messages, in code point order."""
    return ", ".join(map(shown_symbol, sorted(symbols)))
