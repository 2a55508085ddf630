"""`asr doctor`: what is installed, what is missing, and the line that mends it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from asr.commands.installation import Finding, check_machine, check_parts
from asr.types import VERSION

_MARKS = {"ok": "ok", "warning": "warning", "missing": "MISSING", "broken": "BROKEN"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")


def run(args: argparse.Namespace) -> int:
    findings = [*check_machine(), *check_parts()]
    order = ("required", "optional", "machine")
    findings.sort(key=lambda finding: order.index(finding.group))
    well = works(findings)
    if args.json:
        print(json.dumps({"ok": well, "version": VERSION, "parts": [dataclasses.asdict(f) for f in findings]}))
    else:
        print(table(findings))
    return 0 if well else 1


def works(findings: Sequence[Finding]) -> bool:
    """Whether every required part is there and can be imported."""
    return all(f.state in ("ok", "warning") for f in findings if f.group == "required")


def table(findings: Sequence[Finding]) -> str:
    """A line for every finding, by group; below it, indented, the line that mends it; at the end what it comes to."""
    name_width = max(len(f.name) for f in findings)
    version_width = max(len(f.version) for f in findings)
    mark_width = max(map(len, _MARKS.values()))
    lines: list[str] = []
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            lines += ["", group] if lines else [group]
        absent = finding.state == "missing" and group != "required"
        mark = "-" if absent else _MARKS[finding.state]
        row = (
            f"  {finding.name:<{name_width}}  {mark:<{mark_width}}  {finding.version:<{version_width}}  {finding.note}"
        )
        lines.append(row.rstrip())
        if finding.fix:
            lines.append(f"  {'':<{name_width}}  {'':<{mark_width}}  -> {finding.fix}")
    return "\n".join([*lines, "", _verdict(findings)])


def _verdict(findings: Sequence[Finding]) -> str:
    failed = [f.name for f in findings if f.group == "required" and f.state in ("missing", "broken")]
    if failed:
        return f"asr {VERSION}: does not work yet: mend {', '.join(failed)}"
    warned = [f.name for f in findings if f.state == "warning" or (f.state == "broken" and f.group != "required")]
    remark = f"; look at {', '.join(warned)}" if warned else ""
    return f"asr {VERSION}: all required parts work{remark}"
