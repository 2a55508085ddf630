"""What the preparations of recipes share: conversion that goes on where it stopped, and notices new recordings."""

from __future__ import annotations

import os
from pathlib import Path

import soundfile
from archives import audio_bytes

from asr.corpus.manifest import Utterance
from asr.recipe.sets import to_flac


def test_what_is_converted_is_kept_until_the_recording_changes(tmp_path: Path) -> None:
    utterances = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(audio_bytes(name))
        utterances.append(Utterance(name, str(tmp_path / f"{name}.wav"), 0.0, "x", speaker="s"))
    targets = [Path(u.audio_filepath) for u in to_flac(utterances, tmp_path / "audio")]
    before = [target.read_bytes() for target in targets]
    written = [target.stat().st_mtime_ns for target in targets]

    (tmp_path / "b.wav").write_bytes(audio_bytes("c", seconds=1.5))
    later = targets[1].stat().st_mtime + 5
    os.utime(tmp_path / "b.wav", (later, later))
    again = to_flac(utterances, tmp_path / "audio")
    assert targets[0].stat().st_mtime_ns == written[0] and targets[0].read_bytes() == before[0]
    assert soundfile.info(targets[1]).duration == again[1].duration == 1.5

    (tmp_path / "a.wav").unlink()  # an unpacked corpus that was deleted to save space
    assert [u.id for u in to_flac(utterances[:1], tmp_path / "audio")] == ["a"]
