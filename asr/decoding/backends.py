"""The flashlight beam search (C++, through torchaudio) behind the interface of our decoders; extra `flashlight`."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from asr.decoding.beam.alphabet import Alphabet
from asr.decoding.beam.lexicon import SpelledWords, read_words
from asr.decoding.beam.times import align_text, labels_by_symbol
from asr.decoding.interface import check_emissions
from asr.text.tokenizer import WORD_MARK
from asr.types import AsrError, Hypothesis, UsageError

PIP_LINE = "pip install 'flashlight-text>=0.0.7' (or pip install 'asr-ctc[flashlight]')"
_BLANK, _SPACE, _UNKNOWN = "<blank>", "<space>", "<unk>"


class FlashlightDecoder:
    """Lexicon decoding with a KenLM model, or without a lexicon by labels alone (Kahn et al. 2022, arXiv 2201.12465).

    `lm` is the path of an ARPA file or KenLM binary. `alpha` and `beta` mean what they mean in BeamSearch. Without a
    `lexicon` (a file of words) the words of `lm_words` are it; without both there is none, and no LM. flashlight loses
    the last word of an utterance that does not end in a separator, so that one is appended to the emissions.
    """

    def __init__(
        self,
        labels: Sequence[str],
        lm: str | Path | None = None,
        *,
        lm_words: Sequence[str] = (),
        lexicon: SpelledWords | str | Path | Sequence[str] | None = None,
        encode: Callable[[str], Sequence[int]] | None = None,
        alpha: float = 0.5,
        beta: float = 1.5,
        beam_width: int = 50,
        most_labels: int | None = None,
        score_threshold: float = 25.0,
        log_add: bool = True,
        nbest: int = 1,
        frame_seconds: float = 0.04,
    ) -> None:
        """`encode` gives the label ids of a word among SentencePiece pieces: flashlight knows one spelling of each."""
        ctc_decoder = _import_ctc_decoder(with_lm=lm is not None)
        self.alphabet = Alphabet(labels)
        self.labels = list(labels)
        self._by_symbol = labels_by_symbol(self.alphabet)
        self.frame_seconds = frame_seconds
        separator = self.alphabet.separator
        if separator >= len(self.labels):
            raise UsageError("--decoder flashlight needs a word separator among the labels (' ' or '▁')")
        tokens = [_BLANK, *self.labels[1:]]
        tokens[separator] = _SPACE if not self.alphabet.pieces else WORD_MARK
        if isinstance(lexicon, SpelledWords | str | Path):
            words, spellings = lexicon if isinstance(lexicon, SpelledWords) else read_words(lexicon, self.alphabet)
        else:
            words = list(lexicon if lexicon is not None else lm_words)
            spellings = words
        self._has_lexicon = bool(words)
        self.unspellable_words: list[str] = []
        with tempfile.TemporaryDirectory() as folder:
            path = None
            if words:
                path = Path(folder) / "lexicon.txt"
                path.write_text(self._lexicon(words, spellings, tokens, encode), encoding="utf-8")
            elif lm is not None:
                raise UsageError("--decoder flashlight takes a language model only with words: give --lexicon")
            try:
                self._decoder = ctc_decoder(
                    lexicon=str(path) if path else None,
                    tokens=tokens,
                    lm=str(lm) if lm is not None else None,
                    nbest=nbest,
                    beam_size=beam_width,
                    beam_size_token=most_labels,
                    beam_threshold=score_threshold,
                    lm_weight=alpha * float(np.log(10.0)),  # its KenLM scores are log10
                    word_score=beta if lm is not None else 0.0,
                    log_add=log_add,
                    blank_token=_BLANK,
                    sil_token=tokens[separator],
                    unk_word=_UNKNOWN,
                )
            except (RuntimeError, ValueError) as error:
                raise AsrError(f"flashlight cannot read {lm}: {' '.join(str(error).split())}") from error

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """As BeamSearch.decode; `lm_score` is not told apart by flashlight and is 0."""
        import torch

        array = check_emissions(log_probs, len(self.labels))
        ending = np.full((1, len(self.labels)), -30.0, np.float32)
        ending[0, self.alphabet.separator] = 0.0
        [results] = self._decoder(torch.from_numpy(np.concatenate((array, ending))[None]))
        found = []
        for result in results:
            text = " ".join(result.words) if self._has_lexicon else self._text(result.tokens.tolist())
            words = align_text(self.alphabet, self._by_symbol, array, text, self.frame_seconds)
            found.append(Hypothesis(text, float(result.score), float(result.score), 0.0, words))
        return found or [Hypothesis("", 0.0, 0.0)]

    def _text(self, ids: Sequence[int]) -> str:
        return " ".join("".join(self.labels[i] for i in ids).replace(WORD_MARK, " ").split())

    def _lexicon(
        self,
        words: Sequence[str],
        spellings: Sequence[str],
        tokens: Sequence[str],
        encode: Callable[[str], Sequence[int]] | None,
    ) -> str:
        if self.alphabet.pieces and encode is None:
            raise UsageError("--decoder flashlight needs the tokenizer to spell words in pieces")
        lines = []
        for word, spelling in zip(words, spellings, strict=True):
            if word in ("<s>", "</s>", _UNKNOWN):
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
    try:
        import_module("flashlight.lib.text.decoder")
    except ImportError as error:
        raise UsageError(f"--decoder flashlight needs flashlight-text: {PIP_LINE}") from error
    try:
        if with_lm:
            import_module("flashlight.lib.text.decoder.kenlm")
    except ImportError as error:
        raise UsageError(f"--decoder flashlight with a language model needs kenlm: {KENLM_LINE}") from error
    from asr.audio._torchaudio import torchaudio  # the one place that imports it

    return import_module(f"{torchaudio.__name__}.models.decoder").ctc_decoder


PYCTCDECODE_LINE = "pip install 'asr-ctc[pyctcdecode]' (Python below 3.13, numpy below 2)"
KENLM_LINE = "pip install kenlm (needs a C++ compiler and cmake)"


class PyctcdecodeDecoder:
    """Open-vocabulary search with a KenLM model (github.com/kensho-technologies/pyctcdecode).

    `lm` is the path of an ARPA file or KenLM binary, `lm_words` its words. `hotwords` are single words or phrases with
    one weight for all. Needs the packages pyctcdecode and, with a language model, kenlm.
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
        least_label: float = -5.0,
        score_threshold: float = 10.0,
        hotwords: Mapping[str, float] | Sequence[str] = (),
        hotword_weight: float = 10.0,
        nbest: int = 1,
        frame_seconds: float = 0.04,
    ) -> None:
        try:
            from pyctcdecode import build_ctcdecoder
        except ImportError as error:
            raise UsageError(f"--decoder pyctcdecode needs pyctcdecode: {PYCTCDECODE_LINE}") from error
        if lm is not None:
            try:
                import kenlm  # noqa: F401
            except ImportError as error:
                raise UsageError(f"--decoder pyctcdecode with a language model needs kenlm: {KENLM_LINE}") from error
        self.alphabet = Alphabet(labels)
        self.labels = list(labels)
        self.frame_seconds = frame_seconds
        self.nbest = nbest
        self._by_symbol = labels_by_symbol(self.alphabet)
        self._options: dict[str, Any] = {
            "beam_width": beam_width,
            "token_min_logp": least_label,
            "beam_prune_logp": -score_threshold,
            "hotwords": list(hotwords) or None,
            "hotword_weight": hotword_weight,
        }
        logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
        words = [word for word in lm_words if word not in ("<unk>", "<s>", "</s>")]
        try:
            self._decoder = build_ctcdecoder(
                self.labels, str(lm) if lm is not None else None, words or None, alpha=alpha, beta=beta
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise AsrError(f"pyctcdecode: {' '.join(str(error).split())}") from error

    def decode(self, log_probs: Any) -> list[Hypothesis]:
        """As BeamSearch.decode; its scores are sums of the best alignments, `lm_score` has the hotwords in it."""
        array = check_emissions(log_probs, len(self.labels))
        beams = self._decoder.decode_beams(array, **self._options)[: self.nbest]
        found = []
        for beam in beams:
            text = " ".join(beam[0].split())
            acoustic, score = float(beam[-2]), float(beam[-1])
            language = score - acoustic
            words = align_text(self.alphabet, self._by_symbol, array, text, self.frame_seconds)
            found.append(Hypothesis(text, score, acoustic, 0.0 if math.isclose(language, 0.0) else language, words))
        return found
