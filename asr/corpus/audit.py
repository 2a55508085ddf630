"""The checks that `asr data check` runs on manifests, and between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np

from asr.corpus.check import AudioFacts, Finding, Skip, UnknownSymbol, examine, obstacle, unknown_symbols
from asr.corpus.labels import label_of
from asr.corpus.manifest import Manifest, Utterance, repeats
from asr.text.normalize import count_tags, find_asides
from asr.text.normalize import normalizer as normalizer_named
from asr.text.tokenizer import Tokenizer, shown_symbols
from asr.types import ManifestError

FASTEST = 50.0  # characters per second, twice the pace of a fast auctioneer: audio and text do not match
_OUTLIER_Z = 5.0
# Factors below and above the median. Corpora cut to a maximum duration have long tails of short utterances.
_UNUSUAL_DURATION, _UNUSUAL_PACE = (10.0, 3.0), (3.0, 3.0)
_FEW_WORDS = 3  # shorter texts are expected to repeat


@dataclass(frozen=True)
class Target:
    """The model to be trained: without `tokenizer`, spelling is not checked; without `emitted`, feasibility is not.

    `emitted` maps a number of samples at `rate` (hertz) to the number of frames that the model emits.
    """

    normalizer: str = "none"
    tokenizer: Tokenizer | None = None
    rate: int = 16000
    emitted: Callable[[int], int] | None = None


@dataclass
class Audit:
    """The result of the checks: `findings` in the order of the manifests, `unknown` symbols by manifest path."""

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
        """The utterances with problems, for `write_skipped`; several problems of an utterance are joined."""
        reasons: dict[tuple[str, str], list[str]] = {}
        for finding in self.problems:
            if finding.id:
                reason = f"{finding.kind}: {finding.detail}" if finding.detail else finding.kind
                reasons.setdefault((finding.manifest, finding.id), []).append(reason)
        return [Skip(name, "; ".join(dict.fromkeys(parts))) for (_, name), parts in reasons.items()]


def audit(
    sources: Sequence[tuple[str, str]],
    target: Target | Callable[[list[Manifest]], Target] = Target(),
    *,
    decode: bool = False,
    progress: Callable[[int], Callable[[int], object]] | None = None,
) -> Audit:
    """Check the manifests of `sources`, (path, role) with role "train", "test" or "" if unknown.

    `target` may be a function of the manifests, for a tokenizer that is trained on them. `decode` reads all audio
    instead of only its headers. `progress(total)` returns the function to call with the number of utterances done.
    Raises ManifestError for a manifest without any good row.
    """
    result = Audit([])
    for path, _ in sources:
        bad: list[ManifestError] = []
        result.manifests.append(Manifest.read(path, require_text=False, bad_rows=bad))
        result.findings += [Finding("malformed row", path, "", str(error)) for error in bad]
    chosen = target(result.manifests) if callable(target) else target
    total = sum(map(len, result.manifests))
    facts = examine(result.manifests, decode=decode, advance=progress(total) if progress else lambda n: None)
    subsets = []
    for (_, role), manifest, audio in zip(sources, result.manifests, facts, strict=True):
        result.findings += audio.findings
        result.findings += _misplaced(manifest, audio)
        subset = _texts(manifest, role, chosen, audio, result.findings)
        result.findings += [*_paces(subset), *copies(subset)]
        subsets.append(subset)
        if chosen.tokenizer and (symbols := unknown_symbols(manifest, chosen.tokenizer, chosen.normalizer)):
            result.unknown[manifest.path] = symbols
    for a, b in combinations(subsets, 2):
        if a.role == b.role != "":
            continue
        train, test = (b, a) if b.role == "train" or a.role == "test" else (a, b)
        result.findings += leaks(train, test)
    return result


@dataclass
class HashedManifest:
    """A manifest with columns to compare, int64 each: hashes of ids and texts (0: empty), words and letters per text,
    and the identities of the audio as in `AudioFacts`. `role` is "train", "test" or "" if unknown."""

    manifest: Manifest
    role: str
    ids: np.ndarray
    texts: np.ndarray
    word_counts: np.ndarray
    letters: np.ndarray
    recording: np.ndarray
    content: np.ndarray
    speakers: set[str] = field(default_factory=set)


def _texts(manifest: Manifest, role: str, target: Target, audio: AudioFacts, findings: list[Finding]) -> HashedManifest:
    """Hash the columns of a manifest, and append problems of single utterances to `findings`."""
    normalize, tokenizer = normalizer_named(target.normalizer), target.tokenizer
    ids, texts, word_counts, letters = (np.zeros(len(manifest), dtype=np.int64) for _ in range(4))
    hashed = HashedManifest(manifest, role, ids, texts, word_counts, letters, audio.recording, audio.content)
    for i, utterance in enumerate(manifest):
        text = normalize(utterance.text)
        ids[i], texts[i] = hash(utterance.id), hash(text)  # hash("") is 0
        word_counts[i], letters[i] = len(text.split()), len(text) - text.count(" ")
        hashed.speakers |= {utterance.speaker} - {""}
        problems = []
        if not text and (utterance.text or not label_of(utterance)):
            problems.append(("empty text", "the normalizer leaves nothing" if utterance.text else ""))
        elif tokenizer and (symbols := tokenizer.unknown_symbols(text)):
            problems.append(("unknown symbols", shown_symbols(symbols)))
        if utterance.duration <= 0:
            problems.append(("no duration", "0 s"))
        if not problems and tokenizer and target.emitted:
            reason = obstacle(utterance, text, tokenizer, target.rate, target.emitted)
            problems += [("infeasible", reason)] if reason else []
        if asides := find_asides(utterance.text):
            problems.append(("words in parentheses", ", ".join(asides)))
        findings += (Finding(kind, manifest.path, utterance.id, detail) for kind, detail in problems)
    for tag, tagged in count_tags((utterance.id, utterance.text) for utterance in manifest).items():
        examples = ", ".join(list(dict.fromkeys(tagged))[:3])
        findings.append(Finding("tags", manifest.path, "", f"{tag} x {len(tagged)}, e.g. in {examples}"))
    return hashed


def _paces(subset: HashedManifest) -> Iterator[Finding]:
    """Durations and speaking rates far from the rest, by the median absolute deviation of their logarithms."""
    manifest, letters = subset.manifest, subset.letters
    seconds = manifest.durations.astype(np.float64)
    usable = (seconds > 0) & (letters > 0)
    pace = np.divide(letters, seconds, out=np.zeros_like(seconds), where=usable)
    impossible = usable & (pace > FASTEST)

    def finding(kind: str, i: int, detail: str) -> Finding:
        return Finding(kind, manifest.path, manifest[int(i)].id, detail)

    for i in np.flatnonzero(impossible):
        yield finding("impossible pace", i, f"{letters[i]} letters in {seconds[i]:.2f} s")
    median, outliers = _outliers(seconds, seconds > 0, *_UNUSUAL_DURATION)
    for i in outliers:
        yield finding("unusual duration", i, f"{seconds[i]:.2f} s, the median is {median:.2f} s")
    median, outliers = _outliers(pace, usable & ~impossible, *_UNUSUAL_PACE)
    for i in outliers:
        detail = f"{pace[i]:.1f} letters/s ({letters[i]} in {seconds[i]:.2f} s), the median is {median:.1f}"
        yield finding("unusual pace", i, detail)


def _outliers(values: np.ndarray, usable: np.ndarray, below: float, above: float) -> tuple[float, np.ndarray]:
    """(median, positions of the outliers, the most distant first) of positive values.

    Outliers are more than `_OUTLIER_Z` deviations from the median, and also below or above it by the given factors.
    """
    if usable.sum() < 10:
        return 0.0, np.zeros(0, dtype=np.int64)
    logs = np.log(values, out=np.zeros_like(values), where=usable)
    center = np.median(logs[usable])
    deviation = np.where(usable, logs - center, 0.0)
    distance = np.abs(deviation)
    spread = np.median(distance[usable]) / 0.6745  # the standard deviation of a normal distribution
    far = (deviation < -np.log(below)) | (deviation > np.log(above))
    outliers = np.flatnonzero(far & (distance > _OUTLIER_Z * spread))
    return float(np.exp(center)), outliers[np.argsort(-distance[outliers], kind="stable")]


def _misplaced(manifest: Manifest, audio: AudioFacts) -> Iterator[Finding]:
    """A hint if no file is found because paths were written relative to the current folder."""
    if len(manifest) and not audio.recording.any():
        path, folder = Path(manifest[0].audio_filepath), Path(manifest.path).absolute().parent
        if path.is_relative_to(folder) and not path.exists() and path.relative_to(folder).exists():
            detail = (
                "relative paths start at the manifest's folder, but these start at the current one: correct them, "
                "or move the manifest"
            )
            yield Finding("audio paths", manifest.path, "", detail)


def copies(subset: HashedManifest) -> Iterator[Finding]:
    """Utterances that repeat another of the same manifest."""
    manifest = subset.manifest
    first: dict[int, str] = {}
    copied: set[int] = set()
    for i in map(int, repeats(subset.content)):
        name, identity = manifest[i].id, int(subset.content[i])
        if identity and first.setdefault(identity, name) != name:
            copied.add(i)
            yield Finding("duplicate audio", manifest.path, name, f"the same audio as '{first[identity]}'")
    alike: dict[tuple[str, str, float], str] = {}
    long_texts = np.where(subset.word_counts >= _FEW_WORDS, subset.texts, 0)
    for i in map(int, repeats(long_texts)):
        if not long_texts[i] or i in copied:
            continue
        utterance = manifest[i]
        key = (utterance.speaker, utterance.text, round(utterance.duration, 2))
        other = alike.setdefault(key, utterance.id)
        if utterance.speaker and other != utterance.id:
            yield Finding("probably a copy", manifest.path, utterance.id, f"of '{other}'")


def leaks(train: HashedManifest, test: HashedManifest) -> Iterator[Finding]:
    """What `test` has in common with `train`; each utterance is reported once, under its id in `test`."""
    reported: set[int] = set()
    for i, j in _matches(test.content, train.content):
        reported.add(i)
        yield _leak(train, test, i, f"the same audio as '{train.manifest[j].id}' in {train.manifest.path}")
    for i, j in _overlaps(train, test):
        if i not in reported:
            reported.add(i)
            yield _leak(train, test, i, f"overlaps '{train.manifest[j].id}' in {train.manifest.path}")
    for i, j in _matches(test.ids, train.ids):
        ours, theirs = test.manifest[i], train.manifest[j]
        if ours.id != theirs.id or i in reported:
            continue
        if ours.text == theirs.text or abs(ours.duration - theirs.duration) < 0.005:
            yield _leak(train, test, i, f"the same id in {train.manifest.path}")
        else:
            yield Finding("same id", test.manifest.path, ours.id, f"another recording in {train.manifest.path}")
    yield from _in_common(train, test)


def _in_common(train: HashedManifest, test: HashedManifest) -> Iterator[Finding]:
    shared_speakers = test.speakers & train.speakers
    if shared_speakers:
        examples = ", ".join(sorted(shared_speakers)[:5]) + (", ..." if len(shared_speakers) > 5 else "")
        detail = f"{len(shared_speakers)} of {len(test.speakers)} also speak in {train.manifest.path}: {examples}"
        yield Finding("shared speakers", test.manifest.path, "", detail)
    long = test.word_counts >= _FEW_WORDS
    shared = int(np.isin(test.texts[long], train.texts).sum())
    if shared:
        detail = f"{shared} of {int(long.sum())} texts of {_FEW_WORDS} words or more are also in {train.manifest.path}"
        yield Finding("shared texts", test.manifest.path, "", detail)


def _leak(train: HashedManifest, test: HashedManifest, i: int, detail: str) -> Finding:
    return Finding("in train and test", test.manifest.path, test.manifest[i].id, detail)


def _matches(ours: np.ndarray, theirs: np.ndarray) -> Iterator[tuple[int, int]]:
    """(position in `ours`, first position in `theirs`) of equal values other than 0."""
    values, positions = np.unique(theirs, return_index=True)
    if not len(values):
        return
    places = np.minimum(np.searchsorted(values, ours), len(values) - 1)
    for i in np.flatnonzero((values[places] == ours) & (ours != 0)):
        yield int(i), int(positions[places[i]])


def _overlaps(train: HashedManifest, test: HashedManifest) -> Iterator[tuple[int, int]]:
    """(position in `test`, position in `train`) of windows of the same recording that share time and channel."""
    common = np.setdiff1d(np.intersect1d(train.recording, test.recording), [0])
    windows: dict[int, list[tuple[float, float, int | None, int]]] = defaultdict(list)
    for j in np.flatnonzero(np.isin(train.recording, common)).tolist():
        windows[int(train.recording[j])].append((*_span(train.manifest[j]), j))
    starts: dict[int, np.ndarray] = {}
    longest: dict[int, float] = {}
    for recording, spans in windows.items():
        spans.sort(key=lambda span: span[0])
        starts[recording] = np.array([span[0] for span in spans])
        longest[recording] = max(end - start for start, end, _, _ in spans)
    for i in np.flatnonzero(np.isin(test.recording, common)).tolist():
        recording = int(test.recording[i])
        start, end, channel = _span(test.manifest[i])
        low, high = np.searchsorted(starts[recording], [start - longest[recording], end])
        for other_start, other_end, other_channel, j in windows[recording][low:high]:
            same_channel = None in (channel, other_channel) or channel == other_channel
            if same_channel and min(end, other_end) - max(start, other_start) > 1e-3:
                yield i, j
                break


def _span(utterance: Utterance) -> tuple[float, float, int | None]:
    return utterance.offset, utterance.offset + utterance.duration, utterance.channel
