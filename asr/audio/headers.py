"""How many bytes of samples a header promises, and how many a file really has.

Programs that write to a pipe never know the length, interrupted ones never write it, and 32-bit fields overflow.
libsndfile trusts a length that is too short. This module finds the true end of the samples, and gives libsndfile a view
of the file with a corrected header.
"""

from __future__ import annotations

import io
import os
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

_UNKNOWN_BYTES = 0x7EFF0000  # programs that write to a pipe give this length or more
_TAIL = 1 << 20  # bytes at the end that are searched for chunks after the samples
_BLOCK = 1 << 16
_LEAST_REST = 8  # fewer bytes after the samples cannot be a chunk and do not matter
# Chunks that often follow the samples. Others count only if their lengths lead exactly to the end of the file.
_COMMON_CHUNKS = re.compile(
    rb"LIST|id3 |ID3 |bext|cue |fact|smpl|iXML|_PMX|PEAK|JUNK|NAME|ANNO|AUTH|\(c\) |COMT|MARK|INST|APPL|info|PAD |afsp"
)
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # of mp3 files, but appended to others as well
_LARGEST_PAGE = 65307  # bytes of an Ogg page (RFC 3533)


class _Layout(NamedTuple):
    """The chunks of a file format: an identifier, a length in the given struct format, a body, padding."""

    magic: bytes
    form: tuple[int, bytes]  # position and value of the other required bytes of the header
    start: int  # position of the first chunk
    identifier: int  # bytes, the first four of which are a name
    length: str
    inclusive: bool  # whether a length includes identifier and length field
    padding: int  # chunks begin at multiples of it
    data: bytes  # name of the chunk with the samples
    lead: int  # bytes in that chunk before the samples

    @property
    def head(self) -> int:
        """Bytes of a chunk before its body."""
        return self.identifier + struct.calcsize(self.length)


_WAVE = (8, b"WAVE")
_LAYOUTS = (
    _Layout(b"RIFF", _WAVE, 12, 4, "<I", False, 2, b"data", 0),
    _Layout(b"RIFX", _WAVE, 12, 4, ">I", False, 2, b"data", 0),
    _Layout(b"RF64", _WAVE, 12, 4, "<I", False, 2, b"data", 0),  # EBU Tech 3306
    _Layout(b"BW64", _WAVE, 12, 4, "<I", False, 2, b"data", 0),  # ITU-R BS.2088
    _Layout(b"FORM", (8, b"AIF"), 12, 4, ">I", False, 2, b"SSND", 8),
    _Layout(b"caff", (4, b"\0\1"), 8, 4, ">q", False, 1, b"data", 4),
    _Layout(b"riff", (24, b"wave"), 40, 16, "<q", True, 8, b"data", 0),  # Sony Wave64
)


@dataclass
class Extent:
    """Where the samples of a file are, in bytes.

    `promised` is the length in the header, None if the program that wrote it could not know; `field` is the position of
    that length, its struct format, and its correct value. `misread`: libsndfile would read something else.
    """

    start: int
    end: int
    promised: int | None
    field: tuple[int, str, int]
    misread: bool
    unfinished: bool  # whether the length was never filled in
    another: bool  # whether another recording follows

    @property
    def count(self) -> int:
        return self.end - self.start


def data_extent(file: BinaryIO, size: int) -> Extent | None:
    """Where the samples of a chunked or Sun .au file of `size` bytes are; None for other files, or without samples."""
    head = _read_at(file, 0, 40)
    if head[:4] in (b".snd", b"dns.") and len(head) >= 24:
        order = ">" if head[:1] == b"." else "<"
        start, length = struct.unpack(f"{order}II", head[4:12])
        return _Walk(file, size, None).extent(start, length, 8, f"{order}I", 0) if 24 <= start < size else None
    for layout in _LAYOUTS:
        if head.startswith(layout.magic) and head.startswith(layout.form[1], layout.form[0]):
            return _Walk(file, size, layout).samples(layout)
    return None


def _read_at(file: BinaryIO, position: int, count: int = -1) -> bytes:
    file.seek(position)
    return file.read(count)


