"""Checks of single utterances: is the audio readable and as described, and can CTC learn the text?"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from asr.audio.formats import open_file
from asr.audio.read import AudioInfo, probe, read
from asr.corpus.manifest import Manifest, Utterance, repeats
from asr.files import write_text
from asr.text.normalize import normalizer as normalizer_named
from asr.text.tokenizer import Tokenizer, shown_symbols
from asr.types import AudioError

# kind of a finding: what to do about it
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
    "impossible pace": "text and audio do not match: correct them, or remove the row",
    "duplicate audio": "remove the copies",
    "in train and test": "remove it from the training set, or scores will be too good",
}
NOTES: dict[str, str] = {
    "tags": "not spoken: normalizers basic and librispeech drop them, none and version 1 keep them as words",
    "words in parentheses": "kept as words; put them in [ ] if they are not spoken",
    "unusual duration": "worth a look",
    "unusual pace": "text or audio may be cut off, or not match",
    "probably a copy": "same speaker, text and duration",
    "same id": "different recordings in two manifests share an id",
    "shared speakers": "scores do not show how well new speakers are recognized",
    "shared texts": "scores do not show how well new sentences are recognized",
    "audio paths": "",
}


@dataclass(frozen=True)
class Finding:
    """A problem or a note. `kind` is a key of PROBLEMS or NOTES; `id` is "" if it concerns the whole manifest."""

    kind: str
    manifest: str
    id: str
    detail: str

    @property
    def is_problem(self) -> bool:
        return self.kind in PROBLEMS


@dataclass(frozen=True)
class Skip:
    """An utterance that cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class UnknownSymbol:
    """A character that no token spells: how often it occurs, and the ids of the first utterances with it."""

    symbol: str
    count: int
    examples: tuple[str, ...]


def frames_needed(tokens: Sequence[int]) -> int:
    """The fewest frames in which CTC can emit `tokens`: one for each, and a blank between equal neighbors.

    With fewer, the loss is infinite (Graves et al. 2006, "Connectionist Temporal Classification").
    """
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def obstacle(
    utterance: Utterance, text: str, tokenizer: Tokenizer, rate: int, emitted: Callable[[int], int], speed: float = 1.0
) -> str:
    """Why a CTC model cannot learn an utterance with this normalized text; "" if it can.

    The text is empty or cannot be spelled, or the model emits fewer frames than `frames_needed`: `emitted(samples)` is
    the number of frames it emits for audio at `rate` (hertz), the length of which is taken from the manifest. `speed`
    above 1 leaves room for speed perturbation by that factor.
    """
    samples = round(utterance.duration * rate / speed)
    if not text:
        return "the text is empty"
    if unknown := tokenizer.unknown_symbols(text):
        return f"the tokenizer cannot spell {shown_symbols(unknown)}"
    if samples <= 0:
        return f"no audio ({utterance.duration:g} s)"
    tokens = tokenizer.encode(text)
    needed, frames = frames_needed(tokens), emitted(samples)
    if frames >= needed:
        return ""
    return (
        f"too short for its text: {utterance.duration:.2f} s are {frames} output frames, CTC needs {needed} "
        f"({len(tokens)} tokens, {needed - len(tokens)} adjacent repeats)"
    )


def infeasible(
    manifest: Iterable[Utterance],
    tokenizer: Tokenizer,
    normalizer: str,
    rate: int,
    emitted: Callable[[int], int],
    *,
    speed: float = 1.0,
) -> list[Skip]:
    """The utterances with an `obstacle`, in manifest order."""
    normalize = normalizer_named(normalizer)
    reasons = ((u.id, obstacle(u, normalize(u.text), tokenizer, rate, emitted, speed)) for u in manifest)
    return [Skip(name, reason) for name, reason in reasons if reason]


def unknown_symbols(
    manifest: Iterable[Utterance], tokenizer: Tokenizer, normalizer: str, examples: int = 3
) -> list[UnknownSymbol]:
    """The symbols of the normalized texts that the tokenizer cannot spell, the most frequent first."""
    normalize = normalizer_named(normalizer)
    counts: Counter[str] = Counter()
    where: dict[str, list[str]] = {}
    for utterance in manifest:
        text = normalize(utterance.text)
        for symbol in tokenizer.unknown_symbols(text):
            counts[symbol] += tokenizer.symbols(text).count(symbol)
            ids = where.setdefault(symbol, [])
            if len(ids) < examples:
                ids.append(utterance.id)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [UnknownSymbol(symbol, count, tuple(where[symbol])) for symbol, count in ranked]


def write_skipped(path: str | Path, skips: Iterable[Skip]) -> None:
    """Write `id<TAB>reason` lines under a header, atomically."""
    lines = (f"{skip.id}\t{' '.join(skip.reason.split())}\n" for skip in skips)
    write_text(path, "id\treason\n" + "".join(lines))


_CHUNK = 2048  # utterances in flight
_TOLERANCE_SECONDS, _TOLERANCE_SHARE = 0.1, 0.01  # of durations, since lossy codecs pad and tools round
_Problem = tuple[str, str]  # kind and detail of a finding


@dataclass
class AudioFacts:
    """For each utterance of a manifest, int64: `recording`, equal for equal files, and `content`, equal for the same
    audio (the same window of equal files or, with decoding, the same samples); 0 where it could not be read."""

    findings: list[Finding]
    recording: np.ndarray
    content: np.ndarray


