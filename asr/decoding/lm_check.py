"""Whether a language model fits an acoustic model: words it can spell, letters of the same case, words at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr.decoding.beam.lexicon import SpelledWords
from asr.lm.ngram import NGramLM
from asr.lm.tables import EOS, LMError
from asr.text.tokenizer import WORD_MARK

LEAST_SPELLED = 0.5  # of the words' probability; below that the language model is for something else
_TOKEN_LEVEL = 0.5


def spelled_share(lm: NGramLM, labels: Sequence[str]) -> float:
    """The share, by unigram probability without <unk>, <s> and </s>, of words that `labels` can spell."""
    return _share(lm.words[EOS + 1 :], _weights(lm), alphabet(labels))


def check_lm(lm: NGramLM, labels: Sequence[str], lexicon: SpelledWords | None = None) -> list[str]:
    """Warnings about a language model for an output layer of these labels (index 0 the blank).

    Raises LMError, saying what to do, when less than half of its words can be spelled; with a lexicon, which may spell
    them otherwise, when it knows none of the lexicon's words.
    """
    if lexicon is not None:
        if all(word not in lm for word in lexicon.words):
            raise LMError(
                f"{lm.name}: the language model knows none of the {len(lexicon.words):,} words of the lexicon, for "
                f"example not '{lexicon.words[0]}': is it of another case or language?"
            )
        return []
    words, weights, symbols = lm.words[EOS + 1 :], _weights(lm), alphabet(labels)
    if not words:
        raise LMError(f"{lm.name}: the language model has no words")
    level = token_level(lm)
    share = _share(words, weights, symbols)
    if share < LEAST_SPELLED:
        raise LMError(f"{lm.name}: {_why(words, weights, symbols, share, level)}")
    if level:
        return [
            f"{lm.name}: the language model looks like one of {level}, but it is asked for whole words: "
            "train it on text with spaces between words (`asr lm train`)"
        ]
    return []


def token_level(lm: NGramLM) -> str:
    """What the words of a model are if they are no words: "single characters", "SentencePiece pieces"; else ""."""
    words, weights = lm.words[EOS + 1 :], _weights(lm)
    total = float(weights.sum()) or 1.0
    marked = np.array([word.startswith(WORD_MARK) for word in words], bool)
    if marked.any() and float(weights[marked].sum()) / total > 0.2:
        return "SentencePiece pieces"
    single = np.array([len(word) == 1 for word in words], bool)
    return "single characters" if float(weights[single].sum()) / total > _TOKEN_LEVEL else ""


def alphabet(labels: Sequence[str]) -> frozenset[str]:
    """The characters that tokens can spell inside words: of characters, or of SentencePiece pieces."""
    return frozenset("".join(labels)) - {" ", WORD_MARK}


def _why(words: list[str], weights: np.ndarray, symbols: frozenset[str], share: float, level: str) -> str:
    found = f"the model can spell only {share:.0%} of the language model's words"
    if level == "SentencePiece pieces":
        return f"{found}, which look like {level}: train it on text with spaces between words (`asr lm train`)"
    for change, case, other in ((str.lower, "UPPER", "lower"), (str.upper, "lower", "UPPER")):
        if _share([change(word) for word in words], weights, symbols) >= LEAST_SPELLED:
            return (
                f"{found}: it is in {case} case, the model in {other} case: "
                f"convert it with `asr lm convert LM NEW --case {other.lower()}`"
            )
    likely = [words[i] for i in np.argsort(-weights)[:2000].tolist()]
    strange = sorted({c for word in likely for c in word} - symbols)[:8]
    shown = ", ".join(repr(c) for c in strange)
    return (
        f"{found} (its alphabet lacks {shown}, among others): is it for another language? "
        "Train one on text normalized as the model's (`asr lm train TEXT -o LM -m MODEL`)"
    )


def _weights(lm: NGramLM) -> np.ndarray:
    """The unigram probabilities of the words but the special ones."""
    return np.exp(lm.arrays.unigram["logp"][EOS + 1 :].astype(np.float64))


def _share(words: list[str], weights: np.ndarray, symbols: frozenset[str]) -> float:
    spelled = np.fromiter((symbols.issuperset(word) for word in words), bool, len(words))
    total = float(weights.sum())
    return float(weights[spelled].sum()) / total if total > 0 else float(spelled.mean()) if len(words) else 0.0
