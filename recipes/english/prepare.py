"""English corpora, given as manifests, combined to one training set, with dev and test sets for all and for each."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from asr.corpus.check import Skip, write_skipped
from asr.corpus.manifest import Manifest, Utterance, write_manifest
from asr.recipe.corpus import Corpus
from asr.scoring.breakdown import text_table
from asr.text.normalize import normalize
from asr.types import ManifestError, UsageError

CORPUS = Corpus(
    speech="English, read; whatever corpora you have",
    hours="from 14 to thousands",
    license="that of each corpus",
    homepage="manifests that other recipes and `asr data convert` write",
    disk_gb="manifests only; the recordings stay where they are",
)
SETS = ("train", "dev", "test")
# The sets that names of manifests and splits stand for. `all` is a manifest of everything, which has no split.
_MEANING = {name: name for name in SETS} | {"valid": "dev", "validation": "dev", "eval": "test", "all": ""}
_SPLIT = re.compile(rf"(?:^|[-_. ])({'|'.join(_MEANING)})(?![a-z])", re.IGNORECASE)
_ENGLISH = re.compile(r"[a-z' ]+")
# Dev and test each get this share of a corpus's training speakers, at most as many as LibriSpeech's own sets have, and
# none if there are so few speakers that training would miss them.
_HELD_OUT, _MOST_HELD_OUT, _FEW_SPEAKERS = 0.04, 40, 10
_MOST_UNUSABLE = 0.05  # with a larger share of other text, a corpus is probably not English


@dataclass
class Part:
    """One corpus of the mix: its manifests as one, and the indices of the rows that belong to each set."""

    name: str
    paths: list[Path]
    rows: Manifest = field(init=False)
    places: dict[str, np.ndarray] = field(default_factory=dict)
    speakers: dict[str, int] = field(default_factory=dict)

    def utterances(self, split: str) -> Iterator[Utterance]:
        """The rows of a set, with the corpus's name before ids and speakers to make them unique in the mix."""
        for row in self.rows.select(self.places[split]):
            speaker = f"{self.name}-{row.speaker}" if row.speaker else ""
            yield replace(row, id=f"{self.name}-{row.id}", speaker=speaker, split=split)

    def hours(self, split: str) -> float:
        return float(self.rows.durations[self.places[split]].sum()) / 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifests",
        type=Path,
        action="append",
        dest="folders",
        metavar="DIR",
        help="a folder of manifests, or of folders of manifests; can be repeated",
    )


def sources(args: argparse.Namespace) -> list[Path]:
    """The manifests to read; the preparation is repeated when one of them changes."""
    return [path for corpus in find_corpora(args.folders or [], args.data) for path in corpus.paths]


def prepare(args: argparse.Namespace) -> None:
    """Write `{train,dev,test}.jsonl` and, for each corpus, `{dev,test}-CORPUS.jsonl` below `args.data`.

    Rows that are not English in letters are left out and listed in `skipped.tsv`. Raises UsageError, ManifestError.
    """
    if not args.folders:
        raise UsageError("where are the manifests? Use --manifests DIR (see recipes/english/README.md)")
    corpora = find_corpora(args.folders, args.data)
    skips = [skip for corpus in corpora for skip in read_corpus(corpus)]
    for split in SETS:
        if not any(len(corpus.places[split]) for corpus in corpora):
            raise UsageError(
                f"there is no {split} set: none of {', '.join(corpus.name for corpus in corpora)} has one, or at least "
                f"{_FEW_SPEAKERS} speakers, to hold some out"
            )
    args.data.mkdir(parents=True, exist_ok=True)
    for path in [*args.data.glob("dev-*.jsonl"), *args.data.glob("test-*.jsonl")]:
        path.unlink()  # those of an earlier mix
    for split in SETS:
        write_manifest(args.data / f"{split}.jsonl", (u for corpus in corpora for u in corpus.utterances(split)))
        for corpus in corpora:
            if split != "train" and len(corpus.places[split]):
                write_manifest(args.data / f"{split}-{corpus.name}.jsonl", corpus.utterances(split))
    write_skipped(args.data / "skipped.tsv", skips)
    _report(corpora, len(skips), args.data)


