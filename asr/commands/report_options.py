"""The options of reports, and writing one: shared by the commands that score."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from asr.commands.options import say
from asr.types import AsrError, UsageError

if TYPE_CHECKING:
    from asr.scoring.report import Posteriorgram, Section
    from asr.scoring.scored import ScoredSet

PLAYERS = 30  # a minute of speech adds about 0.3 MB to the page


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """--html, --audio, --flag-below, --snr."""
    group = parser.add_argument_group("report")
    group.add_argument("--html", metavar="FILE", help="write a report as a single HTML page")
    players = f"with --html: add players for the N utterances with the most errors (N defaults to {PLAYERS})"
    group.add_argument("--audio", type=int, nargs="?", const=PLAYERS, default=0, metavar="N", help=players)
    marked = "with --html: mark words with a confidence below C, such as 0.6"
    group.add_argument("--flag-below", type=float, metavar="C", help=marked)
    group.add_argument("--snr", action="store_true", help="estimate signal-to-noise ratios from the audio (roughly)")


def check_report_options(args: argparse.Namespace) -> None:
    """Raise UsageError for report options that cannot work, before anything is computed."""
    if args.audio < 0:
        raise UsageError(f"--audio must be 0 or more, found {args.audio}")
    if args.audio and not args.html:
        raise UsageError("--audio adds players to a report: give --html FILE as well")
    if args.flag_below is not None and not args.html:
        raise UsageError("--flag-below marks words in a report: give --html FILE as well")
    check_flag_below(args.flag_below)
    if args.html and Path(args.html).is_dir():
        raise UsageError(f"--html {args.html}: is a folder; name a file")


def with_estimated_snr(scored: ScoredSet) -> ScoredSet:
    """The set with estimated signal-to-noise ratios for utterances that have none and whose audio can be read."""
    from asr.scoring.report import estimated_snr, read_clip

    _need_audio(scored, "--snr")
    lines = []
    for line in scored.lines:
        if line.snr is None and line.audio_filepath:
            with contextlib.suppress(AsrError):  # the ratio stays unknown; a player for the utterance reports why
                line = replace(line, snr=estimated_snr(*read_clip(line)), snr_estimated=True)
        lines.append(line)
    return replace(scored, lines=tuple(lines))


def write_html(
    args: argparse.Namespace,
    sets: Sequence[ScoredSet],
    *,
    title: str,
    facts: Sequence[str] = (),
    warnings: Sequence[str] = (),
    posteriorgrams: Mapping[int, Posteriorgram] | None = None,
    sections: Sequence[Section] = (),
) -> list[str]:
    """Write the report of --html; returns a line for each recording that could not be included."""
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
        sections=sections,
        flag_below=args.flag_below,
        footer=f"Written by asr {__version__}. Intervals are 95 % bootstrap intervals, of groups over utterances.",
    )
    say(f"asr: report written to {args.html}")
    return problems


def _need_audio(scored: ScoredSet, option: str) -> None:
    if not any(line.audio_filepath for line in scored.lines):
        raise UsageError(f"{option}: the references name no audio: give a manifest as REF or as --speakers")


def check_flag_below(value: float | None) -> None:
    """Raise UsageError for a confidence that no word can be below."""
    if value is not None and not 0.0 < value <= 1.0:
        raise UsageError(f"--flag-below must lie between 0 and 1, found {value:g}")