def examine(
    manifests: Sequence[Manifest], *, decode: bool = False, advance: Callable[[int], object] = lambda n: None
) -> list[AudioFacts]:
    """Probe every recording; with `decode` read all of it, which also finds silence and damage after the header.

    Only files of equal size are hashed and compared, so most need not be read. `advance` is called with the number of
    utterances done since its last call.
    """
    _probe.cache_clear()  # the files may have changed
    facts = []
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for manifest in manifests:
            fact = AudioFacts([], *(np.zeros(len(manifest), dtype=np.int64) for _ in range(2)))
            for start in range(0, len(manifest), _CHUNK):  # map() alone would queue a whole corpus at once
                results = pool.map(partial(_examine, decode=decode), manifest[start : start + _CHUNK])
                for i, (problems, size, content) in enumerate(results, start):
                    fact.recording[i], fact.content[i] = size, content
                    fact.findings += [Finding(kind, manifest.path, manifest[i].id, text) for kind, text in problems]
                    advance(1)
            facts.append(fact)
        _identify(manifests, facts, decode)
    return facts


def _identify(manifests: Sequence[Manifest], facts: Sequence[AudioFacts], decode: bool) -> None:
    """Turn the file sizes in `recording` into identities by hashing the files that share their size with another."""
    sizes = np.concatenate([fact.recording for fact in facts])
    shared = np.zeros(len(sizes), dtype=bool)
    shared[repeats(sizes)] = True
    file_identity = lru_cache(maxsize=65536)(_file_identity)
    start = 0
    for manifest, fact in zip(manifests, facts, strict=True):
        for i in map(int, np.flatnonzero(fact.recording)):
            if shared[start + i]:
                utterance = manifest[i]
                fact.recording[i] = file_identity(utterance.audio_filepath)
                content = hash((int(fact.recording[i]), *utterance.window, utterance.channel))
            else:
                fact.recording[i] = content = -(start + i + 1)  # unlike all others: no other file has this size
            if not decode:
                fact.content[i] = content
        start += len(manifest)


def _examine(utterance: Utterance, decode: bool) -> tuple[list[_Problem], int, int]:
    """(problems, file size, identity of the samples); the last two are 0 if unknown."""
    info, size = _probe(utterance.audio_filepath)
    if isinstance(info, str):
        return [("unreadable audio", info)], 0, 0
    problems = list(_disagreements(utterance, info))
    if not decode or any(kind in ("no such channel", "window outside audio") for kind, _ in problems):
        return problems, size, 0
    damage, content = _decode(utterance)
    return problems + damage, size, content


def _decode(utterance: Utterance) -> tuple[list[_Problem], int]:
    offset, duration = utterance.window
    channel: str | int = "mix" if utterance.channel is None else utterance.channel
    try:
        audio = read(utterance.audio_filepath, rate=None, channel=channel, offset=offset, duration=duration)
    except AudioError as error:
        return [("unreadable audio", str(error))], 0
    problems = [("damaged audio", warning) for warning in audio.warnings]
    if all(audio.silent):
        value = f"{audio.samples.flat[0]:.4g}" if audio.samples.any() else "zero"
        return [*problems, ("silent audio", f"{utterance.audio_filepath}: every sample is {value}")], 0
    pcm = np.rint(np.clip(audio.samples, -1, 1) * 32767).astype(np.int16)  # the same for wav and flac
    return problems, _identity([pcm.tobytes(), str(audio.rate).encode()])


# Segments of a recording follow each other, so a small cache saves nearly all repeated probes.
@lru_cache(maxsize=4096)
def _probe(path: str) -> tuple[AudioInfo | str, int]:
    try:
        with ExitStack() as stack:
            return probe(path), open_file(path, None, stack)[0].seek(0, os.SEEK_END)
    except (AudioError, OSError, ValueError) as error:  # ValueError: a null byte in the name
        return str(error), 0


def _disagreements(utterance: Utterance, info: AudioInfo) -> Iterator[_Problem]:
    tolerance = max(_TOLERANCE_SECONDS, _TOLERANCE_SHARE * info.duration)
    end = utterance.offset + utterance.duration
    if utterance.channel is not None and utterance.channel >= info.channels:
        yield "no such channel", f"channel {utterance.channel} of {info.channels} (counted from 0)"
    if utterance.window[1] is not None:
        if end > info.duration + tolerance:
            yield "window outside audio", f"{utterance.offset:.2f} to {end:.2f} s of {info.duration:.2f} s"
    elif abs(utterance.duration - info.duration) > tolerance:
        yield "wrong duration", f"{utterance.duration:.2f} s in the manifest, {info.duration:.2f} s in the file"


def _file_identity(path: str) -> int:
    with ExitStack() as stack:
        file, _, _ = open_file(path, None, stack)
        return _identity(iter(partial(file.read, 1 << 20), b""))


def _identity(blocks: Iterable[bytes]) -> int:
    """A positive int64 hash of the bytes; 0 means unknown, and negative numbers mean files unlike all others."""
    digest = hashlib.blake2b(digest_size=8)
    for block in blocks:
        digest.update(block)
    return int.from_bytes(digest.digest(), "big") >> 1 or 1
