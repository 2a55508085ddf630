"""Counting the n-grams of a text, every order up to the highest, with sorted integer keys."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from asr.lm.tables import BOS, EOS, SPECIAL_WORDS, LMError


@dataclass(frozen=True)
class Corpus:
    """A text as word ids: `tokens` (T,) int32, every sentence closed by </s>; `words` by id, special words first.

    `skipped` counts the <s>, </s> and <unk> that stood in the text and were left out.
    """

    words: list[str]
    tokens: np.ndarray
    skipped: int = 0

    @property
    def sentences(self) -> int:
        """Number of sentences, empty ones included."""
        return int(np.count_nonzero(self.tokens == EOS))


def read_corpus(sentences: Iterable[str]) -> Corpus:
    """Number the words of sentences in the order they come in.

    An empty sentence counts as one, as for KenLM's lmplz. Raises LMError when there is no word at all.
    """
    index = {word: i for i, word in enumerate(SPECIAL_WORDS)}
    tokens = array("i")
    skipped = 0
    for sentence in sentences:
        ids = [index.setdefault(word, len(index)) for word in sentence.split()]
        if ids and min(ids) <= EOS:
            kept = [i for i in ids if i > EOS]
            skipped += len(ids) - len(kept)
            ids = kept
        tokens.extend(ids)
        tokens.append(EOS)
    numbers = np.array(tokens, np.int32)
    if not (numbers > EOS).any():
        raise LMError("no text to train a language model on: not a single word")
    return Corpus(list(index), numbers, skipped)


@dataclass(frozen=True)
class OrderCounts:
    """The distinct k-grams of a text, sorted by their last word, then the one before, and so on.

    `oldest` (n,) is the first word of each and `suffix` (n,) the row of the other k - 1 words among the (k-1)-grams;
    `context` (n,) the row of its first k - 1 words; `count` (n,) how often it occurs. A k-gram is padded with one <s>
    at most, as its first word. For k = 1 the rows are the word ids, <unk> and <s> included;
    `suffix` and `context` are zero.
    """

    oldest: np.ndarray
    suffix: np.ndarray
    context: np.ndarray
    count: np.ndarray


def count_ngrams(corpus: Corpus, order: int) -> list[OrderCounts]:
    """The counts of orders 1 to `order`. Memory: about 40 bytes per token of the text beside the result."""
    vocabulary = len(corpus.words)
    tokens = corpus.tokens
    room = _words_before(tokens) + 2  # the longest n-gram that ends at a token: its words, and one <s>
    none = np.zeros(vocabulary, np.int32)
    orders = [
        OrderCounts(
            np.arange(vocabulary, dtype=np.int32),
            none,
            none,
            np.bincount(tokens, minlength=vocabulary).astype(np.int64),
        )
    ]
    ends = np.arange(len(tokens))  # of the n-grams
    rows = tokens  # of the (k-1)-gram that ends there
    keys = np.arange(vocabulary, dtype=np.int64)
    for k in range(2, order + 1):
        long_enough = room[ends] >= k
        ends, rows = ends[long_enough], rows[long_enough]
        first = ends - (k - 1)
        oldest = np.where(room[ends] == k, BOS, tokens[np.maximum(first, 0)])
        shorter = keys
        keys, rows, count = _unique(rows.astype(np.int64) * vocabulary + oldest)
        suffix, words = np.divmod(keys, vocabulary)
        context = orders[-1].context[suffix].astype(np.int64) * vocabulary + words if k > 2 else words
        orders.append(
            OrderCounts(
                words.astype(np.int32),
                suffix.astype(np.int32),
                np.searchsorted(shorter, context).astype(np.int32),
                count,
            )
        )
    return orders


def ngram_words(orders: list[OrderCounts], k: int, rows: np.ndarray) -> np.ndarray:
    """The words (n, k) int32 of rows of the k-grams."""
    words = np.empty((len(rows), k), np.int32)
    for j in range(k):
        counts = orders[k - 1 - j]
        words[:, j] = counts.oldest[rows]
        rows = counts.suffix[rows]
    return words


def _words_before(tokens: np.ndarray) -> np.ndarray:
    """How many words of the same sentence stand before each token."""
    ends = np.flatnonzero(tokens == EOS)
    starts = np.concatenate([[0], ends[:-1] + 1])
    return np.arange(len(tokens)) - np.repeat(starts, ends - starts + 1)


def _unique(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct keys in order, the place of every key among them, and how often each stands there."""
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    new = np.empty(len(keys), np.bool_)
    new[:1] = True
    np.not_equal(in_order[1:], in_order[:-1], out=new[1:])
    places = np.empty(len(keys), np.int32)
    places[order] = np.cumsum(new, dtype=np.int32) - 1
    starts = np.flatnonzero(new)
    return in_order[starts], places, np.diff(starts, append=len(keys))
