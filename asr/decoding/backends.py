"""Beam searches of other packages (flashlight and pyctcdecode, both extras) behind the interface of our decoders."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from asr.decoding.beam.alphabet import Alphabet, labels_by_symbol
from asr.decoding.beam.lexicon import SpelledWords
from asr.decoding.beam.words import align_text
from asr.decoding.interface import check_emissions
from asr.lm.tables import SPECIAL_WORDS, UNK
from asr.text.tokenizer import WORD_MARK
from asr.types import AsrError, Hypothesis, UsageError

FLASHLIGHT_LINE = "pip install 'flashlight-text>=0.0.7' (or pip install 'asr-ctc[flashlight]')"
PYCTCDECODE_LINE = "pip install 'asr-ctc[pyctcdecode]' (Python below 3.13, numpy below 2)"
KENLM_LINE = "pip install kenlm (needs a C++ compiler and cmake)"
_BLANK, _SPACE = "<blank>", "<space>"


class _Backend:
    """The common part of both backends: labels, and word times by aligning the text to the emissions."""

    def __init__(self, labels: Sequence[str], frame_seconds: float) -> None:
        self.alphabet = Alphabet(labels)
        self.labels = list(labels)
        self.frame_seconds = frame_seconds
        self._by_symbol = labels_by_symbol(self.alphabet)

    def _hypothesis(self, array: np.ndarray, text: str, score: float, acoustic: float, language: float) -> Hypothesis:
        words = align_text(self.alphabet, self._by_symbol, array, text, self.frame_seconds)
        return Hypothesis(text, score, acoustic, language, words)


class FlashlightDecoder(_Backend):
    """Lexicon decoding with a KenLM model, or decoding without a lexicon (Kahn et al. 2022, arXiv 2201.12465).

    `lm` is the path of an ARPA file or KenLM binary. `alpha` and `beta` are as in BeamSearch. The lexicon defaults to
    `lm_words`; if there are none either, there can be no LM. `encode` gives the label ids of a word in SentencePiece
    pieces, since flashlight uses one spelling for each word. Runs in C++, through torchaudio.
    """

    def __init__(
        self,
        labels: Sequence[str],
        lm: str | Path | None = None,
        *,
        lm_words: Sequence[str] = (),
        lexicon: SpelledWords | None = None,
        encode: Callable[[str], Sequence[int]] | None = None,
        alpha: float = 0.5,
        beta: float = 1.5,
        beam_width: int = 50,
        nbest: int = 1,
        frame_seconds: float = 0.04,
    ) -> None:
        ctc_decoder = _import_ctc_decoder(with_lm=lm is not None)
        super().__init__(labels, frame_seconds)
        separator = self.alphabet.separator
        if separator >= len(self.labels):
            raise UsageError("--decoder flashlight needs a word separator among the labels (' ' or '▁')")
        tokens = [_BLANK, *self.labels[1:]]
        tokens[separator] = WORD_MARK if self.alphabet.pieces else _SPACE
        words, spellings = lexicon or (lm_words, lm_words)
        self._has_lexicon = bool(words)
        self.unspellable_words: list[str] = []
        if not words and lm is not None:
            raise UsageError("--decoder flashlight needs words for a language model: give --lexicon")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lexicon.txt"
            if words:
                path.write_text(self._lexicon(words, spellings, tokens, encode), encoding="utf-8")
            try:
                self._decoder = ctc_decoder(
                    lexicon=str(path) if words else None,
                    tokens=tokens,
                    lm=str(lm) if lm is not None else None,
                    nbest=nbest,
                    beam_size=beam_width,
                    beam_threshold=25.0,
                    lm_weight=alpha * math.log(10.0),  # its KenLM scores are log10
                    word_score=beta if lm is not None else 0.0,
                    log_add=True,
                    blank_token=_BLANK,
                    sil_token=tokens[separator],
                    unk_word=SPECIAL_WORDS[UNK],
                )
            except (RuntimeError, ValueError) as error:
                raise AsrError(f"flashlight cannot read {lm}: {' '.join(str(error).split())}") from error

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """As BeamSearch.decode; flashlight does not report the LM's part of the score, so `lm_score` is 0."""
        import torch

        array = check_emissions(log_probs, len(self.labels))
        # flashlight loses the last word of an utterance that does not end in a separator: append one
        ending = np.full((1, len(self.labels)), -30.0, np.float32)
        ending[0, self.alphabet.separator] = 0.0
        [results] = self._decoder(torch.from_numpy(np.concatenate((array, ending))[None]))
        hypotheses = []
        for result in results:
            text = " ".join(result.words) if self._has_lexicon else self._text(result.tokens.tolist())
            hypotheses.append(self._hypothesis(array, text, float(result.score), float(result.score), 0.0))
        return hypotheses or [Hypothesis("", 0.0, 0.0)]

    def _text(self, ids: Sequence[int]) -> str:
        return " ".join("".join(self.labels[i] for i in ids).replace(WORD_MARK, " ").split())

    def _lexicon(
        self,
        words: Sequence[str],
        spellings: Sequence[str],
        tokens: Sequence[str],
        encode: Callable[[str], Sequence[int]] | None,
    ) -> str:
        """The lexicon in flashlight's format: a word, a tab, its tokens. Collects `unspellable_words`."""
        if self.alphabet.pieces and encode is None:
            raise UsageError("--decoder flashlight needs the tokenizer to spell words in pieces")
        lines = []
        for word, spelling in zip(words, spellings, strict=True):
            if word in SPECIAL_WORDS:
                continue
            if any(symbol not in self.alphabet.index for symbol in spelling):
                self.unspellable_words.append(word)
                continue
            if self.alphabet.pieces and encode is not None:
                spelled = [tokens[i] for i in encode(spelling)]
            else:
                spelled = [*spelling, _SPACE]
            lines.append(f"{word}\t{' '.join(spelled)}\n")
        return "".join(lines)


