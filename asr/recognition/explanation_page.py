"""The pictures of an explanation, as a single PNG or a self-contained HTML page."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from asr.files import replacing, write_text
from asr.recognition.explanation import AttentionMap, Explanation, LayerView
from asr.scoring.report import Posteriorgram, data_uri, label_name, shown_labels
from asr.types import VERSION

WIDTH = 11.0  # inches
LEFT, RIGHT = 0.09, 0.985  # the time axis, as shares of a picture's width; the page's cursor relies on them
MARGIN = 0.42  # inches below a picture's axes, for the seconds
DPI = 110
BLUE, RED, GRAY = "#1f6feb", "#d1242f", "#6e7781"


@dataclass(frozen=True)
class Panel:
    """A picture over time: its title, a caption, its height in inches, and the function that draws it."""

    title: str
    caption: str
    height: float
    draw: Callable[[Any], None]


def write_explanation(path: Path, explanation: Explanation, model: str) -> None:
    """Write the page or, if the suffix is .png, only the pictures. Raises OutputError."""
    if path.suffix.lower() == ".png":
        content = _png(_panels(explanation), explanation.duration, explanation.name)
        with replacing(path) as partial:
            partial.write_bytes(content)
        return
    figures = "\n".join(_figure(panel, explanation.duration) for panel in _panels(explanation))
    facts = [
        f"model {model}",
        f"{explanation.duration:.2f} s",
        f"{'given' if explanation.given else 'recognized'} text",
    ]
    parts = {
        "TITLE": escape(explanation.name),
        "FACTS": escape(" · ".join(facts)),
        "TEXT": escape(explanation.text) or "<em>no word was recognized</em>",
        "NOTES": "".join(f'<p class="note">{escape(note)}</p>' for note in (*explanation.warnings, *explanation.notes)),
        "AUDIO": data_uri(explanation.samples, explanation.rate),
        "WORDS": _words_table(explanation),
        "FIGURES": figures,
        "SALIENCY": _saliency_table(explanation),
        "FOOTER": f"Written by asr {VERSION}. Times are in seconds from the start of the recording.",
        "LEFT": str(LEFT),
        "RIGHT": str(RIGHT),
        "SECONDS": f"{explanation.duration:.6f}",
    }
    page = files("asr.recognition").joinpath("explanation.html").read_text(encoding="utf-8")
    # In one pass, so that nothing in the data is taken for a placeholder.
    write_text(path, re.sub(r"@([A-Z]+)@", lambda place: parts[place[1]], page))


def saliency_rows(explanation: Explanation) -> list[tuple[str, str]]:
    """(name, value) pairs: the score of the chosen word and the results of the deletion check."""
    if explanation.saliency is None or explanation.chosen is None:
        return []
    saliency, word = explanation.saliency, explanation.words[explanation.chosen]
    return [
        ("word", f"{word.word} ({word.start:.2f} to {word.end:.2f} s)"),
        ("score", f"{saliency.score:.2f} nats"),
        ("without the most salient tenth", f"{saliency.without_salient:.2f} nats"),
        ("without a random tenth", f"{saliency.without_random:.2f} nats"),
        ("on the average sound", f"{saliency.baseline_score:.2f} nats"),
        ("error of the attributions' sum", f"{saliency.gap:+.2f} nats ({saliency.steps} gradients)"),
    ]


def _panels(e: Explanation) -> list[Panel]:
    heard = f"the text '{e.text}'" if e.text else "no text"
    panels = [
        Panel("Waveform", f"{e.duration:.2f} s of sound; the words are shaded.", 1.3, lambda axes: _waveform(axes, e)),
        Panel(
            "Spectrogram",
            f"The model's input: the normalized logarithms of {len(e.band_hz)} mel bands, {e.band_hz[0]:.0f} to "
            f"{e.band_hz[-1]:.0f} Hz.",
            2.0,
            lambda axes: _bands(axes, e, e.features, "magma"),
        ),
        Panel(
            "Posteriorgram",
            f"Probability of each label in each {1000 * e.frame_seconds:.0f} ms frame, darker is higher: {heard}.",
            0.5 + 0.15 * len(_posteriors(e)[0]),
            lambda axes: _posteriorgram(axes, e),
        ),
    ]
    if e.words:
        order = ", ".join(f"{word.word} at {word.start:.2f} s" for word in e.words)
        caption = f"When each word and each label was spoken, redder is less certain: {order}."
        panels.append(Panel("Alignment", caption, 0.9, lambda axes: _alignment(axes, e)))
    if e.saliency is not None and e.chosen is not None:
        word = e.words[e.chosen]
        times = e.feature_seconds * np.arange(len(e.features))
        amounts = np.abs(e.saliency.attributions).sum(axis=1)
        share = amounts[(times >= word.start) & (times <= word.end)].sum() / max(amounts.sum(), 1e-30)
        caption = (
            f"Integrated gradients of the score of '{word.word}': compared with the average sound, red features speak "
            f"for the word, blue ones against it. {100 * share:.0f} % of the total lies within the word."
        )
        panels.append(Panel(f"Saliency of '{word.word}'", caption, 2.0, lambda axes: _saliency(axes, e)))
    if e.layer is not None:
        panels += _layer_panels(e.layer)
    for attention in e.attention:
        if attention.tokens:
            caption = "Where the attention decoder looks at each step, from the first label at the top to the end."
            height = 0.4 + 0.15 * len(attention.tokens)
        else:
            caption = f"Where each frame of layer {attention.layer} looks, averaged over heads; time also runs down."
            height = 3.0
        panels.append(Panel("Attention", caption, height, partial(_attention, attention=attention)))
    return panels


def _layer_panels(layer: LayerView) -> list[Panel]:
    panels = []
    for direction, gates in layer.gates.items():
        means = ", ".join(f"{name} gate {values.mean():.2f}" for name, values in gates.items())
        width = next(iter(gates.values())).shape[1]
        caption = (
            f"{width} units of the {direction} cell, ordered by how open each gate is on average; darker is more "
            f"open. Averages: {means}."
        )
        title = f"Gates of layer {layer.number}, {direction}"
        panels.append(Panel(title, caption, 0.9 * len(gates), partial(_gates, gates=gates, layer=layer)))
    states = "Hidden states" if "output" not in layer.states else "Output"
    caption = f"The length of the state vector in each frame: {' and '.join(layer.states)}."
    panels.append(Panel(f"{states} of layer {layer.number}", caption, 1.2, lambda axes: _norms(axes, layer)))
    return panels


def _extent(frames: int, step: float, low: float, high: float) -> tuple[float, float, float, float]:
    """An image's extent in which frame i is centered on i * step."""
    return -0.5 * step, (frames - 0.5) * step, low, high


