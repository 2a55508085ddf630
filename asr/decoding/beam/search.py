"""CTC beam search with a word language model, hotwords and a lexicon: emissions to hypotheses with words and times."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asr.decoding.beam.alphabet import Alphabet, labels_by_symbol
from asr.decoding.beam.arrays import NEVER, Labels, Resources, Weights
from asr.decoding.beam.hotwords import Hotwords, compile_hotwords
from asr.decoding.beam.lexicon import UNKNOWN, Lexicon, LexiconError, SpelledWords, read_words
from asr.decoding.beam.stream import MOST_FRAMES, MOST_UTTERANCES, BeamStream, Setting, Workspace, decode_batch
from asr.decoding.interface import OOV, OOV_ALIASES
from asr.lm.ngram import NGramLM, check_lm
from asr.lm.tables import ARC, STATE, UNIGRAM, LMArrays
from asr.types import AsrError, Hypothesis, UsageError

SENTENCE_PAUSE = 0.3  # seconds; LibriSpeech's utterances were cut at silences of this length
UNKNOWN_SYMBOL = -3.0  # nats per character; a penalty only per word would join words together
_CHANGEABLE = (
    "alpha", "beta", "beam_width", "nbest", "jobs", "times", "pruning", "unk_score_offset", "unk_char_score",
    "sentence_pause",
)  # fmt: skip
LEAST_LOG = -300.0  # lower limit of look-ahead scores, so that e to their power does not underflow


class Pruning(NamedTuple):
    """What the search leaves out, apart from the width of the beam. `label` and `score` are natural logarithms.

    Labels below `label` in a frame are ignored there, except the best one, and at most `most_labels` are used.
    Hypotheses worse than the best one by more than `score` are dropped. Frames with a blank probability above
    `blank_skip` count as blanks: each changes the probability of an alignment by less than 1 - blank.
    """

    label: float = -7.0
    most_labels: int = 64
    score: float = 14.0
    blank_skip: float = 0.999

    @classmethod
    def nothing(cls) -> Pruning:
        """An exhaustive search, as far as the beam width allows."""
        return cls(-math.inf, 1 << 30, math.inf, 1.0)


class BeamSearch:
    """Decodes (time, vocab) natural log-probabilities; `labels[0]` is the blank.

    The score of a text is ln P(text | emissions) + alpha * ln P_lm(text) + beta * words + hotwords, where
    P(text | emissions) sums over all alignments and segmentations in the beam. `alpha` and `beta` are as in
    pyctcdecode, and have no effect without an LM; None takes those tuned for the LM, or else 0.5 and 1.5.

    Words that the LM does not know score as its <unk> (at least as its rarest word) plus, with `oov="penalize"`,
    `unk_score_offset` and `unk_char_score` per character. "allow" adds neither; "forbid" allows only the words of the
    lexicon or LM. A lexicon (words, or a file of them) forbids other words unless `oov` says otherwise.

    A pause of `sentence_pause` seconds (frames of blanks and separators) may end a sentence: the next word gets its LM
    probability in the sentence or, if higher, that of </s> times that of the word at the start of a sentence. After
    such a pause, only the `nbest` best of the hypotheses that have become the same to the LM go on. With 0, sentences
    never end.

    `hotwords` (phrases, or phrases with weights in nats) raise the score of texts with them as whole words; phrases
    that cannot be spelled are in `unspellable_hotwords`. Without `times`, hypotheses have no timed words, which saves
    the alignment. Thread-safe: one object may decode in many threads.
    """

    def __init__(
        self,
        labels: Sequence[str],
        lm: NGramLM | None = None,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        beam_width: int | None = None,
        lexicon: Sequence[str] | SpelledWords | str | Path | None = None,
        hotwords: Iterable[str] | Mapping[str, float] = (),
        hotword_weight: float = 10.0,
        nbest: int = 1,
        jobs: int = 1,
        times: bool = True,
        frame_seconds: float = 0.04,
        oov: str | None = None,
        unk_score_offset: float = 0.0,
        unk_char_score: float = UNKNOWN_SYMBOL,
        sentence_pause: float = SENTENCE_PAUSE,
        pruning: Pruning = Pruning(),  # noqa: B008 - immutable
    ) -> None:
        tuned = lm.tuned if lm is not None else None
        self.alphabet = Alphabet(labels)
        self.lm = lm
        self.alpha = float(alpha if alpha is not None else tuned.alpha if tuned else 0.5)
        self.beta = float(beta if beta is not None else tuned.beta if tuned else 1.5)
        self.beam_width = beam_width or (tuned.beam_width if tuned else None) or 50
        oov = oov or ("forbid" if lexicon is not None else "penalize")
        self.oov = OOV_ALIASES.get(oov, oov)
        _check(self.oov in OOV, f"oov '{self.oov}' is not one of {', '.join(OOV)}")
        _check(self.beam_width >= 1, f"beam width must be at least 1, found {self.beam_width}")
        _check(nbest >= 1, f"nbest must be at least 1, found {nbest}")
        _check(math.isfinite(self.alpha) and self.alpha >= 0, f"alpha must not be negative, found {self.alpha:g}")
        _check(math.isfinite(self.beta), f"beta must be a number, found {self.beta:g}")
        _check(jobs >= 1, f"jobs must be at least 1, found {jobs}")
        _check(0.0 <= sentence_pause < math.inf, f"sentence pause: at least 0 seconds expected, found {sentence_pause}")
        self.nbest = nbest
        self.jobs = jobs
        self.times = times
        self.frame_seconds = frame_seconds
        self.unk_score_offset, self.unk_char_score = unk_score_offset, unk_char_score
        self.sentence_pause = sentence_pause
        self.pruning = pruning
        self._lm_arrays, self._begin = (lm.arrays, lm.begin_state) if lm else (_no_lm(), 0)
        phrases = compile_hotwords(self.alphabet, hotwords, hotword_weight)
        self.unspellable_hotwords = phrases.unspellable
        self._hotwords = phrases
        self.lexicon = self._make_lexicon(lexicon, phrases)
        self.unspellable_words = self.lexicon.unspellable
        self._by_symbol = labels_by_symbol(self.alphabet)
        self._prepare()

    def reweighted(self, **changes: Any) -> BeamSearch:
        """The same search with another `alpha`, `beta`, `beam_width`, `nbest`, ...; large data is shared."""
        other = object.__new__(BeamSearch)
        other.__dict__.update(self.__dict__)
        for name, value in changes.items():
            if name not in _CHANGEABLE:
                raise TypeError(f"'{name}' cannot be changed: make a new BeamSearch")
            setattr(other, name, value)
        other._prepare()
        return other

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """Up to `nbest` hypotheses of different texts, best first. Raises EmissionError.

        Times are in seconds from the first frame (CTC peaks, approximate). `score` is what hypotheses are ranked by,
        `lm_score` the part of it from LM, word bonus and hotwords, `acoustic_score` the rest.
        """
        return self._decode_some([log_probs], errors_as_values=False)[0]

    def decode_many(
        self, emissions: Iterable[Any], jobs: int | None = None, errors_as_values: bool = False
    ) -> list[Any]:
        """`decode` several utterances in `jobs` threads (the search releases Python's global lock), in order.

        With `errors_as_values`, an utterance that is an AsrError, or raises one, has that error as its result.
        """
        jobs = self.jobs if jobs is None else jobs
        _check(jobs >= 1, f"jobs must be at least 1, found {jobs}")
        remaining = iter(emissions)
        parts = iter(lambda: list(itertools.islice(remaining, MOST_UTTERANCES)), [])
        if jobs == 1:
            results = [self._decode_some(part, errors_as_values) for part in parts]
        else:
            with ThreadPoolExecutor(jobs) as pool:
                results = list(pool.map(self._decode_some, parts, itertools.repeat(errors_as_values)))
        return list(itertools.chain.from_iterable(results))

    def _decode_some(self, emissions: list[Any], errors_as_values: bool) -> list[Any]:
        """`decode_many` in this thread: as many as possible in one call, the others one by one."""
        workspace = self._take()
        try:
            results: list[Any] = [None] * len(emissions)
            if self.nbest == 1 and self.lexicon.one_way:
                plain = [i for i, log_probs in enumerate(emissions) if self._is_plain(log_probs)]
                together = decode_batch(self._setting, workspace, [emissions[i] for i in plain]) if plain else []
                for i, hypothesis in zip(plain, together, strict=True):
                    results[i] = [hypothesis] if hypothesis is not None else None
            for i, log_probs in enumerate(emissions):
                if results[i] is not None:
                    continue
                try:
                    if isinstance(log_probs, AsrError):
                        raise log_probs
                    results[i] = BeamStream(self._setting, workspace).decode(log_probs, self.nbest)
                except AsrError as error:
                    if not errors_as_values:
                        raise
                    results[i] = error
            return results
        finally:
            self._free.append(workspace)

    def _is_plain(self, log_probs: Any) -> bool:
        """Whether an utterance can be decoded together with others, judging by its type and shape."""
        return (
            isinstance(log_probs, np.ndarray)
            and log_probs.dtype == np.float32
            and log_probs.ndim == 2
            and 0 < log_probs.shape[0] <= MOST_FRAMES
            and log_probs.shape[1] == len(self.alphabet.labels)
            and log_probs.flags.c_contiguous
            and log_probs.flags.aligned
        )

    def stream(self) -> BeamStream:
        """A search that is fed frames as they arrive; it ends with the same hypotheses as `decode` of all of them."""
        return BeamStream(self._setting, Workspace(self._setting))

    def _make_lexicon(self, words: Sequence[str] | SpelledWords | str | Path | None, phrases: Hotwords) -> Lexicon:
        chosen: list[str]
        spellings: list[str]
        if isinstance(words, SpelledWords | str | Path):
            chosen, spellings = words if isinstance(words, SpelledWords) else read_words(words, self.alphabet)
        elif words is not None:
            chosen = list(dict.fromkeys(words))
            spellings = chosen
        elif self.lm is not None:
            chosen = [word for word in self.lm.words[3:] if word]
            spellings = chosen
        else:
            _check(self.oov != "forbid", "oov='forbid' needs the words of a lexicon or language model")
            chosen = spellings = []
        known = set(spellings)
        extra = [word for word in phrases.words if word not in known]
        chosen, spellings = [*chosen, *extra], [*spellings, *extra]
        ids, scores = np.zeros(len(chosen), np.int32), None
        if self.lm is not None:
            index = self.lm.index
            ids = np.fromiter((index.get(word, UNKNOWN) for word in chosen), np.int32, len(chosen))
            scores = self.lm.arrays.unigram["logp"][ids]
            scores[ids == UNKNOWN] = self._unknown_logp()[0]
        lexicon = Lexicon(self.alphabet, chosen, ids, scores, spellings)
        if words is not None and not len(lexicon):
            raise LexiconError(f"none of the lexicon's {len(chosen)} words can be spelled with the model's labels")
        if words is None and self.lm is not None:
            check_lm(self.lm, self.alphabet.labels)
        return lexicon

    def _unknown_logp(self) -> tuple[float, float]:
        """log p of <unk> in the empty context, and the least in any: an LM without <unk> must not forbid words."""
        assert self.lm is not None
        least = self.lm.least_unigram
        return max(float(self.lm.arrays.unigram["logp"][UNKNOWN]), least), least

    def _pause_frames(self) -> int:
        """The number of consecutive quiet frames after which a sentence may end."""
        if self.lm is None or self.sentence_pause == 0.0:
            return NEVER
        return max(1, min(NEVER, math.ceil(self.sentence_pause / self.frame_seconds - 1e-6)))

    def _prepare(self) -> None:
        """Compute everything that depends on the weights."""
        alpha, beta, unknown, least = 0.0, 0.0, 0.0, 0.0
        if self.lm is not None:
            alpha, beta = self.alpha, self.beta
            unknown, least = self._unknown_logp()
        penalized = self.oov == "penalize" and self.lm is not None
        symbol = float(self.unk_char_score) if penalized else 0.0
        longest = int(np.diff(self.alphabet.first).max(initial=1))
        labels = len(self.alphabet.labels)
        weights = Weights(
            alpha=alpha,
            beta=beta,
            begin=self._begin,
            end_word=2 if self.lm is not None else -1,
            pause_frames=self._pause_frames(),
            unknown_least=least,
            unknown_lookahead=max(alpha * unknown, LEAST_LOG),
            unknown_lookahead_factor=math.exp(max(alpha * unknown, LEAST_LOG)),
            word_factor=math.exp(beta),
            unknown_word=float(self.unk_score_offset) if penalized else 0.0,
            unknown_symbol=symbol,
            symbol_factor=math.exp(symbol),
            open_vocabulary=self.oov != "forbid",
            beam_width=int(self.beam_width),
            nbest=int(self.nbest),
            most_labels=int(min(self.pruning.most_labels, labels)),
            least_label=float(self.pruning.label),
            keep=math.exp(-self.pruning.score),
            blank_skip=math.log(self.pruning.blank_skip),
            separator=self.alphabet.separator,
            most_records=6 + longest,
            boost=self._hotwords.boost,
            has_hotwords=self._hotwords.count > 0,
        )
        alphabet = self.alphabet
        self._setting = Setting(
            alphabet=alphabet,
            lexicon=self.lexicon,
            resources=Resources(
                tree=self.lexicon.weighted(alpha, LEAST_LOG),
                lm=self._lm_arrays,
                hotwords=self._hotwords.arrays,
                labels=Labels(alphabet.first, alphabet.spelling, alphabet.starts_word, alphabet.silent),
                weights=weights,
            ),
            frame_seconds=self.frame_seconds,
            by_symbol=self._by_symbol,
            times=self.times,
        )
        self._free: list[Workspace] = []

    def _take(self) -> Workspace:
        try:
            return self._free.pop()  # atomic, as is append
        except IndexError:
            return Workspace(self._setting)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


def _no_lm() -> LMArrays:
    """A language model that gives every word probability 1."""
    arcs = np.zeros(1, ARC)
    arcs["key"] = -1
    return LMArrays(np.zeros(1, UNIGRAM), arcs, np.zeros(1, STATE))