class _Walk:
    """Walks the chunks of a file of `size` bytes; without a layout it has none."""

    def __init__(self, file: BinaryIO, size: int, layout: _Layout | None) -> None:
        self.file, self.size, self.layout = file, size, layout
        self.magic = b"" if layout is None else layout.magic
        self.padding = 1 if layout is None else layout.padding

    def samples(self, layout: _Layout) -> Extent | None:
        at, wide = layout.start, None
        while (chunk := self._chunk(at)) is not None:
            name, body, length = chunk
            if name == layout.data:
                start = body + layout.lead
                if wide is not None and length == 0xFFFFFFFF:  # the 64-bit length of a ds64 chunk counts
                    [length] = struct.unpack("<Q", _read_at(self.file, wide, 8))
                    return self.extent(start, length or -1, wide, "<Q", 0)
                extra = layout.lead + layout.inclusive * layout.head
                return self.extent(start, length - layout.lead, at + layout.identifier, layout.length, extra)
            if name == b"ds64" and length >= 16:
                wide = body + 8
            if length < 0:
                return None
            at = body + length
            at += -at % layout.padding
        return None

    def extent(self, start: int, declared: int, field: int, form: str, extra: int) -> Extent:
        """The samples from `start` on, with their length, plus `extra` bytes, written at `field`."""
        limit = _UNKNOWN_BYTES if struct.calcsize(form) == 4 else 1 << 62
        unknown = declared < 0 or (declared >= limit and start + declared > self.size)
        if unknown or not declared:
            end = start if not unknown and self._chunks_follow(start) else self._end_of_samples(start)
        else:
            end = self._declared_end(start, declared)
        another = end < self.size and self._starts_another(end)
        # A length beyond the end of the file misleads libsndfile only in some formats.
        beyond = declared > end - start and end == self.size and self.magic not in (b"caff", b"riff")
        wrong = declared != end - start and not beyond
        return Extent(
            start,
            end,
            None if unknown or not declared else declared,
            (field, form, end - start + extra),
            misread=wrong or another or self.magic == b"BW64" or (self.magic == b"riff" and end < self.size),
            unfinished=not declared and end > start,
            another=another,
        )

    def _declared_end(self, start: int, declared: int) -> int:
        """The end of the samples by a declared length, unless more samples seem to follow."""
        if start + declared >= self.size:
            return self.size
        for end in range(start + declared, self.size, 1 << 32):  # a 32-bit length may have overflowed
            if self._no_samples(end):
                return end
        return self._end_of_samples(start)

    def _no_samples(self, at: int) -> bool:
        """Whether chunks, tags or padding follow, rather than samples."""
        if self.size - at < _LEAST_REST or _read_at(self.file, at, 16).startswith(_TAGS) or self._starts_another(at):
            return True
        if self._chunks_follow(at) or (at % self.padding and self._chunks_follow(at + 1)):
            return True
        self.file.seek(at)
        return all(block.count(0) == len(block) for block in iter(lambda: self.file.read(_BLOCK), b""))

    def _starts_another(self, at: int) -> bool:
        return self.magic in (b"RIFF", b"FORM") and _read_at(self.file, at, 4) == self.magic

    def _end_of_samples(self, start: int) -> int:
        """The start of common chunks that lead exactly to the end of the file, or else the end of the file."""
        first = max(start, self.size - _TAIL)
        for match in _COMMON_CHUNKS.finditer(_read_at(self.file, first)):
            if self._chunks_follow(first + match.start()):
                return first + match.start()
        return self.size

    def _chunks_follow(self, at: int) -> bool:
        """Whether only chunks follow up to the end of the file; the last, if it has a common name, may be cut off."""
        while (chunk := self._chunk(at)) is not None:
            name, body, length = chunk
            if length < 0 or not name.decode("latin-1").isprintable() or not name.isascii():
                return False
            if body + length > self.size:
                return _COMMON_CHUNKS.fullmatch(name) is not None
            at = body + length
            if at % self.padding:  # some programs forget to pad
                padded = at + -at % self.padding
                following = self._chunk(padded)
                at = padded if following is None or following[1] + following[2] <= self.size else at
        return self.layout is not None

    def _chunk(self, at: int) -> tuple[bytes, int, int] | None:
        """Name, start of the body and length of the chunk at a position; None at the end of the file."""
        layout = self.layout
        if layout is None or len(head := _read_at(self.file, at, layout.head)) < layout.head:
            return None
        [length] = struct.unpack(layout.length, head[layout.identifier :])
        return head[:4], at + layout.head, length - layout.inclusive * layout.head


def corrected(file: BinaryIO, extent: Extent) -> Slice:
    """The file with a corrected header, up to the end of its samples."""
    head = bytearray(_read_at(file, 0, extent.start))
    position, form, value = extent.field
    struct.pack_into(form, head, position, min(value, 2 ** (8 * struct.calcsize(form)) - 1))
    if head[:4] == b"BW64":
        head[:4] = b"RF64"  # known to libsndfile; it differs only in chunks that do not matter here
    if head[:4] == b"RIFF" and extent.count > 0xFFFFFFFF:
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, 0, extent.count, 0, 0)
        head = bytearray(b"RF64\xff\xff\xff\xffWAVE") + sizes + head[12:]
    return Slice(file, extent.start, extent.end, bytes(head))


class Slice(io.RawIOBase):
    """Bytes `start` to `end` of a file, after `head`, as a file of their own for libsndfile.

    It has no name, since libsndfile would trust a suffix, and a seek to before the start, which damaged files cause,
    keeps the position instead of raising.
    """

    def __init__(self, file: BinaryIO, start: int, end: int, head: bytes = b"") -> None:
        self.file, self.start, self.head = file, start, head
        self.size = len(head) + end - start
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        target = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = target if target >= 0 else self.position
        return self.position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self.size - self.position))
        data = self.head[self.position : self.position + count]
        if len(data) < count:
            self.file.seek(self.start + max(0, self.position - len(self.head)))
            data += self.file.read(count - len(data))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def ogg_is_cut(file: BinaryIO) -> bool:
    """Whether an Ogg file ends before or within the page that is marked as the last of its stream."""
    tail = _read_at(file, max(0, file.seek(0, os.SEEK_END) - 2 * _LARGEST_PAGE))
    start = tail.rfind(b"OggS")
    if start < 0 or len(tail) < start + 27:
        return True
    flags, segments = tail[start + 5], tail[start + 26]
    sizes = tail[start + 27 : start + 27 + segments]
    complete = len(sizes) == segments and len(tail) >= start + 27 + segments + sum(sizes)
    return not (complete and flags & 4)


def ogg_is_chained(file: BinaryIO) -> bool:
    """Whether another stream follows the first in an Ogg file, as when files are joined."""
    at, begun = 0, False
    while True:
        head = _read_at(file, at, 27)
        if len(head) < 27 or head[:4] != b"OggS":
            return False
        if head[5] & 2 and begun:  # a stream's first page, after pages that are not
            return True
        begun = begun or not head[5] & 2
        at += 27 + head[26] + sum(file.read(head[26]))
