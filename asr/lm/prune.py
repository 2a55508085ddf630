"""Entropy pruning of n-gram models: removes the n-grams that change the model least (SRILM's `ngram -prune`).

Stolcke, "Entropy-based Pruning of Backoff Language Models", DARPA Broadcast News Workshop 1998, arXiv cs/0006025. How
often histories occur is counted in the training text if it is given, because the lower orders of a Kneser-Ney model
do not show it (Chelba, Brants, Neveitt and Xu, "Study on Interaction between Entropy Pruning and Kneser-Ney
Smoothing", Interspeech 2010).
"""

from __future__ import annotations

import numpy as np

from asr.lm.automaton import LN10
from asr.lm.estimate import Corpus, count_ngrams, ngram_words
from asr.lm.tables import BOS, EOS, OOV_LOG10, UNK, LMError, NGramTable, NGramTables, with_missing_contexts

_SLACK = 1e-3  # by how much sums of probabilities may exceed 1 in a file with few decimals
_ROUNDING = 1e-6  # error of a sum of float32 probabilities: smaller differences from 1 mean nothing


def prune_entropy(model: NGramTables, threshold: float, corpus: Corpus | None = None) -> NGramTables:
    """The model without n-grams that, removed one at a time, raise the perplexity by less than the share `threshold`.

    `corpus` is the text it was trained on; without it, the model itself gives the probabilities of histories, as in
    SRILM. Pruning goes from the longest n-grams down. Words stay, and so do contexts of n-grams that stay. All back-off
    weights are computed anew, so that the probabilities after each history sum to 1. Raises LMError for a model in
    which they sum to more.
    """
    if not 0 <= threshold < np.inf:
        raise LMError(f"a pruning threshold must be 0 or more (1e-8 is common), not {threshold:g}")
    model = _complete(model)
    if threshold == 0 or model.order == 1:
        return model
    index = NGramIndex(model)
    histories = history_log10(model, index, corpus)
    kept = list(model.tables)
    extended = np.zeros(len(kept[-1].logp), np.bool_)  # contexts of n-grams that stay
    for k in range(model.order, 1, -1):
        entropy = relative_entropies(model, index, k, histories[k - 2])
        stays = extended | (np.expm1(entropy) >= threshold)
        kept[k - 1] = NGramTable(*(column[stays] for column in model.tables[k - 1]))
        extended = np.zeros(len(model.tables[k - 2].logp), np.bool_)
        extended[index.context[k - 1][stays]] = True
    while not len(kept[-1].logp):
        kept.pop()
    kept[-1] = kept[-1]._replace(backoff=np.zeros_like(kept[-1].backoff))
    return _normalized(NGramTables(model.words, kept))


class NGramIndex:
    """Looks up n-grams. `context[k - 1]`: the row, among the (k-1)-grams, of the first k - 1 words of every k-gram."""

    def __init__(self, model: NGramTables) -> None:
        self.tables = model.tables
        self.vocabulary = len(model.words)
        self.context = [np.zeros(self.vocabulary, np.int64)]
        self.keys = [np.arange(self.vocabulary)]
        self.rows = [np.arange(self.vocabulary)]
        for k, table in enumerate(model.tables[1:], 2):
            context = self.find(table.words[:, : k - 1])
            keys = context * self.vocabulary + table.words[:, -1]
            order = np.argsort(keys, kind="stable")
            self.context.append(context)
            self.keys.append(keys[order])
            self.rows.append(order)

    def find(self, words: np.ndarray) -> np.ndarray:
        """The rows of the n-grams `words` (n, k), -1 for those that are not in the model."""
        row = words[:, 0].astype(np.int64)
        for k in range(2, words.shape[1] + 1):
            keys = self.keys[k - 1]
            if not len(keys):
                return np.full(len(words), -1, np.int64)
            sought = row * self.vocabulary + words[:, k - 1]
            place = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
            row = np.where((row >= 0) & (keys[place] == sought), self.rows[k - 1][place], -1)
        return row

    def log10(self, words: np.ndarray) -> np.ndarray:
        """log10 p of the last word of each row (n, k) after the others, float64, backing off if necessary."""
        k = words.shape[1]
        row = self.find(words)
        logp = self.tables[k - 1].logp[row].astype(np.float64) if len(self.tables[k - 1].logp) else np.zeros(len(row))
        missing = np.flatnonzero(row < 0)
        if len(missing):
            context = self.find(words[missing, :-1])
            weight = np.where(context >= 0, self.tables[k - 2].backoff[context], 0.0)
            logp[missing] = weight + self.log10(words[missing, 1:])
        return logp


