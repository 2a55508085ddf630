"""Our binary form of a language model: the automaton's arrays as they lie in memory, opened by mapping the file.

Layout: 8 bytes magic, uint32 version, uint32 length of the header, uint32 CRC-32 of the header, the header (JSON:
counts, size of the file, and per array its name, type, length, offset and BLAKE2b digest), the arrays at multiples of
64 bytes. Little-endian.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asr.files import Input, replacing
from asr.lm.automaton import ARC, STATE, UNIGRAM, LMArrays
from asr.lm.tables import LMError, WordList
from asr.types import VERSION

MAGIC = b"\x89ASRLM\r\n"  # a byte above 127 and a line end, so that a transfer as text is noticed
FORMAT_VERSION = 2  # 1 had an array per field
_START = struct.Struct("<8sIII")
_ALIGNMENT = 64
_TYPES = {
    "unigram": UNIGRAM,
    "arc": ARC,
    "state": STATE,
    "state_length": np.dtype("<i1"),
    "word_offsets": np.dtype("<i8"),
    "word_block": np.dtype("<u1"),
}
_NAMES = {name: str(dtype.descr if dtype.names else dtype.str) for name, dtype in _TYPES.items()}  # in the header


class Binary(NamedTuple):
    """What a binary holds: the words by id, the automaton, the n-gram length of its states, n-grams by order."""

    words: WordList
    arrays: LMArrays
    state_length: np.ndarray
    counts: tuple[int, ...]


def is_binary(file: Input) -> bool:
    """Whether an input begins as our binaries do, of whatever version."""
    return file.peek(len(MAGIC)).startswith(MAGIC)


def write_binary(path: str | Path, lm: Binary) -> None:
    """Write a model so that it is never there by halves. Raises LMError."""
    words = lm.words
    arrays = lm.arrays._asdict() | {
        "state_length": lm.state_length,
        "word_offsets": words.offsets,
        "word_block": words.block,
    }
    arrays = {name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in _TYPES.items()}
    entries: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        entries[name] = {"length": len(array), "type": _NAMES[name], "offset": 10**15, "blake2b": _digest(array)}
    header = {"written_by": f"asr {VERSION}", "counts": list(lm.counts), "arrays": entries, "bytes": 10**15}
    at = _aligned(_START.size + len(_encoded(header)))  # the placeholders are as long as any number put there
    for name, array in arrays.items():
        entries[name]["offset"] = at
        header["bytes"] = at + array.nbytes
        at = _aligned(at + array.nbytes)

    with replacing(path, LMError) as partial, partial.open("wb") as file:
        encoded = _encoded(header)
        file.write(_START.pack(MAGIC, FORMAT_VERSION, len(encoded), zlib.crc32(encoded)) + encoded)
        at = _START.size + len(encoded)
        for name, array in arrays.items():
            file.write(b"\0" * (entries[name]["offset"] - at))
            file.write(array.view(np.uint8).data if array.size else b"")
            at = entries[name]["offset"] + array.nbytes


def read_binary(path: str | Path, file: Input, verify: bool = False) -> Binary:
    """The contents of a binary opened by `asr.files`. Raises LMError.

    Arrays of a file on the disk are read when they are first touched; a pipe and a packed file are read whole.
    The header's checksum and all sizes are compared always; with `verify` those of the contents too, which reads all of
    it: compiled code would go astray in damaged arrays.
    """
    header, arrays = _arrays(path, file)
    entries = header["arrays"]
    damaged = [name for name in arrays if verify and _digest(arrays[name]) != entries[name]["blake2b"]]
    if damaged:
        raise LMError(
            f"{path}: the contents are damaged ({', '.join(damaged)}): convert or fetch the language model again"
        )
    return Binary(
        WordList(arrays.pop("word_block"), arrays.pop("word_offsets")),
        LMArrays(**{name: arrays[name] for name in LMArrays._fields}),
        arrays["state_length"],
        tuple(header["counts"]),
    )


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()


def _arrays(path: str | Path, file: Input) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    # writable: compiled code takes read-only arrays for another type and is compiled again
    mapped: mmap.mmap | bytearray
    if file.on_disk:
        with Path(path).open("rb") as mappable:
            mapped = mmap.mmap(mappable.fileno(), 0, access=mmap.ACCESS_COPY)
    else:
        mapped = bytearray(file.read())
    header = _header(path, memoryview(mapped))
    arrays = {}
    for name, dtype in _TYPES.items():
        entry = header["arrays"][name]
        arrays[name] = np.frombuffer(mapped, dtype, count=entry["length"], offset=entry["offset"])
    _check_lengths(path, arrays)
    return header, arrays


def _header(path: str | Path, data: memoryview) -> dict[str, Any]:
    size, start = len(data), bytes(data[: _START.size])
    damaged = LMError(f"{path}: the header is damaged: convert or fetch the language model again")
    if len(start) < _START.size:
        raise damaged
    _, version, length, checksum = _START.unpack(start)
    if version != FORMAT_VERSION:
        kind = "newer" if version > FORMAT_VERSION else "older"
        raise LMError(
            f"{path}: a binary language model of {kind} version {version}, asr {VERSION} reads {FORMAT_VERSION}: "
            f"{'upgrade asr, or ' if version > FORMAT_VERSION else ''}convert the ARPA file again with this one"
        )
    if length > size:
        raise LMError(f"{path}: cut off within its header: convert or fetch the language model again")
    encoded = bytes(data[_START.size : _START.size + length])
    if len(encoded) < length or zlib.crc32(encoded) != checksum:
        raise damaged
    header: dict[str, Any] = json.loads(encoded)
    if header["bytes"] != size:
        raise LMError(
            f"{path}: {size:,} bytes where {header['bytes']:,} were written: convert or fetch the language model again"
        )
    if {name: entry["type"] for name, entry in header["arrays"].items()} != _NAMES:
        raise damaged
    return header


def _check_lengths(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """The lengths agree with one another, so that no index computed from one leaves another."""
    words, slots, states = (len(arrays[name]) for name in ("unigram", "arc", "state"))
    good = (
        len(arrays["word_offsets"]) - 1 == words and len(arrays["state_length"]) == states and slots & (slots - 1) == 0
    )
    if not good or words < 3 or not slots or not states:
        raise LMError(f"{path}: the arrays do not fit together: convert or fetch the language model again")


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT) * _ALIGNMENT


def _encoded(header: dict[str, Any]) -> bytes:
    return json.dumps(header).encode()
