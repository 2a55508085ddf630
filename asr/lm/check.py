"""Whether a language model fits an acoustic model: words it can spell, letters of the same case, words at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr.lm.ngram import NGramLM
from asr.lm.tables import EOS, LMError
from asr.text.tokenizer import WORD_MARK

LEAST_SPELLED = 0.5  # of the words' probability; below that the language model is for something else


def spelled_share(lm: NGramLM, labels: Sequence[str]) -> float:
    """The share, by unigram probability without <unk>, <s> and </s>, of words that `labels` can spell."""
    return _share(lm.words[EOS + 1 :], _weights(lm), _letters(labels))


def check_lm(lm: NGramLM, labels: Sequence[str], lexicon: Sequence[str] | None = None) -> list[str]:
    """Warnings about a language model for an output layer of these labels (index 0 the blank).

    Raises LMError, saying what to do, when less than half of its words can be spelled. With the words of a `lexicon`,
    which may spell them in any way, only a model that knows none of them is refused.
    """
    if lexicon is not None:
        if all(word not in lm for word in lexicon):
            raise LMError(
                f"{lm.name}: the language model knows none of the {len(lexicon):,} words of the lexicon, for "
                f"example not '{lexicon[0]}': is it of another case or language?"
            )
        return []
    words, weights, letters = lm.words[EOS + 1 :], _weights(lm), _letters(labels)
    if not words:
        raise LMError(f"{lm.name}: the language model has no words")
    unit = token_level(lm)
    share = _share(words, weights, letters)
    if share < LEAST_SPELLED:
        raise LMError(f"{lm.name}: {_reason(words, weights, letters, share, unit)}")
    if unit:
        return [
            f"{lm.name}: the language model looks like one of {unit}, but it is asked for whole words: "
            "train it on text with spaces between words (`asr lm train`)"
        ]
    return []


def token_level(lm: NGramLM) -> str:
    """What the words of a model are if they are no words: "single characters", "SentencePiece pieces"; else ""."""
    words, weights = lm.words[EOS + 1 :], _weights(lm)
    total = float(weights.sum()) or 1.0
    if sum(weights[i] for i, word in enumerate(words) if word.startswith(WORD_MARK)) > 0.2 * total:
        return "SentencePiece pieces"
    return "single characters" if sum(weights[i] for i, word in enumerate(words) if len(word) == 1) > total / 2 else ""


def _letters(labels: Sequence[str]) -> frozenset[str]:
    """What tokens, characters or SentencePiece pieces, can spell inside words."""
    return frozenset("".join(labels)) - {" ", WORD_MARK}


def _reason(words: list[str], weights: np.ndarray, letters: frozenset[str], share: float, unit: str) -> str:
    """Why so few of the words can be spelled, and what to do."""
    found = f"the model can spell only {share:.0%} of the language model's words"
    if unit == "SentencePiece pieces":
        return f"{found}, which look like {unit}: train it on text with spaces between words (`asr lm train`)"
    for change, case, other in ((str.lower, "UPPER", "lower"), (str.upper, "lower", "UPPER")):
        if _share([change(word) for word in words], weights, letters) >= LEAST_SPELLED:
            return (
                f"{found}: it is in {case} case, the model in {other} case: "
                f"convert it with `asr lm convert LM NEW --case {other.lower()}`"
            )
    likely = [words[i] for i in np.argsort(-weights)[:2000].tolist()]
    missing = sorted({letter for word in likely for letter in word} - letters)[:8]
    return (
        f"{found} (its alphabet lacks {', '.join(map(repr, missing))}, among others): is it for another language? "
        "Train one on text normalized as the model's (`asr lm train TEXT -o LM -m MODEL`)"
    )


def _weights(lm: NGramLM) -> np.ndarray:
    """The unigram probabilities of the words but the special ones."""
    return np.exp(lm.arrays.unigram["logp"][EOS + 1 :].astype(np.float64))


def _share(words: list[str], weights: np.ndarray, letters: frozenset[str]) -> float:
    """The share of the words, by weight, that these letters spell."""
    spelled = np.fromiter((letters.issuperset(word) for word in words), bool, len(words))
    total = float(weights.sum())
    return float(weights[spelled].sum()) / total if total > 0 else float(spelled.mean()) if len(words) else 0.0
