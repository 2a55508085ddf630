"""MPEG audio in a form that libsndfile reads correctly: from its first frame on, with a correct count of frames.

Files may begin with tags, padding, or the rest of a cut frame. If no header frame (Xing or Info) gives the number of
frames, libmpg123 estimates it from the bit rate of the first; in joined files it trusts the count of the first file.
libsndfile reads no further than that, without a warning.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import BinaryIO

from asr.audio.headers import Slice

_SEARCHED = 1 << 16  # bytes in which libmpg123 searches the first frame
_CONSECUTIVE = 4  # so many adjacent frames of one kind cannot be a coincidence
_TAG_HEAD = 10
_BLOCK = 1 << 20
_LARGEST_FRAME = 4096  # bytes, a generous bound
_TAGS_BEHIND = 1024  # bytes
_FEW = 3  # so many more frames than counted do not matter
_BITRATES = {  # kbit/s by (MPEG 1, layer); index 0 in the file is a custom rate, which gives no frame length
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)  # hertz, of MPEG 1; MPEG 2 and 2.5 have half and a quarter of it


def _first_frame(file: BinaryIO) -> int | None:
    """Position of the first frame (ISO 11172-3, 13818-3) of a file, None if there are no frames near its start."""
    start = _after_tags(file)
    for begin in dict.fromkeys((start, 0)):  # the size of a tag may be wrong
        file.seek(begin)
        data = file.read(_SEARCHED + _CONSECUTIVE * _LARGEST_FRAME)
        at = data.find(b"\xff")
        while 0 <= at < _SEARCHED:
            if _frames_follow(data, at):
                return begin + at
            at = data.find(b"\xff", at + 1)
    return None


def readable_frames(file: BinaryIO, size: int) -> Slice | None:
    """The frames of a file of `size` bytes, with a correct count in the first; None if there are none.

    Xing and Info headers are laid out as in LAME and libmpg123: flags at 4 (1: frames, 2: bytes), then the counts.
    """
    start = _first_frame(file)
    if start is None:
        return None
    unchanged = Slice(file, start, size)
    file.seek(start)
    first = file.read(_LARGEST_FRAME)
    frame = _frame(first[:4])
    assert frame is not None
    length, (version, layer, _) = frame
    if layer != 3 or first[36:40] == b"VBRI":  # Fraunhofer's count, which libmpg123 trusts
        return unchanged
    mono = first[3] >> 6 == 3
    at = 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))  # after the side information
    if first[at : at + 4] in (b"Xing", b"Info") and first[at + 7] & 1:
        counted, covered = struct.unpack(">II", first[at + 8 : at + 16])
        if first[at + 7] & 2 and start + covered + _TAGS_BEHIND > size:  # a single file, whole or cut off
            return unchanged
        count = _count(file, start + length, size)
        if count <= counted + _FEW:
            return unchanged
        head = bytearray(first[:length])
        head[at + 8 : at + 12] = struct.pack(">I", count)
        return Slice(file, start + length, size, bytes(head))
    count = _count(file, start, size)
    if abs(count - (size - start) / length) <= _FEW + count / 100:  # constant bit rate: libmpg123's estimate is good
        return unchanged
    return Slice(file, start, size, _counting_frame(first[:4], at, count))


def _counting_frame(like: bytes, at: int, count: int) -> bytes:
    """A silent frame of the same kind as the one with the head `like`, with a Xing header for `count` frames."""
    head = bytes((0xFF, like[1] | 1, 0x90 | like[2] & 0x0C, like[3]))  # no checksum; a bit rate with enough room
    frame = _frame(head)
    assert frame is not None
    content = b"Xing" + struct.pack(">II", 1, count)
    return head + bytes(at - 4) + content + bytes(frame[0] - at - len(content))


def _count(file: BinaryIO, start: int, size: int) -> int:
    """The number of frames from `start` on; anything between them is skipped."""
    count, at, base, data = 0, start, start, b""  # `data` is a block of the file, from `base` on
    while at < size:
        if at + _SEARCHED > base + len(data) and base + len(data) < size:
            file.seek(at)
            base, data = at, file.read(_BLOCK)
            if not data:
                break
        frame = _frame(data[at - base : at - base + 4])
        if frame is not None:
            count += 1
            at += frame[0]
            continue
        # Not a frame: continue at the next run of frames, or if there is none, after the block.
        at = data.find(b"\xff", at - base + 1) + base
        while at >= base and not _frames_follow(data, at - base):
            at = data.find(b"\xff", at - base + 1) + base
        if at < base:
            at = base + len(data)
    return count


def _after_tags(file: BinaryIO) -> int:
    """The end of the ID3v2 tags (id3.org) at the start of a file."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(_TAG_HEAD)
        if len(head) < _TAG_HEAD or head[:3] != b"ID3":
            return at
        size = 0
        for byte in head[6:]:
            size = size << 7 | (byte & 0x7F)
        at += _TAG_HEAD + size + (_TAG_HEAD if head[5] & 0x10 else 0)  # flag: a footer follows


def _frames_follow(data: bytes, at: int) -> bool:
    kind = None
    for count in range(_CONSECUTIVE):
        if count > 1 and at >= len(data):  # a file of few frames
            return True
        frame = _frame(data[at : at + 4])
        if frame is None or kind not in (None, frame[1]):
            return False
        length, kind = frame
        at += length
    return True


@lru_cache(maxsize=1024)
def _frame(head: bytes) -> tuple[int, tuple[int, int, int]] | None:
    """Length in bytes and kind (version, layer, rate) of the frame with this head; None if it is not a frame's."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    bits = _BITRATES[version == 3, layer][bitrate - 1] * 1000
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    if layer == 1:
        length = (12 * bits // hertz + padding) * 4
    else:
        length = (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding
    return length, (version, layer, hertz)
