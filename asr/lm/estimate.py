"""Interpolated modified Kneser-Ney estimation of n-gram models, with the same results as KenLM's lmplz.

Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", TR-10-98, 1998; Heafield,
Pouzyrevsky, Clark and Koehn, "Scalable Modified Kneser-Ney Language Model Estimation", ACL 2013.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr.files import read_lines
from asr.lm.tables import BOS, EOS, OOV_LOG10, SPECIAL_WORDS, LMError, NGramTable, NGramTables

FALLBACK = (0.5, 1.0, 1.5)  # lmplz's fallback discounts for counts 1, 2 and more
Discounts = tuple[float, float, float]


def read_sentences(paths: Iterable[str | Path], normalize: Callable[[str], str] = str) -> Iterator[str]:
    """The lines of text files (UTF-8, plain or gzipped, `-` for stdin), or the `text` of manifest rows, normalized.

    A file is a manifest if it is named .jsonl or its first line is a JSON object. Raises LMError with file and line.
    """
    for path in paths:
        name = "stdin" if str(path) == "-" else str(path)
        manifest = name.removesuffix(".gz").endswith(".jsonl")
        for number, text in enumerate(read_lines(path, LMError), 1):
            manifest = manifest or (number == 1 and _is_object(text))
            if not manifest:
                yield normalize(text)
            elif text.strip():
                yield normalize(_transcript(text, f"{name}:{number}"))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _transcript(row: str, where: str) -> str:
    try:
        values = json.loads(row)
    except ValueError as error:
        raise LMError(f"{where}: not JSON: {error}") from None
    text = values.get("text") if isinstance(values, dict) else None
    if not isinstance(text, str):
        raise LMError(f"{where}: the row has no string 'text'")
    return text


@dataclass(frozen=True)
class Corpus:
    """A text as word ids: `tokens` (T,) int32, with </s> after every sentence; `words` by id, special words first.

    `skipped` counts the <s>, </s> and <unk> in the text, which are left out.
    """

    words: list[str]
    tokens: np.ndarray
    skipped: int = 0

    @property
    def sentences(self) -> int:
        """Number of sentences, empty ones included."""
        return int(np.count_nonzero(self.tokens == EOS))


def encode_corpus(sentences: Iterable[str]) -> Corpus:
    """Number the words of sentences in the order in which they first occur.

    An empty sentence counts as a sentence, as in KenLM's lmplz. Raises LMError if there is no word at all.
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
        raise LMError("no text to train a language model on: it has no words")
    return Corpus(list(index), numbers, skipped)


@dataclass(frozen=True)
class OrderCounts:
    """The distinct k-grams of a text, sorted by their last word, then the one before, and so on.

    `oldest` (n,) is the first word of each, `suffix` (n,) the row of the other k - 1 words among the (k-1)-grams,
    `context` (n,) the row of its first k - 1 words, and `count` (n,) how often it occurs. At most one <s> is in a
    k-gram, as its first word. For k = 1, rows are word ids, including <unk> and <s>, and `suffix` and `context` are 0.
    """

    oldest: np.ndarray
    suffix: np.ndarray
    context: np.ndarray
    count: np.ndarray


def count_ngrams(corpus: Corpus, order: int) -> list[OrderCounts]:
    """The counts of orders 1 to `order`. Takes about 40 bytes of memory per token of the text besides the result."""
    vocabulary = len(corpus.words)
    tokens = corpus.tokens
    room = _words_before(tokens) + 2  # length of the longest n-gram that ends at a token, including one <s>
    none, occurrences = np.zeros(vocabulary, np.int32), np.bincount(tokens, minlength=vocabulary).astype(np.int64)
    orders = [OrderCounts(np.arange(vocabulary, dtype=np.int32), none, none, occurrences)]
    ends = np.arange(len(tokens))  # positions where an n-gram ends
    rows = tokens  # rows of the (k-1)-grams that end there
    keys = np.arange(vocabulary, dtype=np.int64)
    for k in range(2, order + 1):
        long_enough = room[ends] >= k
        ends, rows = ends[long_enough], rows[long_enough]
        oldest = np.where(room[ends] == k, BOS, tokens[np.maximum(ends - (k - 1), 0)])
        shorter = keys
        keys, rows, count = _unique(rows.astype(np.int64) * vocabulary + oldest)
        suffix, words = np.divmod(keys, vocabulary)
        context = orders[-1].context[suffix].astype(np.int64) * vocabulary + words if k > 2 else words
        row = np.searchsorted(shorter, context).astype(np.int32)
        orders.append(OrderCounts(words.astype(np.int32), suffix.astype(np.int32), row, count))
    return orders


