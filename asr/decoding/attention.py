"""Decoding with an attention decoder: beam search, alone or jointly with CTC, and rescoring of the CTC N-best."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
import torch

from asr.decoding.align import AlignmentError, forced_align
from asr.decoding.beam.search import BeamSearch
from asr.decoding.ctc_prefix import PrefixScores
from asr.decoding.interface import Encoded, check_emissions
from asr.decoding.word_scores import Begun, WordScores
from asr.model.decoder import EDGE, AttentionDecoder
from asr.text.tokenizer import Tokenizer
from asr.types import Hypothesis, Word

BEAM_WIDTH = 20
RESCORED = 50  # hypotheses of the CTC search
COVERED = 0.5  # a frame is covered once its weights over all steps add up to this (Chorowski and Jaitly, 2017)
HOPELESS = 10.0  # nats below the best ended hypothesis: worse ones are dropped
MOST_REPEATS, REPEATED = 6, 12  # a hypothesis is in a loop if it ends in so many repeats, of so many tokens in all


@dataclass
class _Partial:
    """A hypothesis: its log-probabilities by decoder and CTC, the score of its words, and the weighted sum of all."""

    tokens: list[int]
    attention: float = 0.0
    ctc: float = 0.0
    words: float = 0.0
    score: float = 0.0


@dataclass
class _Scores:
    """The scores of each hypothesis extended by each token (hypotheses, vocab)."""

    attention: np.ndarray
    ctc: np.ndarray
    words: np.ndarray
    total: np.ndarray

    def extended(self, hypothesis: _Partial, row: int, token: int) -> _Partial:
        """The hypothesis of this row, extended by a token or ended."""
        tokens = hypothesis.tokens if token == EDGE else [*hypothesis.tokens, token]
        parts = (self.attention, self.ctc, self.words, self.total)
        return _Partial(tokens, *(float(part[row, token]) for part in parts))


@dataclass(eq=False)
class AttentionSearch:
    """Beam search over the tokens of an attention decoder, batched over the hypotheses of one utterance.

    A hypothesis y of an utterance x is ranked by

        (1 - ctc_weight) ln P_attention(y | x) + ctc_weight ln P_ctc(y | x) + length_bonus |y|
        + coverage * frames attended to + alpha ln P_lm(words of y) + beta * words

    with CTC's prefix scores until it ends (Hori et al., 2017). As with CTC, it has at most as many tokens as the
    utterance has frames. `words` scores words as they are completed. With `aligned`, words have the times and
    confidences of their CTC alignment; otherwise hypotheses have no words.
    """

    reads_states: ClassVar = True

    decoder: AttentionDecoder
    tokenizer: Tokenizer
    frame_seconds: float
    _: KW_ONLY
    ctc_weight: float = 0.0
    beam_width: int = BEAM_WIDTH
    nbest: int = 1
    length_bonus: float = 0.0
    coverage: float = 0.0
    words: WordScores | None = None
    aligned: bool = True

    def decode(self, encoded: Encoded) -> list[Hypothesis]:
        """Up to `nbest` hypotheses with different texts, best first; an empty one if there are no frames.

        Raises EmissionError.
        """
        if not len(encoded.states):
            return [Hypothesis("", 0.0, 0.0)]
        log_probs = check_emissions(encoded.log_probs, self.tokenizer.vocab_size)
        hypotheses = []
        for ended in self._search(log_probs, encoded.states):
            words = timed_words(ended.tokens, log_probs, self.tokenizer, self.frame_seconds) if self.aligned else ()
            acoustic = _weighted(ended.attention, ended.ctc, self.ctc_weight)
            text = self.tokenizer.decode(ended.tokens)
            hypotheses.append(Hypothesis(text, ended.score, acoustic, ended.words, words))
        return hypotheses

    def stream(self) -> WindowStream:
        """Decodes windows of a recording one after another."""
        return WindowStream(self.decode, self.frame_seconds, self.nbest)

    @torch.inference_mode()
    def _search(self, log_probs: np.ndarray, states: np.ndarray) -> list[_Partial]:
        """The ended hypotheses, best first."""
        device = self.decoder.output.weight.device
        frames = len(states)
        memory, state = self.decoder.start(
            torch.as_tensor(states, device=device)[None], torch.tensor([frames], device=device)
        )
        prefixes = PrefixScores(log_probs) if self.ctc_weight > 0.0 else None
        running, ended = [_Partial([])], list[_Partial]()
        begun = self.words.begin() if self.words else []
        for length in range(frames + 1):
            last = torch.tensor([partial.tokens[-1] if partial.tokens else EDGE for partial in running], device=device)
            step, state = self.decoder.step(last, state, memory)
            covered = (state.covered > COVERED).sum(dim=1).cpu().numpy()
            scores = self._scores(running, step.double().cpu().numpy(), prefixes, begun, covered)
            ends = [scores.extended(partial, row, EDGE) for row, partial in enumerate(running)]
            ended = self._best_texts([*ended, *(end for end in ends if np.isfinite(end.score))])
            if length == frames:
                break
            total = scores.total
            total[:, EDGE] = -np.inf
            total[[in_loop(partial.tokens) for partial in running]] = -np.inf
            # The most that a hypothesis can still gain. Those further below the ended ones than that are dropped.
            most_per_token = max(self.length_bonus, 0.0) + (max(self.words.beta, 0.0) if self.words else 0.0)
            gain = (frames - length - 1) * most_per_token + max(self.coverage, 0.0) * (frames - covered.min())
            enough = ended[self.nbest - 1].score - gain if len(ended) >= self.nbest else -np.inf
            hopeless = ended[0].score - HOPELESS if ended else -np.inf
            chosen = _best(total, self.beam_width, max(enough, hopeless))
            if not len(chosen):
                break
            rows, tokens = np.divmod(chosen, total.shape[1])
            pairs = list(zip(rows.tolist(), tokens.tolist(), strict=True))
            running = [scores.extended(running[row], row, token) for row, token in pairs]
            if prefixes:
                prefixes.extend(rows, tokens)
            if self.words:
                begun = self.words.extend(begun, pairs)
            state = state.rows(torch.from_numpy(rows).to(device))
        return ended or [_Partial([])]

    def _scores(
        self,
        running: Sequence[_Partial],
        step: np.ndarray,
        prefixes: PrefixScores | None,
        begun: Sequence[Begun],
        covered: np.ndarray,
    ) -> _Scores:
        """`step`: the decoder's log-probabilities (hypotheses, vocab); `covered`: frames covered (hypotheses,)."""
        attention = np.array([partial.attention for partial in running])[:, None] + step
        ctc = prefixes.next() if prefixes else np.zeros_like(step)
        words = self.words.next(begun) if self.words else np.zeros_like(step)
        words += np.array([partial.words for partial in running])[:, None]
        total = _weighted(attention, ctc, self.ctc_weight) + words + self.coverage * covered[:, None]
        total += self.length_bonus * len(running[0].tokens)
        total[:, EDGE + 1 :] += self.length_bonus
        return _Scores(attention, ctc, words, total)

    def _best_texts(self, ended: list[_Partial]) -> list[_Partial]:
        """The `nbest` best with different texts, best first: separators allow several spellings of one text."""
        best: dict[str, _Partial] = {}
        for partial in sorted(ended, key=lambda partial: -partial.score):
            best.setdefault(self.tokenizer.decode(partial.tokens), partial)
            if len(best) == self.nbest:
                break
        return list(best.values())


