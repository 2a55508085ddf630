"""Output files: mirrored names that stay in their folder, nothing overwritten unasked, nothing by halves."""

from __future__ import annotations

import pytest

from asr.files import OutputError, write_text
from asr.recognition.outputs import OutputFolder
from asr.types import Transcript, UsageError


def transcript(text, channel=None):
    return Transcript(text, (), 1.0, channel=channel)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_ids_become_a_tree_with_a_file_per_format_and_channel(tmp_path):
    folder = OutputFolder(tmp_path / "out", ["txt", "json"])
    folder.write(transcript("one"), "a/x.1")
    folder.write(transcript("left", channel=0), "b/x")
    folder.write(transcript("right", channel=1), "b/x")
    assert files(tmp_path / "out") == [
        "a/x.1.json",
        "a/x.1.txt",
        "b/x.ch0.json",
        "b/x.ch0.txt",
        "b/x.ch1.json",
        "b/x.ch1.txt",
    ]
    assert (tmp_path / "out/b/x.ch1.txt").read_text(encoding="utf-8") == "right\n"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "", "..", "a/../../b", 'a:*?"<>|\nb'])
def test_no_id_leads_out_of_the_folder(tmp_path, name):
    folder = OutputFolder(tmp_path / "out", ["txt"])
    [path] = folder.paths(name)
    assert path.resolve().is_relative_to((tmp_path / "out").resolve())
    folder.write(transcript("x"), name)
    assert path.is_file()


def test_ids_that_differ_only_in_odd_characters_do_not_share_a_file(tmp_path):
    folder = OutputFolder(tmp_path, ["txt"], overwrite=True)
    for name in ("a?b", "a*b", "a_b", "a?b"):
        folder.write(transcript(name), name)
    assert sorted(path.read_text(encoding="utf-8") for path in tmp_path.iterdir()) == ["a*b\n", "a?b\n", "a_b\n"]


@pytest.mark.parametrize(
    "name",
    ["x" * 300, "\u8a9e" * 100, "d" * 256 + "/a", "a/" + "\u00fc" * 251 + "/b", "x" * 252],
    ids=["ascii", "utf8", "folder", "folder within", "by its suffix"],
)
def test_a_name_too_long_for_the_file_system_is_cut_the_same_way_in_every_run(tmp_path, name):
    """What no file can be called has a name nevertheless, and --resume finds it."""
    folder = OutputFolder(tmp_path, ["txt", "textgrid"])
    paths = folder.paths(name, channel=3)
    assert folder.shortened == (name, paths[0])
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    again = OutputFolder(tmp_path, ["textgrid", "txt"])
    other = OutputFolder(tmp_path, ["txt"]).paths(name + "y" if "/" not in name else f"y{name}")
    assert again.finished(name, [3]) and again.paths(name, 3) == paths[::-1] and other[0] not in paths


def test_names_that_fit_are_left_alone(tmp_path):
    folder = OutputFolder(tmp_path, ["txt"])
    folder.write(transcript("x"), "x" * 251)
    assert files(tmp_path) == ["x" * 251 + ".txt"] and folder.shortened is None
    assert folder.paths("?" * 300) != folder.paths("*" * 300)  # both are _ in a file name


def test_a_path_that_cannot_be_written_is_an_error_of_its_own(tmp_path):
    folder = OutputFolder(tmp_path, ["txt"])
    folder.write(transcript("x"), "a")
    for name in ("a.txt/b", "/".join(["z" * 200] * 30)):
        assert not folder.finished(name) and folder.existing(name) is None
        with pytest.raises(OutputError, match="cannot be written"):
            folder.write(transcript("y"), name)
    folder.write(transcript("x"), "b")
    assert files(tmp_path) == ["a.txt", "b.txt"]


def test_what_exists_is_left_unless_overwriting_was_allowed(tmp_path):
    (tmp_path / "a.txt").write_text("precious\n", encoding="utf-8")
    careful = OutputFolder(tmp_path, ["json", "txt"])
    assert careful.existing("a") == tmp_path / "a.txt"
    assert not careful.finished("a")
    with pytest.raises(OutputError, match=r"a\.txt: already exists"):
        careful.write(transcript("new"), "a")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "precious\n"

    careful.write(transcript("new"), "b")
    careful.write(transcript("newer"), "b", only_missing=True)
    assert careful.finished("b")
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "new\n"

    bold = OutputFolder(tmp_path, ["txt"], overwrite=True)
    assert bold.existing("a") is None
    bold.write(transcript("new"), "a")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new\n"


def test_a_failed_write_leaves_neither_half_a_file_nor_the_old_one_touched(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written: No space left"):
        write_text(path, "new")
    assert files(tmp_path) == ["a.txt"]
    assert path.read_text(encoding="utf-8") == "old"


def test_text_is_utf8_with_plain_line_ends_and_escapes_what_is_not(tmp_path):
    write_text(tmp_path / "deep/er/x.txt", "ü\n\udcff\n")
    assert (tmp_path / "deep/er/x.txt").read_bytes() == b"\xc3\xbc\n\\udcff\n"


def test_a_file_in_place_of_the_folder_is_wrong_usage(tmp_path):
    (tmp_path / "out").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot create the output folder"):
        OutputFolder(tmp_path / "out", ["txt"])
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "out" / "x.txt", "")
