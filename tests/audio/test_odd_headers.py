"""Kind: a header believed where the data say otherwise. Read by path, as bytes, as a stream and probed alike."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr.audio.headers import Slice, corrected, data_extent
from asr.audio.read import open_stream, probe, read
from asr.types import AudioError

Encode = Callable[..., bytes]
SHORT, UNFINISHED, CUT = "are there: read to the end", "(the recording was interrupted)", "truncated: the header"
LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf59.27.100\0"
# Where a file's length of samples stands behind the name of their chunk, in which format, and bytes counted with them.
FIELDS = {
    "WAV": (b"data", 4, "<I", 0),
    "WAVEX": (b"data", 4, "<I", 0),
    "RIFX": (b"data", 4, ">I", 0),
    "RF64": (b"ds64", 16, "<Q", 0),
    "AIFF": (b"SSND", 4, ">I", 8),
    "AU": (b".snd", 8, ">I", 0),
    "CAF": (b"data", 4, ">q", 4),
    "W64": (b"data", 16, "<q", 24),
}


def with_length(data: bytes, kind: str, length: int) -> bytes:
    name, at, form, more = FIELDS[kind]
    changed = bytearray(data)
    struct.pack_into(form, changed, changed.index(name) + at, length + more)
    return bytes(changed)


def encoded(encode: Encode, samples: np.ndarray, kind: str, subtype: str | None = "PCM_16") -> bytes:
    if kind != "RIFX":
        return encode(samples, kind, subtype)
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="WAV", subtype=subtype, endian="BIG")
    return buffer.getvalue()


def read_alike(data: bytes, folder: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Samples and warnings of a recording, checked to be the same however it is read."""
    path = folder / "recording"
    path.write_bytes(data)
    audio = read(path)
    for source in (data, io.BytesIO(data)):
        other = read(source)
        assert np.array_equal(other.samples, audio.samples) and other.warnings == audio.warnings
    with open_stream(path, rate=16000) as stream:
        assert np.array_equal(np.concatenate(list(stream)), audio.samples)
    assert (stream.duration, stream.warnings) == (audio.duration, audio.warnings)
    info = probe(path)
    assert info == probe(data)
    assert info.duration == pytest.approx(audio.duration, abs=0 if info.format != "MP3" else 0.2)
    return audio.samples, audio.warnings


