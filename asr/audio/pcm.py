"""Uncompressed samples: headerless PCM of a given format, and the header of a WAV file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Literal, get_args

import numpy as np

from asr.types import ConfigError

Encoding = Literal["s8", "u8", "s16", "s24", "s32", "f32", "f64"]
ByteOrder = Literal["little", "big"]

_UNKNOWN_SIZE = 0x7FFFF000  # programs that write to a pipe put this or more where the size should stand
_ENCODINGS: dict[tuple[int, int], Encoding] = {  # by WAVE format tag (1 PCM, 3 IEEE float) and bits
    (1, 8): "u8",
    (1, 16): "s16",
    (1, 24): "s24",
    (1, 32): "s32",
    (3, 32): "f32",
    (3, 64): "f64",
}


@dataclass(frozen=True)
class RawFormat:
    """How headerless audio is stored: rate in hertz, interleaved channels, sample encoding and byte order."""

    rate: int
    channels: int = 1
    encoding: Encoding = "s16"
    byte_order: ByteOrder = "little"

    def __post_init__(self) -> None:
        if self.rate < 1:
            raise ConfigError(f"raw audio: the rate must be positive, found {self.rate}")
        if self.channels < 1:
            raise ConfigError(f"raw audio: at least 1 channel, found {self.channels}")
        if self.encoding not in get_args(Encoding):
            raise ConfigError(f"raw audio: encoding '{self.encoding}' is not one of {', '.join(get_args(Encoding))}")
        if self.byte_order not in get_args(ByteOrder):
            raise ConfigError(f"raw audio: byte order '{self.byte_order}' is neither little nor big")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.channels * int(self.encoding[1:]) // 8


@dataclass(frozen=True)
class WavHeader:
    """Where the samples of a WAV file lie. `promised_bytes` is what its header says, None where it cannot know."""

    layout: RawFormat
    data_offset: int
    data_bytes: int
    promised_bytes: int | None


def decode(data: bytes, layout: RawFormat) -> np.ndarray:
    """Whole frames of `data` as `(frames, channels)` float32, integers scaled to [-1, 1)."""
    data = data[: len(data) // layout.frame_bytes * layout.frame_bytes]
    kind, bits = layout.encoding[0], int(layout.encoding[1:])
    order = "<" if layout.byte_order == "little" else ">"
    if layout.encoding == "s24":
        padded = np.zeros((len(data) // 3, 4), dtype=np.uint8)  # as the upper three bytes of a 32-bit integer
        column = slice(1, 4) if layout.byte_order == "little" else slice(0, 3)
        padded[:, column] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
        samples = padded.view(f"{order}i4").astype(np.float32) / 2.0**31
    elif kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):  # not finite afterwards, which the reader reports
            samples = np.frombuffer(data, dtype=f"{order}f{bits // 8}").astype(np.float32)
    elif kind == "u":
        samples = (np.frombuffer(data, dtype=np.uint8).astype(np.float32) - 128.0) / 128.0
    else:
        samples = np.frombuffer(data, dtype=f"{order}i{bits // 8}").astype(np.float32) / 2.0 ** (bits - 1)
    return samples.reshape(-1, layout.channels)


def parse_wav(file: BinaryIO, size: int) -> WavHeader:
    """Read the chunks of a RIFF/WAVE `file` of `size` bytes up to its samples (Microsoft RIFF, EBU Tech 3306 RF64).

    Raises ValueError saying what is wrong: no such header, cut before its samples, or samples that are
    compressed.
    """
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise ValueError("no WAV header")
    layout: RawFormat | None = None
    wide_size: int | None = None
    while len(chunk := file.read(8)) == 8:
        name, length = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        start = file.tell()
        if name == b"fmt ":
            layout = _wav_layout(file.read(min(length, 40)))
        elif name == b"ds64":
            body = file.read(min(length, 24))
            wide_size = struct.unpack("<Q", body[8:16])[0] if len(body) >= 16 else None
        elif name == b"data":
            if layout is None:
                raise ValueError("the format chunk is missing")
            available = size - start
            if length == 0 and _looks_like_chunk(file.read(8), available):
                return WavHeader(layout, start, 0, 0)
            promised = length if 0 < length < _UNKNOWN_SIZE else wide_size
            usable = available if promised is None else min(available, promised)
            return WavHeader(layout, start, usable, promised)
        file.seek(start + length + length % 2)
    raise ValueError("it ends before its samples begin")


def _looks_like_chunk(head: bytes, available: int) -> bool:
    """Whether another chunk follows an empty one; else its size was never filled in, and samples follow."""
    return len(head) < 8 or (
        head[:4].decode("latin-1").isprintable() and struct.unpack("<I", head[4:])[0] <= available - 8
    )


def _wav_layout(body: bytes) -> RawFormat:
    if len(body) < 16:
        raise ValueError("its format chunk is cut off")
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
    if tag == 0xFFFE and len(body) >= 26:  # WAVE_FORMAT_EXTENSIBLE: the tag proper opens the sub-format
        tag = struct.unpack("<H", body[24:26])[0]
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None:
        raise ValueError(f"{bits}-bit samples of WAVE format {tag} need soundfile")
    if not channels or not rate:
        raise ValueError(f"its header says {channels} channels at {rate} Hz")
    return RawFormat(rate, channels, encoding)
