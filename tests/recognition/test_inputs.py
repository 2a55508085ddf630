"""Command-line inputs to recordings: folders, globs, manifests, stdin; ids that never collide."""

from __future__ import annotations

import gzip
import json
import os
import sys

import pytest

from asr.recognition.inputs import Recording, as_recording, find_recordings, is_single
from asr.types import Failure, ManifestError, UsageError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Two folders with files of the same names, other files, hidden ones; the working folder."""
    for name in (
        "one/a.wav",
        "one/b.FLAC",
        "one/notes.txt",
        "two/a.wav",
        "two/deep/c.mp3",
        ".hidden/d.wav",
        "one/._a.wav",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(*arguments):
    return [item.id for item in find_recordings(arguments)]


def test_a_folder_gives_its_audio_files_sorted_and_recursively(tree):
    assert ids("two") == ["a", "deep/c"]
    assert ids(".") == ["one/a", "one/b", "two/a", "two/deep/c"]


def test_ids_are_paths_below_what_the_inputs_share(tree):
    assert ids("one/a.wav") == ["a"]
    assert ids("one/a.wav", "two/a.wav") == ["one/a", "two/a"]
    assert ids("one", "two") == ["one/a", "one/b", "two/a", "two/deep/c"]
    assert ids(str(tree / "one"), "two/deep") == ["one/a", "one/b", "two/deep/c"]


def test_globs_expand_sorted(tree):
    assert ids("two/**/*.*") == ["a", "deep/c"]
    assert ids("*/a.wav") == ["one/a", "two/a"]
    assert ids("o*") == ["one/a", "one/b"]


def test_a_name_that_looks_like_a_glob_is_a_file_first(tree):
    (tree / "take[1].wav").touch()
    assert ids("take[1].wav") == ["take[1]"]


def test_a_file_found_twice_is_taken_once(tree):
    assert ids("one", "one/a.wav", str(tree / "one" / "a.wav")) == ["a", "b"]


def test_the_same_stem_with_two_suffixes_keeps_them(tree):
    (tree / "one/a.mp3").touch()
    assert ids("one") == ["a.mp3", "a.wav", "b"]


def test_a_named_file_may_have_any_suffix_and_need_not_exist(tree):
    [first, second] = find_recordings(["one/notes.txt", "missing.wav"])
    assert isinstance(first, Recording)
    assert isinstance(second, Recording)
    assert second.audio_filepath == "missing.wav"


def test_inputs_that_lead_nowhere_are_failures_in_their_place(tree):
    [folder, file, pattern] = find_recordings(["empty", "one/a.wav", "*.ogg"])
    assert isinstance(folder, Failure)
    assert "empty: no audio files" in folder.error
    assert isinstance(file, Recording)
    assert isinstance(pattern, Failure)
    assert "*.ogg: no file matches" in pattern.error


def test_linked_folders_are_searched_once_and_loops_end(tree):
    """A linked folder is a folder: skipped in silence nowhere, read twice nowhere, and a loop has an end."""
    (tree / "far/deep").mkdir(parents=True)
    (tree / "far/deep/x.wav").touch()
    (tree / "one/link").symlink_to(tree / "far")
    (tree / "one/aaa").symlink_to(tree / "far")  # a second way to the same folder
    (tree / "far/back").symlink_to(tree / "one")
    (tree / "far/self").symlink_to(".")
    (tree / "one/file.wav").symlink_to(tree / "two/a.wav")
    assert ids("one") == ["a", "b", "file", "aaa/deep/x"]
    assert ids("one/**/*.wav", "one") == ["a", "aaa/deep/x", "file", "b"]
    assert ids("**/x.*", "*/d*/*") == ["far/deep/x", "two/deep/c"]
    assert ids("one/**") == ids("one/**/*") == ["a", "aaa/deep/x", "b", "file", "notes"]
    assert ids("one/aaa") == ["back/a", "back/b", "back/file", "deep/x"]


def test_broken_links_and_closed_folders_are_named(tree, monkeypatch):
    (tree / "one/gone").symlink_to("nowhere")
    (tree / "one/me.wav").symlink_to("me.wav")
    found = find_recordings(["one"])
    assert [item.error for item in found if isinstance(item, Failure)] == [
        "one/gone: a broken link",
        "one/me.wav: a broken link",
    ]
    assert [item.id for item in found if isinstance(item, Recording)] == ["a", "b"]
    real = os.scandir

    def closed(path):
        if os.fspath(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr("os.scandir", closed)
    [bad, good] = find_recordings(["two"])
    assert (bad.error, good.id) == ("two/deep: cannot be read: Permission denied", "a")


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "y/" * 3000 + "a.wav", "n\0l.wav", "x" * 300 + "*.wav"])
def test_a_name_that_no_file_can_have_fails_alone(tree, name):
    assert [isinstance(item, Recording) for item in find_recordings([name, "one/a.wav"])] == ["*" not in name, True]
    assert is_single([name]) is ("*" not in name)


def test_manifests_and_audio_come_through_pipes_which_are_opened_once(tree, piped):
    rows = [json.dumps({"id": f"u{i}", "audio_filepath": "one/a.wav", "duration": 2.0}) for i in range(700)]
    path = str(piped("\n".join(rows).encode()))
    found = find_recordings([path])
    assert [item.id for item in found] == [f"u{i}" for i in range(700)]
    assert found[0].source == str(tree / "one/a.wav") and not is_single([path], found)
    path = str(piped(b"RIFF and so on"))
    [audio] = found = find_recordings([path])
    assert audio.source.read() == b"RIFF and so on" and is_single([path], found)


def test_compressed_manifests_are_manifests(tree):
    row = json.dumps({"id": "u", "audio_filepath": "one/a.wav", "duration": 2.0})
    (tree / "m.jsonl.gz").write_bytes(gzip.compress(row.encode()))
    assert ids("m.jsonl.gz") == ["u"] and not is_single(["m.jsonl.gz"])


def test_stdin_is_taken_once(tree):
    [stdin, _] = find_recordings(["-", "one/a.wav"])
    assert (stdin.id, stdin.source) == ("stdin", sys.stdin.buffer)
    with pytest.raises(UsageError, match="only once"):
        find_recordings(["-", "-"])


def write_manifest(path, *rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )


def test_manifest_rows_keep_ids_windows_and_channels(tree):
    write_manifest(
        tree / "m.jsonl",
        {"id": "u1", "audio_filepath": "one/a.wav", "duration": 2.0},
        {"id": "x/u2", "audio_filepath": "one/a.wav", "duration": 1.5, "offset": 0.5, "channel": 1, "text": "hi"},
    )
    [first, second] = find_recordings(["m.jsonl"])
    assert (first.id, first.offset, first.duration, first.channel) == ("u1", 0.0, None, None)
    assert (second.id, second.offset, second.duration, second.channel) == ("x/u2", 0.5, 1.5, 1)
    assert second.audio_filepath.endswith("one/a.wav")


def test_a_malformed_row_fails_alone_but_a_manifest_without_rows_is_an_error(tree):
    write_manifest(tree / "m.jsonl", {"id": "u1", "audio_filepath": "one/a.wav", "duration": 2.0}, "{oops")
    [good, bad] = find_recordings(["m.jsonl"])
    assert good.id == "u1"
    assert isinstance(bad, Failure)
    assert "m.jsonl:2" in bad.error
    write_manifest(tree / "bad.jsonl", "{oops")
    with pytest.raises(ManifestError, match=r"bad\.jsonl:1"):
        find_recordings(["bad.jsonl"])


def test_equal_ids_of_two_manifests_are_told_apart(tree):
    for name in ("m.jsonl", "n.jsonl"):
        write_manifest(tree / name, {"id": "u", "audio_filepath": "one/a.wav", "duration": 2.0})
    assert len(set(ids("m.jsonl", "n.jsonl"))) == 2


@pytest.mark.parametrize(
    ("arguments", "single"),
    [
        (["one/a.wav"], True),
        (["missing.wav"], True),
        (["-"], True),
        (["one"], False),
        (["*.wav"], False),
        (["m.jsonl"], False),
        (["one/a.wav", "two/a.wav"], False),
    ],
)
def test_one_input_is_told_from_several_by_its_form(tree, arguments, single):
    write_manifest(tree / "m.jsonl", {"audio_filepath": "one/a.wav", "duration": 1.0})
    assert is_single(arguments) is single


def test_every_kind_of_source_has_a_name(tree):
    assert as_recording("one/a.wav").id == "a"
    assert as_recording(b"RIFF").id == "audio"
    with (tree / "one/a.wav").open("rb") as file:
        assert (as_recording(file).id, as_recording(file).source) == ("a", file)
