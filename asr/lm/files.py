"""Other files of language models than ARPA: the binary format, and the decoding weights tuned for a model.

The binary has the arrays of the automaton as they are in memory, to be mapped. Layout: 8 bytes magic, uint32 version,
uint32 length of the header, uint32 CRC-32 of the header, the header (JSON: counts, size of the file, and for each array
its name, type, length, offset and BLAKE2b digest), the arrays at multiples of 64 bytes. Little-endian.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asr.files import Input, read_text, replacing, write_text
from asr.lm.tables import ARC, STATE, UNIGRAM, LMArrays, LMError, PackedWords
from asr.types import VERSION

MAGIC = b"\x89ASRLM\r\n"  # a byte above 127 and a line end, which reveal a transfer as text
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
_TYPE_NAMES = {name: str(dtype.descr if dtype.names else dtype.str) for name, dtype in _TYPES.items()}  # in the header
_CURE = "convert or fetch the language model again"


class BinaryLM(NamedTuple):
    """The content of a binary: words by id, the automaton, the n-gram length of its states, n-gram counts by order."""

    words: PackedWords
    arrays: LMArrays
    state_length: np.ndarray
    counts: tuple[int, ...]


def is_binary(file: Input) -> bool:
    """Whether an input begins like our binaries of any version."""
    return file.peek(len(MAGIC)).startswith(MAGIC)


def write_binary(path: str | Path, lm: BinaryLM) -> None:
    """Write a model atomically. Raises LMError."""
    words = {"word_offsets": lm.words.offsets, "word_block": lm.words.block}
    contents = {**lm.arrays._asdict(), "state_length": lm.state_length, **words}
    arrays = {name: np.ascontiguousarray(contents[name], dtype) for name, dtype in _TYPES.items()}
    placeholder = 10**15  # as long as any final number, so that the length of the header is known now
    entries: dict[str, dict[str, Any]] = {
        name: {"length": len(array), "type": _TYPE_NAMES[name], "offset": placeholder, "blake2b": _digest(array)}
        for name, array in arrays.items()
    }
    header = {"written_by": f"asr {VERSION}", "counts": list(lm.counts), "arrays": entries, "bytes": placeholder}
    at = _START.size + len(json.dumps(header))
    for name, array in arrays.items():
        entries[name]["offset"] = at = -(-at // _ALIGNMENT) * _ALIGNMENT
        header["bytes"] = at = at + array.nbytes

    with replacing(path, LMError) as partial, partial.open("wb") as file:
        encoded = json.dumps(header).encode()
        at = file.write(_START.pack(MAGIC, FORMAT_VERSION, len(encoded), zlib.crc32(encoded)) + encoded)
        for name, array in arrays.items():
            at += file.write(b"\0" * (entries[name]["offset"] - at))
            at += file.write(array.view(np.uint8).data if array.size else b"")


def read_binary(path: str | Path, file: Input, verify: bool = False) -> BinaryLM:
    """The contents of a binary opened by `asr.files`. Raises LMError.

    A file on disk is mapped, so that its arrays are read on first access; a pipe or gzipped file is read at once. The
    header's checksum and all sizes are always checked, and with `verify` the digests of the contents too, which reads
    all of it: compiled code does not check indices, so it must not get damaged arrays.
    """
    # Writable (private) memory: read-only arrays are another type to numba, which would compile everything again.
    data: mmap.mmap | bytearray
    if file.on_disk:
        with Path(path).open("rb") as mappable:
            data = mmap.mmap(mappable.fileno(), 0, access=mmap.ACCESS_COPY)
    else:
        data = bytearray(file.read())
    header = _header(path, memoryview(data))
    entries = header["arrays"]
    arrays = {
        name: np.frombuffer(data, dtype, count=entries[name]["length"], offset=entries[name]["offset"])
        for name, dtype in _TYPES.items()
    }
    _check_lengths(path, arrays)
    damaged = [name for name in arrays if verify and _digest(arrays[name]) != entries[name]["blake2b"]]
    if damaged:
        raise LMError(f"{path}: the contents are damaged ({', '.join(damaged)}): {_CURE}")
    automaton = LMArrays(*(arrays[name] for name in LMArrays._fields))
    words = PackedWords(arrays["word_block"], arrays["word_offsets"])
    return BinaryLM(words, automaton, arrays["state_length"], tuple(header["counts"]))


def _header(path: str | Path, data: memoryview) -> dict[str, Any]:
    damaged = LMError(f"{path}: the header is damaged: {_CURE}")
    if len(data) < _START.size:
        raise damaged
    _, version, length, checksum = _START.unpack(data[: _START.size])
    if version != FORMAT_VERSION:
        kind = "newer" if version > FORMAT_VERSION else "older"
        raise LMError(
            f"{path}: a binary language model of {kind} version {version}, but asr {VERSION} reads {FORMAT_VERSION}: "
            f"{'upgrade asr, or ' if version > FORMAT_VERSION else ''}convert the ARPA file again with this one"
        )
    if length > len(data):
        raise LMError(f"{path}: cut off within its header: {_CURE}")
    encoded = bytes(data[_START.size : _START.size + length])
    if len(encoded) < length or zlib.crc32(encoded) != checksum:
        raise damaged
    header: dict[str, Any] = json.loads(encoded)
    if header["bytes"] != len(data):
        raise LMError(f"{path}: {len(data):,} bytes, but {header['bytes']:,} were written: {_CURE}")
    if {name: entry["type"] for name, entry in header["arrays"].items()} != _TYPE_NAMES:
        raise damaged
    return header


def _check_lengths(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Check that the lengths agree, so that no index computed from one array is out of range in another."""
    words, slots, states = (len(arrays[name]) for name in ("unigram", "arc", "state"))
    agree = len(arrays["word_offsets"]) == words + 1 and len(arrays["state_length"]) == states
    if not agree or words < 3 or not slots or slots & (slots - 1) or not states:
        raise LMError(f"{path}: the arrays do not fit together: {_CURE}")


def _digest(array: np.ndarray) -> str:
    return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Tuned:
    """Decoding weights tuned for a language model: `alpha`, `beta`, `beam_width`; `details` say how."""

    alpha: float
    beta: float
    beam_width: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


def tuned_path(lm: str | Path) -> Path:
    """The file with the tuned weights of a language model, beside it."""
    return Path(f"{lm}.tuned.json")


def read_tuned(lm: str | Path) -> Tuned | None:
    """The weights stored beside a language model, None if there are none. Raises LMError if they are malformed."""
    path = tuned_path(lm)
    if not Path(lm).is_file() or not path.exists():  # nothing is stored beside a pipe
        return None
    cure = "run `asr lm tune` again or delete it"
    try:
        values = json.loads(read_text(path, LMError))
    except ValueError as error:
        raise LMError(f"{path}: not JSON ({error}): {cure}") from error
    try:
        width = values.get("beam_width") and int(values["beam_width"])
        tuned = Tuned(float(values["alpha"]), float(values["beta"]), width, dict(values.get("details") or {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LMError(f"{path}: alpha and beta expected: {cure}") from error
    wide_enough = tuned.beam_width is None or tuned.beam_width >= 1
    if not (math.isfinite(tuned.alpha) and math.isfinite(tuned.beta) and wide_enough):
        raise LMError(f"{path}: alpha, beta or beam_width out of range: {cure}")
    return tuned


def write_tuned(lm: str | Path, tuned: Tuned) -> None:
    """Store the weights beside a language model, replacing existing ones. Raises LMError."""
    write_text(tuned_path(lm), json.dumps(asdict(tuned), ensure_ascii=False, indent=1) + "\n", LMError, durable=True)
