"""AN4 (CMU, 1991): the official archive to FLAC files and train, dev and test manifests, with the official test set."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from asr.corpus.archive import ArchiveError, members
from asr.corpus.manifest import Utterance
from asr.recipe.corpus import Archive, Corpus, add_source_arguments, obtain_archives
from asr.recipe.sets import write_sets

CORPUS = Corpus(
    speech="English, Americans spell names and streets and say numbers and dates",
    hours=0.8,
    license="free for any use under CMU's terms (`LICENSE` in the archive)",
    homepage="http://www.speech.cs.cmu.edu/databases/an4/",
    disk_gb=0.12,
    archives=(
        Archive(
            "http://www.speech.cs.cmu.edu/databases/an4/an4_raw.bigendian.tar.gz",
            0.064,
            # CMU publishes no checksum; this is that of a copy that was read in full.
            "sha256:694db50d044f4d3d071427059bf1fc290d22237f223311aff082f8cf92e49c84",
        ),
    ),
)
RATE = 16000  # hertz
DEV_SPEAKERS = 8
# Sentence marks and fillers in etc/an4.filler; those such as ++NOISE++ are recognized by their plus signs.
_NOT_WORDS = {"<s>", "</s>", "<sil>"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser, CORPUS, unpacked=False)


def prepare(args: argparse.Namespace) -> None:
    """Write `audio/SPEAKER/ID.flac` and `{train,dev,test}.jsonl` below `args.data`."""
    data: Path = args.data
    [archive] = obtain_archives(args, CORPUS)
    texts, durations = _unpack(archive, data / "audio")
    train = _utterances(texts["train"], "train", durations, data / "audio", archive)
    test = _utterances(texts["test"], "test", durations, data / "audio", archive)
    dev_speakers = choose_dev_speakers({u.speaker for u in train}, DEV_SPEAKERS)
    dev = [u for u in train if u.speaker in dev_speakers]
    write_sets(data, {"train": [u for u in train if u.speaker not in dev_speakers], "dev": dev, "test": test})


def read_transcription(text: str, where: str) -> dict[str, str]:
    """`<s> U M N SIX </s> (an255-fash-b)` lines as {id: "u m n six"}.

    In lower case, without sentence marks and fillers such as ++NOISE++. AN4 spells letter by letter, each letter a
    word.
    """
    texts: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        words, bracket, identifier = line.strip().rpartition("(")
        if not bracket or not identifier.endswith(")"):
            raise ArchiveError(f"{where}:{number}: not a transcription line, expected 'WORDS (utterance-id)'")
        kept = [w for w in words.lower().split() if w not in _NOT_WORDS and not (w[:2] == w[-2:] == "++")]
        texts[identifier[:-1]] = " ".join(kept)
    return texts


def choose_dev_speakers(speakers: Iterable[str], count: int) -> set[str]:
    """`count` speakers, always the same ones, chosen by a hash, with women (f...) and men (m...) in proportion.

    Speakers who were recorded twice (mdcs, mdcs2) stay in training, so that no voice is in both sets.
    """
    names = sorted(speakers)
    stems = [name.rstrip("0123456789") for name in names]
    single = [name for name, stem in zip(names, stems, strict=True) if stems.count(stem) == 1]
    single.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    women = [name for name in single if name.startswith("f")]
    men = [name for name in single if not name.startswith("f")]
    share = round(count * sum(name.startswith("f") for name in names) / max(1, len(names)))
    return set(women[:share] + men[: count - share])


def _unpack(archive: Path, audio: Path) -> tuple[dict[str, dict[str, str]], dict[str, float]]:
    """Convert every recording; return the transcriptions by official split and the seconds of each utterance."""
    texts: dict[str, dict[str, str]] = {}
    durations: dict[str, float] = {}
    for path, content in members(archive):
        name = path.name
        if name in ("an4_train.transcription", "an4_test.transcription"):
            texts[name[4:-14]] = read_transcription(content.read().decode("utf-8"), f"{archive}: {path}")
        elif path.suffix == ".raw":
            # The samples are big-endian, as the archive's name says; the README inside wrongly says little-endian.
            samples = np.frombuffer(content.read(), dtype=">i2").astype(np.int16)
            if not samples.size:
                raise ArchiveError(f"{archive}: {path} holds no audio")
            target = audio / path.parent.name / f"{path.stem}.flac"
            target.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(target, samples, RATE, subtype="PCM_16")
            durations[path.stem] = samples.size / RATE
    missing = {"train", "test"} - set(texts)
    if missing or not durations:
        name = f"etc/an4_{min(missing)}.transcription" if missing else "wav/**/*.raw"
        raise ArchiveError(f"{archive}: not the AN4 archive: {name} is missing; expected {CORPUS.archives[0].url}")
    return texts, durations


def _utterances(
    texts: dict[str, str], split: str, durations: dict[str, float], audio: Path, archive: Path
) -> list[Utterance]:
    utterances = []
    for identifier, text in texts.items():
        if identifier not in durations:
            raise ArchiveError(f"{archive}: no recording of the utterance '{identifier}' ({split}); download it again")
        speaker = identifier.split("-")[1]
        path = audio / speaker / f"{identifier}.flac"
        utterances.append(Utterance(identifier, str(path), durations[identifier], text, speaker=speaker, split=split))
    return utterances