def ngram_words(orders: list[OrderCounts], k: int, rows: np.ndarray) -> np.ndarray:
    """The words (n, k) int32 of the given rows of the k-grams."""
    words = np.empty((len(rows), k), np.int32)
    for j in range(k):
        counts = orders[k - 1 - j]
        words[:, j] = counts.oldest[rows]
        rows = counts.suffix[rows]
    return words


def _words_before(tokens: np.ndarray) -> np.ndarray:
    """The number of words of the same sentence before each token."""
    ends = np.flatnonzero(tokens == EOS)
    starts = np.concatenate([[0], ends[:-1] + 1])
    return np.arange(len(tokens)) - np.repeat(starts, ends - starts + 1)


def _unique(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sorted distinct keys, the place of every key among them, and how often each occurs.

    As np.unique, but in two thirds of its time and with half of its memory for the places.
    """
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    new = np.empty(len(keys), np.bool_)
    new[:1] = True
    np.not_equal(in_order[1:], in_order[:-1], out=new[1:])
    places = np.empty(len(keys), np.int32)
    places[order] = np.cumsum(new, dtype=np.int32) - 1
    starts = np.flatnonzero(new)
    return in_order[starts], places, np.diff(starts, append=len(keys))


@dataclass(frozen=True)
class Estimate:
    """A trained model, the discounts D1, D2, D3+ of every order, and the orders that fell back to fixed discounts."""

    tables: NGramTables
    discounts: list[Discounts]
    fell_back: list[int]


def estimate(
    corpus: Corpus,
    order: int,
    *,
    prune: Sequence[int] = (),
    limit_vocabulary: Collection[str] | None = None,
    fallback: Discounts = FALLBACK,
    warn: Callable[[str], None] = lambda message: None,
) -> Estimate:
    """Train a model of n-grams up to `order` (1 or more).

    `prune`: n-grams that occur at most this often are left out; a non-decreasing number per order, the last of which is
    used for all further orders. `limit_vocabulary`: n-grams with any other word are left out. Their probability goes to
    the back-off. If the counts are too few to estimate the discounts of an order, `fallback` is used, and `warn` is
    called with a message. Raises LMError for a bad `prune` or `order`.
    """
    thresholds = pruning_thresholds(prune, order)
    counts = count_ngrams(corpus, order)
    adjusted = [_adjusted(counts, k) for k in range(1, order + 1)]
    pruned = _pruned(corpus, counts, thresholds, limit_vocabulary)
    discounts, fell_back = [], []
    for k, statistics in enumerate(_statistics(counts, adjusted), 1):
        try:
            discounts.append(closed_form_discounts(statistics))
        except ValueError as error:
            warn(
                f"discounts for {k}-grams are fixed at {', '.join(f'{d:g}' for d in fallback)}: {error}; "
                "more text would give better ones"
            )
            discounts.append(fallback)
            fell_back.append(k)
    return Estimate(_interpolate(corpus.words, counts, adjusted, pruned, discounts), discounts, fell_back)


def pruning_thresholds(prune: Sequence[int], order: int) -> list[int]:
    """A threshold for every order, as lmplz reads `--prune`. Raises LMError."""
    if not 1 <= order <= 32:
        raise LMError(f"the order of a language model must be between 1 and 32, not {order}")
    given = list(prune) or [0]
    if len(given) > order:
        raise LMError(f"{len(given)} pruning thresholds for a model of order {order}")
    if min(given) < 0 or given != sorted(given):
        raise LMError("pruning thresholds are counts that must not decrease from order to order, for example 0 0 1")
    return given + [given[-1]] * (order - len(given))


def closed_form_discounts(ngrams: Sequence[int]) -> Discounts:
    """D1, D2, D3+ from the numbers of n-grams with (adjusted) count 1, 2, 3, 4: equation 26 of Chen and Goodman.

    Raises ValueError with the reason if they cannot be estimated.
    """
    discounts = []
    for j in (1, 2, 3):
        if ngrams[j - 1] == 0:
            raise ValueError(f"the text is small or artificial (none has count {j})")
        y = ngrams[0] / (ngrams[0] + 2.0 * ngrams[1])
        discount = j - (j + 1) * y * ngrams[j] / ngrams[j - 1]
        if not 0.0 <= discount <= j:
            raise ValueError(f"the text is small or artificial (D{j} would be {discount:.3f})")
        discounts.append(discount)
    return discounts[0], discounts[1], discounts[2]


def _adjusted(counts: list[OrderCounts], k: int) -> np.ndarray:
    """How many words precede each k-gram; its count instead for the highest order, and if nothing can precede it."""
    own = counts[k - 1]
    if k == len(counts):
        return own.count
    preceded_by = np.bincount(counts[k].suffix, minlength=len(own.count))
    return np.where(own.oldest == BOS, own.count, preceded_by)


def _pruned(
    corpus: Corpus, counts: list[OrderCounts], thresholds: list[int], limit_vocabulary: Collection[str] | None
) -> list[np.ndarray]:
    """Which k-grams are left out, per order."""
    masks: list[np.ndarray] = []
    for k, own in enumerate(counts, 1):
        mask = own.count <= thresholds[k - 1]
        if limit_vocabulary is not None and k == 1:
            allowed = frozenset(limit_vocabulary)
            mask |= np.array([word not in allowed for word in corpus.words])
        elif limit_vocabulary is not None:
            mask |= masks[0][own.oldest] | masks[-1][own.suffix]
        if k == 1:
            mask[: EOS + 1] = False
        masks.append(mask)
    return masks


def _statistics(counts: list[OrderCounts], adjusted: list[np.ndarray]) -> list[list[int]]:
    """For each order, the numbers of n-grams with adjusted counts 1, 2, 3, 4."""
    statistics = []
    last_is_open = True
    for k, (own, values) in enumerate(zip(counts, adjusted, strict=True), 1):
        if k < len(counts) and last_is_open:
            # lmplz uses the plain count of the last n-gram of its sorted list instead of the adjusted one. One n-gram
            # per order matters only in small texts; this makes the probabilities agree there too.
            values = values.copy()
            values[-1] = own.count[-1]
            last_is_open = bool(own.oldest[-1] != BOS)
        statistics.append(np.bincount(np.clip(values, 0, 5), minlength=6)[1:5].tolist())
    return statistics


def _interpolate(
    words: list[str],
    counts: list[OrderCounts],
    adjusted: list[np.ndarray],
    pruned: list[np.ndarray],
    discounts: list[Discounts],
) -> NGramTables:
    """Equations 4 and 5 of Heafield et al.: discounted counts, mixed with the probabilities of the next lower order."""
    kept = [np.flatnonzero(~mask) for mask in pruned]
    id_of_word = np.cumsum(~pruned[0], dtype=np.int32) - np.int32(1)
    shorter = np.full(1, 1.0 / (len(kept[0]) - 1))  # uniform over all words but <s>, which is never predicted
    tables: list[NGramTable] = []
    for k, own in enumerate(counts, 1):
        values, d = adjusted[k - 1], np.array([0.0, *discounts[k - 1]])
        contexts = len(counts[k - 2].count) if k > 1 else 1
        discount = d[np.minimum(values, 3)]
        total = np.bincount(own.context, weights=values, minlength=contexts)
        spared = np.bincount(own.context, weights=np.where(pruned[k - 1], values, discount), minlength=contexts)
        with np.errstate(invalid="ignore", divide="ignore"):
            gamma = np.where(total > 0, spared / total, 1.0)
        p = (values - discount) / total[own.context] + gamma[own.context] * shorter[own.suffix]
        if k == 1:
            p[BOS] = 1.0  # as in lmplz: scoring <s> as a word costs nothing
        else:
            context_backoff = gamma[kept[k - 2]]
            # A context with no continuation kept gives all its mass to the back-off, which is 1 up to rounding.
            tables[-1] = tables[-1]._replace(backoff=_log10(np.minimum(context_backoff, 1.0)))
        rows = kept[k - 1]
        ids = id_of_word[ngram_words(counts, k, rows)]
        tables.append(NGramTable(ids, _log10(np.minimum(p[rows], 1.0)), np.zeros(len(rows), np.float32)))
        shorter = p
    return NGramTables([words[i] for i in kept[0]], tables)


def _log10(values: np.ndarray) -> np.ndarray:
    # A discount of 0 leaves nothing for backing off: lmplz writes -inf, which would make sums of scores useless.
    return np.log10(np.maximum(values, 10.0**OOV_LOG10)).astype(np.float32)
