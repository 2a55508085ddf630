"""Options and output shared by several commands: model, device, decoding, raw audio, progress, messages."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.decoding.make import DecodingConfig
from asr.types import Failure, ModelFileError, Transcript, UsageError

if TYPE_CHECKING:
    from asr.audio.read import RawFormat
    from asr.corpus.manifest import Manifest
    from asr.recognition.acoustics import Windows
    from asr.recognition.classifier import Classifier
    from asr.recognition.evaluation import Change, Evaluation
    from asr.recognition.outputs import OutputFolder
    from asr.recognition.recognizer import Recognizer


# A subcommand: one line of help, the function that adds its arguments, the function that runs it.
Subcommand = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]


def add_subcommands(parser: argparse.ArgumentParser, table: Mapping[str, Subcommand]) -> None:
    """Add subcommands, such as `train` in `asr lm train`; `args.run_subcommand` will run the chosen one."""
    commands = parser.add_subparsers(metavar="|".join(table), required=True)
    for name, (summary, add_arguments, run) in table.items():
        description = summary[0].upper() + summary[1:] + "."
        command = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
        add_arguments(command)
        command.set_defaults(run_subcommand=run)


def run_subcommand(args: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    status: int = args.run_subcommand(args)
    return status


def add_model_options(parser: argparse.ArgumentParser, *, batches: bool = True) -> None:
    """-m/--model, --device, --threads, --batch-seconds (if the command makes `batches`), --progress."""
    named = "model file (.asr), or the name of a bundled one (asr models)"
    parser.add_argument("-m", "--model", required=True, metavar="MODEL", help=named)
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads for the model")
    if batches:
        padded = "seconds of padded audio per batch (default: 60 on CPU, 600 on CUDA); lower it if memory runs out"
        parser.add_argument("--batch-seconds", type=float, metavar="S", help=padded)
    bar = "progress bar on stderr (default: on terminals)"
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help=bar)


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """An option for each field of DecodingConfig that has a help text."""
    group = parser.add_argument_group("decoding")
    for field in fields(DecodingConfig):
        about = field.metadata
        if "help" in about:
            group.add_argument(
                "--" + field.name.replace("_", "-"),
                type=_value_type(about.get("kind", str), about.get("aliases", {})),
                default=field.default,
                choices=about.get("choices"),
                metavar=about.get("metavar"),
                help=about["help"],
            )


def _value_type(kind: type, aliases: Mapping[str, str]) -> Callable[[str], Any]:
    if kind is int:
        return positive
    return kind if kind is not str else lambda text: aliases.get(text, text)


def decoding_config(args: argparse.Namespace) -> DecodingConfig:
    """The configuration that the decoding options describe. Raises UsageError where they contradict each other."""
    names = [field.name for field in fields(DecodingConfig) if hasattr(args, field.name)]
    config = DecodingConfig(**{name: getattr(args, name) for name in names})
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
        help="longest window in seconds: recordings longer than S plus two overlaps, or than twice the longest "
        "training utterance, are recognized in windows that end in pauses, and decoded as one (default: 30; 0: never)",
    )
    context = "seconds of context on a side of a window without a pause (default: 5, at most the window's length)"
    group.add_argument("--chunk-overlap", type=float, metavar="S", help=context)


def windows(args: argparse.Namespace) -> Windows | None:
    """The windows of --chunk-length and --chunk-overlap; None: every recording in one piece."""
    from asr.recognition.acoustics import Windows

    if args.chunk_length == 0:
        return None
    overlap = min(Windows.overlap, args.chunk_length) if args.chunk_overlap is None else args.chunk_overlap
    return Windows(args.chunk_length, overlap)


def add_channel_option(parser: argparse.ArgumentParser, *, each: bool = False) -> None:
    """--channel: mix, a number from 0 or, where `each` is allowed, each."""
    words = ("mix", "each") if each else ("mix",)
    valid = f"{', '.join(words)} or a number from 0"

    def channel(text: str) -> str | int:
        if text in words:
            return text
        if not text.isdecimal():
            raise UsageError(f"--channel must be {valid}, found '{text}'")
        return int(text)

    parser.add_argument("--channel", type=channel, default="mix", metavar="C", help=f"{valid} (default: mix)")


def add_raw_options(parser: argparse.ArgumentParser) -> None:
    """--raw-rate and its companions, for audio without a header."""
    group = parser.add_argument_group("audio without a header")
    group.add_argument("--raw-rate", type=positive, metavar="HZ", help="sampling rate; all inputs are then raw samples")
    encodings = ["s8", "u8", "s16", "s24", "s32", "f32", "f64"]
    group.add_argument("--raw-encoding", default="s16", choices=encodings, help="default: s16")
    group.add_argument("--raw-byte-order", default="little", choices=["little", "big"], help="default: little")
    group.add_argument("--raw-channels", type=positive, default=1, metavar="N", help="default: 1")


def raw_format(args: argparse.Namespace) -> RawFormat | None:
    """The format that the --raw options describe, None without them."""
    if args.raw_rate is None:
        if args.raw_encoding != "s16" or args.raw_byte_order != "little" or args.raw_channels != 1:
            raise UsageError("--raw-encoding, --raw-byte-order and --raw-channels need --raw-rate")
        return None
    from asr.audio.read import RawFormat

    return RawFormat(args.raw_rate, args.raw_channels, args.raw_encoding, args.raw_byte_order)


def check_output(output: str | None, formats: Sequence[str], several: bool, streamed: Sequence[str]) -> None:
    """Raise UsageError if there is no `output` folder and `formats` cannot be written to stdout.

    `streamed` are the formats that stay valid when the results of several inputs are concatenated.
    """
    if not output and len(formats) > 1:
        raise UsageError(f"{len(formats)} formats cannot share stdout: give -o DIR")
    if not output and several and formats and formats[0] not in streamed:
        only = f"only {', '.join(streamed)} can be concatenated on stdout"
        raise UsageError(f"-f {formats[0]} for several inputs needs -o DIR ({only})")


def refuse_existing(path: str | Path | None, force: bool) -> None:
    """Raise UsageError for an output file that exists, unless --force was given."""
    if path and Path(path).exists() and not force:
        raise UsageError(f"{path}: already exists; --force replaces it")


def is_classifier(args: argparse.Namespace, recognizers_only: Mapping[str, Any] | None = None) -> bool:
    """Whether the model is a classifier; False for an unreadable file, which is reported where it is loaded.

    Raises UsageError for a classifier with decoding options, or with options of `recognizers_only`, which maps names to
    defaults, at other values.
    """
    from asr.model.checkpoint import read_metadata
    from asr.model.config import CLASSIFICATION

    try:
        if read_metadata(args.model)["task"] != CLASSIFICATION:
            return False
    except ModelFileError:
        return False
    decoding = {field.name: field.default for field in fields(DecodingConfig)}
    refuse_for_classifiers(args, {**decoding, **(recognizers_only or {})}, args.model)
    return True


def refuse_for_classifiers(args: argparse.Namespace, defaults: Mapping[str, Any], path: str) -> None:
    """Raise UsageError for options that differ from their `defaults` and have no meaning for classifiers.

    `path` is the model file, or the file of its output.
    """
    for name, default in defaults.items():
        if getattr(args, name, default) != default:
            raise UsageError(f"--{name.replace('_', '-')} is for recognizers, but {path} belongs to a classifier")


def load_classifier(args: argparse.Namespace) -> Classifier:
    """The classifier on its device."""
    import asr

    return asr.Classifier.load(args.model, device=args.device, threads=args.threads)


def load_recognizer(args: argparse.Namespace) -> Recognizer:
    """The model on its device with the decoder that the options describe."""
    import asr
    from asr.model.checkpoint import bundled_model

    recognizer = asr.Recognizer.load(args.model, device=args.device, threads=args.threads)
    if bundled := bundled_model(args.model):
        note(f"{bundled.name} is {bundled.purpose}")
    config = decoding_config(args).for_model(recognizer.model_file)
    args.decoder = config.decoder  # for reports
    recognizer.decode_with(config, warn)
    return recognizer


def evaluate(
    args: argparse.Namespace,
    recognizer: Recognizer,
    manifest: Manifest,
    normalizer: str | None = None,
    *,
    condition: str = "",
    change: Change | None = None,
    known_failures: Collection[str] = (),
) -> Evaluation:
    """Recognize and score a manifest, with a progress bar; failures are named on stderr unless they are known already.

    `change` alters the samples of each utterance; `condition` is its name.
    """
    from asr.recognition import evaluation

    with reported_results(args, len(manifest), condition, known_failures) as on_result:
        return evaluation.evaluate(
            recognizer,
            manifest,
            normalizer=normalizer,
            batch_seconds=args.batch_seconds,
            on_result=on_result,
            change=change,
        )


@contextlib.contextmanager
def reported_results(
    args: argparse.Namespace, total: int, condition: str = "", known_failures: Collection[str] = ()
) -> Iterator[Callable[[Transcript | Failure], None]]:
    """A progress bar, and a function that advances it for each result and names new failures on stderr."""
    with progress_bar(args, total=total, unit="utt", title=condition) as bar:

        def on_result(result: Transcript | Failure) -> None:
            bar.update()
            if isinstance(result, Failure) and result.id not in known_failures:
                say(f"asr: error: {condition and condition + ': '}{result.id}: {result.error}")

        yield on_result


def progress_bar(args: argparse.Namespace, total: int, unit: str, title: str = "") -> Any:
    """A tqdm bar on stderr where that is a terminal, unless --progress or --no-progress says otherwise."""
    from tqdm import tqdm

    hidden = None if args.progress is None else not args.progress  # None: hidden unless stderr is a terminal
    return tqdm(total=total, unit=unit, desc=title or None, file=sys.stderr, dynamic_ncols=True, disable=hidden)


def say(message: str) -> None:
    """Print a line to stderr without breaking a progress bar."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


def warn(*messages: str) -> None:
    """Print each warning as a line to stderr."""
    for message in messages:
        say(f"asr: warning: {message}")


def note(*messages: str) -> None:
    """Print each note as a line to stderr."""
    for message in messages:
        say(f"asr: note: {message}")


def labeled(rows: Iterable[tuple[str, str]]) -> str:
    """A line per row, with the texts aligned behind their labels."""
    rows = list(rows)
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def note_shortened(folder: OutputFolder | None) -> None:
    """Note, once for all recordings, that names of output files were shortened."""
    if folder is not None and folder.shortened:
        name, path = folder.shortened
        note(f"names too long for a file were shortened, such as '{name[:40]}...': {path}")


def note_rates(recognizer: Recognizer | None) -> None:
    """Note, once for all recordings, how many were resampled."""
    if recognizer is None:
        return
    for rate, count in sorted(recognizer.source_rates.items()):
        if rate != recognizer.rate:
            say(f"asr: {count} recording{'s' * (count > 1)} resampled from {rate} Hz to {recognizer.rate} Hz")


def positive(text: str) -> int:
    """An argparse type: a whole number, 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value
