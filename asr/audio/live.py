"""Headerless audio that is still being recorded: samples from a pipe, as soon as they arrive."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from asr.audio.readers import BLOCK, AudioInfo, AudioReader, RawFormat


class LiveReader(AudioReader):
    """Raw samples from a file object that need not be seekable, such as a microphone's pipe; they are read once."""

    def __init__(self, file: BinaryIO, raw: RawFormat) -> None:
        super().__init__(AudioInfo(0.0, raw.rate, raw.channels, -1, "RAW", raw.encoding))
        self._file, self._raw = file, raw

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """All blocks `(frames, channels)` float32, of the sizes that arrive; `start` and `stop` are ignored."""
        import soundfile

        read = getattr(self._file, "read1", self._file.read)  # what is available, rather than a full block
        held = b""
        while data := read(BLOCK):
            held += data
            whole = len(held) - len(held) % self._raw.frame_bytes
            if whole:
                samples, _ = soundfile.read(
                    io.BytesIO(held[:whole]), dtype="float32", always_2d=True, **self._raw.soundfile_options()
                )
                held = held[whole:]
                yield samples
        if held:
            self.warnings.append(f"the last {len(held)} bytes do not make a whole frame: cut off, or of another format")
