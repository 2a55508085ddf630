"""From a configuration, whose fields the command line and `asr.load` offer, to a decoder."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.decoding.interface import OOV, OOV_ALIASES, Decoder
from asr.text.tokenizer import Tokenizer
from asr.types import AsrError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asr.decoding.beam.lexicon import SpelledWords
    from asr.lm.ngram import NGramLM

DECODERS = ("greedy", "beam", "flashlight", "pyctcdecode")


@dataclass(frozen=True)
class DecodingConfig:
    """How to decode. None stands for the decoder's default, or what was tuned for the language model.

    `hotwords` is a file of phrases, "w1,w2 w3", or a list of phrases; `lexicon` a file of words, `lm` an ARPA file or
    a binary of ours. `sentence_pause` is the seconds of silence after which a sentence may end for the language model.

    The command line generates its decoding options from these fields. A field whose metadata has "help" is the option
    `--name-with-dashes`, its default the field's. The other entries: "metavar"; "kind" (int: a whole number above 0,
    float, or str, which is assumed where it is missing); "choices", the only values allowed; "aliases", a mapping of
    older spellings, still accepted, to the choices that they stand for.
    """

    decoder: str = field(default="beam", metadata={"help": "default: beam", "choices": DECODERS})
    beam_width: int | None = field(
        default=None, metadata={"help": "hypotheses kept (default: 50, or as tuned)", "metavar": "N", "kind": int}
    )
    lm: str | Path | None = field(
        default=None,
        metadata={"help": "word n-gram model: ARPA (.gz too) or the binary of `asr lm`", "metavar": "LM"},
    )
    alpha: float | None = field(
        default=None,
        metadata={"help": "weight of the LM (default: as tuned for it, else 0.5)", "metavar": "A", "kind": float},
    )
    beta: float | None = field(
        default=None,
        metadata={"help": "bonus per word (default: as tuned, else 1.5)", "metavar": "B", "kind": float},
    )
    hotwords: str | Sequence[str] | None = field(
        default=None, metadata={"help": 'phrases to favor: a file, or "w1,w2 w3"', "metavar": "FILE|WORDS"}
    )
    hotword_weight: float = field(
        default=10.0, metadata={"help": "of each of them, nats (default: 10)", "metavar": "W", "kind": float}
    )
    lexicon: str | Path | None = field(
        default=None,
        metadata={
            "help": "the only words that may be recognized, one per line; 'word l e t t e r s' spells one otherwise",
            "metavar": "FILE",
        },
    )
    oov: str | None = field(
        default=None,
        metadata={
            "help": "words the LM does not know (default: penalize; forbid with --lexicon)",
            "choices": OOV,
            "aliases": OOV_ALIASES,
        },
    )
    sentence_pause: float | None = field(
        default=None,
        metadata={
            "help": "silence after which a sentence may end for the LM, seconds (default: 0.3; 0: never)",
            "metavar": "S",
            "kind": float,
        },
    )
    nbest: int = 1
    jobs: int | None = field(
        default=None, metadata={"help": "threads that decode (default: by processors)", "metavar": "N", "kind": int}
    )

    def check(self) -> None:
        """Raise UsageError for options that do not go together, before any work."""
        if self.decoder not in DECODERS:
            raise UsageError(f"decoder '{self.decoder}' is not one of {', '.join(DECODERS)}")
        useless = {
            "greedy": ("beam_width", "lm", "alpha", "beta", "hotwords", "lexicon", "oov", "sentence_pause"),
            "flashlight": ("hotwords", "oov", "sentence_pause"),
            "pyctcdecode": ("lexicon", "oov", "sentence_pause"),
            "beam": (),
        }[self.decoder]
        for name in useless:
            if getattr(self, name) is not None:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} has no meaning for --decoder {self.decoder}")
        if self.lm is None and (self.alpha is not None or self.beta is not None):
            raise UsageError("--alpha and --beta weigh a language model: give --lm")
        if self.lm is None and self.sentence_pause is not None:
            raise UsageError("--sentence-pause is for a language model: give --lm")
        if self.sentence_pause is not None and not 0.0 <= self.sentence_pause < math.inf:
            raise UsageError(f"--sentence-pause: at least 0 seconds expected, found {self.sentence_pause}")
        if self.oov == "forbid" and self.lm is None and self.lexicon is None:
            raise UsageError("--oov forbid needs words: give --lm or --lexicon")


def make_decoder(
    config: DecodingConfig,
    tokenizer: Tokenizer,
    frame_seconds: float,
    warn: Callable[[str], None] = lambda message: None,
) -> Decoder:
    """The decoder of these options; `warn` is called with a line for words that cannot be spelled, and the like.

    Raises UsageError, and AsrError for files that cannot be read or do not fit the model.
    """
    config.check()
    if config.decoder == "greedy":
        from asr.decoding.greedy import GreedyDecoder

        return GreedyDecoder(tokenizer, frame_seconds)
    from asr.decoding.beam.alphabet import Alphabet
    from asr.decoding.beam.lexicon import read_words

    # read once: it may be a pipe
    lexicon = read_words(config.lexicon, Alphabet(tokenizer.labels)) if config.lexicon else None
    lm = _read_lm(config, tokenizer.labels, lexicon, warn)
    if config.decoder == "beam":
        return _beam_search(config, tokenizer, frame_seconds, lm, lexicon, warn)
    return _backend(config, tokenizer, frame_seconds, lm, lexicon, warn)


def _beam_search(
    config: DecodingConfig,
    tokenizer: Tokenizer,
    frame_seconds: float,
    lm: NGramLM | None,
    lexicon: SpelledWords | None,
    warn: Callable[[str], None],
) -> Decoder:
    from asr.decoding.beam.hotwords import read_hotwords
    from asr.decoding.beam.search import SENTENCE_PAUSE, BeamSearch

    processors = os.cpu_count() or 1
    default_jobs = 1 if processors <= 2 else min(4, processors // 2)  # the model needs the other processors
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
        raise AsrError("no hotword can be spelled with the model's alphabet: wrong case?")
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
    """flashlight or pyctcdecode, with the weights that BeamSearch would take."""
    from asr.decoding.backends import FlashlightDecoder, PyctcdecodeDecoder
    from asr.decoding.beam.hotwords import read_hotwords

    tuned = lm.tuned if lm else None
    shared: dict[str, Any] = {
        "lm_words": lm.words if lm else (),
        "alpha": config.alpha if config.alpha is not None else tuned.alpha if tuned else 0.5,
        "beta": config.beta if config.beta is not None else tuned.beta if tuned else 1.5,
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
    """The language model as a file that KenLM can open: `path`, or an ARPA file made for a binary or a pipe.

    The file made is deleted at the end: KenLM reads all of it when it opens it.
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