def _import_ctc_decoder(with_lm: bool) -> Any:
    _require("flashlight.lib.text.decoder", f"--decoder flashlight needs flashlight-text: {FLASHLIGHT_LINE}")
    if with_lm:
        kenlm = f"--decoder flashlight with a language model needs kenlm: {KENLM_LINE}"
        _require("flashlight.lib.text.decoder.kenlm", kenlm)
    from asr.audio._torchaudio import torchaudio  # the one place that imports it

    return import_module(f"{torchaudio.__name__}.models.decoder").ctc_decoder


def _require(module: str, message: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(message) from error


class PyctcdecodeDecoder(_Backend):
    """Open-vocabulary search with a KenLM model (github.com/kensho-technologies/pyctcdecode).

    `lm` is the path of an ARPA file or KenLM binary, `lm_words` its words. `hotwords` are words or phrases, all with
    the same weight. Needs the packages pyctcdecode and, with a language model, kenlm.
    """

    def __init__(
        self,
        labels: Sequence[str],
        lm: str | Path | None = None,
        *,
        lm_words: Sequence[str] = (),
        alpha: float = 0.5,
        beta: float = 1.5,
        beam_width: int = 100,
        hotwords: Mapping[str, float] | Sequence[str] = (),
        hotword_weight: float = 10.0,
        nbest: int = 1,
        frame_seconds: float = 0.04,
    ) -> None:
        pyctcdecode = _require("pyctcdecode", f"--decoder pyctcdecode needs pyctcdecode: {PYCTCDECODE_LINE}")
        if lm is not None:
            _require("kenlm", f"--decoder pyctcdecode with a language model needs kenlm: {KENLM_LINE}")
        super().__init__(labels, frame_seconds)
        self.nbest = nbest
        self._options: dict[str, Any] = {
            "beam_width": beam_width,
            "token_min_logp": -5.0,
            "beam_prune_logp": -10.0,
            "hotwords": list(hotwords) or None,
            "hotword_weight": hotword_weight,
        }
        logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
        words = [word for word in lm_words if word not in SPECIAL_WORDS]
        try:
            self._decoder = pyctcdecode.build_ctcdecoder(
                self.labels, str(lm) if lm is not None else None, words or None, alpha=alpha, beta=beta
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise AsrError(f"pyctcdecode: {' '.join(str(error).split())}") from error

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """As BeamSearch.decode; scores are those of the best alignment, and `lm_score` includes the hotwords."""
        array = check_emissions(log_probs, len(self.labels))
        hypotheses = []
        for text, *_, acoustic, score in self._decoder.decode_beams(array, **self._options)[: self.nbest]:
            language = float(score) - float(acoustic)
            language = 0.0 if math.isclose(language, 0.0) else language
            hypotheses.append(self._hypothesis(array, " ".join(text.split()), float(score), float(acoustic), language))
        return hypotheses
