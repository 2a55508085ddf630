"""Recordings inside tar files: `corpus/shard-03.tar:1536/KEY.flac` is the member with its header at byte 1536.

A member is found by one seek, without an index of the archive, and its name can be used wherever that of a file can.
The header (POSIX ustar) proves that the right bytes are there.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from asr.types import AudioError

_MEMBER = re.compile(r"(.*\.tar):(\d+)/([^/]+)", re.DOTALL)


class Member(NamedTuple):
    """The tar file, the position of the member's header in it (bytes), and the member's name."""

    tar: str
    position: int
    name: str


def member(path: str | Path) -> Member | None:
    """The member at a path of the form TAR:POSITION/NAME; None for the path of a file."""
    text = str(path)
    match = _MEMBER.fullmatch(text) if ".tar:" in text else None
    return Member(match[1], int(match[2]), match[3]) if match else None


def member_path(tar: str | Path, position: int, name: str) -> str:
    """The path of a member, the inverse of `member`."""
    return f"{tar}:{position}/{name}"


def file_of(path: str) -> str:
    """The file on disk with a recording: the tar file of a member, else the path itself."""
    inside = member(path)
    return inside.tar if inside else path


def read_member(file: BinaryIO, inside: Member) -> bytes:
    """The bytes of a member of the opened tar file. Raises AudioError if they are cut off or of another member."""
    file.seek(inside.position)
    header = file.read(tarfile.BLOCKSIZE)
    size = -1
    if len(header) == tarfile.BLOCKSIZE:
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            raise AudioError(f"{_place(inside)} there is no tar member there: {_REMEDY}") from None
        if info.name.rpartition("/")[2] != inside.name:
            raise AudioError(f"{_place(inside)} the tar member there is {info.name}: {_REMEDY}")
        size = info.size
    content = file.read(size) if size >= 0 else b""
    if len(content) != size:
        raise AudioError(f"{_place(inside)} the tar file is cut off before its end: fetch or write it again")
    return content


_REMEDY = "the manifest belongs to another version of the tar file"


def _place(inside: Member) -> str:
    return f"{inside.tar}: cannot read {inside.name} at byte {inside.position}:"
