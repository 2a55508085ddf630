"""Brute force for the beam search: every alignment of a tiny problem, its text, and the sum of its probabilities."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict

import numpy as np

WORD_MARK = "\u2581"


def emissions(rng, frames, width, sharpness=2.0):
    """Random log-probabilities (frames, width) float32."""
    scores = rng.standard_normal((frames, width)) * sharpness
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


def text_of(labels, ids):
    """What collapsed ids spell, by the rules of asr.text.tokenizer."""
    joined = "".join(labels[i] for i in ids).replace(WORD_MARK, " ")
    return " ".join(joined.split())


def texts(labels, log_probs):
    """Natural log of P(text | emissions) of every text, over all alignments."""
    probabilities = np.exp(log_probs.astype(np.float64))
    sums = defaultdict(float)
    for path in itertools.product(range(len(labels)), repeat=len(log_probs)):
        ids = [c for c, _ in itertools.groupby(path) if c != 0]
        sums[text_of(labels, ids)] += float(np.prod(probabilities[np.arange(len(path)), path]))
    return {text: math.log(value) for text, value in sums.items() if value > 0.0}


def language_part(text, lm=None, alpha=0.0, beta=0.0, known=None, offset=0.0, per_character=0.0, least=-math.inf):
    """alpha ln P + beta words, with the penalties of words that are not in `known`."""
    if lm is None:
        return 0.0
    total = 0.0
    scores = [log10 * math.log(10) for log10, _, _ in lm.full_scores(text)]
    for word, logp in zip(text.split(), scores[:-1], strict=True):
        total += alpha * (max(logp, least) if word not in lm else logp) + beta
        if word not in known:
            total += offset + per_character * len(word)
    return total + alpha * scores[-1]


def hotword_part(text, phrases):
    """The weights of the phrases for each time that they stand in the text as whole words."""
    words = text.split()
    total = 0.0
    for phrase, weight in phrases.items():
        parts = phrase.split()
        total += weight * sum(words[i : i + len(parts)] == parts for i in range(len(words)))
    return total


def arpa(rng: random.Random, words, order=3, share=0.5, unknown=True):
    """A small back-off model in ARPA format over these words: any numbers do, it need not be normalized."""
    grams = {1: [(w,) for w in [*(["<unk>"] if unknown else []), "<s>", "</s>", *words]]}
    for n in range(2, order + 1):
        longer = [
            (*gram, word)
            for gram in grams[n - 1]
            if gram[-1] not in ("</s>", "<unk>")
            for word in ["</s>", *words]
            if rng.random() < share and (n == 2 or (*gram[1:], word) in grams[n - 1])
        ]
        grams[n] = [gram for gram in longer if "<unk>" not in gram]
    lines = ["\\data\\", *(f"ngram {n}={len(g)}" for n, g in grams.items()), ""]
    for n, entries in grams.items():
        lines.append(f"\\{n}-grams:")
        for gram in entries:
            logp = "-99" if gram == ("<s>",) else f"{-rng.uniform(0.1, 2.5):.4f}"
            backoff = f"\t{-rng.uniform(0.0, 1.0):.4f}" if n < order and gram[-1] != "</s>" else ""
            lines.append(f"{logp}\t{' '.join(gram)}{backoff}")
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])
