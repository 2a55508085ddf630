"""Downloads from a server on this machine: whole, interrupted, resumed, changed, damaged, without Range, failing."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asr.corpus.download import DownloadError, download, file_digest, verify

CONTENT = bytes(range(256)) * 4096 * 3  # 3 MiB: several blocks
MD5 = "md5:" + hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


@dataclass
class Behavior:
    """What the server does, and what it was asked for."""

    content: bytes = CONTENT
    etag: str = '"v1"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)  # bytes after which successive answers break off
    statuses: list[int] = field(default_factory=list)  # statuses of successive answers; 200 when used up
    redirect: str = ""
    requests: list[str] = field(default_factory=list)  # the Range headers, "" for none


@pytest.fixture
def server() -> Iterator[tuple[str, Behavior]]:
    behavior = Behavior()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            behavior.requests.append(asked)
            status = behavior.statuses.pop(0) if behavior.statuses else 200
            if behavior.redirect:
                self.send_response(302)
                self.send_header("Location", behavior.redirect)
                self.end_headers()
                return
            if status != 200:
                self.send_error(status)
                return
            start = 0
            if asked and behavior.ranges and self.headers.get("If-Range") == behavior.etag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(behavior.content):
                    self.send_error(416)
                    return
                self.send_response(206)
                total = len(behavior.content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            else:
                self.send_response(200)
            body = behavior.content[start:]
            self.send_header("Content-Length", str(len(body)))
            if behavior.etag:
                self.send_header("ETag", behavior.etag)
            self.end_headers()
            cut = behavior.cut_after.pop(0) if behavior.cut_after else len(body)
            self.wfile.write(body[:cut])

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/set.tar.gz", behavior
    http.shutdown()
    http.server_close()


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_whole_file_is_put_in_place(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, _ = server
    path = download(url, tmp_path / "deep" / "set.tar.gz", checksum=MD5)
    assert path.read_bytes() == CONTENT
    assert leftovers(path.parent) == ["set.tar.gz"]


def test_existing_file_is_verified_and_not_fetched(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    target = tmp_path / "set.tar.gz"
    target.write_bytes(CONTENT)
    assert download(url, target, checksum=MD5) == target
    target.write_bytes(b"something else")
    with pytest.raises(DownloadError, match="expected"):
        download(url, target, checksum=MD5)
    assert behavior.requests == []


def test_broken_transfer_goes_on_where_it_stopped(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    behavior.cut_after = [1_000_000, 500_000]
    path = download(url, tmp_path / "set.tar.gz", checksum=MD5, pause=0)
    assert path.read_bytes() == CONTENT
    assert behavior.requests == ["", "bytes=1000000-", "bytes=1500000-"]


def test_a_later_call_goes_on(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    behavior.cut_after, behavior.statuses = [1_000_000], [200, 503]
    with pytest.raises(DownloadError, match="1000000 bytes are kept") as error:
        download(url, tmp_path / "set.tar.gz", checksum=MD5, attempts=1, pause=0)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set.tar.gz").exists()
    assert download(url, tmp_path / "set.tar.gz", checksum=MD5).read_bytes() == CONTENT
    assert behavior.requests[-1] == "bytes=1000000-"


def test_server_without_range_starts_again(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    behavior.cut_after, behavior.ranges = [1_000_000], False
    assert download(url, tmp_path / "set.tar.gz", checksum=MD5, pause=0).read_bytes() == CONTENT


def test_server_without_validator_starts_again(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    behavior.cut_after, behavior.etag = [1_000_000], ""
    assert download(url, tmp_path / "set.tar.gz", checksum=MD5, pause=0).read_bytes() == CONTENT
    assert behavior.requests == ["", ""]


def test_file_that_changed_on_the_server_is_fetched_anew(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    behavior.cut_after = [1_000_000]
    behavior.statuses = [200, 503]
    with pytest.raises(DownloadError):
        download(url, tmp_path / "set.tar.gz", attempts=1, pause=0)
    behavior.content, behavior.etag = CONTENT[::-1], '"v2"'
    assert download(url, tmp_path / "set.tar.gz").read_bytes() == CONTENT[::-1]


def test_part_longer_than_the_file_is_thrown_away(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, _ = server
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT + b"more")
    state = {"url": url, "validator": '"v1"'}
    (tmp_path / "set.tar.gz.part.json").write_text(json.dumps(state), encoding="utf-8")
    assert download(url, tmp_path / "set.tar.gz", checksum=MD5, pause=0).read_bytes() == CONTENT


def test_part_of_another_address_is_not_continued(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    (tmp_path / "set.tar.gz.part").write_bytes(b"x" * 1000)
    state = {"url": "http://127.0.0.1/other", "validator": '"v1"'}
    (tmp_path / "set.tar.gz.part.json").write_text(json.dumps(state), encoding="utf-8")
    assert download(url, tmp_path / "set.tar.gz", checksum=MD5).read_bytes() == CONTENT
    assert behavior.requests == [""]


def test_wrong_checksum_leaves_nothing_behind(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, _ = server
    with pytest.raises(DownloadError, match=r"md5 is .* expected 0123") as error:
        download(url, tmp_path / "set.tar.gz", checksum="md5:0123")
    assert url in str(error.value) and "\n" not in str(error.value)
    assert leftovers(tmp_path) == []


def test_temporary_failures_are_retried_and_final_ones_not(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    behavior.statuses = [503, 429]
    assert download(url, tmp_path / "a", checksum=MD5, pause=0).read_bytes() == CONTENT
    behavior.statuses, behavior.requests = [404, 200], []
    with pytest.raises(DownloadError, match="404"):
        download(url, tmp_path / "b", pause=0)
    assert len(behavior.requests) == 1


def test_no_server_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="no connection") as error:
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=2, pause=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd", "http://", "http:///x"])
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        download(url, tmp_path / "x")
    assert leftovers(tmp_path) == []


def test_redirect_to_a_local_file_is_refused(server: tuple[str, Behavior], tmp_path: Path) -> None:
    url, behavior = server
    behavior.redirect = "file:///etc/passwd"
    with pytest.raises(DownloadError):
        download(url, tmp_path / "x", pause=0)
    assert not (tmp_path / "x").exists()


def test_verify_names_the_file_and_both_sums(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    verify(path, "")
    verify(path, "md5:900150983CD24FB0D6963F7D28E17F72")
    assert file_digest(path) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DownloadError, match="900150983cd24fb0d6963f7d28e17f72, expected 00"):
        verify(path, "md5:00")
