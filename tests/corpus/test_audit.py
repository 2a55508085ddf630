"""What `asr data check` finds: audio, texts, paces, copies, and test data in the training set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.audio.features import FeatureConfig
from asr.corpus.audit import Audit, Target, audit
from asr.corpus.check import NOTES, PROBLEMS
from asr.corpus.manifest import Utterance, write_manifest
from asr.model.acoustic import output_length
from asr.model.config import RecurrentConfig
from asr.text.tokenizer import CharTokenizer
from asr.types import ManifestError

WriteAudio = Callable[..., Path]
TEXT = "hello to all of you"


def utterance(path: Path, text: str = TEXT, duration: float = 2.0, **fields: Any) -> Utterance:
    return Utterance(fields.pop("id", path.stem), str(path), duration, text, **fields)


def found(result: Audit) -> list[tuple[str, str]]:
    return [(finding.kind, finding.id) for finding in result.findings]


def check(folder: Path, *utterances: Utterance, **options: Any) -> Audit:
    write_manifest(folder / "m.jsonl", utterances)
    return audit([(str(folder / "m.jsonl"), "")], **options)


def check_two(folder: Path, train: list[Utterance], test: list[Utterance], **options: Any) -> list[tuple[str, str]]:
    write_manifest(folder / "train.jsonl", train)
    write_manifest(folder / "test.jsonl", test)
    sources = [(str(folder / "test.jsonl"), "test"), (str(folder / "train.jsonl"), "train")]
    return found(audit(sources, **options))


@pytest.fixture
def clean(tmp_path: Path, write_audio: WriteAudio) -> list[Utterance]:
    return [utterance(write_audio(tmp_path / f"u{i}.wav", 2.0, seed=10 * i)) for i in range(4)]


def test_tags_are_noted_with_counts_and_examples(clean: list[Utterance], tmp_path: Path) -> None:
    """Kind: what annotators wrote taken for speech in silence; words in parentheses may be either."""
    texts = ["[noise] hello to all (laughs) [noise]", "hello to all <unk>", "[noise] hello all", "(and then) hello all"]
    rows = [replace(row, text=text) for row, text in zip(clean, texts, strict=True)]
    result = check(tmp_path, *rows)
    assert result.problems == [] and not result.skips()
    notes = {(note.kind, note.id, note.detail) for note in result.notes if "unusual" not in note.kind}
    assert notes == {
        ("words in parentheses", "u3", "(and then)"),
        ("tags", "", "[noise] x 3, e.g. in u0, u2"),
        ("tags", "", "(laughs) x 1, e.g. in u0"),
        ("tags", "", "<unk> x 1, e.g. in u1"),
    }


@pytest.mark.parametrize("decode", [False, True])
def test_a_clean_manifest_has_no_findings(clean: list[Utterance], tmp_path: Path, decode: bool) -> None:
    result = check(tmp_path, *clean, decode=decode)
    assert result.findings == [] and result.skips() == []


def test_unreadable_audio(clean: list[Utterance], tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is no audio", encoding="utf-8")
    names = ["gone.wav", "empty.wav", "text.wav"]
    result = check(tmp_path, *clean, *(utterance(tmp_path / name) for name in names))
    assert found(result) == [("unreadable audio", name) for name in ("gone", "empty", "text")]
    assert all(finding.detail.startswith(str(tmp_path)) for finding in result.findings)


def test_durations_windows_and_channels_that_the_file_does_not_have(tmp_path: Path, write_audio: WriteAudio) -> None:
    path = write_audio(tmp_path / "a.wav", 3.0)
    segment = {"segment": True}
    result = check(
        tmp_path,
        utterance(path, id="right", duration=3.05),
        utterance(path, id="wrong", duration=2.0, channel=0),
        utterance(path, id="inside", offset=1.0, duration=2.0, **segment),
        utterance(path, id="beyond", offset=2.0, duration=2.0, **segment),
        utterance(path, id="channel", duration=3.0, channel=1),
        utterance(path, id="nothing", offset=0.0, duration=0.0, **segment),
    )
    assert found(result) == [
        ("wrong duration", "wrong"),
        ("window outside audio", "beyond"),
        ("no such channel", "channel"),
        ("no duration", "nothing"),
    ]


def test_decoding_finds_damage_and_silence_behind_good_headers(tmp_path: Path, write_audio: WriteAudio) -> None:
    whole = write_audio(tmp_path / "whole.flac", 2.0).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(tmp_path / "silent.wav", np.zeros(32000), 16000)
    soundfile.write(tmp_path / "offset.wav", np.full(32000, 0.25), 16000)
    rows = [utterance(tmp_path / name) for name in ("whole.flac", "cut.flac", "silent.wav", "offset.wav")]
    assert found(check(tmp_path, *rows)) == []
    kinds = set(found(check(tmp_path, *rows, decode=True)))
    assert kinds == {("damaged audio", "cut"), ("silent audio", "silent"), ("silent audio", "offset")}


@pytest.mark.parametrize("decode", [False, True])
def test_headers_that_cannot_be_stop_no_check(tmp_path: Path, write_audio: WriteAudio, decode: bool) -> None:
    """Kind: one absurd number in a header ends the work on all."""
    good = write_audio(tmp_path / "good.wav", 2.0).read_bytes()
    for rate in (1, 0x7FFFFFFF):
        (tmp_path / f"rate{rate}.wav").write_bytes(good[:24] + rate.to_bytes(4, "little") + good[28:])
    rows = [utterance(tmp_path / name) for name in ("rate1.wav", "good.wav", "rate2147483647.wav")]
    kinds = set(found(check(tmp_path, *rows, decode=decode)))
    assert kinds == {("unreadable audio", "rate1"), ("unreadable audio", "rate2147483647")}


def test_texts_against_a_target(tmp_path: Path, clean: list[Utterance], write_audio: WriteAudio) -> None:
    tokenizer = CharTokenizer(["", " ", *"abcdefghijklmnopqrstuvwxyz"])
    target = Target(
        "basic", tokenizer, 16000, partial(output_length, features=FeatureConfig(), model=RecurrentConfig())
    )
    texts = {"empty": "", "marks": "...", "digits": "room 101", "long": "a much too long text for it"}
    rows = [utterance(write_audio(tmp_path / f"{n}.wav", 0.6, seed=len(t)), t, 0.6) for n, t in texts.items()]
    result = check(tmp_path, *clean, *rows, target=target)
    assert found(result) == [
        ("empty text", "empty"),
        ("empty text", "marks"),
        ("unknown symbols", "digits"),
        ("infeasible", "long"),
    ]
    assert [(s.symbol, s.count) for s in result.unknown[str(tmp_path / "m.jsonl")]] == [("1", 2), ("0", 1)]
    assert result.skips()[2].reason == "unknown symbols: '0', '1'"
    assert found(check(tmp_path, *clean, *rows)) == [("empty text", "empty")]  # nothing is known of a model


def test_a_target_can_be_made_of_the_manifests(tmp_path: Path, clean: list[Utterance]) -> None:
    seen: list[int] = []

    def target(manifests: Any) -> Target:
        seen.append(sum(map(len, manifests)))
        return Target("none", CharTokenizer(["", " ", "h"]))

    assert {kind for kind, _ in found(check(tmp_path, *clean, target=target))} == {"unknown symbols"}
    assert seen == [4]


def test_malformed_rows_do_not_hide_the_rest(tmp_path: Path, clean: list[Utterance]) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, clean)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"audio_filepath": "x.wav", "duration": -1, "text": "x"}\nnot json\n')
        file.write(json.dumps({"audio_filepath": "gone.wav", "duration": 2.0, "text": "x y"}) + "\n")
    result = audit([(str(path), "")])
    assert found(result) == [("malformed row", ""), ("malformed row", ""), ("unreadable audio", "gone")]
    assert [finding.detail.split(": ")[0] for finding in result.findings[:2]] == [f"{path}:5", f"{path}:6"]
    path.write_text("not json\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=":1: not JSON"):
        audit([(str(path), "")])


def test_outliers_are_notes_and_impossible_paces_problems(tmp_path: Path, write_audio: WriteAudio) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(30):
        seconds = round(float(rng.uniform(1.8, 2.2)), 3)
        rows.append(utterance(write_audio(tmp_path / f"u{i}.wav", seconds, seed=i), TEXT, seconds))
    path = write_audio(tmp_path / "x.wav", 20.0)
    rows += [
        utterance(path, "many more words " * 9, 20.0, id="long"),
        utterance(path, "hm", 2.0, id="slow", segment=True),
        utterance(path, "letters " * 30, 2.0, id="mad", segment=True, offset=3.0),
    ]
    result = check(tmp_path, *rows)
    assert found(result) == [("impossible pace", "mad"), ("unusual duration", "long"), ("unusual pace", "slow")]
    assert [finding.kind for finding in result.problems] == ["impossible pace"]


def test_copies_within_a_manifest(tmp_path: Path, clean: list[Utterance]) -> None:
    path = Path(clean[0].audio_filepath)
    shutil.copy(path, tmp_path / "copy.wav")
    (tmp_path / "link.wav").symlink_to(path)
    rows = [utterance(tmp_path / "copy.wav"), utterance(tmp_path / "link.wav"), utterance(path, id="again")]
    copies = [("duplicate audio", "copy"), ("duplicate audio", "link"), ("duplicate audio", "again")]
    assert found(check(tmp_path, *clean, *rows)) == copies
    windows = [utterance(path, id=f"w{i}", duration=1.0, offset=i % 2, segment=True) for i in range(3)]
    assert found(check(tmp_path, *clean, *windows)) == [("duplicate audio", "w2")]


def test_decoding_recognizes_copies_in_another_container(tmp_path: Path, clean: list[Utterance]) -> None:
    samples, rate = soundfile.read(clean[1].audio_filepath, dtype="int16")
    soundfile.write(tmp_path / "other.flac", samples, rate)
    rows = [*clean, utterance(tmp_path / "other.flac")]
    assert found(check(tmp_path, *rows)) == []
    assert found(check(tmp_path, *rows, decode=True)) == [("duplicate audio", "other")]


def test_channels_of_one_recording_are_no_copies(tmp_path: Path, write_audio: WriteAudio) -> None:
    path = write_audio(tmp_path / "a.wav", 2.0, channels=2)
    rows = [utterance(path, id=f"c{channel}", channel=channel) for channel in (0, 1)]
    assert found(check(tmp_path, *rows)) == found(check(tmp_path, *rows, decode=True)) == []


def test_same_speaker_text_and_duration_are_probably_a_copy(tmp_path: Path, write_audio: WriteAudio) -> None:
    paths = [write_audio(tmp_path / f"u{i}.wav", 2.0, seed=i) for i in range(5)]
    speakers = ["ann", "ann", "bob", "", ""]
    result = check(tmp_path, *(utterance(p, speaker=s) for p, s in zip(paths, speakers, strict=True)))
    assert found(result) == [("probably a copy", "u1")] and not result.problems


@pytest.mark.parametrize("decode", [False, True])
def test_the_same_audio_in_train_and_test(tmp_path: Path, clean: list[Utterance], decode: bool) -> None:
    shutil.copy(clean[0].audio_filepath, tmp_path / "renamed.wav")
    test = [clean[3], utterance(tmp_path / "renamed.wav", "a different text for it")]
    assert check_two(tmp_path, clean[:3], test, decode=decode) == [
        ("in train and test", "renamed"),
        ("shared texts", ""),
    ]
    test = [clean[3], utterance(tmp_path / "renamed.wav", "oh", 2.0)]
    assert check_two(tmp_path, clean[:3], test, decode=decode)[0] == ("in train and test", "renamed")


def test_overlapping_windows_of_one_recording(tmp_path: Path, write_audio: WriteAudio) -> None:
    path = write_audio(tmp_path / "a.wav", 10.0)

    def windows(prefix: str, *spans: tuple[float, float]) -> list[Utterance]:
        return [
            utterance(path, f"{prefix} {i} text", end - start, id=f"{prefix}{i}", offset=start, segment=True)
            for i, (start, end) in enumerate(spans)
        ]

    train = windows("train", (0, 2), (6, 8))
    test = windows("test", (2, 4), (1.5, 3), (7, 7.5), (8, 10), (5, 9), (0, 10))
    leaks = check_two(tmp_path, train, test)
    assert leaks == [("in train and test", f"test{i}") for i in (1, 2, 4, 5)]


def test_same_ids_leak_only_with_the_same_recording(tmp_path: Path, write_audio: WriteAudio) -> None:
    one, two = write_audio(tmp_path / "x" / "a.wav", 2.0), write_audio(tmp_path / "y" / "a.wav", 3.0, seed=1)
    other = write_audio(tmp_path / "z" / "a.wav", 2.0, seed=2)
    test = [utterance(two, "some other words", 3.0)]
    assert check_two(tmp_path, [utterance(one)], test) == [("same id", "a")]
    leaks = check_two(tmp_path, [utterance(one)], [utterance(other, "some other words")])
    assert leaks == [("in train and test", "a")]  # same name, same length: the same recording, coded anew


def test_shared_speakers_and_texts_are_notes(tmp_path: Path, clean: list[Utterance]) -> None:
    from dataclasses import replace

    train = [replace(u, speaker=s) for u, s in zip(clean[:2], ["ann", "eve"], strict=True)]
    test = [replace(u, speaker=s) for u, s in zip(clean[2:], ["ann", "bob"], strict=True)]
    assert check_two(tmp_path, train, test) == [("shared speakers", ""), ("shared texts", "")]
    assert not set(PROBLEMS) & set(NOTES)


def test_manifests_of_one_role_are_not_compared(tmp_path: Path, clean: list[Utterance]) -> None:
    paths = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    for path in paths:
        write_manifest(path, clean)
    assert found(audit([(path, "test") for path in paths])) == []
    assert found(audit([(path, "") for path in paths]))[0] == ("in train and test", "u0")


def test_paths_meant_from_the_current_folder_get_a_hint(
    tmp_path: Path, clean: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifests").mkdir()
    row = {"audio_filepath": "u0.wav", "duration": 2.0, "text": TEXT}
    (tmp_path / "manifests" / "m.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert found(audit([("manifests/m.jsonl", "")])) == [("unreadable audio", "u0"), ("audio paths", "")]


def test_progress_counts_every_utterance(tmp_path: Path, clean: list[Utterance]) -> None:
    done: list[int] = []
    totals: list[int] = []

    def progress(total: int) -> Callable[[int], object]:
        totals.append(total)
        return done.append

    check(tmp_path, *clean, progress=progress)
    assert totals == [4] and sum(done) == 4