class Rescoring:
    """Reranks the N-best of the CTC beam search, with its language model and hotwords, by the attention decoder.

    ln P_ctc has the weight `ctc_weight` and the decoder's ln P the weight 1 - ctc_weight. The other terms of the
    search's score, and the times and confidences of words, stay the same.
    """

    reads_states = True

    def __init__(
        self, decoder: AttentionDecoder, tokenizer: Tokenizer, search: BeamSearch, ctc_weight: float, nbest: int = 1
    ) -> None:
        self.decoder, self.tokenizer, self.ctc_weight, self.nbest = decoder, tokenizer, ctc_weight, nbest
        self.search = search.reweighted(nbest=max(RESCORED, nbest))

    def decode(self, encoded: Encoded) -> list[Hypothesis]:
        """Up to `nbest` hypotheses, best first; an empty one if there are no frames.

        Raises EmissionError, and TextError for a hypothesis that the tokenizer cannot spell (such as a word of a
        lexicon with other spellings).
        """
        if not len(encoded.states):
            return [Hypothesis("", 0.0, 0.0)]
        hypotheses = self.search.decode(encoded.log_probs)
        spelled = [self.tokenizer.encode(hypothesis.text) for hypothesis in hypotheses]
        rescored = []
        for hypothesis, likelihood in zip(hypotheses, self._likelihoods(encoded.states, spelled), strict=True):
            acoustic = _weighted(likelihood, hypothesis.acoustic_score, self.ctc_weight)
            score = acoustic + hypothesis.score - hypothesis.acoustic_score
            rescored.append(replace(hypothesis, score=score, acoustic_score=acoustic))
        return sorted(rescored, key=lambda hypothesis: -hypothesis.score)[: self.nbest]

    def stream(self) -> WindowStream:
        """Decodes windows of a recording one after another."""
        return WindowStream(self.decode, self.search.frame_seconds, self.nbest)

    @torch.inference_mode()
    def _likelihoods(self, states: np.ndarray, spelled: Sequence[Sequence[int]]) -> list[float]:
        """The decoder's ln P of each sequence of tokens."""
        device = self.decoder.output.weight.device
        rows = [torch.tensor(tokens, dtype=torch.int64, device=device) for tokens in spelled]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        counts = torch.tensor([len(row) for row in rows], device=device)
        encoded, lengths = torch.as_tensor(states, device=device)[None], torch.tensor([len(states)], device=device)
        return self.decoder.log_likelihoods(encoded, lengths, tokens, counts).double().tolist()


