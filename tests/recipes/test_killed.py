"""Killed while fetching, unpacking and converting, a preparation goes on and ends as one that was left alone."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import soundfile
from test_consistency import layout

from asr.corpus import archive as archives
from asr.recipe import sets


class Served(BaseHTTPRequestHandler):
    """One file, with Range and ETag; the first answer stops after half of it and waits."""

    content = b""
    asked: list[str] = []  # noqa: RUF012 (for all requests)
    half_sent = threading.Event()
    go_on = threading.Event()

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("ETag", '"official"')
        self.end_headers()
        half = len(self.content) // 2
        if not asked:
            self.wfile.write(self.content[:half])
            self.wfile.flush()
            self.half_sent.set()
            self.go_on.wait(10)
            return
        self.wfile.write(self.content[start:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Served.asked.clear()
    Served.half_sent.clear()
    Served.go_on.clear()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    Served.go_on.set()
    http.shutdown()
    http.server_close()


def killed(prepare: ModuleType, args: argparse.Namespace, when: Callable[[multiprocessing.Process], None]) -> None:
    """Run the preparation in a process that is killed by `when`, or kills itself."""
    process = multiprocessing.get_context("fork").Process(target=prepare.prepare, args=(args,))
    process.start()
    when(process)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def dying(function: Callable, calls: int) -> Callable:
    """`function`, whose process is killed after some calls of it, before the result has its name."""
    left = [calls]

    def call(*args: object, **keywords: object) -> object:
        result = function(*args, **keywords)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def state(data: Path) -> dict[str, str]:
    """Digests of all manifests and converted recordings."""
    files = [*data.glob("*.jsonl"), *(data / "audio").rglob("*.flac")]
    return {str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", ["ljspeech", "vctk"])
def test_killed_three_times(
    name: str,
    recipe_module: Callable[[str, str], ModuleType],
    arguments: Callable[..., argparse.Namespace],
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    official = Path(layout(name).make(tmp_path / "official")[1])
    prepare = recipe_module(name, "prepare")
    prepare.prepare(arguments(prepare, tmp_path / "whole", "--archive", str(official), "--no-checksum"))
    whole = state(tmp_path / "whole")
    assert len(whole) >= 3 + 10

    Served.content = official.read_bytes()
    checksum = f"sha256:{hashlib.sha256(Served.content).hexdigest()}"
    [one] = prepare.CORPUS.archives
    monkeypatch.setattr(prepare, "CORPUS", replace(prepare.CORPUS, archives=(replace(one, checksum=checksum),)))
    data = tmp_path / "broken"
    args = arguments(prepare, data, "--download", "--mirror", server)

    def when_half_has_arrived(process: multiprocessing.Process) -> None:
        assert Served.half_sent.wait(10)
        part = data / "archives" / f"{one.name}.part"
        while not (part.exists() and part.stat().st_size):
            Served.go_on.set()  # what was sent is flushed to the disk when the answer ends
            process.join(0.01)
        process.kill()

    killed(prepare, args, when_half_has_arrived)
    assert not list(data.glob("*.jsonl")) and not (data / "archives" / one.name).exists()

    with monkeypatch.context() as patch:
        patch.setattr(archives.shutil, "copyfileobj", dying(archives.shutil.copyfileobj, 4))
        killed(prepare, args, lambda process: None)
    assert (data / "archives" / one.name).exists() and Served.asked[1].startswith("bytes=")
    assert not list(data.glob("*.jsonl"))

    with monkeypatch.context() as patch:
        patch.setattr(sets.soundfile, "write", dying(soundfile.write, 4))
        killed(prepare, args, lambda process: None)
    assert not list(data.glob("*.jsonl")) and len(list((data / "audio").rglob("*.flac"))) < len(whole) - 3

    prepare.prepare(args)
    assert state(data) == whole
    assert len(Served.asked) == 2  # the archive was fetched once, in two parts
    assert not list(data.rglob(".*.part"))  # what the killed ones left half-written
