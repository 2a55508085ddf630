"""Whether a recording was cut short: what its own header promises, where libsndfile shortens it without a word."""

from __future__ import annotations

import os
import re
from typing import BinaryIO

_UNKNOWN_BYTES = 0x7FFFF000  # what programs that write to a pipe put in a header is at least this
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4}
_SAMPLE_BYTES |= {"FLOAT": 4, "DOUBLE": 8}
_LARGEST_PAGE = 65307  # bytes of an Ogg page (RFC 3533)


def promised_frames(file: BinaryIO, kind: str, channels: int, subtype: str, log: str) -> int:
    """How many frames the header speaks of, from libsndfile's log (a sphere file: from the header); -1 if not known."""
    counts = re.search(r"(?:Frame count read from 'COMM' chunk \(|value from 'ds64' chunk of )(\d+)", log)
    if kind == "NIST":
        file.seek(0)
        counts = re.search(r"sample_count -i (\d+)", file.read(1024).decode("latin-1"))
    if counts:
        return int(counts[1])
    sizes = re.search(r"^\s*data(?: size)?\s*:\s*(\d+) \(should be \d+\)", log, re.IGNORECASE | re.MULTILINE)
    if not sizes or subtype not in _SAMPLE_BYTES or int(sizes[1]) >= _UNKNOWN_BYTES:
        return -1
    return int(sizes[1]) // (channels * _SAMPLE_BYTES[subtype])


def ogg_is_cut(file: BinaryIO) -> bool:
    """Whether an Ogg file ends before the page that is marked as its stream's last, or within that page."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2 * _LARGEST_PAGE))
    tail = file.read()
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) < start + 27:
        return True
    flags, segments = tail[start + 5], tail[start + 26]
    sizes = tail[start + 27 : start + 27 + segments]
    complete = len(sizes) == segments and len(tail) >= start + 27 + segments + sum(sizes)
    return not (complete and flags & 4)