class WindowStream:
    """Decodes the windows of a recording independently and joins their texts."""

    def __init__(self, decode: Callable[[Encoded], list[Hypothesis]], frame_seconds: float, nbest: int) -> None:
        self._decode, self._frame_seconds, self._nbest = decode, frame_seconds, nbest
        self._frames = 0
        self._joined = [Hypothesis("", 0.0, 0.0)]

    def feed(self, encoded: Encoded) -> None:
        """Decode the next window. Raises what the decoder raises."""
        self._frames += encoded.before
        decoded = [self._shifted(hypothesis) for hypothesis in self._decode(encoded)]
        self._frames += len(encoded.states) + encoded.after
        pairs = (_joined(before, after) for before in self._joined for after in decoded)
        self._joined = heapq.nlargest(self._nbest, pairs, key=lambda hypothesis: hypothesis.score)

    def stable(self) -> str:
        """The text of the windows so far."""
        return self._joined[0].text if self._nbest == 1 else ""

    def finish(self, nbest: int = 1) -> list[Hypothesis]:
        """The hypotheses, best first."""
        return self._joined[: max(nbest, 1)]

    def _shifted(self, hypothesis: Hypothesis) -> Hypothesis:
        """The hypothesis with the times of the whole recording."""
        seconds = self._frames * self._frame_seconds
        words = (replace(word, start=word.start + seconds, end=word.end + seconds) for word in hypothesis.words)
        return replace(hypothesis, words=tuple(words))


def _joined(before: Hypothesis, after: Hypothesis) -> Hypothesis:
    return Hypothesis(
        " ".join(filter(None, (before.text, after.text))),
        before.score + after.score,
        before.acoustic_score + after.acoustic_score,
        before.lm_score + after.lm_score,
        before.words + after.words,
    )


def timed_words(
    tokens: Sequence[int], log_probs: np.ndarray, tokenizer: Tokenizer, frame_seconds: float
) -> tuple[Word, ...]:
    """The words of `tokens` with the times of their CTC peaks and their lowest posteriors as confidences.

    Empty if CTC cannot align the tokens to the frames of `log_probs` (time, vocab).
    """
    try:
        path = forced_align(log_probs, tokens)
    except AlignmentError:
        return ()
    return tuple(
        Word(
            word,
            float(path.starts[first] * frame_seconds),
            float(path.ends[last - 1] * frame_seconds),
            float(min(1.0, path.posteriors[first:last].min())),
        )
        for word, first, last in tokenizer.words(tokens)
    )


def in_loop(tokens: Sequence[int]) -> bool:
    """Whether tokens end in MOST_REPEATS repeats of a sequence, or in more if it is short (see REPEATED)."""
    for period in range(1, len(tokens) // MOST_REPEATS + 1):
        span = period * max(MOST_REPEATS, -(-REPEATED // period))
        if span <= len(tokens) and tokens[-span:-period] == tokens[len(tokens) - span + period :]:
            return True
    return False


Score = TypeVar("Score", float, np.ndarray)


def _weighted(attention: Score, ctc: Score, ctc_weight: float) -> Score:
    """The weighted sum; a score with weight 0 is left out, because it may be infinite."""
    if ctc_weight in (0.0, 1.0):
        return ctc if ctc_weight else attention
    return (1.0 - ctc_weight) * attention + ctc_weight * ctc


def _best(scores: np.ndarray, count: int, least: float) -> np.ndarray:
    """The flat indices of the `count` best finite scores of at least `least`, best first."""
    flat = scores.ravel()
    indices = np.argpartition(-flat, count)[:count] if count < len(flat) else np.arange(len(flat))
    indices = indices[(flat[indices] > -np.inf) & (flat[indices] >= least)]
    return indices[np.argsort(-flat[indices], kind="stable")]
