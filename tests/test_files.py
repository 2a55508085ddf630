"""Inputs are read once, whatever they are; outputs are there whole or not at all."""

from __future__ import annotations

import gzip
import io
import os
import sys
import threading
from pathlib import Path

import pytest

from asr.files import OutputError, is_input, opened, read_lines, read_text, replacing, write_text
from asr.types import AsrError


def through_a_pipe(folder: Path, data: bytes) -> Path:
    """A named pipe that gives `data` once, byte by byte at first."""
    pipe = folder / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            for k in range(3):
                file.write(data[k : k + 1])
            file.write(data[3:])

    threading.Thread(target=write, daemon=True).start()
    return pipe


@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_gives_every_byte_packed_or_not(tmp_path, packed):
    data = "".join(f"line {i} ü\n" for i in range(20_000)).encode()
    pipe = through_a_pipe(tmp_path, gzip.compress(data) if packed else data)
    assert read_text(pipe) == data.decode()


@pytest.mark.parametrize("data", [b"", b"a", b"\x1f", b"ab\n"])
def test_inputs_shorter_than_a_signature_are_whole(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    with opened(tmp_path / "file") as file:
        assert file.read() == data


def test_a_look_ahead_takes_nothing_from_a_pipe(tmp_path):
    data = bytes(range(100))
    with opened(through_a_pipe(tmp_path, data)) as file:
        assert file.peek().startswith(data[:64]) and file.read() == data
        assert not file.on_disk and file.limit is None


@pytest.mark.parametrize(
    "text", ["", "a", "a\n", "a\n\n", "a\r\nb\r\n", "a\rb\r", "\n\r\n\ra", "a\r\r\nb", "a\rb\r\n\r\nc"]
)
def test_lines_are_those_of_the_text(tmp_path, text):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + text.encode())
    whole = read_text(tmp_path / "x")
    assert list(read_lines(tmp_path / "x")) == (whole.removesuffix("\n").split("\n") if whole else [])


@pytest.mark.parametrize("data", [b"a\n\nb\xff\n", b"a\r\rb\xff\r", b"a\r\n\r\n\xff"])
@pytest.mark.parametrize("read", [read_text, lambda path: list(read_lines(path))])
def test_the_line_of_a_bad_byte_is_named_whatever_the_line_end(tmp_path, read, data):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(AsrError, match="x:3: not UTF-8"):
        read(tmp_path / "x")


def test_what_names_an_input_is_told_from_a_text(tmp_path):
    (tmp_path / "file").touch()
    assert is_input(str(tmp_path / "file")) and is_input(str(through_a_pipe(tmp_path, b"")))
    assert not any(map(is_input, (str(tmp_path), "the words themselves", "a" * 5000, "a\0b")))


def test_stdin_is_read_and_a_closed_one_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\r\nb\rc"), encoding="utf-8"))
    assert read_text("-") == "a\nb\nc"
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(AsrError, match="stdin: closed"):
        read_text("-")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(b"a" * 1000)[:-9], "gzip data is cut off or damaged"),
        ("ä".encode("utf-16"), "not UTF-8 but UTF-16"),
        (b"a\nb\n\xff\n", ":3: not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, data, message):
    path = tmp_path / "text"
    path.write_bytes(data)
    with pytest.raises(OutputError, match=message):  # any error class will do
        read_text(path, OutputError)


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / ("語" * 84 + "abc")  # 255 bytes, the longest name there is
    write_text(path, "old", durable=True)
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old" and partial.parent == tmp_path
    assert path.read_text() == "new"
    with pytest.raises(ValueError), replacing(path) as partial:
        partial.write_text("half")
        raise ValueError
    assert [file.read_text() for file in tmp_path.iterdir()] == ["new"]


def test_a_device_is_written_to_and_a_link_stays_one(tmp_path):
    write_text("/dev/null", "gone")
    assert not Path("/dev/null").is_file()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join()
    assert got == ["through"]
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
