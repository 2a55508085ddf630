"""The HTML report of `asr score` and `asr evaluate`: its options and its audio."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asr.commands import options
from asr.types import AsrError, UsageError

if TYPE_CHECKING:
    from asr.scoring.report import Posteriorgram
    from asr.scoring.scored import ScoredSet

PLAYERS = 30  # a minute of speech adds about 0.3 MB to the page


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """--html, --audio, --flag-below, --snr."""
    group = parser.add_argument_group("report")
    group.add_argument("--html", metavar="FILE", help="write a report as a single HTML page")
    players = f"with --html: add players for the N utterances with most errors (default N: {PLAYERS})"
    group.add_argument("--audio", type=int, nargs="?", const=PLAYERS, default=0, metavar="N", help=players)
    marked = "with --html: mark words of lower confidence, for example 0.6"
    group.add_argument("--flag-below", type=float, metavar="C", help=marked)
    group.add_argument("--snr", action="store_true", help="estimate signal-to-noise ratios from the audio (roughly)")


def check_report_options(args: argparse.Namespace) -> None:
    """Raise UsageError for report options that cannot work, before anything is computed."""
    if args.audio < 0:
        raise UsageError(f"--audio must be 0 or more, found {args.audio}")
    if args.audio and not args.html:
        raise UsageError("--audio puts players into a report: give --html FILE, too")
    if args.flag_below is not None and not args.html:
        raise UsageError("--flag-below marks words in a report: give --html FILE, too")
    options.check_flag_below(args.flag_below)
    if args.html and Path(args.html).is_dir():
        raise UsageError(f"--html {args.html}: a folder; name the file to write")


def with_estimated_snr(scored: ScoredSet) -> ScoredSet:
    """The set with a signal-to-noise ratio for every utterance whose audio can be read and that has none."""
    from asr.scoring.report import estimated_snr, read_clip

    _need_audio(scored, "--snr")
    lines = []
    for line in scored.lines:
        if line.snr is None and line.audio_filepath:
            with contextlib.suppress(AsrError):  # it stays unknown; a player for the same utterance reports why
                line = replace(line, snr=estimated_snr(*read_clip(line)), snr_estimated=True)
        lines.append(line)
    return replace(scored, lines=tuple(lines))


def write(
    args: argparse.Namespace,
    sets: Sequence[ScoredSet],
    *,
    title: str,
    facts: Sequence[str] = (),
    warnings: Sequence[str] = (),
    posteriorgrams: Mapping[int, Posteriorgram] | None = None,
) -> list[str]:
    """Write the report that --html asks for; returns a line for each recording that could not be included."""
    from asr import __version__
    from asr.scoring.report import data_uri, most_errors, read_clip, write_report

    if args.flag_below is not None and sets[0].confidences is None:
        raise UsageError("--flag-below: the hypotheses have no words with confidences; give JSONL with `words`")
    players: dict[int, str] = {}
    problems: list[str] = []
    if args.audio:
        _need_audio(sets[0], "--audio")
        for i in dict.fromkeys([*most_errors(sets[0], args.audio), *(posteriorgrams or {})]):
            try:
                players[i] = data_uri(*read_clip(sets[0].lines[i]))
            except AsrError as error:
                problems.append(f"no player for {sets[0].lines[i].id}: {error}")
    write_report(
        args.html,
        sets,
        title=title,
        facts=facts,
        warnings=warnings,
        audio=players,
        posteriorgrams=posteriorgrams,
        flag_below=args.flag_below,
        footer=f"Written by asr {__version__}. Intervals are 95 % bootstrap intervals, of groups over utterances.",
    )
    options.say(f"asr: report written to {args.html}")
    return problems


def _need_audio(scored: ScoredSet, option: str) -> None:
    if not any(line.audio_filepath for line in scored.lines):
        raise UsageError(f"{option}: the references name no audio; give a manifest as REF, or as --speakers")
