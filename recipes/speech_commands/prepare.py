"""Speech Commands v0.02: 35 English words of a second each, the 12-class task, and a version synthesized offline."""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from asr.audio.read import probe
from asr.corpus.manifest import Utterance
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain
from asr.recipe.sets import with_durations, write_sets
from asr.types import ManifestError

CORPUS = Corpus(
    speech="English, 35 words, each in a recording of at most a second, by thousands of volunteers",
    hours=29,
    license="CC BY 4.0",
    homepage="https://arxiv.org/abs/1804.03209",
    disk_gb=6,
    archives=(
        Archive(
            "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
            2.4,
            "sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        ),
    ),
    mean_seconds=1.0,
)
COMMANDS = frozenset(("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"))
_LISTS = {"validation_list.txt": "dev", "testing_list.txt": "test"}
_MOST = 2**27 - 1  # in the rule of the corpus's README
_SHARE = 0.1  # of silence and of unknown among the 12 classes, relative to the ten words together
_SPANS = {"train": (0.0, 0.8), "dev": (0.8, 0.9), "test": (0.9, 1.0)}  # the part of each noise recording for each set


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)
    clips = "with --config synthesized: training recordings of each word (default: 136, one per voice)"
    parser.add_argument("--clips", type=int, metavar="N", help=clips)
    seed = "random seed of the synthesis, and of the classes silence and unknown (default: 1)"
    parser.add_argument("--seed", type=int, default=1, help=seed)


def prepare(args: argparse.Namespace) -> None:
    """Write {train,dev,test}.jsonl and {train,dev,test}-12.jsonl below `args.data`, or the synthesized sets."""
    if args.manifests and all(path.parent.name == "synthesized" for path in args.manifests):
        from synthesized import synthesize

        return synthesize(args.data / "synthesized", args.clips, args.seed)
    root = obtain(args, CORPUS, ".")
    lists = {name: root / file for file, name in _LISTS.items() if (root / file).exists()}
    listed = {line: name for name, path in lists.items() for line in path.read_text("utf-8").split()}
    found = [path for path in sorted(root.glob("[!_.]*/*_nohash_*.wav")) if path.parent.parent == root]
    if not found:
        raise ManifestError(f"{root}: no recordings called WORD/HASH_nohash_N.wav: not the official layout")
    sets: dict[str, list[Utterance]] = {name: [] for name in _SPANS}
    for row in with_durations([_utterance(path) for path in found]):
        name = f"{row.text}/{Path(row.audio_filepath).name}"
        sets[listed.get(name, "train") if listed else which_set(row.speaker)].append(row)
    write_sets(args.data, sets)
    twelve = {f"{name}-12": list(_twelve(rows, root, name, args.seed)) for name, rows in sets.items()}
    if all(twelve.values()):  # a part of the corpus may have none of the ten words
        write_sets(args.data, twelve)


def which_set(speaker: str) -> str:
    """The set of a speaker's recordings, by the hash of the speaker's name: the rule of the corpus's README."""
    share = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % (_MOST + 1) * (100.0 / _MOST)
    return "dev" if share < 10 else "test" if share < 20 else "train"


def _utterance(path: Path) -> Utterance:
    word, speaker = path.parent.name, path.name.partition("_nohash_")[0]
    return Utterance(f"{word}-{path.stem}", str(path), 0.0, word, speaker=speaker, extra={"label": word})


def _twelve(rows: Sequence[Utterance], root: Path, name: str, seed: int) -> Iterator[Utterance]:
    """The recordings of the ten words, and a tenth as many of other words and of noise; each set has its own."""
    chance = random.Random(f"{seed} {name}")
    commands = [row for row in rows if row.text in COMMANDS]
    others, count = [row for row in rows if row.text not in COMMANDS], round(_SHARE * len(commands))
    yield from commands
    for row in chance.sample(others, min(count, len(others))):
        yield replace(row, extra={"label": "unknown"})
    noises = [(path, probe(path).duration) for path in sorted((root / "_background_noise_").glob("*.wav"))]
    for i in range(count if noises else 0):
        path, seconds = chance.choice(noises)
        start, end = (share * seconds for share in _SPANS[name])
        offset = round(chance.uniform(start, max(start, end - 1.0)), 3)
        length = min(1.0, seconds - offset)
        extra = {"label": "silence"}
        yield Utterance(f"silence-{name}-{i:05d}", str(path), length, "", offset, segment=True, extra=extra)