def _shade(axes: Any, e: Explanation) -> None:
    for i, word in enumerate(e.words):
        axes.axvspan(word.start, word.end, color=RED if i == e.chosen else BLUE, alpha=0.12, linewidth=0)


def _waveform(axes: Any, e: Explanation) -> None:
    # The lowest and highest sample of each of some 2000 stretches is all that a picture can show.
    step = max(1, len(e.samples) // 2000)
    parts = e.samples[: len(e.samples) // step * step].reshape(-1, step)
    axes.fill_between(np.arange(len(parts)) * step / e.rate, parts.min(1), parts.max(1), color=GRAY, linewidth=0.4)
    _shade(axes, e)
    for word in e.words:
        x = (word.start + word.end) / 2
        axes.text(x, 0.98, word.word, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=8)
    limit = 1.6 * float(np.abs(e.samples).max())
    axes.set(ylim=(-limit, limit), ylabel="sample")


def _bands(axes: Any, e: Explanation, values: np.ndarray, colors: str, limit: float | None = None) -> None:
    bands = values.shape[1]
    axes.imshow(
        values.T, origin="lower", aspect="auto", interpolation="nearest", cmap=colors,
        vmin=None if limit is None else -limit, vmax=limit,
        extent=_extent(len(values), e.feature_seconds, -0.5, bands - 0.5),
    )  # fmt: skip
    shown = np.array([hz for hz in (100, 300, 1000, 2000, 4000, 8000) if e.band_hz[0] <= hz <= e.band_hz[-1]])
    axes.set_yticks(np.interp(shown, e.band_hz, np.arange(bands)), [f"{hz:,}" for hz in shown])
    axes.set_ylabel("Hz")


def _saliency(axes: Any, e: Explanation) -> None:
    assert e.saliency is not None and e.chosen is not None
    values = e.saliency.attributions
    # Without a limit, a few outliers would hide the other features.
    _bands(axes, e, values, "RdBu_r", max(float(np.quantile(np.abs(values), 0.998)), 1e-12))
    for x in (e.words[e.chosen].start, e.words[e.chosen].end):
        axes.axvline(x, color="black", linewidth=0.8, linestyle="--")


def _posteriors(e: Explanation) -> tuple[list[str], np.ndarray]:
    return shown_labels(Posteriorgram(e.log_probs, e.labels, e.frame_seconds))


def _posteriorgram(axes: Any, e: Explanation) -> None:
    names, posteriors = _posteriors(e)
    extent = _extent(posteriors.shape[1], e.frame_seconds, len(names) - 0.5, -0.5)
    axes.imshow(
        np.sqrt(posteriors), aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=1, extent=extent
    )
    _rows(axes, names)


def _rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [name[:10] for name in names], fontsize=7)


def _alignment(axes: Any, e: Explanation) -> None:
    shown = [label_name(i, e.labels) for i in range(len(e.labels))]
    display = dict(zip(e.labels, shown, strict=True)) | {" ": "␣"}
    for row, parts in ((1, e.words), (0, e.tokens)):
        for part in parts:
            color = _mixed(part.confidence)
            axes.barh(row, part.end - part.start, left=part.start, height=0.9, color=color, edgecolor="white")
            text = part.word if row else display[part.word]
            x = (part.start + part.end) / 2
            axes.text(x, row, text, ha="center", va="center", fontsize=8 if row else 6.5, clip_on=True)
    axes.set(ylim=(-0.6, 1.6))
    _rows(axes, ["labels", "words"])


def _mixed(confidence: float) -> tuple[float, float, float]:
    """A color from red for 0 to green for 1."""
    low, high = np.array([0.98, 0.72, 0.68]), np.array([0.70, 0.90, 0.76])
    red, green, blue = (low + (high - low) * min(max(confidence, 0.0), 1.0)).tolist()
    return red, green, blue


def _gates(axes: Any, gates: dict[str, np.ndarray], layer: LayerView) -> None:
    for row, values in enumerate(gates.values()):
        ordered = values[:, np.argsort(values.mean(axis=0))]
        extent = _extent(len(values), layer.frame_seconds, row + 0.96, row + 0.04)
        axes.imshow(
            ordered.T[::-1], aspect="auto", interpolation="nearest", cmap="Greys", vmin=0, vmax=1, extent=extent
        )
    axes.set(ylim=(len(gates), 0))
    axes.set_yticks([row + 0.5 for row in range(len(gates))], list(gates))


def _norms(axes: Any, layer: LayerView) -> None:
    for (name, values), color in zip(layer.states.items(), (BLUE, RED), strict=False):
        norms = np.linalg.norm(values, axis=1)
        axes.plot(np.arange(len(norms)) * layer.frame_seconds, norms, color=color, label=name, linewidth=1.2)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper right")
    axes.set(ylabel="norm")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def _attention(axes: Any, attention: AttentionMap) -> None:
    weights, step = attention.weights, attention.frame_seconds
    row_height = 1.0 if attention.tokens else step
    extent = _extent(weights.shape[1], step, (len(weights) - 0.5) * row_height, -0.5 * row_height)
    limit = float(weights.max())
    axes.imshow(weights, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0, vmax=limit, extent=extent)
    if attention.tokens:
        _rows(axes, ["space" if token == " " else token for token in attention.tokens])
    else:
        axes.set_ylabel("s")


def _png(panels: list[Panel], duration: float, title: str = "") -> bytes:
    """The panels, one below the other, with headings if there is a title."""
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # scripts that the font lacks; the page's tables show them
        return _drawn(panels, duration, title)


def _drawn(panels: list[Panel], duration: float, title: str) -> bytes:
    from matplotlib.figure import Figure

    head = 0.3 if title else 0.04
    height = sum(panel.height + MARGIN + head for panel in panels) + (0.3 if title else 0.0)
    figure = Figure(figsize=(WIDTH, height))
    if title:
        figure.text(LEFT, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", va="top")
    top = height - (0.3 if title else 0.0)
    for panel in panels:
        top -= panel.height + head
        axes = figure.add_axes((LEFT, top / height, RIGHT - LEFT, panel.height / height))
        panel.draw(axes)
        axes.set_xlim(0, duration)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        if title:
            axes.set_title(panel.title, fontsize=10, loc="left")
        top -= MARGIN
    axes.set_xlabel("seconds", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    return buffer.getvalue()


def _figure(panel: Panel, duration: float) -> str:
    data = base64.b64encode(_png([panel], duration)).decode("ascii")
    title, caption = escape(panel.title), escape(panel.caption)
    return (
        f'<section><h2>{title}</h2><figure><div class="picture"><img src="data:image/png;base64,{data}" '
        f'alt="{title}. {caption}"></div><figcaption>{caption}</figcaption></figure></section>'
    )


def _words_table(e: Explanation) -> str:
    if not e.words:
        return ""
    rows = "".join(
        f'<tr{" class=chosen" if i == e.chosen else ""}><td>{i + 1}</td><td><button data-start="{word.start:.3f}" '
        f'data-end="{word.end:.3f}" aria-label="Play {escape(word.word)}">{escape(word.word)}</button></td>'
        f"<td>{word.start:.2f}</td><td>{word.end:.2f}</td><td>{word.confidence:.2f}</td></tr>"
        for i, word in enumerate(e.words)
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("number", "word", "start", "end", "confidence"))
    return f"<section><h2>Words</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"


def _saliency_table(e: Explanation) -> str:
    if not (rows := saliency_rows(e)):
        return ""
    cells = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return (
        f"<section><h2>What the word depends on</h2><table>{cells}</table><p>The score is the natural logarithm of the "
        "probability that the model spells the word in its stretch of the alignment. Removed features are replaced by "
        "the mean of their mel band. If removing the most salient tenth costs no more than removing a random tenth, do "
        "not trust the saliency.</p></section>"
    )
