"""`asr align`: when each word of a known text was spoken, by CTC forced alignment."""

from __future__ import annotations

import argparse
from pathlib import Path

from asr.commands import options
from asr.files import is_input, read_text
from asr.recognition.inputs import STDIN, Recording, as_recording, from_argument, is_manifest, is_pipe
from asr.recognition.outputs import DiskFull, OutputFolder, exists_error
from asr.recognition.writers import WRITERS, json_line, parse_formats
from asr.types import AsrError, Failure, UsageError

FORMATS = ("json", "jsonl", "ctm", "srt", "vtt", "tsv", "textgrid")
STREAMED = ("jsonl", "ctm")  # formats that stay valid when several results are concatenated on stdout
_TEXT_SUFFIXES = frozenset([".txt", ".text", ".lab", ".trn", ".md"])

EXAMPLES = """\
examples:
  asr align talk.wav talk.txt -m model.asr -f srt > talk.srt   subtitles of a text in a file
  asr align a.wav "the words in it" -m model.asr               words and tokens as JSON
  asr align test.jsonl -m model.asr -f textgrid -o out         a TextGrid per row of a manifest
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("input", metavar="AUDIO|MANIFEST", help="audio file, - for stdin, or a manifest with texts")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="text file, - for stdin, or the words themselves")
    parser.add_argument("-f", "--format", metavar="F[,F]", help=f"{', '.join(FORMATS)} (default: json)")
    parser.add_argument("-o", "--output", metavar="DIR", help="write files here, named after the recordings")
    parser.add_argument("--force", action="store_true", help="overwrite output files")
    options.add_channel_option(parser)
    options.add_model_options(parser, batches=False)
    options.add_window_options(parser)
    options.add_raw_options(parser)


def run(args: argparse.Namespace) -> int:
    raw = options.raw_format(args)
    windows = options.windows(args)
    several = is_manifest(args.input) or (args.text is None and is_pipe(args.input))
    formats = _formats(args, several)
    folder = OutputFolder(args.output, formats, overwrite=args.force) if args.output else None
    work, bad_rows = _of_manifest(args) if several else ([_single(args)], 0)
    failed = 0

    import asr
    from asr.recognition.alignment import align_recording

    recognizer = asr.Recognizer.load(args.model, device=args.device, threads=args.threads)
    recognizer.model_file.need_ctc("alignment")
    recognizer.windows = windows
    with options.progress_bar(args, total=len(work), unit="file") as bar:
        for recording, text in work:
            try:
                if folder is not None and (path := folder.existing(recording.id)):
                    raise exists_error(path)
                transcript = align_recording(recognizer, recording, text, channel=args.channel, raw=raw)
                if folder is not None:
                    folder.write(transcript, transcript.id)
                else:
                    print(WRITERS[formats[0]](transcript), end="", flush=True)
                name = transcript.audio_filepath or transcript.id
                options.warn(*(f"{name}: {warning}" for warning in transcript.warnings))
            except DiskFull:
                raise
            except AsrError as error:
                failed += 1
                options.say(f"asr: error: {error}")
                if several and formats == ("jsonl",) and folder is None:
                    print(json_line(Failure(recording.id, recording.audio_filepath, str(error))), end="")
            bar.update()
    options.note_shortened(folder)
    bad = failed + bad_rows
    if several:
        options.say(f"asr: {len(work) - failed} aligned" + (f", {bad} failed" if bad else ""))
    return 1 if bad else 0


def _formats(args: argparse.Namespace, several: bool) -> tuple[str, ...]:
    """The requested formats. Raises UsageError for formats without times, and for those that need -o."""
    default = "jsonl" if several and not args.output else "json"
    names = FORMATS if args.format == "all" else parse_formats(args.format or default)
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"-f {name} has no times: choose from {', '.join(FORMATS)}")
    if args.force and not args.output:
        raise UsageError("--force needs output files: give -o DIR")
    options.check_output(args.output, names, several, STREAMED)
    return names


def _single(args: argparse.Namespace) -> tuple[Recording, str]:
    if args.text is None:
        raise UsageError("TEXT is missing: give the words themselves, a text file, or - for stdin")
    if args.input == args.text == STDIN:
        raise UsageError("stdin ('-') can be read only once")
    return from_argument(args.input), _text(args.text)


def _text(argument: str) -> str:
    """The content of a text file, pipe or stdin, or else the argument itself."""
    if argument == STDIN or is_input(argument):
        return read_text(argument, UsageError)
    if Path(argument).suffix.lower() in _TEXT_SUFFIXES and len(argument.split()) == 1:
        raise UsageError(f"{argument}: no such text file")
    return argument


def _of_manifest(args: argparse.Namespace) -> tuple[list[tuple[Recording, str]], int]:
    """The rows of a manifest, and the number of malformed ones."""
    if args.text is not None:
        raise UsageError(f"{args.input} is a manifest, whose rows have their own texts: omit TEXT")
    from asr.corpus.manifest import Manifest
    from asr.types import ManifestError

    bad_rows: list[ManifestError] = []
    manifest = Manifest.read(args.input, bad_rows=bad_rows)
    for error in bad_rows:
        options.say(f"asr: error: {error}")
    return [(as_recording(utterance), utterance.text) for utterance in manifest], len(bad_rows)
