"""`asr transcribe`: recordings to text; a file that fails does not stop the others."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from asr.commands import options, report_options
from asr.config import shard
from asr.files import read_text
from asr.recognition.inputs import STDIN, Recording, find_recordings, is_single
from asr.recognition.outputs import DiskFull, OutputFolder, exists_error
from asr.recognition.writers import WRITERS, flagged, json_line, parse_formats, word_lines
from asr.types import AsrError, Failure, Transcript, UsageError

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer

Show = Callable[[Transcript | Failure], str]
TIMED = ("srt", "vtt", "tsv", "ctm", "textgrid")  # formats that are empty without word times
STREAMED = ("jsonl", "ctm", "trn")  # formats that stay valid when several results are concatenated on stdout

EXAMPLES = """\
examples:
  asr transcribe call.wav -m model.asr                   the text on stdout
  asr transcribe recordings/ -m model.asr -f srt -o out  a subtitle file per recording, the folders mirrored
  asr transcribe test.jsonl -m model.asr > results.jsonl one JSON line per manifest row
  sox x.wav -t wav - | asr transcribe - -m model.asr     audio on stdin
  arecord -t raw -f S16_LE -r 16000 | asr transcribe - --raw-rate 16000 -m streaming.asr
                                                         words as they are spoken, with a model that can stream
  asr transcribe clips/ -m words.asr                     labels, if the model is a classifier
  asr transcribe corpus/ -m model.asr -o out --shard 2/8 --resume
                                                         the second of eight jobs, resumed
  asr transcribe corpus/ -m model.asr -o out -f json --resume --json > all.jsonl
                                                         the rest, and all results in input order
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    inputs = "audio file, folder, quoted glob, manifest (.jsonl), or - for stdin"
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=inputs)
    options.add_model_options(parser)
    options.add_decoding_options(parser)
    parser.add_argument("-f", "--format", metavar="F[,F]", help=f"{', '.join(WRITERS)}, or all (default: txt)")
    parser.add_argument("-o", "--output", metavar="DIR", help="write files here, mirroring the tree of the inputs")
    words = "one word per line: start, end (seconds), confidence, word (JSON always has them)"
    parser.add_argument("--words", action="store_true", help=words)
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout, even for a single input or with -o")
    nbest = "hypotheses in JSON (greedy decoding has only one)"
    parser.add_argument("--nbest", type=int, default=1, metavar="N", help=nbest)
    options.add_channel_option(parser, each=True)
    resume = "skip recordings whose output files exist; with -f json and --json their results are still printed"
    parser.add_argument("--resume", action="store_true", help=resume)
    parser.add_argument("--force", action="store_true", help="overwrite output files")
    parser.add_argument("--shard", type=shard, metavar="I/N", help="only the I-th of N equal parts of the inputs")
    marked = "in txt, mark words with a confidence below C as [word?]"
    parser.add_argument("--flag-below", type=float, metavar="C", help=marked)
    options.add_window_options(parser)
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first recording that fails")
    options.add_raw_options(parser)


@dataclass
class Tally:
    """Counts for the summary and the exit status."""

    done: int = 0
    failed: int = 0
    skipped: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0
    warnings: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        others = ((self.skipped, "already done"), (self.failed, "failed"))
        text = ", ".join([f"{self.done} transcribed", *(f"{count} {state}" for count, state in others if count)])
        if self.audio_seconds:
            minutes, seconds = divmod(round(self.audio_seconds), 60)
            audio = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
            text += f": {audio} of audio in {self.seconds:.1f} s, {self.speed()}"
        return text

    def speed(self) -> str:
        """Seconds of work per second of audio, "" before the first result."""
        if not self.audio_seconds:
            return ""
        factor = self.seconds / self.audio_seconds
        return f"real-time factor {factor:.3f} ({1 / factor:.0f}x real time)"


