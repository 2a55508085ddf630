"""Checks before training: transcripts that CTC cannot learn, and symbols that the tokenizer cannot spell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from asr.corpus.manifest import Utterance
from asr.files import write_text
from asr.text.normalize import normalizer as normalizer_named
from asr.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Skip:
    """An utterance that cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class UnknownSymbol:
    """A character that no token spells: how often it occurs, and the ids of the first utterances that hold it."""

    symbol: str
    count: int
    examples: tuple[str, ...]


def frames_needed(tokens: Sequence[int]) -> int:
    """The fewest frames that CTC can emit `tokens` in: one each, and a blank between equal neighbours.

    Graves et al. 2006, "Connectionist Temporal Classification": with fewer the loss is infinite.
    """
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def infeasible(
    manifest: Iterable[Utterance],
    tokenizer: Tokenizer,
    normalizer: str,
    rate: int,
    emitted: Callable[[int], int],
    *,
    speed: float = 1.0,
) -> list[Skip]:
    """The utterances that no CTC model of this shape can learn, in manifest order.

    Their normalized text is empty or cannot be spelled, or the model emits fewer frames than `frames_needed`:
    `emitted(samples)` is how many frames it emits for audio at `rate` (hertz), whose length is taken from the manifest.
    `speed` above 1 leaves room for speed perturbation by that factor.
    """
    normalize = normalizer_named(normalizer)
    skips = []
    for utterance in manifest:
        text = normalize(utterance.text)
        samples = round(utterance.duration * rate / speed)
        unknown = tokenizer.unknown_symbols(text)
        if not text:
            reason = "the text is empty"
        elif unknown:
            reason = f"the tokenizer cannot spell {', '.join(map(shown_symbol, sorted(unknown)))}"
        elif samples <= 0:
            reason = f"no audio ({utterance.duration:g} s)"
        else:
            tokens = tokenizer.encode(text)
            needed, frames = frames_needed(tokens), emitted(samples)
            if frames >= needed:
                continue
            reason = (
                f"too short for its text: {utterance.duration:.2f} s are {frames} output frames, CTC needs {needed} "
                f"({len(tokens)} tokens, {needed - len(tokens)} adjacent repeats)"
            )
        skips.append(Skip(utterance.id, reason))
    return skips


def unknown_symbols(
    manifest: Iterable[Utterance], tokenizer: Tokenizer, normalizer: str, examples: int = 3
) -> list[UnknownSymbol]:
    """The characters of the normalized texts that the tokenizer cannot spell, the most frequent first."""
    normalize = normalizer_named(normalizer)
    counts: Counter[str] = Counter()
    where: dict[str, list[str]] = {}
    for utterance in manifest:
        text = normalize(utterance.text)
        for symbol in tokenizer.unknown_symbols(text):
            counts[symbol] += text.count(symbol)
            ids = where.setdefault(symbol, [])
            if len(ids) < examples:
                ids.append(utterance.id)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [UnknownSymbol(symbol, count, tuple(where[symbol])) for symbol, count in ranked]


def write_skipped(path: str | Path, skips: Iterable[Skip]) -> None:
    """Write `id<TAB>reason` lines under a header, atomically."""
    lines = (f"{skip.id}\t{' '.join(skip.reason.split())}\n" for skip in skips)
    write_text(path, "id\treason\n" + "".join(lines))


def shown_symbol(symbol: str) -> str:
    """A character as messages show it: quoted, with its code point where the glyph alone may mislead."""
    if not symbol.isprintable():
        return f"U+{ord(symbol):04X}"
    return f"'{symbol}'" if symbol.isascii() else f"'{symbol}' (U+{ord(symbol):04X})"


# kind: what to do about it
PROBLEMS: dict[str, str] = {
    "malformed row": "correct the line",
    "unreadable audio": "restore the file, or remove the row",
    "damaged audio": "fetch the file again, or remove the row",
    "silent audio": "remove the row",
    "no such channel": "correct 'channel'",
    "wrong duration": "correct 'duration', or leave it out",
    "window outside audio": "correct 'offset' and 'duration'",
    "no duration": "remove the row",
    "empty text": "transcribe it, or remove the row",
    "unknown symbols": "correct the text, or choose another normalizer or tokenizer",
    "infeasible": "correct the text or duration, or remove the row: CTC cannot learn it",
    "impossible pace": "text and audio do not belong together",
    "duplicate audio": "remove the copies",
    "in train and test": "remove it from the training set, or scores will be too good",
}
NOTES: dict[str, str] = {
    "tags": "not spoken: normalizers basic and librispeech drop them, none and version 1 keep them as words",
    "words in parentheses": "kept as words; put them in [ ] if they are not spoken",
    "unusual duration": "worth a look",
    "unusual pace": "text or audio may be cut, or belong elsewhere",
    "probably a copy": "same speaker, text and duration",
    "same id": "different recordings in two manifests share an id",
    "shared speakers": "scores do not show how well new speakers are recognized",
    "shared texts": "scores do not show how well new sentences are recognized",
    "audio paths": "",
}


@dataclass(frozen=True)
class Finding:
    """One thing found: its kind (a key of PROBLEMS or NOTES), manifest, utterance id ("" for the whole) and detail."""

    kind: str
    manifest: str
    id: str
    detail: str

    @property
    def is_problem(self) -> bool:
        return self.kind in PROBLEMS
