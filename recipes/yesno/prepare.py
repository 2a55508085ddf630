"""yesno (OpenSLR 1): one man says yes and no in Hebrew, eight words per recording; the smallest corpus there is."""

from __future__ import annotations

import argparse
import re

from asr.corpus.manifest import Utterance
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain
from asr.recipe.sets import split_by, to_flac, write_sets
from asr.types import ManifestError

CORPUS = Corpus(
    speech="Hebrew, one man says yes (ken) and no (lo), eight words per recording",
    hours=0.1,
    license="see its page",
    homepage="https://www.openslr.org/1/",
    disk_gb=0.02,
    archives=(
        Archive(
            "https://www.openslr.org/resources/1/waves_yesno.tar.gz",
            0.005,
            "sha256:c3f49e0cca421f96b75b41640749167b52118f232498667ca7a5f9416aef8e73",
        ),
    ),
)
WORDS = {"0": "no", "1": "yes"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS)


def prepare(args: argparse.Namespace) -> None:
    """Write `audio/ID.flac` (16 kHz, from 8 kHz) and `{train,dev,test}.jsonl` below `args.data`."""
    root = obtain(args, CORPUS, "waves_yesno")
    recordings = [path for path in sorted(root.glob("*.wav")) if re.fullmatch("[01](_[01])*", path.stem)]
    if not recordings:
        raise ManifestError(f"{root}: no recordings with names like 0_1_1_0_0_1_0_1.wav: not the yesno corpus")
    utterances = [Utterance(path.stem, str(path), 0.0, read_name(path.stem)) for path in recordings]
    write_sets(args.data, split_by(lambda u: u.id, to_flac(utterances, args.data / "audio"), dev=0.1, test=0.3))


def read_name(name: str) -> str:
    """The words in a recording: "no yes yes" for 0_1_1."""
    return " ".join(WORDS[digit] for digit in name.split("_"))