class _LiveText:
    """Prints the text of a single long recording as it is recognized."""

    def __init__(self) -> None:
        self.printed = ""

    def __call__(self, recording: Recording, text: str) -> None:
        _print(text[len(self.printed) :])
        self.printed = text

    def rest(self, show: Show) -> Show:
        """Show the part of a result that is not yet printed; end the line after a failure."""
        if not self.printed:
            return show
        return lambda result: show(result).removeprefix(self.printed) or "\n"


def run(args: argparse.Namespace) -> int:
    raw = options.raw_format(args)
    options.decoding_config(args)
    classifies = options.is_classifier(args, {"nbest": 1, "flag_below": None})
    formats = parse_formats(args.format) if args.format else ()
    found = find_recordings(args.inputs)
    single = is_single(args.inputs, found)
    _check_output(args, formats, single)
    writers = WRITERS if args.flag_below is None else {**WRITERS, "txt": flagged(args.flag_below)}
    windows = options.windows(args)
    folder = None
    if args.output:
        folder = OutputFolder(args.output, formats or ("txt",), overwrite=args.force, writers=writers)
    show = _stdout_form(args, formats, single, writers)
    live = _live_text(args, formats, single)
    if live is not None and args.progress is None:
        args.progress = False  # the text itself shows the progress
    tally = Tally()
    plan = _plan(args, found, folder, tally)
    todo = [item for item in plan if isinstance(item, Recording)]
    recognizer = None
    interrupted = False
    started = time.perf_counter()
    with options.progress_bar(args, total=len(plan), unit="file") as bar:
        try:
            results: Iterator[tuple[Recording, list[Transcript] | Failure]] = iter(())
            if todo:
                recognizer = options.load_classifier(args) if classifies else options.load_recognizer(args)
                if args.words or args.flag_below or set(formats) & set(TIMED):
                    recognizer.model_file.need_ctc("times and confidences of words")
                recognizer.windows = windows
                recognizer.on_text = live
                todo = [replace(item, live=_is_live(item, args, recognizer)) for item in todo]
                started = time.perf_counter()
                results = recognizer.recognize(
                    todo, channel=args.channel, nbest=args.nbest, raw=raw, batch_seconds=args.batch_seconds
                )
            for item in plan:
                new = _print_finished(item) if isinstance(item, list) else item
                if new is not None:
                    result = new if isinstance(new, Failure) else _written(*next(results), folder, args.resume)
                    _report(result, live.rest(show) if live else show, tally)
                tally.seconds = time.perf_counter() - started
                bar.set_postfix_str(tally.speed(), refresh=False)
                bar.update()
                if tally.failed and args.fail_fast:
                    break
        except DiskFull as error:
            tally.failed += 1
            options.say(f"asr: error: {error}: stopped; --resume continues from here")
        except KeyboardInterrupt:
            interrupted = True
    options.warn(*(f"{count} recordings in all: {text}" for text, count in tally.warnings.items() if count > 1))
    options.note_shortened(folder)
    options.note_rates(recognizer)
    options.say(f"asr: {'interrupted; ' if interrupted else ''}{tally.line()}")
    if interrupted:
        return 130
    return 1 if tally.failed else 0


def _is_live(recording: Recording, args: argparse.Namespace, recognizer: Recognizer) -> bool:
    """Whether to recognize raw samples from stdin as they arrive."""
    from asr.recognition.acoustics import can_stream

    raw = recording.audio_filepath == STDIN and args.raw_rate is not None and args.channel != "each"
    return raw and can_stream(recognizer.acoustics, recognizer.decoder)


def _plan(
    args: argparse.Namespace, found: list[Recording | Failure], folder: OutputFolder | None, tally: Tally
) -> list[Recording | Failure | list[Path]]:
    """The recordings to transcribe, in order, with a Failure for those whose output exists.

    Recordings that --resume skips are left out or, if --json prints them, replaced by the paths of their JSON files.
    """
    plan: list[Recording | Failure | list[Path]] = []
    if args.shard:
        number, count = args.shard
        found = found[number - 1 :: count]
    for item in found:
        if isinstance(item, Recording) and folder is not None:
            channels = _channels(item, args)
            if args.resume and folder.finished(item.id, channels):
                tally.skipped += 1
                if args.json and "json" in folder.formats:
                    place = folder.formats.index("json")
                    plan.append([folder.paths(item.id, channel)[place] for channel in channels])
                continue
            if not args.resume and (path := folder.existing(item.id, channels)):
                item = Failure(item.id, item.audio_filepath, str(exists_error(path)))
        plan.append(item)
    return plan


