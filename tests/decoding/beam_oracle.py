"""Brute force for the beam search: every alignment of a tiny problem, its text, and the sum of its probabilities."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict

import numpy as np

from asr.lm.automaton import lm_step

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


def pauses_of(log_probs, least, quiet=0.5):
    """The frames in which a run of `least` quiet frames is complete, of runs after a frame that is not quiet."""
    ends, run = [], -math.inf
    for t, row in enumerate(np.exp(log_probs.astype(np.float64))):
        run = run + 1 if row[0] + row[1] > quiet else 0
        if run == least:
            ends.append(t)
    return ends


def texts_with_pauses(labels, log_probs, ends):
    """As `texts`, for (text, the words before which there was a pause): label 1 is the separator.

    A pause is before a word if it ends after the last label of the word before has begun, and before its own first one
    does.
    """
    probabilities = np.exp(log_probs.astype(np.float64))
    sums = defaultdict(float)
    for path in itertools.product(range(len(labels)), repeat=len(log_probs)):
        word, open_word, rested, ids = 0, False, False, []
        before = set()  # the words with a pause before them
        for t, c in enumerate(path):
            rested = rested or t in ends
            if c == 0 or (t > 0 and path[t - 1] == c):
                continue
            ids.append(c)
            starts = labels[c].startswith(WORD_MARK) and c != 1
            if open_word and (c == 1 or starts):
                open_word, word = False, word + 1
            if c != 1:
                if not open_word and rested:
                    before.add(word)
                open_word, rested = True, False
        sums[text_of(labels, ids), frozenset(before)] += float(np.prod(probabilities[np.arange(len(path)), path]))
    return {key: math.log(value) for key, value in sums.items() if value > 0.0}


def language_part(
    text,
    lm=None,
    alpha=0.0,
    beta=0.0,
    known=None,
    offset=0.0,
    per_character=0.0,
    least=-math.inf,
    pauses=(),
):
    """alpha ln P + beta words, with the penalties of words that are not in `known`.

    Words in `pauses` come after a long pause: the likelier of going on, and of </s> and a new sentence.
    """
    if lm is None:
        return 0.0
    total, state = 0.0, lm.begin_state
    for i, word in enumerate(text.split()):
        index = lm.index.get(word, 0)
        ways = [(lm_step(lm.arrays, state, index), 0.0)]
        if i in pauses:
            ways.append((lm_step(lm.arrays, lm.begin_state, index), lm_step(lm.arrays, state, 2)[0]))
        ways = [(end + (max(logp, least) if index == 0 else logp), following) for (logp, following), end in ways]
        logp, state = max(ways, key=lambda way: way[0])
        total += alpha * logp + beta
        if word not in known:
            total += offset + per_character * len(word)
    return total + alpha * lm_step(lm.arrays, state, 2)[0]


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
