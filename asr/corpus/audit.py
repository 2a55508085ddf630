"""Everything `asr data check` looks for, over one or several manifests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from asr.corpus.audio_check import AudioFacts, examine
from asr.corpus.check import Skip, UnknownSymbol, infeasible, shown_symbol, unknown_symbols
from asr.corpus.findings import Finding
from asr.corpus.leakage import Part, copies, leaks
from asr.corpus.manifest import Manifest
from asr.text.normalize import normalizer as normalizer_named
from asr.text.tags import count_tags, find_asides
from asr.text.tokenizer import Tokenizer
from asr.types import ManifestError

FASTEST = 50.0  # characters per second, twice a fast auctioneer: audio and text do not belong together
_OUTLIER_Z = 5.0
_SHORTER, _LONGER = 10.0, 3.0  # than the median; corpora cut to a maximum have long tails of short utterances
_SLOWER, _FASTER = 3.0, 3.0


@dataclass(frozen=True)
class Target:
    """The model to be trained: without `tokenizer` spelling is not checked, without `emitted` feasibility is not.

    `emitted` says how many frames the model emits for so many samples at `rate` (hertz).
    """

    normalizer: str = "none"
    tokenizer: Tokenizer | None = None
    rate: int = 16000
    emitted: Callable[[int], int] | None = None


@dataclass
class Audit:
    """What was found: `findings` in the order of the manifests, `unknown` symbols by manifest path."""

    manifests: list[Manifest]
    findings: list[Finding] = field(default_factory=list)
    unknown: dict[str, list[UnknownSymbol]] = field(default_factory=dict)

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.is_problem]

    @property
    def notes(self) -> list[Finding]:
        return [finding for finding in self.findings if not finding.is_problem]

    def skips(self) -> list[Skip]:
        """The utterances with problems, for `write_skipped`; several problems of one are joined."""
        reasons: dict[tuple[str, str], list[str]] = {}
        for finding in self.problems:
            if finding.id:
                found = f"{finding.kind}: {finding.detail}" if finding.detail else finding.kind
                reasons.setdefault((finding.manifest, finding.id), []).append(found)
        return [Skip(name, "; ".join(dict.fromkeys(found))) for (_, name), found in reasons.items()]


def audit(
    sources: Sequence[tuple[str, str]],
    target: Target | Callable[[list[Manifest]], Target] = Target(),
    *,
    decode: bool = False,
    progress: Callable[[int], Callable[[int], object]] | None = None,
) -> Audit:
    """Check the manifests of `sources`, (path, role) with role "train", "test" or "" where unknown.

    `target` may be a function of the manifests read, for a tokenizer that is trained on them. `decode` reads all audio
    instead of the headers. `progress(total)` gives the function to call with the number of utterances done. Raises
    ManifestError for a manifest without any good row.
    """
    result = Audit([])
    malformed: list[Finding] = []
    for path, _ in sources:
        bad: list[ManifestError] = []
        result.manifests.append(Manifest.read(path, require_text=False, bad_rows=bad))
        malformed += [Finding("malformed row", path, "", str(error)) for error in bad]
    chosen = target(result.manifests) if callable(target) else target
    total = sum(map(len, result.manifests))
    facts = examine(result.manifests, decode=decode, advance=progress(total) if progress else lambda n: None)
    result.findings += malformed
    parts = []
    for (_, role), manifest, audio in zip(sources, result.manifests, facts, strict=True):
        result.findings += audio.findings
        result.findings += _misplaced(manifest, audio)
        result.findings += _texts(manifest, chosen, result.unknown)
        result.findings += _paces(manifest, chosen.normalizer)
        parts.append(_part(manifest, role, chosen.normalizer, audio))
        result.findings += copies(parts[-1])
    for one, other in combinations(parts, 2):
        if one.role == other.role != "":
            continue
        train, test = (other, one) if other.role == "train" or one.role == "test" else (one, other)
        result.findings += leaks(train, test)
    return result


def _texts(manifest: Manifest, target: Target, unknown: dict[str, list[UnknownSymbol]]) -> Iterator[Finding]:
    normalize, tokenizer = normalizer_named(target.normalizer), target.tokenizer
    unusable: set[str] = set()
    for utterance in manifest:
        text = normalize(utterance.text)
        symbols = tokenizer.unknown_symbols(text) if tokenizer else set()
        if not text:
            yield Finding(
                "empty text", manifest.path, utterance.id, "nothing left by the normalizer" * bool(utterance.text)
            )
        elif symbols:
            yield Finding("unknown symbols", manifest.path, utterance.id, ", ".join(map(shown_symbol, sorted(symbols))))
        if not text or symbols:
            unusable.add(utterance.id)
        asides = find_asides(utterance.text)
        if asides:
            yield Finding("words in parentheses", manifest.path, utterance.id, ", ".join(asides))
        if utterance.duration <= 0:
            unusable.add(utterance.id)
            yield Finding("no duration", manifest.path, utterance.id, "0 s")
    for tag, ids in count_tags((utterance.id, utterance.text) for utterance in manifest).items():
        examples = ", ".join(list(dict.fromkeys(ids))[:3])
        yield Finding("tags", manifest.path, "", f"{tag} x {len(ids)}, e.g. in {examples}")
    if tokenizer and target.emitted:
        for skip in infeasible(manifest, tokenizer, target.normalizer, target.rate, target.emitted):
            if skip.id not in unusable:
                yield Finding("infeasible", manifest.path, skip.id, skip.reason)
    if tokenizer:
        found = unknown_symbols(manifest, tokenizer, target.normalizer)
        if found:
            unknown[manifest.path] = found


def _paces(manifest: Manifest, normalizer: str) -> Iterator[Finding]:
    """Durations and speaking rates far from the rest, by the median absolute deviation of their logarithms."""
    normalize = normalizer_named(normalizer)
    letters = np.array([len(normalize(u.text).replace(" ", "")) for u in manifest], dtype=np.float64)
    seconds = manifest.durations.astype(np.float64)
    usable = (seconds > 0) & (letters > 0)
    pace = np.divide(letters, seconds, out=np.zeros_like(letters), where=usable)
    impossible = usable & (pace > FASTEST)
    for i in np.flatnonzero(impossible):
        detail = f"{letters[i]:.0f} letters in {seconds[i]:.2f} s"
        yield Finding("impossible pace", manifest.path, manifest[int(i)].id, detail)
    usual, strange = _outliers(seconds, seconds > 0, _SHORTER, _LONGER)
    for i in strange:
        detail = f"{seconds[i]:.2f} s, the median is {usual:.2f} s"
        yield Finding("unusual duration", manifest.path, manifest[int(i)].id, detail)
    usual, strange = _outliers(pace, usable & ~impossible, _SLOWER, _FASTER)
    for i in strange:
        detail = f"{pace[i]:.1f} letters/s ({letters[i]:.0f} in {seconds[i]:.2f} s), the median is {usual:.1f}"
        yield Finding("unusual pace", manifest.path, manifest[int(i)].id, detail)


def _outliers(values: np.ndarray, usable: np.ndarray, below: float, above: float) -> tuple[float, np.ndarray]:
    """(median, positions of the outliers, the strangest first) of positive values.

    They lie far from the median by its measure of spread, and below or above it by these factors.
    """
    if usable.sum() < 10:
        return 0.0, np.zeros(0, dtype=np.int64)
    logs = np.log(values, out=np.zeros_like(values), where=usable)
    center = np.median(logs[usable])
    deviation = np.where(usable, logs - center, 0.0)
    distance = np.abs(deviation)
    spread = np.median(distance[usable]) / 0.6745  # the standard deviation, were they normal
    far = (deviation < -np.log(below)) | (deviation > np.log(above))
    strange = np.flatnonzero(far & (distance > _OUTLIER_Z * spread))
    return float(np.exp(center)), strange[np.argsort(-distance[strange], kind="stable")]


def _part(manifest: Manifest, role: str, normalizer: str, audio: AudioFacts) -> Part:
    normalize = normalizer_named(normalizer)
    ids, texts, counts = (np.zeros(len(manifest), dtype=np.int64) for _ in range(3))
    speakers: Counter[str] = Counter()
    for i, utterance in enumerate(manifest):
        text = normalize(utterance.text)
        ids[i] = hash(utterance.id)
        texts[i] = hash(text)  # that of "" is 0
        counts[i] = len(text.split())
        speakers[utterance.speaker] += 1
    return Part(manifest, role, ids, texts, counts, frozenset(speakers) - {""}, audio.recording, audio.content)


def _misplaced(manifest: Manifest, audio: AudioFacts) -> Iterator[Finding]:
    """A hint where no file is found because its path was meant from the current folder."""
    if len(manifest) and not audio.recording.any():
        path = Path(manifest[0].audio_filepath)
        folder = Path(manifest.path).absolute().parent
        if path.is_relative_to(folder) and not path.exists() and path.relative_to(folder).exists():
            detail = (
                "they are meant from the manifest's folder, but here exist from the current one: correct or move it"
            )
            yield Finding("audio paths", manifest.path, "", detail)
