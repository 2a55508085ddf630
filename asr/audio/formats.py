"""Opening recordings: detects the format by the first bytes, never by the name, and selects the reader."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from asr.audio.headers import Slice, corrected, data_extent, ogg_is_chained, ogg_is_cut
from asr.audio.members import member, read_member
from asr.audio.mpeg import readable_frames
from asr.audio.readers import AudioReader, FfmpegReader, RawFormat, SoundFileReader, Undecodable
from asr.types import AudioError

File = str | Path | bytes | BinaryIO
Source = File | tuple[np.ndarray, int]

_FFMPEG = "ffmpeg"
_UNPACK = "unpack it first"
_INSTALL_FFMPEG = "install ffmpeg (apt install ffmpeg, brew install ffmpeg or conda install ffmpeg)"
_HEAD = 1024  # bytes, the size of a sphere header


class Format(NamedTuple):
    """A file format; `magic` is a regular expression for its first bytes.

    `remedy` says what to do about a file that libsndfile does not read, or is _FFMPEG if the ffmpeg program reads it.
    """

    name: str
    magic: bytes
    remedy: str = ""


_UNKNOWN = Format("", b"")
_NEVER_RAW = ("wav", "flac", "ogg")  # their magic is too long to occur in headerless audio by chance
_FORMATS = (
    Format("wav", rb".{8}WAVE"),
    Format("flac", rb"fLaC"),
    Format("speex", rb"OggS.{24}Speex   ", "convert it with `speexdec IN OUT.wav`"),
    Format("ogg", rb"OggS"),
    Format("aiff", rb".{8}AIF[FC]"),
    Format("au", rb"\.snd|dns\."),
    Format("caf", rb"caff"),
    Format("w64", rb"riff\x2e\x91\xcf\x11"),
    Format("shortened sphere", rb"NIST_1A.*shorten", "convert it with `sph2pipe -f wav IN OUT.wav`"),
    Format("sphere", rb"NIST_1A"),
    Format("voc", rb"Creative Voice File"),
    Format("m4a/mp4", rb".{4}ftyp", _FFMPEG),
    Format("quicktime", rb".{4}moov", _FFMPEG),
    Format("webm/matroska", rb"\x1a\x45\xdf\xa3", _FFMPEG),
    Format("aac", rb"\xff[\xf1\xf9]|ADIF", _FFMPEG),
    Format("mp3", rb"ID3|\xff[\xe2-\xe7\xea-\xef\xf2-\xf7\xfa-\xff]"),  # a tag, or a frame of any version and layer
    Format("amr-wb", rb"#!AMR-WB", _FFMPEG),
    Format("amr", rb"#!AMR", _FFMPEG),
    Format("silk", rb".?#!SILK_V3", "convert it with `silk_v3_decoder IN OUT.pcm`"),  # WeChat puts a byte before it
    Format("wma", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _FFMPEG),
    Format("avi", rb".{8}AVI ", _FFMPEG),
    Format("qcelp", rb".{8}QLCM", _FFMPEG),
    Format("flv", rb"FLV", _FFMPEG),
    Format("mpeg", rb"\x00\x00\x01\xba", _FFMPEG),
    Format("realaudio", rb"\.ra\xfd|\.RMF", _FFMPEG),
    Format("ac3", rb"\x0b\x77", _FFMPEG),
    Format("ape", rb"MAC ", _FFMPEG),
    Format("wavpack", rb"wvpk", _FFMPEG),
    Format("tta", rb"TTA[12]", _FFMPEG),
    Format("musepack", rb"MPCK|MP\+", _FFMPEG),
    Format("dsf", rb"DSD ", _FFMPEG),
    Format("dff", rb"FRM8", _FFMPEG),
    Format("shorten", rb"ajkg", _FFMPEG),
    Format("optimfrog", rb"OFR ", "convert it with `ofr --decode IN`"),
    Format("dss", rb".dss", _FFMPEG),
    Format("ds2", rb".ds2", "it needs the dictation software that came with the recorder"),
    Format("midi", rb"MThd", "it needs a synthesizer: it holds notes, not sound"),
    Format("zip", rb"PK\x03\x04", _UNPACK),
    Format("gzip", rb"\x1f\x8b", _UNPACK),
    Format("bzip2", rb"BZh", _UNPACK),
    Format("xz", rb"\xfd7zXZ\x00", _UNPACK),
    Format("tar", rb".{257}ustar", f"{_UNPACK}, or name the manifest beside it if 'asr data shard' wrote it"),
    Format("7z", rb"7z\xbc\xaf\x27\x1c", _UNPACK),
    Format("git-lfs pointer", rb"version https://git-lfs", "it needs git lfs pull, which fetches the recording itself"),
)
_SHORT_MAGIC = ("", "mp3", "aac", "ac3", "gzip", "dss", "ds2")  # could also be the first samples of headerless audio


def open_file(source: File, name: str | None, stack: ExitStack) -> tuple[BinaryIO, str, Path | None]:
    """A seekable binary file, its name for messages, and its path if it is on disk (not inside a tar file)."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source), name or "bytes", None
    if isinstance(source, str | os.PathLike):
        if inside := member(os.fspath(source)):
            file = stack.enter_context(_open_path(Path(inside.tar), inside.tar))
            return io.BytesIO(read_member(file, inside)), name or str(source), None
        path = Path(source)
        label = name or str(source)
        file = stack.enter_context(_open_path(path, label))
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file, label, path
        return io.BytesIO(file.read()), label, None  # a named pipe, /dev/stdin
    if not hasattr(source, "read"):
        raise TypeError(f"expected a path, bytes or a binary file, found {type(source).__name__}; arrays: from_array")
    given = getattr(source, "name", None)
    label = name or (given if isinstance(given, str) else "stream")
    try:
        if isinstance(source, io.TextIOBase):
            raise AudioError(f"{label}: opened as text: open it with mode 'rb' (standard input: sys.stdin.buffer)")
        if hasattr(source, "seekable") and source.seekable():
            return source, label, None
        return io.BytesIO(source.read()), label, None
    except (OSError, ValueError) as error:  # ValueError: closed
        raise AudioError(f"{label}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _open_path(path: Path, label: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        link = " (a broken link)" if path.is_symlink() else ""
        raise AudioError(f"{label}: no such file{link}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, IsADirectoryError) or (isinstance(error, PermissionError) and path.is_dir()):  # Windows
            raise AudioError(f"{label}: is a folder, not a recording") from error
        if isinstance(error, PermissionError):
            raise AudioError(f"{label}: no permission to read it") from error
        raise AudioError(f"{label}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def open_reader(
    file: BinaryIO, size: int, label: str, path: Path | None, raw: RawFormat | None, stack: ExitStack
) -> AudioReader:
    """A reader for `file` of `size` bytes, at `path` if it is on disk. `stack` owns temporary files.

    Raises AudioError, beginning with `label`: what the file is, why it cannot be read, and what to do.
    """
    file.seek(0)
    head = file.read(_HEAD)
    kind = next((kind for kind in _FORMATS if re.match(kind.magic, head, re.DOTALL)), _UNKNOWN)
    if raw is not None and kind.name in _NEVER_RAW:
        raise AudioError(f"{label}: this is {kind.name}, not headerless audio: leave the raw format out")
    try:
        return _sound_file_reader(file, size, kind.name, head, raw)
    except Undecodable as error:
        reason = str(error)
    if raw is not None:
        raise AudioError(f"{label}: cannot be read: {reason}")
    if kind.name in _SHORT_MAGIC and path is not None and path.suffix.lower() in (".raw", ".pcm"):
        raise AudioError(f"{label}: headerless audio: give its format (--raw-rate, --raw-encoding, --raw-byte-order)")
    if shutil.which("ffmpeg") is None:
        raise AudioError(f"{label}: {_advice(kind, reason)}")
    try:
        return FfmpegReader(path or _on_disk(file, stack))
    except Undecodable as error:
        reason = str(error) if kind.remedy or not kind.name else f"{reason}; {error}"
    if not kind.name:
        raise AudioError(f"{label}: not an audio file ({reason})")
    advice = f": {kind.remedy}" if kind.remedy not in ("", _FFMPEG) else ""
    raise AudioError(f"{label}: damaged or unsupported {kind.name} ({reason}){advice}")


def _sound_file_reader(file: BinaryIO, size: int, kind: str, head: bytes, raw: RawFormat | None) -> SoundFileReader:
    """libsndfile on a file, or on a corrected view of it; warns if the header gives a wrong length."""
    whole = Slice(file, 0, size)
    if raw is not None:
        return SoundFileReader(whole, raw=raw)
    if kind in ("mp3", ""):
        return SoundFileReader(readable_frames(file, size) or whole, quiet=True)
    extent = data_extent(file, size)
    try:
        reader = SoundFileReader(corrected(file, extent) if extent is not None and extent.misread else whole)
    except Undecodable:
        if extent is None or not extent.count:
            raise
        reader = SoundFileReader(corrected(file, extent))  # the cause may be what follows the samples
    if kind == "ogg" and ogg_is_cut(file):
        reader.warnings.append("truncated: the stream has no proper end, read up to its last whole page")
    if kind == "ogg" and ogg_is_chained(file):
        reader.warn_of_another()
    if kind == "sphere" and (count := re.search(rb"sample_count -i (\d+)", head)):
        reader.promised_frames = int(count[1])
    if extent is None or not extent.count:
        return reader
    if extent.unfinished:
        reader.warnings.append("its header gives no length (the recording was interrupted), read to the end")
    if extent.promised is not None and extent.promised < extent.count:
        seconds = reader.info.duration
        promised = seconds * extent.promised / extent.count
        reader.warnings.append(
            f"its header promises {promised:.2f} s, but {seconds:.2f} s of samples are there: read to the end"
        )
    elif extent.promised is not None:
        reader.promised_frames = round(reader.info.frames * extent.promised / extent.count)
    if extent.another:
        reader.warn_of_another()
    return reader


def _advice(kind: Format, reason: str) -> str:
    """What a file that soundfile cannot read is, and what to do on a machine without ffmpeg."""
    if (kind.name and not kind.remedy) or "pip install" in reason:
        return f"damaged or unsupported {kind.name or 'audio'} ({reason})"
    if kind.remedy == _FFMPEG:
        return f"{kind.name} audio needs the ffmpeg program: {_INSTALL_FFMPEG}, or convert the file to wav or flac"
    if kind.name:
        return f"{kind.name} is not read here: {kind.remedy}"
    return (
        "not an audio file, or in a format not known here (wav, flac, ogg, opus, mp3, aiff, au, caf, sphere): "
        f"for others {_INSTALL_FFMPEG}, or convert the file to wav"
    )


def _on_disk(file: BinaryIO, stack: ExitStack) -> Path:
    """A copy on disk of a file given as bytes, because ffmpeg has to seek in most containers."""
    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="asr-"))) / "audio"
    file.seek(0)
    with path.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    return path
