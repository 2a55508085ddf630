"""`asr explain`: what happens inside a model as it hears one recording, as a page or a picture."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from asr.commands import options
from asr.recognition.inputs import from_argument
from asr.types import UsageError

SUFFIXES = (".html", ".htm", ".png")

EXAMPLES = """\
examples:
  asr explain a.wav -m model.asr -o page.html                          what the model recognizes, and its longest word
  asr explain a.wav -m model.asr --text "abc cab" --word cab -o a.png  a word of a known text
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("input", metavar="AUDIO", help="audio file, or - for stdin")
    page = "the page, FILE.html, or only its pictures, FILE.png"
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=page)
    parser.add_argument("--text", help="align these words (default: what the model recognizes by greedy decoding)")
    word = "the word to explain, or its number from 1 (default: the longest in time)"
    parser.add_argument("--word", metavar="N|WORD", help=word)
    layer = "layer of the encoder to show, from 1 (default: the last one with recurrent cells)"
    parser.add_argument("--layer", type=int, metavar="N", help=layer)
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="second to start at (default: 0)")
    parser.add_argument("--duration", type=float, metavar="S", help="seconds to look at (at most 60)")
    options.add_channel_option(parser)
    options.add_model_options(parser, batches=False)
    options.add_raw_options(parser)


def run(args: argparse.Namespace) -> int:
    output = Path(args.output)
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o {args.output}: the name must end in .html for a page, or in .png for only its pictures")
    if output.is_dir():
        raise UsageError(f"-o {args.output}: is a folder; name a file")
    if not args.start >= 0:
        raise UsageError(f"--start must be 0 or more, found {args.start:g}")
    if args.duration is not None and not args.duration > 0:
        raise UsageError(f"--duration must be positive, found {args.duration:g}")
    raw = options.raw_format(args)
    recording = replace(from_argument(args.input), offset=args.start, duration=args.duration)

    import asr
    from asr.recognition.explanation import explain
    from asr.recognition.explanation_page import saliency_rows, write_explanation

    recognizer = asr.Recognizer.load(args.model, device=args.device, threads=args.threads)
    explanation = explain(
        recognizer, recording, text=args.text, word=args.word, layer=args.layer, channel=args.channel, raw=raw
    )
    write_explanation(output, explanation, Path(args.model).name)
    options.warn(*(f"{explanation.name}: {warning}" for warning in explanation.warnings))
    options.note(*explanation.notes)
    print(options.labeled([("text", explanation.text or "(none)"), *saliency_rows(explanation)]))
    options.say(f"asr: explanation written to {args.output}")
    return 0
