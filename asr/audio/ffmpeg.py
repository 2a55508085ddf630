"""The ffmpeg program as a decoder for containers that libsndfile does not know (m4a, webm). Used by read.py only."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asr.audio.decoders import AudioInfo, Decoder, SoundFileDecoder, Undecodable, sequential_sound_file
from asr.audio.headers import data_extent

_SEEK_BEYOND = 60.0  # seconds; a window that starts earlier is decoded from the start, which is exact
_PIPED = 1 << 20  # bytes taken from the pipe at once
_LEAD = 1.0  # seconds decoded before a window that is sought: lossy codecs need some packets to settle


class FfmpegDecoder(Decoder):
    """A recording in a file on disk. Raises Undecodable where ffmpeg is missing or finds no audio in it.

    Without ffprobe, which reads lengths, or for windows in the first minute, decoding starts at the beginning.
    """

    def __init__(self, path: Path) -> None:
        if shutil.which("ffmpeg") is None:
            raise Undecodable("ffmpeg is not installed")
        self.path = path
        self._whole: SoundFileDecoder | None = None
        info = _probe(path)
        if info is not None:
            super().__init__(info)
            self.tolerance = info.rate // 10  # containers count in packets and round
            return
        self._whole = self._decode()
        super().__init__(self._whole.info)
        self.warnings = self._whole.warnings

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        if self._whole is not None:
            yield from self._whole.blocks(start, stop)
            return
        rate = self.info.rate
        lead = round(_LEAD * rate) if start > _SEEK_BEYOND * rate else start
        seconds = None if stop is None else (stop - start + lead) / rate
        left = None if stop is None else stop - start
        for block in self._piped((start - lead) / rate, seconds):
            wanted = block[lead:] if left is None else block[lead : lead + left]
            lead = max(0, lead - len(block))
            left = None if left is None else left - len(wanted)
            if len(wanted):
                yield wanted

    def _piped(self, offset: float, seconds: float | None) -> Iterator[np.ndarray]:
        """Blocks as ffmpeg decodes them: hours of audio need no more memory than a block."""
        with tempfile.TemporaryFile() as complaints:
            try:
                process = subprocess.Popen(
                    self._command(offset, seconds), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
                )
            except OSError as error:
                raise Undecodable(f"ffmpeg cannot be started: {error.strerror or error}") from error
            with process:
                assert process.stdout is not None
                try:
                    data = process.stdout.read(_PIPED)
                    if data:
                        channels, start = _header(data)
                        data = data[start:]
                    while data:
                        whole = len(data) // (4 * channels) * 4 * channels
                        yield np.frombuffer(data[:whole], "<f4").reshape(-1, channels)
                        more = process.stdout.read(_PIPED)
                        data = data[whole:] + more if more else b""
                    status = process.wait()
                finally:
                    process.kill()  # where nobody wants the rest
            complaints.seek(0)
            self.warnings.extend(_remarks(status, _last_line(complaints.read())))

    def _decode(self) -> SoundFileDecoder:
        """All of it in memory, for where there is no ffprobe to tell its length."""
        done = _run(*self._command(0.0, None))
        complaint = _last_line(done.stderr)
        try:
            decoder = SoundFileDecoder(io.BytesIO(done.stdout), sequential_sound_file())
        except Undecodable as error:
            raise Undecodable(f"ffmpeg: {complaint or error}") from error
        decoder.warnings.extend(_remarks(done.returncode, complaint))
        return decoder

    def _command(self, offset: float, seconds: float | None) -> list[str]:
        window = ["-ss", f"{offset:.6f}"] if offset else []
        window += ["-t", f"{seconds:.6f}"] if seconds is not None else []
        # After a seek the first packets may give nothing: silence in their place keeps the time true to some ms.
        align = ["-af", "aresample=async=1:first_pts=0"] if offset else []
        output = ["-map", "a:0", *align, "-c:a", "pcm_f32le", "-f", "wav", "-"]
        return ["ffmpeg", "-v", "error", "-nostdin", *window, "-i", f"file:{self.path}", *output]


def _header(data: bytes) -> tuple[int, int]:
    """The number of channels of a WAV file, and where its samples begin; ffmpeg writes the format first."""
    extent = data_extent(io.BytesIO(data), len(data))
    channels = int.from_bytes(data[22:24], "little")
    if extent is None or not channels:
        raise Undecodable("ffmpeg: no WAV header")
    return channels, extent.start


def _remarks(status: int, complaint: str) -> list[str]:
    if not status and not complaint:
        return []
    return [f"ffmpeg: {complaint or f'exit status {status}'}; read as far as possible"]


def _probe(path: Path) -> AudioInfo | None:
    """What ffprobe (it comes with ffmpeg) reads from the header; None where it is missing or cannot say."""
    if shutil.which("ffprobe") is None:
        return None
    entries = "stream=sample_rate,channels,duration,codec_name:format=duration,format_name"
    done = _run(
        "ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", entries, "-of", "json", f"file:{path}"
    )
    try:
        found = json.loads(done.stdout)
        stream, container = found["streams"][0], found["format"]
        rate, channels = int(stream["sample_rate"]), int(stream["channels"])
        duration = float(stream.get("duration") or container["duration"])
        name, codec = str(container["format_name"]), str(stream["codec_name"])
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return AudioInfo(duration, rate, channels, round(duration * rate), name, codec) if rate > 0 else None


def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise Undecodable(f"{command[0]} cannot be started: {error.strerror or error}") from error


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return re.sub(r"^\[[^\]]* @ 0x[0-9a-f]+\]\s*", "", lines[-1]) if lines else ""
