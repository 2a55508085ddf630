"""Downloads files over HTTP(S), resumable and verified by checksum."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from asr.types import AsrError

_BLOCK = 1 << 20
_BYTES: dict[str, Any] = {"unit": "B", "unit_scale": True, "disable": None}  # progress bars in bytes, on terminals
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(AsrError):
    """A file could not be fetched, or is not what it should be. The message names the address and what to do."""


def download(
    url: str,
    destination: str | Path,
    *,
    checksum: str = "",
    attempts: int = 5,
    timeout: float = 30.0,
    pause: float = 2.0,
) -> Path:
    """Fetch `url` to `destination` and return that path.

    Received bytes are kept in `<destination>.part`; a later call continues from there with an HTTP Range request
    (guarded by If-Range, so that a file that changed on the server is fetched anew). `destination` itself appears only
    when the file is complete and its checksum ("md5:<hex>" or "sha256:<hex>") matches. An existing file is verified
    but not fetched again. `attempts` is how many tries in a row may make no progress; `timeout` and `pause` (doubled
    each time) are in seconds. Raises DownloadError; the part file stays, unless its checksum is wrong.
    """
    destination = Path(destination)
    _refuse_other_schemes(url)
    if not urllib.request.Request(url).host:
        raise DownloadError(f"{url}: the address names no server")
    if destination.exists():
        verify(destination, checksum)
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(destination.name + ".part")
    state = destination.with_name(destination.name + ".part.json")
    fruitless = 0
    while True:
        before = _size(part)
        try:
            _fetch(url, part, state, timeout)
            break
        except _Interrupted as error:
            fruitless = 0 if _size(part) > before else fruitless + 1
            if fruitless >= attempts:
                kept = f"; {_size(part)} bytes are kept, and the same command continues there" if _size(part) else ""
                raise DownloadError(f"{url}: {error} ({attempts} tries){kept}") from error
            print(f"{url}: {error}; trying again", file=sys.stderr)
            time.sleep(pause * 2 ** max(0, fruitless - 1))
    try:
        verify(part, checksum, f"{url}: the downloaded file")
    except DownloadError:
        _forget(part, state)
        raise
    part.replace(destination)
    state.unlink(missing_ok=True)
    return destination


def part_of(destination: Path) -> int:
    """The bytes of an unfinished download from which `download` would continue."""
    return _size(destination.with_name(destination.name + ".part"))


def verify(path: str | Path, checksum: str, name: str = "") -> None:
    """Check a file against "md5:<hex>" or "sha256:<hex>" ("" accepts any). Raises DownloadError if they differ."""
    if not checksum:
        return
    kind, _, expected = checksum.partition(":")
    digest = file_digest(path, kind)
    if digest != expected.lower():
        raise DownloadError(
            f"{name or path}: {kind} is {digest}, expected {expected}: damaged or not the official file; "
            "fetch it again (another mirror may help)"
        )


def file_digest(path: str | Path, kind: str = "sha256") -> str:
    """The hexadecimal digest of a file, with a progress bar on a terminal."""
    from tqdm import tqdm

    path = Path(path)
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream, tqdm(total=_size(path), desc=f"{kind} {path.name}", leave=False, **_BYTES) as bar:
        while block := stream.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


class _Interrupted(Exception):
    """The transfer failed in a way that is worth another try."""


class _SameSchemes(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only; a server must not be able to point us at file:// or ftp://."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _refuse_other_schemes(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_other_schemes(url: str) -> None:
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadError(
            f"{url}: only http:// and https:// addresses are downloaded; pass a local file as an archive"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(url: str, part: Path, state: Path, timeout: float) -> None:
    """One try: append to `part` until the file is complete. Raises _Interrupted or DownloadError."""
    offset, validator = _resumable(url, part, state)
    headers = {"User-Agent": "asr-ctc", "Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    opener = urllib.request.build_opener(_SameSchemes())
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=timeout) as response:
            if response.status != 206:
                offset = 0  # 200: the whole file, from its beginning
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                _forget(part, state)
                raise _Interrupted("the server sent a different range than requested")
            _remember(url, state, response.headers)
            _receive(response, part, offset, url)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file or longer: fetch it anew
            _forget(part, state)
            raise _Interrupted("the partial file does not match the one on the server") from error
        if error.code in _RETRIED_STATUS:
            raise _Interrupted(f"the server answers {error.code} {error.reason}") from error
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from error
    except http.client.HTTPException as error:
        raise _Interrupted(f"the transfer broke off ({type(error).__name__})") from error
    except OSError as error:  # URLError, time-outs, resets
        if part.exists() and shutil.disk_usage(part.parent).free < _BLOCK:
            raise DownloadError(f"{part}: no space left on the disk; {_size(part)} bytes are kept") from error
        raise _Interrupted(f"no connection ({getattr(error, 'reason', None) or error})") from error


def _receive(response: http.client.HTTPResponse, part: Path, offset: int, url: str) -> None:
    from tqdm import tqdm

    length = response.headers.get("Content-Length")
    total = offset + int(length) if length is not None and length.isdigit() else None
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - offset > free:
        raise DownloadError(
            f"{part}: {(total - offset) / 1e9:.1f} GB to download, but only {free / 1e9:.1f} GB are free on the disk"
        )
    with (
        part.open("r+b" if offset else "wb") as out,
        tqdm(total=total, initial=offset, desc=url.rsplit("/", 1)[-1], **_BYTES) as bar,
    ):
        out.seek(offset)
        out.truncate()
        while block := response.read(_BLOCK):
            out.write(block)
            bar.update(len(block))
        arrived = out.tell()
    if total is not None and arrived != total:
        raise _Interrupted(f"the transfer broke off after {arrived} of {total} bytes")


def _resumable(url: str, part: Path, state: Path) -> tuple[int, str]:
    """(bytes to keep, validator for If-Range); (0, "") if the part came from another address or has no validator."""
    try:
        known = json.loads(state.read_text(encoding="utf-8"))
        validator = known["validator"] if known["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        validator = ""
    return (_size(part), validator) if validator else (0, "")


def _remember(url: str, state: Path, headers: Any) -> None:
    etag = headers.get("ETag", "")
    strong = etag if etag and not etag.startswith("W/") else ""  # RFC 9110: a weak tag is not allowed in If-Range
    validator = strong or headers.get("Last-Modified", "")
    state.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _forget(part: Path, state: Path) -> None:
    part.unlink(missing_ok=True)
    state.unlink(missing_ok=True)
