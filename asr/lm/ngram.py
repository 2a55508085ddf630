"""A word n-gram language model: read from ARPA or our binary, scored, and checked against an acoustic model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from asr.files import opened
from asr.lm.arpa import read_arpa
from asr.lm.automaton import LN10, DuplicateNGram, build_automaton, score_words
from asr.lm.files import BinaryLM, Tuned, is_binary, read_binary, read_tuned, write_binary
from asr.lm.tables import BOS, EOS, UNK, LMArrays, LMError, NGramTable, NGramTables, PackedWords, pack_words
from asr.text.tokenizer import WORD_MARK

LEAST_SPELLED = 0.5  # share of the words, by probability; below that, the language model is for something else


class NGramLM:
    """A back-off n-gram model of words, with the same scores as KenLM.

    `order`; `counts` of n-grams per order; `arrays` for compiled code; `words` by id (0 <unk>, 1 <s>, 2 </s>);
    `begin_state`, the state after <s>; `tuned`, its decoding weights, None before `asr lm tune`; `binary`, whether it
    was read from our binary format.
    """

    def __init__(
        self,
        words: list[str] | PackedWords,
        arrays: LMArrays,
        state_length: np.ndarray,
        counts: Sequence[int],
        *,
        name: str = "language model",
        binary: bool = False,
    ) -> None:
        self.arrays = arrays
        self.state_length = state_length
        self.counts = tuple(int(n) for n in counts)
        self.order = len(self.counts)
        self.name = name
        self.tuned: Tuned | None = None
        self.binary = binary
        self._words = words
        self.begin_state = int(arrays.unigram["next"][BOS])

    @classmethod
    def from_tables(cls, tables: NGramTables, name: str = "language model") -> NGramLM:
        """The model of these n-grams. Raises DuplicateNGram if one occurs twice."""
        arrays, state_length = build_automaton(tables)
        return cls(tables.words, arrays, state_length, tables.counts, name=name)

    @classmethod
    def read(cls, path: str | Path, verify: bool = False) -> NGramLM:
        """Read an ARPA file (plain or gzipped) or our binary, detected by content, and its tuned weights.

        With `verify`, as in all commands, a binary is read completely to compare its checksums; without, it opens
        instantly. Raises LMError with file and line.
        """
        with opened(path, LMError) as file:
            if is_binary(file):
                model = cls(*read_binary(path, file, verify), name=str(path), binary=True)
            else:
                tables, first_line = read_arpa(path, file)
                try:
                    model = cls.from_tables(tables, name=str(path))
                except DuplicateNGram as error:
                    words = " ".join(tables.words[i] for i in error.ids)
                    line = first_line[error.order] + error.row
                    raise LMError(f"{path}:{line}: the {error.order}-gram '{words}' occurs twice") from None
        model.tuned = read_tuned(path)
        return model

    def to_tables(self) -> NGramTables:
        """The n-grams of the model, sorted by their last word, then the one before, and so on.

        Numbers have the precision of float32 after a change of the logarithm's base (1e-7 of the value).
        """
        arrays, lengths = self.arrays, self.state_length
        used = np.flatnonzero(arrays.arc["key"] >= 0)
        source, word = np.divmod(arrays.arc["key"][used], self.vocab_size)
        order = lengths[source].astype(np.int64) + 1
        after = arrays.arc["next"][used]

        ids = np.arange(self.vocab_size, dtype=np.int32)
        after_word = arrays.unigram["next"]
        backoff = np.where(after_word > 0, arrays.state["backoff"][after_word], np.float32(0))
        tables = [NGramTable(ids[:, None], _log10(arrays.unigram["logp"]), _log10(backoff))]
        history = np.zeros((len(lengths), max(1, self.order - 1)), np.int32)  # the words of every state
        history[after_word[after_word > 0], 0] = np.flatnonzero(after_word)
        for k in range(2, self.order + 1):
            arcs = np.flatnonzero(order == k)
            words = np.concatenate([history[source[arcs], : k - 1], word[arcs, None].astype(np.int32)], axis=1)
            places = np.lexsort(words.T)
            arcs, words = arcs[places], words[places]
            is_state = lengths[after[arcs]] == k
            if k < self.order:
                history[after[arcs][is_state], :k] = words[is_state]
            backoff = np.where(is_state, arrays.state["backoff"][after[arcs]], np.float32(0))
            tables.append(NGramTable(words, _log10(arrays.arc["logp"][used[arcs]]), _log10(backoff)))
        return NGramTables(self.words, tables)

    def write_binary(self, path: str | Path) -> None:
        """Write the binary that `read` maps into memory, atomically. Raises LMError."""
        words = self._words if isinstance(self._words, PackedWords) else pack_words(self._words)
        write_binary(path, BinaryLM(words, self.arrays, self.state_length, self.counts))

    @property
    def vocab_size(self) -> int:
        """Number of words, including <unk>, <s> and </s>."""
        return len(self.arrays.unigram)

    @cached_property
    def words(self) -> list[str]:
        """The words by id."""
        return self._words.unpack() if isinstance(self._words, PackedWords) else self._words

    @cached_property
    def index(self) -> dict[str, int]:
        """The id of every word."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def least_unigram(self) -> float:
        """Natural log p of the rarest word in the empty context, at least -50."""
        unigrams = self.arrays.unigram["logp"]
        words = unigrams[EOS + 1 :]
        return max(float((words if len(words) else unigrams).min()), -50.0)

    def __contains__(self, word: str) -> bool:
        return self.index.get(word, UNK) != UNK

    def score(self, sentence: str, bos: bool = True, eos: bool = True) -> float:
        """log10 p of a sentence of words separated by spaces, like KenLM's `Model.score`."""
        return float(self._scores(sentence, bos, eos)[0].sum() / LN10)

    def full_scores(self, sentence: str, bos: bool = True, eos: bool = True) -> Iterator[tuple[float, int, bool]]:
        """For each word (and </s>): log10 p, length of the matched n-gram, whether the word is unknown; as in KenLM."""
        for value, n, word in zip(*self._scores(sentence, bos, eos), strict=True):
            yield float(value / LN10), int(n), bool(word == UNK)

    def _scores(self, sentence: str, bos: bool, eos: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Natural log p, matched n-gram length and id of each word."""
        ids = np.array([*(self.index.get(word, UNK) for word in sentence.split()), *([EOS] if eos else [])], np.int64)
        logp, length = np.empty(len(ids)), np.empty(len(ids), np.int64)
        score_words(self.arrays, self.state_length, self.begin_state if bos else 0, ids, logp, length)
        return logp, length, ids


def _log10(natural: np.ndarray) -> np.ndarray:
    return (natural.astype(np.float64) / LN10).astype(np.float32)


def read_ngrams(path: str | Path) -> NGramTables:
    """The n-grams of a language model, ARPA (plain or gzipped) or our binary. Raises LMError."""
    with opened(path, LMError) as file:
        if not is_binary(file):
            return read_arpa(path, file)[0]
        return NGramLM(*read_binary(path, file, verify=True)).to_tables()


@dataclass(frozen=True)
class Perplexity:
    """Sums over a text: `tokens` are words and </s>; log10 probabilities of all tokens, and of the unknown words."""

    sentences: int
    tokens: int
    unknown: int
    log10: float
    log10_unknown: float

    @property
    def with_unknown(self) -> float:
        """Perplexity per token, with unknown words at the model's cost for them (KenLM: "including OOVs")."""
        return _perplexity(self.log10, self.tokens)

    @property
    def without_unknown(self) -> float:
        """Perplexity per known token, without the unknown words (KenLM: "excluding OOVs")."""
        return _perplexity(self.log10 - self.log10_unknown, self.tokens - self.unknown)

    @property
    def unknown_rate(self) -> float:
        """The share of words, excluding </s>, that the model does not know."""
        words = self.tokens - self.sentences
        return self.unknown / words if words else 0.0


def perplexity(lm: NGramLM, sentences: Iterable[str]) -> Perplexity:
    """Score sentences, each between <s> and </s>."""
    sums = np.zeros(5)
    for sentence in sentences:
        logp, _, ids = lm._scores(sentence, bos=True, eos=True)
        unknown = ids == UNK
        sums += (1, len(ids), unknown.sum(), logp.sum(), logp[unknown].sum())
    return Perplexity(*map(int, sums[:3]), *(float(total / LN10) for total in sums[3:]))


def _perplexity(log10: float, tokens: int) -> float:
    if not tokens:
        return math.nan
    exponent = -log10 / tokens
    return 10.0**exponent if exponent < 308 else math.inf


def spelled_share(lm: NGramLM, labels: Sequence[str]) -> float:
    """The share, by unigram probability without <unk>, <s> and </s>, of words that `labels` can spell."""
    return _share(*_weighted_words(lm), _letters(labels))


def check_lm(lm: NGramLM, labels: Sequence[str], lexicon: Sequence[str] | None = None) -> list[str]:
    """Warnings about a language model for an output layer with these labels (index 0 is the blank).

    Raises LMError, with advice, if less than half of its words can be spelled. With the words of a `lexicon`, which may
    spell them in any way, it is raised only if the model knows none of them.
    """
    if lexicon is not None:
        if all(word not in lm for word in lexicon):
            raise LMError(
                f"{lm.name}: the language model knows none of the {len(lexicon):,} words of the lexicon (e.g. "
                f"'{lexicon[0]}'): is it of another case or language?"
            )
        return []
    (words, weights), letters = _weighted_words(lm), _letters(labels)
    if not words:
        raise LMError(f"{lm.name}: the language model has no words")
    unit = token_level(lm)
    share = _share(words, weights, letters)
    if share < LEAST_SPELLED:
        raise LMError(f"{lm.name}: {_reason(words, weights, letters, share, unit)}")
    if unit and not all(label.startswith(WORD_MARK) for label in labels[1:]):  # unless each token is a word
        return [
            f"{lm.name}: this looks like a language model of {unit}, but one of whole words is needed: "
            "train it on text with spaces between words (`asr lm train`)"
        ]
    return []


def token_level(lm: NGramLM) -> str:
    """What the entries of a model are if not words: "single characters" or "SentencePiece pieces"; else ""."""
    words, weights = _weighted_words(lm)
    if _weighted_share([word.startswith(WORD_MARK) for word in words], weights) > 0.2:
        return "SentencePiece pieces"
    return "single characters" if _weighted_share([len(word) == 1 for word in words], weights) > 0.5 else ""


def _letters(labels: Sequence[str]) -> frozenset[str]:
    """The letters that tokens (characters or SentencePiece pieces) can spell in words."""
    return frozenset("".join(labels)) - {" ", WORD_MARK}


def _reason(words: list[str], weights: np.ndarray, letters: frozenset[str], share: float, unit: str) -> str:
    """Why so few of the words can be spelled, and what to do."""
    problem = f"the model can spell only {share:.0%} of the language model's words"
    if unit == "SentencePiece pieces":
        return f"{problem}, which look like {unit}: train it on text with spaces between words (`asr lm train`)"
    for change, case, other in ((str.lower, "UPPER", "lower"), (str.upper, "lower", "UPPER")):
        if _share([change(word) for word in words], weights, letters) >= LEAST_SPELLED:
            return (
                f"{problem}: it is in {case} case, but the model is in {other} case: "
                f"convert it with `asr lm convert LM NEW --case {other.lower()}`"
            )
    likely = [words[i] for i in np.argsort(-weights)[:2000].tolist()]
    missing = sorted({letter for word in likely for letter in word} - letters)[:8]
    return (
        f"{problem} (its alphabet lacks {', '.join(map(repr, missing))}, among others): is it for another language? "
        "Train one on text normalized as for the model (`asr lm train TEXT -o LM -m MODEL`)"
    )


def _weighted_words(lm: NGramLM) -> tuple[list[str], np.ndarray]:
    """The words, except the special ones, and their unigram probabilities."""
    return lm.words[EOS + 1 :], np.exp(lm.arrays.unigram["logp"][EOS + 1 :].astype(np.float64))


def _share(words: list[str], weights: np.ndarray, letters: frozenset[str]) -> float:
    """The share of the words, by weight, that these letters spell."""
    return _weighted_share([letters.issuperset(word) for word in words], weights)


def _weighted_share(chosen: list[bool], weights: np.ndarray) -> float:
    """The share of the weight that is chosen; if all weights are 0, all count the same."""
    if not weights.any():
        weights = np.ones(len(chosen))
    return float(weights[chosen].sum() / max(weights.sum(), 1e-300)) if chosen else 0.0