@pytest.fixture(scope="module")
def odd(voice: np.ndarray, encode: Encode) -> dict[str, tuple[bytes, float, str]]:
    """Files, how many of their two seconds are to be read, and what is to be said of them."""
    files: dict[str, tuple[bytes, float, str]] = {}
    half, whole = len(voice), 2 * len(voice)  # bytes
    for kind in FIELDS:
        data = encoded(encode, voice, kind)
        files[f"{kind} as it should be"] = data, 2.0, ""
        files[f"{kind} half"] = with_length(data, kind, half), 2.0, SHORT
        files[f"{kind} odd"] = with_length(data, kind, half + 1), 2.0, SHORT
        files[f"{kind} cut"] = data[: len(data) - half], 1.0, CUT
        if kind not in ("CAF", "W64", "AU"):
            files[f"{kind} zero"] = with_length(data, kind, 0), 2.0, "" if kind == "RF64" else UNFINISHED
        if kind != "AU":
            form = FIELDS[kind][2].upper()
            behind = b"LIST" + bytes(12 if kind == "W64" else 0)
            length = 26 + (24 if kind == "W64" else 0)
            more = behind + struct.pack(form, length) + LIST[8:]
            files[f"{kind} with a chunk behind"] = data + more, 2.0, ""
            files[f"{kind} half with a chunk behind"] = with_length(data, kind, half) + more, 2.0, SHORT
    plain = encode(voice)
    files["AU zero"] = with_length(encode(voice, "AU"), "AU", 0), 2.0, UNFINISHED
    files["AU of a pipe"] = with_length(encode(voice, "AU"), "AU", 0xFFFFFFFF), 2.0, ""
    files["CAF of a pipe"] = with_length(encode(voice, "CAF"), "CAF", -5), 2.0, ""
    files["W64 of a pipe"] = with_length(encode(voice, "W64"), "W64", 2**63 - 25), 2.0, ""
    files["AIFF of a pipe"] = with_length(encode(voice, "AIFF"), "AIFF", 0x7F000000), 2.0, ""
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000):
        files[f"WAV of a pipe, {size:#x}"] = with_length(plain, "WAV", size), 2.0, ""
    files["WAV of a pipe with a chunk behind"] = with_length(plain, "WAV", 0xFFFFFFFF) + LIST, 2.0, ""
    files["WAV zero with a chunk behind"] = with_length(plain, "WAV", 0) + LIST, 2.0, UNFINISHED
    files["WAV with two chunks, one not padded"] = plain + b"note\3\0\0\0abc" + LIST, 2.0, ""
    files["WAV with a chunk that is cut"] = plain + LIST[:20], 2.0, ""
    files["WAV with an ID3v1 tag"] = plain + b"TAG" + bytes(125), 2.0, ""
    files["WAV filled with zeros"] = plain + bytes(5000), 2.0, ""
    files["WAV with five bytes more"] = plain + b"\1\2\3\4\5", 2.0, ""
    files["BW64"] = encode(voice, "RF64", "PCM_16").replace(b"RF64", b"BW64", 1), 2.0, ""
    files["two WAV files in one"] = plain + plain, 2.0, "another recording follows after 2.00 s"
    files["WAV half, all sizes"] = (
        b"RIFF" + struct.pack("<I", half + 36) + with_length(plain, "WAV", half)[8:],
        2,
        SHORT,
    )
    for subtype in ("ULAW", "ALAW"):
        law = encode(voice, "WAV", subtype)
        files[f"{subtype} zero"] = with_length(law, "WAV", 0), 2.0, UNFINISHED
        files[f"{subtype} half"] = with_length(law, "WAV", half // 2), 2.0, SHORT
        files[f"{subtype} AU zero"] = with_length(encode(voice, "AU", subtype), "AU", 0), 2.0, UNFINISHED
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        files[f"{subtype} zero"] = with_length(encode(voice, "WAV", subtype), "WAV", 0), 2.0, UNFINISHED
    odd_count = encode(voice[:-1], "WAV", "PCM_U8")
    files["WAV of an odd size, padded"] = odd_count + LIST, 2.0 - 1 / 16000, ""
    files["WAV of an odd size, not padded"] = odd_count[:-1] + LIST, 2.0 - 1 / 16000, ""
    assert whole == len(plain) - 44
    return files


def test_a_header_that_says_too_little_or_nothing(
    odd: dict[str, tuple[bytes, float, str]], tmp_path: Path, voice: np.ndarray
) -> None:
    found = {}
    for name, (data, seconds, said) in odd.items():
        try:
            samples, warnings = read_alike(data, tmp_path)
        except (AudioError, AssertionError) as error:
            found[name] = str(error).splitlines()[0]
            continue
        if len(samples) != round(seconds * 16000) or np.abs(samples - voice[: len(samples)]).max() > 0.02:
            found[name] = f"{len(samples)} samples, {warnings}"
        elif (len(warnings) != 1 or said not in warnings[0]) if said else warnings:
            found[name] = f"{warnings}"
    assert found == {}


def test_no_samples_behind_an_empty_chunk(encode: Encode, tmp_path: Path) -> None:
    for more in (b"", LIST, b"note\0\0\0\0"):
        with pytest.raises(AudioError, match="holds no samples"):
            read(encode(np.zeros(0, np.float32)) + more)


def test_a_length_that_wrapped_at_32_bits() -> None:
    """More than 4 GiB: libsndfile is shown a header with a length of 64 bits."""

    class Holes(io.RawIOBase):
        """A WAV file of 2^32 + 1000 bytes of samples, ones, and a chunk."""

        head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16) + b"data"
        head += struct.pack("<I", 1000)
        size = 44 + 2**32 + 1000 + len(LIST)
        at = 0

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset + {0: 0, 1: self.at, 2: self.size}[whence]
            return self.at

        def tell(self) -> int:
            return self.at

        def read(self, count: int = -1) -> bytes:
            stop = self.size if count < 0 else min(self.at + count, self.size)
            middle = bytes([1]) * max(0, min(stop, self.size - len(LIST)) - max(self.at, 44))
            rest = LIST[max(0, len(LIST) - (self.size - self.at)) :][
                : max(0, stop - max(self.at, self.size - len(LIST)))
            ]
            data, self.at = self.head[self.at : stop] + middle + rest, stop
            return data

    file = Holes()
    extent = data_extent(file, file.size)  # type: ignore[arg-type]
    assert extent is not None and (extent.count, extent.promised, extent.misread) == (2**32 + 1000, 1000, True)
    import soundfile

    shown = corrected(file, extent)  # type: ignore[arg-type]
    shown.write = lambda data: 0  # type: ignore[method-assign, assignment]
    assert soundfile.info(shown).frames == (2**32 + 1000) // 2


def test_slices_of_files() -> None:
    file = Slice(io.BytesIO(bytes(range(100))), 10, 20, b"head")  # type: ignore[arg-type]
    assert file.read() == b"head" + bytes(range(10, 20))
    assert (file.seek(-3, 2), file.read(10), file.tell(), file.read()) == (11, bytes((17, 18, 19)), 14, b"")
    assert (file.seek(2), file.read(4)) == (2, b"ad\x0a\x0b")
    assert (file.seek(-1), file.seek(-99, 1), file.seek(-99, 2)) == (6, 6, 6)  # before the start: where it was


def test_joined_ogg_files_are_told(voice: np.ndarray, encode: Encode, tmp_path: Path) -> None:
    for subtype in ("VORBIS", "OPUS"):
        one, other = encode(voice, "OGG", subtype), encode(voice[:8000], "OGG", subtype)
        for data in (one + one, one + other):
            samples, warnings = read_alike(data, tmp_path)
            assert len(samples) == len(voice) and "another recording follows after 2.00 s" in warnings[0]


