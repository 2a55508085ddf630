"""Options that `asr transcribe` and `asr evaluate` share: model, device, decoding, raw audio, progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from asr.decoding.interface import OOV, OOV_ALIASES
from asr.decoding.make import DECODERS, DecodingConfig, make_decoder
from asr.types import UsageError

if TYPE_CHECKING:
    from asr.audio.read import RawFormat
    from asr.recognition.long_form import Windows
    from asr.recognition.outputs import OutputFolder
    from asr.recognition.recognizer import Recognizer


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """-m/--model, --device, --threads, --batch-seconds, --progress."""
    parser.add_argument("-m", "--model", required=True, metavar="MODEL", help="model file (.asr)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads for the model")
    parser.add_argument(
        "--batch-seconds",
        type=float,
        metavar="S",
        help="padded audio per batch (default: 60 on CPU, 600 on CUDA); lower it when memory is short",
    )
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="progress bar on stderr (default: on terminals)"
    )


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """--decoder and what it can be told."""
    group = parser.add_argument_group("decoding")
    group.add_argument("--decoder", choices=DECODERS, default="beam", help="default: beam")
    group.add_argument("--beam-width", type=positive, metavar="N", help="hypotheses kept (default: 50, or as tuned)")
    group.add_argument("--lm", metavar="LM", help="word n-gram model: ARPA (.gz too) or the binary of `asr lm`")
    group.add_argument("--alpha", type=float, metavar="A", help="weight of the LM (default: as tuned for it, else 0.5)")
    group.add_argument("--beta", type=float, metavar="B", help="bonus per word (default: as tuned, else 1.5)")
    group.add_argument("--hotwords", metavar="FILE|WORDS", help='phrases to favour: a file, or "w1,w2 w3"')
    group.add_argument(
        "--hotword-weight", type=float, default=10.0, metavar="W", help="of each of them, nats (default: 10)"
    )
    group.add_argument(
        "--lexicon",
        metavar="FILE",
        help="the only words that may be recognized, one per line; 'word l e t t e r s' spells one otherwise",
    )
    group.add_argument(
        "--oov",
        choices=OOV,
        type=lambda value: OOV_ALIASES.get(value, value),
        help="words the LM does not know (default: penalize; forbid with --lexicon)",
    )
    group.add_argument("--jobs", type=positive, metavar="N", help="threads that decode (default: by processors)")


def decoding_config(args: argparse.Namespace) -> DecodingConfig:
    """What the decoding options say; raises UsageError where they do not go together."""
    config = DecodingConfig(
        decoder=args.decoder,
        beam_width=args.beam_width,
        lm=args.lm,
        alpha=args.alpha,
        beta=args.beta,
        hotwords=args.hotwords,
        hotword_weight=args.hotword_weight,
        lexicon=args.lexicon,
        oov=args.oov,
        nbest=getattr(args, "nbest", 1),
        jobs=args.jobs,
    )
    config.check()
    return config


def add_window_options(parser: argparse.ArgumentParser) -> None:
    """--chunk-length and --chunk-overlap, for long recordings."""
    group = parser.add_argument_group("long recordings")
    group.add_argument(
        "--chunk-length",
        type=float,
        default=30.0,
        metavar="S",
        help="recordings longer than this and two overlaps, or than twice what the model was trained on, are "
        "recognized in windows of at most S seconds, which end in pauses and are about as long as what it was trained "
        "on, and their emissions decoded as one (default: 30; 0: always in one piece)",
    )
    group.add_argument(
        "--chunk-overlap",
        type=float,
        metavar="S",
        help="context on a side of a window where nobody pauses (default: 5, at most the window's length)",
    )


def windows(args: argparse.Namespace) -> Windows | None:
    """What --chunk-length and --chunk-overlap say; None: recordings in one piece."""
    from asr.recognition.long_form import Windows

    if args.chunk_length == 0:
        return None
    overlap = min(Windows.overlap, args.chunk_length) if args.chunk_overlap is None else args.chunk_overlap
    return Windows(args.chunk_length, overlap)


def add_raw_options(parser: argparse.ArgumentParser) -> None:
    """--raw-rate and its companions, for audio without a header."""
    group = parser.add_argument_group("audio without a header")
    group.add_argument("--raw-rate", type=positive, metavar="HZ", help="samples per second; makes all inputs raw")
    group.add_argument(
        "--raw-encoding", default="s16", choices=["s8", "u8", "s16", "s24", "s32", "f32", "f64"], help="default: s16"
    )
    group.add_argument("--raw-byte-order", default="little", choices=["little", "big"], help="default: little")
    group.add_argument("--raw-channels", type=positive, default=1, metavar="N", help="default: 1")


def raw_format(args: argparse.Namespace) -> RawFormat | None:
    """What the --raw options say, None without them."""
    if args.raw_rate is None:
        if args.raw_encoding != "s16" or args.raw_byte_order != "little" or args.raw_channels != 1:
            raise UsageError("--raw-encoding, --raw-byte-order and --raw-channels need --raw-rate")
        return None
    from asr.audio.read import RawFormat

    return RawFormat(args.raw_rate, args.raw_channels, args.raw_encoding, args.raw_byte_order)


TEXT_FORMATS = "trn, stm, ctm, jsonl, json, csv (tsv), kaldi, srt, vtt or txt"


def text_format(args: argparse.Namespace, side: int) -> str | None:
    """What --format says of the references (0) or of the hypotheses (1); raises UsageError for more than two."""
    names = (args.format or "").split(",")
    if len(names) > 2:
        raise UsageError(
            f"--format is one format, or two: of the references and of the hypotheses; found '{args.format}'"
        )
    return names[side % len(names)].strip() or None


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """--normalize, --speakers, --format, --strict: how references and hypotheses are read and paired."""
    parser.add_argument(
        "--normalize",
        default="none",
        metavar="N[,N]",
        help="none (default), basic, librispeech: one or several side by side, both sides alike; basic and librispeech "
        "leave annotators' tags out ([noise], <unk>, (laughs)), basic@1 and librispeech@1 make words of them",
    )
    parser.add_argument(
        "--speakers",
        metavar="FILE",
        help="manifest or utt2spk with the speakers; `prefix` takes them from the ids, up to the first - or _",
    )
    parser.add_argument(
        "--format",
        metavar="F[,F]",
        help=f"{TEXT_FORMATS}: of all files, or of the references and of the hypotheses (default: as they look)",
    )
    parser.add_argument("--strict", action="store_true", help="missing and extra utterances are an error")


def normalizer_names(text: str) -> list[str]:
    """The names of a comma-separated list; raises ConfigError for an unknown one, UsageError for none."""
    from asr.text.normalize import normalizer

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        normalizer(name)
    if not names:
        raise UsageError("no normalizer given (valid: none, basic, librispeech)")
    return names


def load_recognizer(args: argparse.Namespace) -> Recognizer:
    """The model on its device with the decoder asked for."""
    import asr

    recognizer = asr.load(args.model, device=args.device, threads=args.threads)
    recognizer.decoder = make_decoder(
        decoding_config(args),
        recognizer.tokenizer,
        recognizer.frame_seconds,
        lambda message: say(f"asr: warning: {message}"),
    )
    return recognizer


class Progress(Protocol):
    """What commands need of a progress bar."""

    def update(self) -> object: ...

    def set_postfix_str(self, s: str, refresh: bool = True) -> object: ...


@contextmanager
def progress_bar(args: argparse.Namespace, total: int, unit: str) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal, unless --progress or --no-progress says otherwise."""
    shown = sys.stderr.isatty() if args.progress is None else args.progress
    if not shown:
        yield _NoProgress()
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, file=sys.stderr, dynamic_ncols=True) as bar:
        yield bar


class _NoProgress:
    def update(self) -> None:
        return None

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        return None


def say(message: str) -> None:
    """One line on stderr that does not tear a progress bar."""
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)
    else:
        print(message, file=sys.stderr)


def note_shortened(folder: OutputFolder) -> None:
    """Say, once for all, that names of output files were cut."""
    if folder.shortened:
        name, path = folder.shortened
        print(f"asr: note: names too long for a file were cut, e.g. of '{name[:40]}...': {path}", file=sys.stderr)


def note_rates(recognizer: Recognizer) -> None:
    """Say, once for all, what was resampled."""
    for rate, count in sorted(recognizer.source_rates.items()):
        if rate != recognizer.rate:
            many = "1 recording" if count == 1 else f"{count} recordings"
            print(f"asr: {many} resampled from {rate} Hz to {recognizer.rate} Hz", file=sys.stderr)


def positive(text: str) -> int:
    """For argparse: a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value