def find_corpora(folders: Iterable[Path], data: Path) -> list[Part]:
    """The corpora of the manifests in `folders` and their subfolders, except for those in `data`, the output folder.

    `vctk.jsonl` and `vctk-train.jsonl` belong to the corpus vctk, `librispeech/train-clean-100.jsonl` to librispeech.
    """
    manifests: dict[str, list[Path]] = {}
    for folder in folders:
        folder = folder.expanduser()
        paths = sorted(path for pattern in ("*.jsonl", "*/*.jsonl") for path in folder.glob(pattern))
        paths = [path for path in paths if path.parent.resolve() != data.resolve()]
        if not paths:
            raise UsageError(f"{folder}: contains no manifests (*.jsonl)")
        for path in paths:
            split = _SPLIT.search(path.stem)
            name = path.stem[: split.start()] if split else path.stem
            manifests.setdefault(name or path.parent.resolve().name, []).append(path)
    return [Part(name, sorted(set(paths))) for name, paths in sorted(manifests.items())]


def read_corpus(corpus: Part) -> list[Skip]:
    """Read the manifests of `corpus` and assign each row to a set; returns the rows that are not English text.

    The row's `split` or else its manifest's name determines the set; the default is train. Missing dev and test sets
    are split off the training set by speaker. Raises ManifestError if too many rows cannot be used.
    """
    corpus.rows = Manifest.read(corpus.paths)
    splits = np.full(len(corpus.rows), "", dtype="<U5")
    speakers: list[str] = []
    skips = []
    for place, row in enumerate(corpus.rows):
        text = normalize(row.text, "basic")
        speakers.append(row.speaker)
        if _ENGLISH.fullmatch(text):
            named = Path(corpus.rows.where(place).rpartition(":")[0]).stem
            splits[place] = _split(row.split) or _split(named) or "train"
            continue
        other = "".join(sorted(set(re.sub(_ENGLISH, "", text))))
        reason = f"not a to z, apostrophe and space: {other}" if other else "the text is empty"
        skips.append(Skip(f"{corpus.name}-{row.id}", reason))
    if len(skips) > _MOST_UNUSABLE * len(splits):
        raise ManifestError(
            f"{corpus.rows.path}: {len(skips)} of {len(splits)} utterances are not English in letters; the first is "
            f"{skips[0].id}: {skips[0].reason}. Remove the manifest, or write out numbers and symbols as words"
        )
    missing = [split for split in ("dev", "test") if split not in splits]
    known = sorted({speaker for speaker, split in zip(speakers, splits, strict=True) if speaker and split == "train"})
    known.sort(key=lambda speaker: hashlib.sha256(speaker.encode()).hexdigest())
    count = min(_MOST_HELD_OUT, round(_HELD_OUT * len(known)) or 1) if len(known) >= _FEW_SPEAKERS else 0
    held_out = {speaker: split for i, split in enumerate(missing) for speaker in known[i * count : (i + 1) * count]}
    for place, speaker in enumerate(speakers):
        if splits[place] == "train":
            splits[place] = held_out.get(speaker, "train")
    for split in SETS:
        corpus.places[split] = np.flatnonzero(splits == split)
        corpus.speakers[split] = len({speakers[place] for place in corpus.places[split]} - {""})
    return skips


def _split(name: str) -> str:
    """The set that a name such as train-clean-100 or cv-test stands for, or ""."""
    match = _SPLIT.search(name)
    return _MEANING[match[1].lower()] if match else ""


def _report(corpora: list[Part], skipped: int, data: Path) -> None:
    header = ["corpus", *(f"{split} {what}" for split in SETS for what in ("h", "speakers"))]
    rows = [
        [corpus.name, *(cell for s in SETS for cell in (f"{corpus.hours(s):.2f}", str(corpus.speakers[s])))]
        for corpus in corpora
    ]
    totals = [f"{sum(corpus.hours(split) for corpus in corpora):.2f}" for split in SETS]
    rows.append(["all", *(cell for total in totals for cell in (total, ""))])
    print(text_table(header, rows), file=sys.stderr)
    if skipped:
        where = data / "skipped.tsv"
        print(f"left out: {skipped} utterances that are not English in letters, see {where}", file=sys.stderr)
