"""The HTML report of a classifier: one self-contained page, in the style of the report of a recognizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from asr.files import write_text
from asr.scoring.classes import NAMES, TOP, ClassScores

MOST_CONFUSIONS = 30


@dataclass(frozen=True)
class WrongUtterance:
    """A misclassified utterance; `found` is "" if its audio could not be read, `audio` a data URI or ""."""

    id: str
    speaker: str
    label: str
    found: str
    probability: float
    audio: str = ""


def write_class_report(
    path: str | Path,
    scores: ClassScores,
    wrong: Sequence[WrongUtterance],
    *,
    title: str,
    facts: Sequence[str] = (),
    footer: str = "",
) -> None:
    """Write the page: rates with intervals, confusion matrix, classes, confusions, and wrong utterances."""
    page = files("asr.scoring").joinpath("report.html").read_text(encoding="utf-8")
    style = page[page.index("<style>") : page.index("</style>")]
    sections = [
        f'<header><h1>{escape(title)}</h1><p class="sub">{escape(" · ".join(facts))}</p></header>',
        f'<section class="cards">{"".join(_cards(scores))}</section>',
        _section("Confusion matrix", _matrix(scores)),
        _section("Classes", _classes(scores)),
        _section("Confusions", _confusions(scores)),
        _section("Wrong utterances", _wrong(wrong)),
        f"<footer>{escape(footer)}</footer>",
    ]
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{escape(title)}</title>\n'
        f'<link rel="icon" href="data:,">\n{style}'
        ".matrix td, .matrix th { border: 1px solid var(--line); padding: 4px 6px; text-align: center; }\n"
        ".matrix th { text-align: right; } .matrix thead th { writing-mode: vertical-rl; text-align: left; }\n"
        "</style>\n</head>\n"
    )
    write_text(Path(path), f"{head}<body>\n<main>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n")


def _section(title: str, body: str) -> str:
    return f'<section><h2>{title}</h2><div class="card scroll">{body}</div></section>'


def _cards(scores: ClassScores) -> list[str]:
    rows = [
        (label, scores.rates[name], "95 % interval {:.2f} – {:.2f}".format(*(100 * x for x in scores.intervals[name])))
        for name, label in NAMES.items()
    ]
    shares = ((k, scores.top(k)) for k in (2, TOP) if k < len(scores.labels))
    rows += [(f"top {k}", share, f"among the {k} most probable") for k, share in shares if share is not None]
    return [
        f'<div class="card"><div class="label">{label[0].upper() + label[1:]}</div><div class="big">{rate:.2%}</div>'
        f'<div class="small">{small}</div></div>'
        for label, rate, small in rows
    ]


def _matrix(scores: ClassScores) -> str:
    """Rows are classes, columns what was found; colors show the share of the row."""
    none = bool(scores.table[:, -1].any())
    table = scores.table if none else scores.table[:, :-1]
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in [*scores.labels, *(["(none)"] if none else [])])
    rows = []
    for label, counts in zip(scores.labels, table, strict=True):
        shares = counts / max(int(counts.sum()), 1)
        cells = "".join(_cell(int(n), float(share)) for n, share in zip(counts, shares, strict=True))
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    body = "".join(rows)
    return (
        f'<table class="matrix num"><thead><tr><th>class \\ found</th>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def _cell(count: int, share: float) -> str:
    if not count:
        return "<td></td>"
    return (
        f'<td title="{share:.1%} of the class" style="background: rgba(var(--heat), {0.75 * share:.3f})">{count}</td>'
    )


def _classes(scores: ClassScores) -> str:
    rows = []
    for row in scores.classes:
        low, high = row["recall_interval_95"]
        figures = [f"{row['utterances']:,}", f"{row['found']:,}", f"{row['precision']:.2%}", f"{row['recall']:.2%}"]
        rows.append([row["label"], *figures, f"{low:.2%} – {high:.2%}", f"{row['f1']:.2%}"])
    return _table(["class", "utterances", "found", "precision", "recall", "95 % interval", "F1"], rows)


def _confusions(scores: ClassScores) -> str:
    pairs = scores.confusions(MOST_CONFUSIONS)
    rows = [[label, found or "(none)", f"{count:,}"] for label, found, count in pairs]
    return _table(["class", "found", "utterances"], rows, left=2) if rows else "<p>None.</p>"


def _wrong(wrong: Sequence[WrongUtterance]) -> str:
    if not wrong:
        return "<p>None.</p>"
    rows = []
    for u in wrong:
        found = f"{u.found} ({u.probability:.2f})" if u.found else "(could not be read)"
        player = f'<audio controls preload="metadata" src="{u.audio}"></audio>' if u.audio else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (u.id, u.speaker, u.label, found))
        rows.append(f"<tr>{cells}<td>{player}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in ("utterance", "speaker", "class", "found", ""))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = ["" if i < left else ' class="n"' for i in range(len(row))]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', header)}</tr></thead><tbody>{body}</tbody></table>"
