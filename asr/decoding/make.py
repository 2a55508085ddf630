"""Makes decoders from a configuration, with fields that are options of the command line and of `asr.load`."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.decoding.interface import OOV, OOV_ALIASES, Decoder
from asr.text.tokenizer import Tokenizer
from asr.types import AsrError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.decoding.beam.lexicon import SpelledWords
    from asr.decoding.beam.search import BeamSearch
    from asr.lm.ngram import NGramLM
    from asr.model.checkpoint import ModelFile

DECODERS = ("greedy", "beam", "flashlight", "pyctcdecode")  # of CTC emissions
ATTENTION = ("attention", "joint", "rescore")  # for models with an attention decoder
CTC_WEIGHT = 0.3  # in joint decoding and rescoring


def _option(help: str, default: Any = None, **metadata: Any) -> Any:
    """A field of DecodingConfig that is an option of the command line."""
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class DecodingConfig:
    """How to decode. None means the default of the decoder, or what was tuned for the language model.

    `hotwords` is a file of phrases, "w1,w2 w3", or a list of phrases; `lexicon` a file of words; `lm` an ARPA file or
    our binary. `sentence_pause` is the silence, in seconds, after which a sentence may end for the language model.

    The command line generates its decoding options from these fields. A field with "help" in its metadata is the option
    `--name-with-dashes`, with the same default. Other entries are "metavar", "kind" (int for a whole number above 0,
    float, or by default str), "choices", the only values allowed, and "aliases", a mapping of older spellings, still
    accepted, to choices.
    """

    decoder: str | None = _option(
        "default: beam; attention for a model trained without CTC", choices=(*DECODERS, *ATTENTION)
    )
    beam_width: int | None = _option(
        "hypotheses kept (default: 50, or as tuned; 20 for attention and joint)", metavar="N", kind=int
    )
    ctc_weight: float | None = _option(
        "joint, rescore: weight of CTC, 0 to 1; attention has the rest (default: 0.3)", metavar="W", kind=float
    )
    length_bonus: float | None = _option(
        "attention, joint: bonus per token, nats (default: 0)", metavar="B", kind=float
    )
    coverage: float | None = _option("attention, joint: bonus per attended frame (default: 0)", metavar="C", kind=float)
    lm: str | Path | None = _option(  # noqa: RUF009 (a field)
        "word n-gram model: ARPA (.gz too) or the binary of `asr lm`", metavar="LM"
    )
    alpha: float | None = _option("weight of the LM (default: as tuned for it, else 0.5)", metavar="A", kind=float)
    beta: float | None = _option("bonus per word (default: as tuned, else 1.5)", metavar="B", kind=float)
    hotwords: str | Sequence[str] | None = _option('phrases to favor: a file, or "w1,w2 w3"', metavar="FILE|WORDS")
    hotword_weight: float = _option("weight of each hotword, nats (default: 10)", default=10.0, metavar="W", kind=float)
    lexicon: str | Path | None = _option(  # noqa: RUF009
        "the only words to recognize, one per line; 'word l e t t e r s' gives one another spelling", metavar="FILE"
    )
    oov: str | None = _option(
        "words the LM does not know (default: penalize; forbid with --lexicon)", choices=OOV, aliases=OOV_ALIASES
    )
    sentence_pause: float | None = _option(
        "silence after which a sentence may end for the LM, seconds (default: 0.3; 0: never)", metavar="S", kind=float
    )
    nbest: int = 1
    jobs: int | None = _option("decoding threads (default: by number of CPUs)", metavar="N", kind=int)

    def check(self) -> None:
        """Raise UsageError for options that contradict each other."""
        if self.decoder not in (None, *DECODERS, *ATTENTION):
            raise UsageError(f"decoder '{self.decoder}' is not one of {', '.join((*DECODERS, *ATTENTION))}")
        search, words = ("ctc_weight", "length_bonus", "coverage"), ("hotwords", "lexicon", "oov", "sentence_pause")
        useless = {
            None: (),
            "greedy": ("beam_width", "lm", "alpha", "beta", *words, *search),
            "flashlight": ("hotwords", "oov", "sentence_pause", *search),
            "pyctcdecode": ("lexicon", "oov", "sentence_pause", *search),
            "beam": search,
            "attention": ("ctc_weight", *words),
            "joint": words,
            "rescore": ("length_bonus", "coverage"),
        }[self.decoder]
        for name in useless:
            if getattr(self, name) is not None:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} has no effect with --decoder {self.decoder}")
        if self.lm is None and (self.alpha is not None or self.beta is not None):
            raise UsageError("--alpha and --beta are for a language model: give --lm")
        if self.lm is None and self.sentence_pause is not None:
            raise UsageError("--sentence-pause is for a language model: give --lm")
        if self.sentence_pause is not None and not 0.0 <= self.sentence_pause < math.inf:
            raise UsageError(f"--sentence-pause: at least 0 seconds expected, found {self.sentence_pause}")
        if self.oov == "forbid" and self.lm is None and self.lexicon is None:
            raise UsageError("--oov forbid needs words: give --lm or --lexicon")
        if self.ctc_weight is not None and not 0.0 <= self.ctc_weight <= 1.0:
            raise UsageError(f"--ctc-weight must lie between 0 and 1, found {self.ctc_weight:g}")

    def for_model(self, file: ModelFile) -> DecodingConfig:
        """These options with the default decoder of a model, if none is chosen.

        Raises UsageError for options that contradict each other, and for a decoder that does not work with the model.
        """
        default = "beam" if file.has_ctc or file.model.decoder is None else "attention"
        config = replace(self, decoder=self.decoder or default)
        config.check()
        if config.decoder in ATTENTION and file.model.decoder is None:
            raise UsageError(
                f"--decoder {config.decoder} needs a model with an attention decoder; this one has only CTC"
            )
        if config.decoder != "attention" and file.model.decoder is not None:
            file.need_ctc(f"--decoder {config.decoder}")
        return config


def make_decoder(
    config: DecodingConfig,
    tokenizer: Tokenizer,
    frame_seconds: float,
    warn: Callable[[str], None] = lambda message: None,
    model: ModelFile | None = None,
) -> Decoder:
    """The decoder for these options; `warn` is called with one-line warnings, as about words that cannot be spelled.

    With `model`, which attention decoders need, the options are also checked against what it was trained for. Raises
    UsageError, and AsrError for files that cannot be read or do not match the model.
    """
    config = replace(config, decoder=config.decoder or "beam") if model is None else config.for_model(model)
    config.check()
    if config.decoder == "greedy":
        from asr.decoding.greedy import GreedyDecoder

        return GreedyDecoder(tokenizer, frame_seconds)
    from asr.decoding.beam.alphabet import Alphabet
    from asr.decoding.beam.lexicon import read_words

    # Read the lexicon only once, since it may be a pipe.
    lexicon = read_words(config.lexicon, Alphabet(tokenizer.labels)) if config.lexicon else None
    lm = _read_lm(config, tokenizer.labels, lexicon, warn)
    if config.decoder in ATTENTION:
        if model is None:
            raise UsageError(f"--decoder {config.decoder} needs a model with an attention decoder")
        return _attention(config, model, lm, lexicon, warn)
    if config.decoder == "beam":
        return _beam_search(config, tokenizer, frame_seconds, lm, lexicon, warn)
    return _backend(config, tokenizer, frame_seconds, lm, lexicon, warn)


def _attention(
    config: DecodingConfig,
    file: ModelFile,
    lm: NGramLM | None,
    lexicon: SpelledWords | None,
    warn: Callable[[str], None],
) -> Decoder:
    from asr.decoding.attention import BEAM_WIDTH, AttentionSearch, Rescoring
    from asr.decoding.word_scores import WordScores

    decoder, tokenizer, step = file.model.decoder, file.tokenizer, file.model.frame_seconds
    assert decoder is not None
    ctc_weight = CTC_WEIGHT if config.ctc_weight is None else config.ctc_weight
    if config.decoder == "rescore":
        search = _beam_search(config, tokenizer, step, lm, lexicon, warn)
        return Rescoring(decoder, tokenizer, search, ctc_weight, config.nbest)
    if not file.has_ctc:
        warn("the model was trained without CTC: words have neither times nor confidences")
    return AttentionSearch(
        decoder,
        tokenizer,
        step,
        ctc_weight=ctc_weight if config.decoder == "joint" else 0.0,
        beam_width=config.beam_width or BEAM_WIDTH,
        nbest=config.nbest,
        length_bonus=config.length_bonus or 0.0,
        coverage=config.coverage or 0.0,
        words=WordScores(lm, tokenizer, *_lm_weights(config, lm)) if lm else None,
        aligned=file.has_ctc,
    )


def _lm_weights(config: DecodingConfig, lm: NGramLM | None) -> tuple[float, float]:
    """alpha and beta with the defaults of BeamSearch."""
    tuned = lm.tuned if lm else None
    alpha = config.alpha if config.alpha is not None else tuned.alpha if tuned else 0.5
    return alpha, config.beta if config.beta is not None else tuned.beta if tuned else 1.5


def _beam_search(
    config: DecodingConfig,
    tokenizer: Tokenizer,
    frame_seconds: float,
    lm: NGramLM | None,
    lexicon: SpelledWords | None,
    warn: Callable[[str], None],
) -> BeamSearch:
    from asr.decoding.beam.hotwords import read_hotwords
    from asr.decoding.beam.search import SENTENCE_PAUSE, BeamSearch

    processors = os.cpu_count() or 1
    default_jobs = 1 if processors <= 2 else min(4, processors // 2)  # leaves processors to the model
    hotwords = read_hotwords(config.hotwords, config.hotword_weight) if config.hotwords else {}
    search = BeamSearch(
        tokenizer.labels,
        lm,
        alpha=config.alpha,
        beta=config.beta,
        beam_width=config.beam_width,
        lexicon=lexicon,
        hotwords=hotwords,
        hotword_weight=config.hotword_weight,
        nbest=config.nbest,
        jobs=config.jobs or default_jobs,
        frame_seconds=frame_seconds,
        oov=config.oov,
        sentence_pause=SENTENCE_PAUSE if config.sentence_pause is None else config.sentence_pause,
    )
    _warn_of("hotwords", search.unspellable_hotwords, warn)
    if hotwords and len(search.unspellable_hotwords) == len(hotwords):
        raise AsrError("none of the hotwords can be spelled with the model's alphabet: wrong case?")
    source = "lexicon" if config.lexicon else "language model"
    _warn_of(f"words of the {source}", search.unspellable_words, warn)
    return search


def _backend(
    config: DecodingConfig,
    tokenizer: Tokenizer,
    frame_seconds: float,
    lm: NGramLM | None,
    lexicon: SpelledWords | None,
    warn: Callable[[str], None],
) -> Decoder:
    """flashlight or pyctcdecode, with the default weights of BeamSearch."""
    from asr.decoding.backends import FlashlightDecoder, PyctcdecodeDecoder
    from asr.decoding.beam.hotwords import read_hotwords

    alpha, beta = _lm_weights(config, lm)
    shared: dict[str, Any] = {
        "lm_words": lm.words if lm else (),
        "alpha": alpha,
        "beta": beta,
        "nbest": config.nbest,
        "frame_seconds": frame_seconds,
    }
    with _for_kenlm(config.lm, lm) as path:
        if config.decoder == "flashlight":
            flashlight = FlashlightDecoder(
                tokenizer.labels,
                path,
                lexicon=lexicon,
                encode=tokenizer.encode,
                beam_width=config.beam_width or 50,
                **shared,
            )
            _warn_of("words of the lexicon", flashlight.unspellable_words, warn)
            return flashlight
        return PyctcdecodeDecoder(
            tokenizer.labels,
            path,
            beam_width=config.beam_width or 100,
            hotwords=read_hotwords(config.hotwords, config.hotword_weight) if config.hotwords else (),
            hotword_weight=config.hotword_weight,
            **shared,
        )


def _read_lm(
    config: DecodingConfig, labels: Sequence[str], lexicon: SpelledWords | None, warn: Callable[[str], None]
) -> NGramLM | None:
    if config.lm is None:
        return None
    from asr.lm.ngram import NGramLM, check_lm

    lm = NGramLM.read(config.lm, verify=True)
    for remark in check_lm(lm, labels, lexicon.words if lexicon else None):
        warn(remark)
    return lm


@contextmanager
def _for_kenlm(path: str | Path | None, lm: NGramLM | None) -> Iterator[str | Path | None]:
    """The language model as a file that KenLM can open: `path`, or for our binary and for pipes a temporary ARPA file.

    The temporary file is deleted on exit, as KenLM reads all of it on opening.
    """
    if path is None or lm is None or (Path(path).is_file() and not lm.binary):
        yield path
        return
    from asr.lm.arpa import write_arpa

    with tempfile.TemporaryDirectory() as folder:
        arpa = Path(folder) / "lm.arpa"
        write_arpa(arpa, lm.to_tables())
        yield arpa


def _warn_of(what: str, words: Sequence[str], warn: Callable[[str], None]) -> None:
    if words:
        shown = ", ".join(f"'{word}'" for word in words[:5]) + (", ..." if len(words) > 5 else "")
        warn(f"{len(words)} {what} cannot be spelled with the model's alphabet and are left out: {shown}")
