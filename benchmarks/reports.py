"""Reports of benchmarks in Markdown: a generated part, and notes below it that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr.files import write_text

MARKER = "<!-- What is below this line is written by hand, and kept. -->\n"


def names(text: str) -> list[str]:
    """An argument `a,b`."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """An argument `1,2`."""
    return [int(number) for number in text.split(",")]


def write_report(path: Path, head: str, rows: Sequence[Sequence[str]]) -> None:
    """Write `head` and a table, whose first row is its heading and second its alignment, and print the table.

    Notes below MARKER in an existing report are kept.
    """
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    notes = path.read_text(encoding="utf-8").partition(MARKER)[2] if path.exists() else ""
    write_text(path, "\n".join([head, table, "", MARKER]) + notes)
    print(table)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Axes = figure.subplots()
    return figure, axes


def save_figure(figure: Figure, axes: Axes, path: Path, **grid: Any) -> None:
    """Save a figure with a legend and grid lines."""
    axes.grid(alpha=0.3, **grid)
    axes.legend(frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
