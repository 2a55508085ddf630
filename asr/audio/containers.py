"""Which decoder reads a file: told by its first bytes, never by its name. Used by read.py only."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from asr.audio.decoders import Decoder, PcmDecoder, SoundFileDecoder, Undecodable, open_wav, sequential_sound_file
from asr.audio.ffmpeg import FfmpegDecoder
from asr.audio.pcm import RawFormat
from asr.types import AudioError

_KINDS: tuple[tuple[int, bytes, str], ...] = (  # (position, magic bytes, what it is)
    (8, b"WAVE", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\xff\xf3", "mp3"),
    (0, b"\xff\xf2", "mp3"),
    (8, b"AIFF", "aiff"),
    (8, b"AIFC", "aiff"),
    (0, b".snd", "au"),
    (0, b"caff", "caf"),
    (0, b"NIST_1A", "sphere"),
    (4, b"ftyp", "m4a/mp4"),
    (0, b"\x1a\x45\xdf\xa3", "webm/matroska"),
    (0, b"\xff\xf1", "aac"),
    (0, b"\xff\xf9", "aac"),
    (0, b"#!AMR", "amr"),
    (0, b"\x30\x26\xb2\x75", "wma"),
    (8, b"AVI ", "avi"),
    (0, b"FLV", "flv"),
    (0, b"MAC ", "ape"),
    (0, b"wvpk", "wavpack"),
)
_READ_HERE = ("wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "sphere")
_NEVER_RAW = ("wav", "flac", "ogg")
_SHORT_MAGIC = ("", "mp3", "aac")  # may as well be the first sample of headerless audio
_INSTALL_FFMPEG = "install ffmpeg (apt install ffmpeg, brew install ffmpeg or conda install ffmpeg)"


def open_decoder(
    file: BinaryIO, size: int, label: str, path: Path | None, raw: RawFormat | None, stack: ExitStack
) -> Decoder:
    """A decoder for `file` of `size` bytes; `path` is where it lies on disk, if it does. `stack` owns what is made.

    Raises AudioError with `label` in it: what the file is, why it cannot be read, and what to do.
    """
    kind = _kind(file)
    if raw is not None:
        if kind in _NEVER_RAW:
            raise AudioError(f"{label}: this is {kind}, not headerless audio: leave the raw format out")
        return PcmDecoder(file, raw, 0, size)
    try:
        return _without_ffmpeg(file, size, kind)
    except Undecodable as error:
        reason = str(error)
    if kind in _SHORT_MAGIC and path is not None and path.suffix.lower() in (".raw", ".pcm"):
        raise AudioError(f"{label}: headerless audio: give its format (--raw-rate, --raw-encoding, --raw-byte-order)")
    if shutil.which("ffmpeg") is None:
        raise AudioError(f"{label}: {_advice(kind, reason)}")
    try:
        return FfmpegDecoder(path or _on_disk(file, stack))
    except Undecodable as error:
        reason = str(error) if kind not in _READ_HERE else f"{reason}; {error}"
    raise AudioError(f"{label}: {f'damaged or unsupported {kind}' if kind else 'not an audio file'} ({reason})")


def _without_ffmpeg(file: BinaryIO, size: int, kind: str) -> Decoder:
    try:
        sound_type = sequential_sound_file()
    except (ImportError, OSError) as error:  # soundfile, or the libsndfile that it loads, is not there
        if kind != "wav":
            raise Undecodable(f"soundfile is missing: pip install soundfile; {error}") from error
        return open_wav(file, size)
    decoder = SoundFileDecoder(file, sound_type, quiet=kind in ("mp3", ""))
    if kind == "wav" and decoder.info.frames == 0:  # perhaps only its size was never filled in
        plain = open_wav(file, size)
        if plain.info.frames:
            plain.warnings.append("its header gives no length (the recording was interrupted), read to the end")
        return plain
    return decoder


def _advice(kind: str, reason: str) -> str:
    """What a file is that soundfile did not read, and the ways out, on a machine without ffmpeg."""
    if kind in _READ_HERE or "pip install" in reason:
        return f"damaged or unsupported {kind or 'audio'} ({reason})"
    if kind:
        return f"{kind} audio needs the ffmpeg program: {_INSTALL_FFMPEG}, or convert the file to wav or flac"
    return (
        "not an audio file, or in a format not known here (wav, flac, ogg, opus, mp3, aiff, au, caf, sphere): "
        f"for others {_INSTALL_FFMPEG}, or convert the file to wav"
    )


def _kind(file: BinaryIO) -> str:
    file.seek(0)
    head = file.read(16)
    return next((kind for at, magic, kind in _KINDS if head[at : at + len(magic)] == magic), "")


def _on_disk(file: BinaryIO, stack: ExitStack) -> Path:
    """A copy on disk of what came as bytes: ffmpeg has to seek in most containers."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asr-"))
    path = Path(folder) / "audio"
    file.seek(0)
    with path.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    return path
