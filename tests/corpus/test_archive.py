"""Archives: contents come out as they went in, and nothing gets outside the destination."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from asr.corpus.archive import ArchiveError, extract, members, unpack
from asr.files import Stamp


def make_archive(path: Path, files: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    packing = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, packing) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra or []:
            tar.addfile(info)
    return path


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.tar.bz2", "a.tar.xz", "a.zip"])
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


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "link"])
def test_zip_files_are_no_way_out_either(tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (0o120777 if name == "link" else 0o100644) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ArchiveError, match="refused"):
        extract(tmp_path / "a.zip", tmp_path / "deep" / "out")
    assert not [path for path in tmp_path.rglob("*") if path.name in ("evil", "link")]


def test_unpack_is_done_once_and_again_when_it_was_cut_short_or_the_archive_changes(tmp_path: Path) -> None:
    archive, out = make_archive(tmp_path / "a.zip", {"x": b"1", "y": b"2"}), tmp_path / "out"
    unpack(archive, out)
    (out / "x").unlink()
    unpack(archive, out)
    assert not (out / "x").exists()  # finished: it is not looked at again
    stamp = Stamp(out / ".a.zip.unpacked")
    stamp.write(stamp.read()["inputs"], finished=False)
    (out / ".0123456789ab.part").write_bytes(b"half a file")
    unpack(archive, out)
    assert {path.name for path in out.iterdir()} == {"x", "y", stamp.path.name}
    make_archive(archive, {"x": b"changed"})
    unpack(archive, out)
    assert (out / "x").read_bytes() == b"changed"
    with pytest.raises(ArchiveError, match="not the official layout"):
        unpack(archive, tmp_path / "other", keep=lambda path: False)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("innocent")
    info.type, info.linkname = kind, "/etc/passwd"
    archive = make_archive(tmp_path / "a.tar.gz", {"good": b"1"}, [info])
    with pytest.raises(ArchiveError, match="link or a device"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out" / "innocent").exists()


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.zip"])
def test_every_truncation_is_noticed(tmp_path: Path, name: str) -> None:
    whole = make_archive(tmp_path / name, {f"f{i}": bytes([i]) * 700 for i in range(5)}).read_bytes()
    short = tmp_path / f"short{name}"
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


def test_what_is_declined_may_be_a_link(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("train/sph")
        link.type, link.linkname = tarfile.SYMTYPE, "../data/sph"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("data/a.sph"))
    assert extract(tmp_path / "a.tar", tmp_path / "out", lambda path: path.parts[0] == "data") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data"]
    with pytest.raises(ArchiveError, match="link or a device"):
        extract(tmp_path / "a.tar", tmp_path / "out")
