"""The rows of a benchmark as a small table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# key: (heading, how it is shown); columns that no row has are left out
_COLUMNS: dict[str, tuple[str, str]] = {
    "precision": ("precision", "{}"),
    "decoder": ("decoder", "{}"),
    "threads": ("threads", "{}"),
    "batch_size": ("batch", "{}"),
    "real_time_factor": ("RTF", "{:.5f}"),
    "cpu_factor": ("CPU s/s", "{:.5f}"),
    "speed": ("x real time", "{:.0f}"),
    "reading": ("reading", "{:.5f}"),
    "features": ("features", "{:.5f}"),
    "acoustic model": ("model", "{:.5f}"),
    "decoding": ("decoding", "{:.5f}"),
    "microseconds_per_frame": ("us/frame", "{:.2f}"),
    "latency_p50": ("p50 s", "{:.4f}"),
    "latency_p95": ("p95 s", "{:.4f}"),
    "peak_bytes": ("peak MB", "{:.0f}"),
    "wer": ("WER", "{:.2%}"),
    "wer_change": ("change", "{:+.2%}"),
}
_COLORS = {"reading": "#8b949e", "features": "#2da44e", "acoustic model": "#1f6feb", "decoding": "#d1242f"}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Aligned columns; RTF and its parts are seconds of work per second of audio."""
    flat = [_flat(row) for row in rows]
    shown = [key for key in _COLUMNS if any(key in row for row in flat)]
    cells = [[_COLUMNS[key][0] for key in shown]]
    cells += [[_COLUMNS[key][1].format(row[key]) if key in row else "-" for key in shown] for row in flat]
    widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells)


def draw(rows: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Real-time factors as bars, by parts where they are known, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.35 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [_name(row) for row in rows]
    left = [0.0] * len(rows)
    for part, color in _COLORS.items():
        widths = [row.get("parts", {}).get(part, 0.0) for row in rows]
        if any(widths):
            axes.barh(names, widths, left=left, color=color, label=part)
            left = [a + b for a, b in zip(left, widths, strict=True)]
    if not any(left):
        left = [row["real_time_factor"] for row in rows]
        axes.barh(names, left, color=_COLORS["acoustic model"])
    else:
        axes.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    for i, value in enumerate(left):
        axes.text(value, i, f" {1 / value:.0f}x", va="center", fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="seconds of work per second of audio", xlim=(0.0, 1.12 * max(left)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    figure.savefig(path, dpi=120)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {**row, **row.get("parts", {}), "speed": 1.0 / row["real_time_factor"]}
    if "peak_bytes" in flat:
        flat["peak_bytes"] = flat["peak_bytes"] / 1e6
    return flat


def _name(row: Mapping[str, Any]) -> str:
    if "decoder" in row:
        return str(row["decoder"])
    precision = f"{row['precision']}, " if "precision" in row else ""
    threads = "thread" if row["threads"] == 1 else "threads"
    return f"{precision}batch {row['batch_size']}, {row['threads']} {threads}"
