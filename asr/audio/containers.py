"""Which decoder reads a file: told by its first bytes, never by its name. Used by read.py only."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from asr.audio.decoders import Decoder, RawFormat, SoundFileDecoder, Undecodable, sequential_sound_file
from asr.audio.ffmpeg import FfmpegDecoder
from asr.audio.formats import FFMPEG, MP3, NEVER_RAW, SHORT_MAGIC, UNKNOWN, Format, format_of, how_to_convert
from asr.audio.headers import corrected, data_extent
from asr.audio.mpeg import readable
from asr.types import AudioError

_INSTALL_FFMPEG = "install ffmpeg (apt install ffmpeg, brew install ffmpeg or conda install ffmpeg)"


def open_decoder(
    file: BinaryIO, size: int, label: str, path: Path | None, raw: RawFormat | None, stack: ExitStack
) -> Decoder:
    """A decoder for `file` of `size` bytes; `path` is where it lies on disk, if it does. `stack` owns what is made.

    Raises AudioError with `label` in it: what the file is, why it cannot be read, and what to do.
    """
    kind = format_of(file)
    if raw is not None and kind.name in NEVER_RAW:
        raise AudioError(f"{label}: this is {kind.name}, not headerless audio: leave the raw format out")
    try:
        return _without_ffmpeg(file, size, kind, raw)
    except Undecodable as error:
        reason = str(error)
    if raw is not None:
        raise AudioError(f"{label}: cannot be read: {reason}")
    if kind.name in SHORT_MAGIC and path is not None and path.suffix.lower() in (".raw", ".pcm"):
        raise AudioError(f"{label}: headerless audio: give its format (--raw-rate, --raw-encoding, --raw-byte-order)")
    if shutil.which("ffmpeg") is None:
        raise AudioError(f"{label}: {_advice(kind, reason)}")
    try:
        return FfmpegDecoder(path or _on_disk(file, stack))
    except Undecodable as error:
        reason = str(error) if kind.convert or not kind.name else f"{reason}; {error}"
    if not kind.name:
        raise AudioError(f"{label}: not an audio file ({reason})")
    advice = f": {how_to_convert(kind)}" if kind.convert not in ("", FFMPEG) else ""
    raise AudioError(f"{label}: damaged or unsupported {kind.name} ({reason}){advice}")


def _without_ffmpeg(file: BinaryIO, size: int, kind: Format, raw: RawFormat | None) -> Decoder:
    sound_type = sequential_sound_file()
    if raw is not None:
        return SoundFileDecoder(file, sound_type, raw=raw)
    if kind in (MP3, UNKNOWN) and (frames := readable(file, size)) is not None:
        return SoundFileDecoder(frames, sound_type, quiet=True)
    extent = data_extent(file, size)
    shown = corrected(file, extent) if extent is not None and extent.misread else file
    try:
        decoder = SoundFileDecoder(shown, sound_type, quiet=kind in (MP3, UNKNOWN))
    except Undecodable:
        if extent is None or not extent.count:
            raise
        decoder = SoundFileDecoder(corrected(file, extent), sound_type)  # what follows the samples was the trouble
    if extent is None or not extent.count:
        return decoder
    seconds = decoder.info.duration
    if extent.unfinished:
        decoder.warnings.append("its header gives no length (the recording was interrupted), read to the end")
    if extent.promised is not None and extent.promised < extent.count:
        promised = seconds * extent.promised / extent.count
        decoder.warnings.append(
            f"its header speaks of {promised:.2f} s, but {seconds:.2f} s of samples are there: read to the end"
        )
    elif extent.promised is not None and extent.misread:
        decoder.promised_frames = round(decoder.info.frames * extent.promised / extent.count)
    if extent.another:
        decoder.warn_of_another()
    return decoder


def _advice(kind: Format, reason: str) -> str:
    """What a file is that soundfile did not read, and the ways out, on a machine without ffmpeg."""
    if (kind.name and not kind.convert) or "pip install" in reason:
        return f"damaged or unsupported {kind.name or 'audio'} ({reason})"
    if kind.convert == FFMPEG:
        return f"{kind.name} audio needs the ffmpeg program: {_INSTALL_FFMPEG}, or convert the file to wav or flac"
    if kind.name:
        return f"{kind.name} is not read here: {how_to_convert(kind)}"
    return (
        "not an audio file, or in a format not known here (wav, flac, ogg, opus, mp3, aiff, au, caf, sphere): "
        f"for others {_INSTALL_FFMPEG}, or convert the file to wav"
    )


def _on_disk(file: BinaryIO, stack: ExitStack) -> Path:
    """A copy on disk of what came as bytes: ffmpeg has to seek in most containers."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asr-"))
    path = Path(folder) / "audio"
    file.seek(0)
    with path.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    return path
