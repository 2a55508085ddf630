"""What a file is, told by its first bytes and never by its name, and what converts what is not read here."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

FFMPEG = "ffmpeg -i IN OUT.wav"
_HEAD = 1024  # bytes: a sphere file's header


class Format(NamedTuple):
    """`convert` is a command, or what else is to be done; "" for what libsndfile reads."""

    name: str
    convert: str = ""


UNKNOWN = Format("")
MP3 = Format("mp3")
WAV = Format("wav")
NEVER_RAW = ("wav", "flac", "ogg")  # their magic is no accident
_SPEEX = Format("speex", "speexdec IN OUT.wav")
_SHORTENED = Format("shortened sphere", "sph2pipe -f wav IN OUT.wav")
_ARCHIVE = "unpack it first"
_FORMATS: tuple[tuple[int, bytes, Format], ...] = (  # (position, magic bytes, what it is)
    (8, b"WAVE", WAV),
    (0, b"fLaC", Format("flac")),
    (0, b"OggS", Format("ogg")),
    (0, b"ID3", MP3),
    (8, b"AIFF", Format("aiff")),
    (8, b"AIFC", Format("aiff")),
    (0, b".snd", Format("au")),
    (0, b"dns.", Format("au")),
    (0, b"caff", Format("caf")),
    (0, b"riff\x2e\x91\xcf\x11", Format("w64")),
    (0, b"NIST_1A", Format("sphere")),
    (0, b"Creative Voice File", Format("voc")),
    (4, b"ftyp", Format("m4a/mp4", FFMPEG)),
    (4, b"moov", Format("quicktime", FFMPEG)),
    (0, b"\x1a\x45\xdf\xa3", Format("webm/matroska", FFMPEG)),
    (0, b"\xff\xf1", Format("aac", FFMPEG)),
    (0, b"\xff\xf9", Format("aac", FFMPEG)),
    (0, b"ADIF", Format("aac", FFMPEG)),
    (0, b"#!AMR-WB", Format("amr-wb", FFMPEG)),
    (0, b"#!AMR", Format("amr", FFMPEG)),
    (0, b"#!SILK_V3", Format("silk", "silk_v3_decoder IN OUT.pcm")),
    (1, b"#!SILK_V3", Format("silk", "silk_v3_decoder IN OUT.pcm")),  # as WeChat writes it
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("wma", FFMPEG)),
    (8, b"AVI ", Format("avi", FFMPEG)),
    (8, b"QLCM", Format("qcelp", FFMPEG)),
    (0, b"FLV", Format("flv", FFMPEG)),
    (0, b"\x00\x00\x01\xba", Format("mpeg", FFMPEG)),
    (0, b".ra\xfd", Format("realaudio", FFMPEG)),
    (0, b".RMF", Format("realaudio", FFMPEG)),
    (0, b"\x0b\x77", Format("ac3", FFMPEG)),
    (0, b"MAC ", Format("ape", FFMPEG)),
    (0, b"wvpk", Format("wavpack", FFMPEG)),
    (0, b"TTA1", Format("tta", FFMPEG)),
    (0, b"TTA2", Format("tta", FFMPEG)),
    (0, b"MPCK", Format("musepack", FFMPEG)),
    (0, b"MP+", Format("musepack", FFMPEG)),
    (0, b"DSD ", Format("dsf", FFMPEG)),
    (0, b"FRM8", Format("dff", FFMPEG)),
    (0, b"ajkg", Format("shorten", FFMPEG)),
    (0, b"OFR ", Format("optimfrog", "ofr --decode IN")),
    (1, b"dss", Format("dss", FFMPEG)),
    (1, b"ds2", Format("ds2", "the dictation software that came with the recorder")),
    (0, b"MThd", Format("midi", "a synthesizer: it holds notes, not sound")),
    (0, b"PK\x03\x04", Format("zip", _ARCHIVE)),
    (0, b"\x1f\x8b", Format("gzip", _ARCHIVE)),
    (0, b"BZh", Format("bzip2", _ARCHIVE)),
    (0, b"\xfd7zXZ\x00", Format("xz", _ARCHIVE)),
    (0, b"7z\xbc\xaf\x27\x1c", Format("7z", _ARCHIVE)),
    (0, b"version https://git-lfs", Format("git-lfs pointer", "git lfs pull, which fetches the recording itself")),
)
SHORT_MAGIC = ("", "mp3", "aac", "ac3", "gzip", "dss", "ds2")  # may as well be the first samples of headerless audio


def format_of(file: BinaryIO) -> Format:
    """The format that a file's first bytes tell; of none that is known here `UNKNOWN`."""
    file.seek(0)
    head = file.read(_HEAD)
    found = next((kind for at, magic, kind in _FORMATS if head.startswith(magic, at)), UNKNOWN)
    if found.name == "ogg" and head.startswith(b"Speex   ", 28):
        return _SPEEX
    if found.name == "sphere" and b"shorten" in head:
        return _SHORTENED
    if found is UNKNOWN and len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 6:
        return MP3  # a frame of MPEG audio, of any version and layer
    return found


def how_to_convert(kind: Format) -> str:
    """What to do about a file that is not read here."""
    if kind.convert == _ARCHIVE:
        return _ARCHIVE
    command = kind.convert or FFMPEG
    return f"convert it with `{command}`" if " IN" in command else f"it needs {command}"