class TestMp3:
    """Kind: the start of an mp3 file, or its bit rate there, taken for the whole of it."""

    @pytest.fixture(scope="class")
    def plain(self, voice: np.ndarray, encode: Encode) -> bytes:
        return encode(voice, "MP3")

    def test_what_lies_before_the_first_frame(self, plain: bytes, tmp_path: Path, voice: np.ndarray) -> None:
        def size(count: int) -> bytes:
            return bytes(count >> shift & 127 for shift in (21, 14, 7, 0))

        title = b"TIT2\0\0\0\4\0\0\0abc"
        tag = b"ID3\3\0\0" + size(len(title)) + title
        with_footer = b"ID3\4\0\x10" + size(len(title)) + title + b"3DI\4\0\x10" + size(len(title))
        noise = np.random.default_rng(3).bytes
        starts = {
            "tag": tag,
            "two tags": tag + tag,
            "tag with padding": b"ID3\3\0\0" + size(len(title) + 4096) + title + bytes(4096),
            "picture": b"ID3\3\0\0" + size(300_000) + noise(300_000),
            "zeros behind the tag": tag + bytes(100),
            "more of them": tag + bytes(2000),
            "zeros": bytes(2000),
            "footer": with_footer,
            "footer and zeros": with_footer + bytes(333),
            "noise": noise(3000),
            "a tag that is longer than it says": b"ID3\3\0\0" + size(4) + title,
            "a tag that says too much": b"ID3\3\0\0" + size(10_000_000) + title,
            "as far as libmpg123 looks": bytes(60_000),
        }
        expected = read(plain).samples
        for name, start in starts.items():
            for end in (b"", b"TAG" + bytes(125), b"APETAGEX" + bytes(200)):
                samples, warnings = read_alike(start + plain + end, tmp_path)
                assert warnings == (), name
                np.testing.assert_allclose(samples, expected, atol=1e-6, err_msg=name)

    def test_cut_in_a_frame(self, plain: bytes, tmp_path: Path, voice: np.ndarray) -> None:
        for cut in (700, 1001, 5000):
            samples, warnings = read_alike(plain[cut:], tmp_path)
            left = len(voice) * (1 - cut / len(plain))
            assert warnings == () and left - 4000 < len(samples) < left + 4000
            part = samples[8000:12000]
            at = int(np.argmax(np.correlate(voice, part, "valid")))
            assert np.corrcoef(part, voice[at : at + 4000])[0, 1] > 0.95

    def test_bit_rates_that_vary_without_a_count(self, voice: np.ndarray, encode: Encode, tmp_path: Path) -> None:
        """libmpg123 estimates the length from the first frame: reading ended there, after half or less."""
        faint = (1e-4 * np.random.default_rng(0).standard_normal(4 * len(voice))).astype(np.float32)
        data = encode(np.concatenate([np.tile(voice, 2), faint, voice]), "MP3")
        frame = data.index(b"\xff", 4)  # behind the frame that counts
        assert data[:frame].count(b"Xing") + data[:frame].count(b"Info") == 1
        samples, warnings = read_alike(data[frame:], tmp_path)
        assert warnings == () and abs(len(samples) - 7 * len(voice)) < 3000
        assert np.abs(samples[-25000:-5000]).max() > 0.1 > np.abs(samples[4 * len(voice) : 5 * len(voice)]).max()

    def test_joined_files(self, plain: bytes, voice: np.ndarray, tmp_path: Path) -> None:
        samples, warnings = read_alike(plain + plain + plain, tmp_path)
        assert warnings == () and abs(len(samples) - 3 * len(voice)) < 6000
        np.testing.assert_allclose(samples[:30000], read(plain).samples[:30000], atol=1e-6)


class TestRate:
    """Kind: a number in a header that no recording has."""

    @pytest.mark.parametrize("rate", [1, 999, 768_001, 0x7FFFFFFF])
    def test_absurd_rates_are_refused(self, encode: Encode, voice: np.ndarray, rate: int) -> None:
        data = bytearray(encode(voice))
        data[24:28] = struct.pack("<I", rate)
        for look in (read, probe):
            with pytest.raises(AudioError, match=f"bytes: a rate of {rate} Hz, outside the 1000 to 768000 Hz of audio"):
                look(bytes(data))
        with pytest.raises(AudioError, match="a rate of"), open_stream(bytes(data), rate=16000):
            pass

    @pytest.mark.parametrize("rate", [0, 0xFFFFFFFF])
    def test_rates_that_libsndfile_refuses(
        self, encode: Encode, voice: np.ndarray, rate: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "")
        data = bytearray(encode(voice))
        data[24:28] = struct.pack("<I", rate)
        with pytest.raises(AudioError, match="bytes: damaged or unsupported wav"):
            read(bytes(data))

    @pytest.mark.parametrize("rate", [1000, 4000, 384_000, 767_999, 768_000])
    def test_rates_of_instruments_are_read(self, encode: Encode, voice: np.ndarray, rate: int) -> None:
        audio = read(encode(voice, rate=rate))
        assert audio.source_rate == rate and len(audio.samples) == -(-len(voice) * 16000 // rate)
