"""The pyctcdecode beam search behind the interface of our decoders; the extra `pyctcdecode`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr.decoding.beam.alphabet import Alphabet
from asr.decoding.beam.times import align_text, labels_by_symbol
from asr.decoding.emissions import check_emissions
from asr.types import AsrError, Hypothesis, UsageError

PIP_LINE = "pip install 'asr-ctc[pyctcdecode]' (Python below 3.13, numpy below 2)"
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
            raise UsageError(f"--decoder pyctcdecode needs pyctcdecode: {PIP_LINE}") from error
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