def _channels(recording: Recording, args: argparse.Namespace) -> list[int | None]:
    """The channels whose transcripts get files of their own."""
    if args.channel != "each" or recording.channel is not None:
        return [None]
    source = recording.source
    if not isinstance(source, str | Path) or not Path(source).is_file():  # a pipe can be read only once
        return [0]
    from asr.audio.read import probe

    try:
        return list(range(probe(source, options.raw_format(args)).channels))
    except AsrError:  # reported when the audio is read
        return [0]


def _written(
    recording: Recording, result: list[Transcript] | Failure, folder: OutputFolder | None, resume: bool
) -> list[Transcript] | Failure:
    if folder is None or isinstance(result, Failure):
        return result
    try:
        for transcript in result:
            folder.write(transcript, recording.id, only_missing=resume)
    except DiskFull:
        raise
    except AsrError as error:
        return Failure(recording.id, recording.audio_filepath, str(error))
    return result


def _check_output(args: argparse.Namespace, formats: tuple[str, ...], single: bool) -> None:
    if args.nbest < 1:
        raise UsageError(f"--nbest must be at least 1, found {args.nbest}")
    report_options.check_flag_below(args.flag_below)
    if args.flag_below is not None:
        structured = args.words or (args.json and not args.output)
        if structured or "txt" not in (formats or (("txt",) if single or args.output else ())):
            raise UsageError("--flag-below marks words in txt only; other formats have the confidence of every word")
    if args.output is None:
        if args.resume or args.force:
            raise UsageError("--resume and --force need output files: give -o DIR")
        options.check_output(None, formats, not single, STREAMED)
    elif args.words:
        raise UsageError("--words is for text on stdout; for files choose -f json, ctm or tsv, which have times")


def _print_finished(paths: list[Path]) -> Failure | None:
    """Print the results of earlier runs as JSON lines."""
    for path in paths:
        try:
            row = json.loads(read_text(path))
        except ValueError as error:
            return Failure(path.stem, str(path), f"{path}: not JSON ({error}): delete it to have it written again")
        _print(json.dumps(row, ensure_ascii=False) + "\n")
    return None


def _stdout_form(
    args: argparse.Namespace, formats: tuple[str, ...], single: bool, writers: Mapping[str, Callable[[Transcript], str]]
) -> Show:
    """The function that formats a result for stdout; "" for nothing."""
    if args.json or (args.output is None and not single and not formats):
        return json_line
    writer = word_lines if args.words and not formats else writers[formats[0] if formats else "txt"]
    return lambda result: "" if args.output or isinstance(result, Failure) else writer(result)


def _live_text(args: argparse.Namespace, formats: tuple[str, ...], single: bool) -> _LiveText | None:
    """Live output for a single recording whose plain text goes to stdout."""
    plain = not (args.output or args.json or args.words or args.flag_below) and formats in ((), ("txt",))
    return _LiveText() if single and plain and args.channel != "each" else None


def _report(result: list[Transcript] | Failure, show: Show, tally: Tally) -> None:
    """Print the results of a recording and count them."""
    if isinstance(result, Failure):
        tally.failed += 1
        options.say(f"asr: error: {result.error}")
        _print(show(result))
        return
    tally.done += 1
    for transcript in result:
        tally.audio_seconds += transcript.duration
        _print(show(transcript))
    for warning in dict.fromkeys(w for transcript in result for w in transcript.warnings):
        tally.warnings[warning] += 1
        if tally.warnings[warning] == 1:  # a telephone corpus would repeat one for every file
            options.warn(f"{result[0].audio_filepath}: {warning}")


def _print(text: str) -> None:
    if text:
        print(text, end="", flush=True)  # so that a pipeline sees each result at once, and Ctrl-C loses none
