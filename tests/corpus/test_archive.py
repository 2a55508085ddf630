"""Archives: contents come out as they went in, and nothing gets outside the destination."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from asr.corpus.archive import ArchiveError, extract, members


def make_archive(path: Path, files: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra or []:
            tar.addfile(info)
    return path


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar"])
def test_extract_writes_every_file(tmp_path: Path, name: str) -> None:
    files = {"top/one.txt": b"one", "top/deep/er/two.bin": bytes(range(256)) * 5000, "top/empty": b""}
    archive = make_archive(tmp_path / name, files)
    assert extract(archive, tmp_path / "out") == 3
    assert {p: (tmp_path / "out" / p).read_bytes() for p in files} == files
    assert sorted(p.name for p in (tmp_path / "out").rglob("*") if p.is_file()) == ["empty", "one.txt", "two.bin"]


def test_members_streams_without_writing(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"x/1": b"1", "x/2": b"22"})
    assert {str(path): stream.read() for path, stream in members(archive)} == {"x/1": b"1", "x/2": b"22"}


def test_extract_keeps_only_what_is_wanted_and_overwrites(tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"x/keep": b"new", "x/drop": b"d"})
    (tmp_path / "out" / "x").mkdir(parents=True)
    (tmp_path / "out" / "x" / "keep").write_bytes(b"old and longer")
    assert extract(archive, tmp_path / "out", keep=lambda path: path.name == "keep") == 1
    assert (tmp_path / "out" / "x" / "keep").read_bytes() == b"new"
    assert not (tmp_path / "out" / "x" / "drop").exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\..\\evil", "C:/evil"])
def test_paths_that_climb_out_are_refused(tmp_path: Path, name: str) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {"good": b"1", name: b"2"})
    with pytest.raises(ArchiveError, match="refused") as error:
        extract(archive, tmp_path / "deep" / "out")
    assert "a.tar.gz" in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("innocent")
    info.type, info.linkname = kind, "/etc/passwd"
    archive = make_archive(tmp_path / "a.tar.gz", {"good": b"1"}, [info])
    with pytest.raises(ArchiveError, match="link or a device"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "innocent").exists()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = make_archive(tmp_path / "a.tar.gz", {f"f{i}": bytes([i]) * 700 for i in range(5)}).read_bytes()
    short = tmp_path / "short.tar.gz"
    for length in range(1, len(whole), max(1, len(whole) // 40)):
        short.write_bytes(whole[:length])
        with pytest.raises(ArchiveError, match="damaged or incomplete"):
            extract(short, tmp_path / "out")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    content = bytearray(make_archive(tmp_path / "a.tar", {"f": b"abc" * 1000}).read_bytes())
    packed = bytearray(gzip.compress(bytes(content), compresslevel=0))
    packed[len(packed) // 3] ^= 1  # in the stored data: only the CRC at the end tells
    damaged = tmp_path / "b.tar.gz"
    damaged.write_bytes(packed)
    with pytest.raises(ArchiveError, match="damaged"):
        extract(damaged, tmp_path / "out")


def test_missing_and_foreign_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.tar.gz").write_text("not an archive", encoding="utf-8")
    for name, message in (("none.tar.gz", "cannot open"), ("text.tar.gz", "damaged")):
        with pytest.raises(ArchiveError, match=message) as error:
            extract(tmp_path / name, tmp_path / "out")
        assert "\n" not in str(error.value)