def relative_entropies(model: NGramTables, index: NGramIndex, k: int, history: np.ndarray) -> np.ndarray:
    """D(p || p') in nats for every k-gram (k > 1) of the model, where p' is the model without this k-gram.

    Stolcke's equation 4, for the order-k part of the model; `history` is log10 p of every (k-1)-gram as a piece of
    text (see `history_log10`).
    """
    context = index.context[k - 1]
    p, shorter, left, left_shorter = _masses(model, index, k)
    left, left_shorter = left[context], np.maximum(left_shorter, 0.0)[context]
    with np.errstate(divide="ignore", invalid="ignore"):
        # The back-off weight is left / left_shorter, and (left + p) / (left_shorter + shorter) without the n-gram.
        change = np.log1p(p / left) - np.log1p(shorter / left_shorter)
        change = np.where((left > _ROUNDING) & (left_shorter > 0), left * change, 0.0)
        own = np.log(shorter) + np.log((left + p) / (left_shorter + shorter)) - np.log(p)
    entropy = -np.exp(LN10 * history[context]) * (p * own + change)
    return np.maximum(entropy, 0.0)  # negative only by rounding


def history_log10(model: NGramTables, index: NGramIndex, corpus: Corpus | None = None) -> list[np.ndarray]:
    """log10 p of the n-grams of every order but the highest, each as a piece of text.

    Without a `corpus` it is the product of the model's own probabilities, with that of </s> for <s>.
    """
    if corpus is not None:
        return _history_shares(model, index, corpus)
    total = model.tables[0].logp.astype(np.float64)
    total[BOS] = total[EOS]  # every sentence has one of each, but <s> is never predicted
    totals = [total]
    for table, context in zip(model.tables[1:-1], index.context[1:-1], strict=True):
        totals.append(totals[-1][context] + table.logp)
    return totals


def _history_shares(model: NGramTables, index: NGramIndex, corpus: Corpus) -> list[np.ndarray]:
    """As `history_log10`, counted in the text: the share of its words and sentence ends that follow each n-gram."""
    number = {word: i for i, word in enumerate(model.words)}
    ids = np.array([number.get(word, UNK) for word in corpus.words])
    counts = count_ngrams(corpus, model.order - 1)
    shares = []
    for n, (own, table) in enumerate(zip(counts, model.tables, strict=False), 1):
        count = own.count.astype(np.float64)
        if n == 1:
            count[BOS] = corpus.sentences
        row = index.find(ids[ngram_words(counts, n, np.arange(len(count)))])
        known = np.flatnonzero((row >= 0) & (count > 0))
        share = np.full(len(table.logp), -np.inf)
        share[row[known]] = np.log10(count[known] / len(corpus.tokens))
        shares.append(share)
    return shares


def _masses(model: NGramTables, index: NGramIndex, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """p of every k-gram, and of its last word after one word less; and for each history, 1 minus the sums of both.

    Raises LMError if the k-grams of a history sum to more than 1.
    """
    table, contexts = model.tables[k - 1], len(model.tables[k - 2].logp)
    p = np.exp(LN10 * table.logp.astype(np.float64))
    shorter = np.exp(LN10 * index.log10(table.words[:, 1:]))
    sums, shorter_sums = (np.bincount(index.context[k - 1], weights=x, minlength=contexts) for x in (p, shorter))
    if sums.max(initial=0.0) > 1.0 + _SLACK:
        worst = int(np.argmax(sums))
        words = " ".join(model.words[i] for i in model.tables[k - 2].words[worst])
        raise LMError(
            f"the probabilities after '{words}' sum to {sums[worst]:.4g}: this model cannot be pruned by entropy"
        )
    return p, shorter, np.maximum(1.0 - sums, 0.0), 1.0 - shorter_sums


def _normalized(model: NGramTables) -> NGramTables:
    """The model with the back-off weights that make the probabilities after every history sum to 1."""
    tables = list(model.tables)
    for k in range(2, model.order + 1):
        part = NGramTables(model.words, tables[:k])  # with the new weights of shorter histories
        _, _, left, left_shorter = _masses(part, NGramIndex(part), k)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.log10(left / left_shorter)
        weight = np.where(left > 0, weight, OOV_LOG10)
        # without any word to back off to, the weight does not matter
        weight = np.where(left_shorter > _ROUNDING, weight, tables[k - 2].backoff)
        tables[k - 2] = tables[k - 2]._replace(backoff=weight.astype(np.float32))
    return NGramTables(model.words, tables)


def _complete(model: NGramTables) -> NGramTables:
    """The model with the contexts that it leaves out added as n-grams, with their probabilities."""
    tables = with_missing_contexts(model.tables)
    for k in range(2, model.order):
        absent = np.flatnonzero(np.isnan(tables[k - 1].logp))
        if len(absent):
            logp, words = tables[k - 1].logp.copy(), tables[k - 1].words[absent]
            index = NGramIndex(NGramTables(model.words, tables[: k - 1]))
            weight = tables[k - 2].backoff[index.find(words[:, :-1])]
            logp[absent] = weight + index.log10(words[:, 1:])
            tables[k - 1] = tables[k - 1]._replace(logp=logp)
    return NGramTables(model.words, tables)
