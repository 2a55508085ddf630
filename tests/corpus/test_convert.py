"""Other people's formats: read, written, read again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.corpus.formats import read_corpus, source_kind, target_kind, write_corpus
from asr.corpus.kaldi import parse_entry
from asr.corpus.manifest import Manifest, Utterance
from asr.corpus.tables import Columns
from asr.text.normalize import normalize
from asr.types import AsrError, AudioError, ManifestError, UsageError

WriteAudio = Callable[..., Path]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture
def audio(tmp_path: Path, write_audio: WriteAudio) -> Path:
    """A folder with a.wav (1 s), b.wav (2 s) and c.wav (3 s)."""
    for seconds, name in enumerate("abc", start=1):
        write_audio(tmp_path / "wavs" / f"{name}.wav", float(seconds))
    return tmp_path / "wavs"


words = st.text("abc'\u00e9\u4f60", min_size=1, max_size=4)
sentences = st.lists(words, max_size=4).map(" ".join).map(lambda text: normalize(text, "none"))
awkward = st.text("ab \",;|\t'\u00e9", max_size=12).map(lambda text: normalize(text, "none"))
names = st.from_regex(r"[a-z][a-z0-9\-]{0,3}", fullmatch=True)


@st.composite
def corpora(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[Utterance]:
    ids = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    windows = draw(st.booleans())

    def one(name: str) -> Utterance:
        offset = draw(st.integers(0, 10**6)) / 1000 if windows else 0.0
        return Utterance(
            id=name,
            audio_filepath=f"/corpus/{draw(names)}/{draw(names)}.flac",
            duration=draw(st.integers(1, 10**5)) / 1000,
            text=draw(texts),
            offset=offset,
            speaker=draw(st.sampled_from(["", "ann", "bob"])),
            split=draw(st.sampled_from(["", "train"])),
            channel=draw(st.none() | st.integers(0, 3)),
            extra=draw(st.dictionaries(st.sampled_from(["lang", "age"]), words)),
            segment=windows,
        )

    return [one(name) for name in ids]


fixture_is_only_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@fixture_is_only_a_folder
@given(utterances=corpora(awkward))
def test_tables_round_trip(name: str, utterances: list[Utterance], tmp_path: Path) -> None:
    write_corpus(tmp_path / name, utterances)
    assert list(read_corpus(tmp_path / name)) == utterances


@fixture_is_only_a_folder
@given(utterances=corpora(sentences))
def test_kaldi_round_trip(utterances: list[Utterance], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("kaldi")
    expected = [replace(u, split="", extra={}) for u in utterances]
    if any(not u.segment for u in expected):
        expected = [replace(u, duration=1.0) for u in expected]  # Kaldi directories hold durations of segments only
        source = [replace(u, audio_filepath=str(folder / f"{u.id}.wav")) for u in expected]
        for u in source:
            write_silence(Path(u.audio_filepath))
        expected = source
    write_corpus(folder / "data", expected)
    got = list(read_corpus(folder / "data"))
    assert [replace(u, duration=round(u.duration, 6)) for u in got] == sorted(expected, key=lambda u: u.id)
    listed = (folder / "data" / "text").read_bytes().splitlines()
    assert listed == sorted(listed, key=lambda row: row.split(b" ")[0])


def write_silence(path: Path) -> None:
    import numpy as np
    import soundfile

    soundfile.write(path, np.zeros(8000, dtype=np.int16), 8000)


def test_kaldi_directory_by_hand(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    write(folder / "wav.scp", f"\ufeffu1 {audio}/a.wav\r\nu2\twavs/b.wav\r\n\r\n")
    write(folder / "text", "u2 cafe\u0301  two \r\nu1\r\n")
    write(folder / "utt2spk", "u1 u1\nu2 bob\n")
    monkeypatch.chdir(tmp_path)
    first, second = read_corpus(folder)
    assert (first.id, first.text, first.speaker, first.duration, first.window) == ("u1", "", "", 1.0, (0.0, None))
    assert (second.text, second.speaker, second.duration) == ("caf\u00e9 two", "bob", 2.0)
    write(folder / "segments", "u1 u2 0 0.5\nu2 u2 0.5 -1\n")
    first, second = read_corpus(folder)
    assert Path(first.audio_filepath) == Path(second.audio_filepath) == audio / "b.wav"
    assert (first.window, second.window) == ((0.0, 0.5), (0.5, 1.5))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav.scp": "u sox a.wav -t wav - speed 1.1 |"}, r"wav\.scp:1: 'sox a.wav .* speed 1.1 \|' is a command"),
        ({"utt2spk": "u ann x"}, r"utt2spk:1: unexpected third column 'x'"),
        ({"utt2spk": "u ann\nv ann"}, r"utt2spk:2: 'v' is in none of the other files"),
        ({"reco2file_and_channel": "u a"}, r"reco2file_and_channel:1: expected 'RECORDING FILE CHANNEL'"),
        ({"reco2file_and_channel": "v a A"}, r"reco2file_and_channel:1: recording 'v' is not in wav\.scp"),
        ({"reco2file_and_channel": "u a 1"}, r"reco2file_and_channel:1: channel '1' is ambiguous: write a letter"),
        ({"segments": "u u 0 1 left"}, r"segments:1: the channel 'left' is neither a letter nor a number"),
        ({"segments": "u u 0 1 0 x"}, r"segments:1: expected 'UTTERANCE RECORDING START END \[CHANNEL\]'"),
        ({"wav.scp": "u raw.ark:1234"}, r"wav\.scp:1: 'raw.ark:1234' is inside a Kaldi archive"),
        ({"wav.scp": "u a.wav\nu b.wav"}, r"wav\.scp:2: 'u' is already on line 1"),
        ({"wav.scp": "u"}, r"wav\.scp:1: 'u' has no value"),
        ({"text": "u x\nv y"}, r"text:2: utterance 'v' is not in .*wav\.scp"),
        ({"text": ""}, r"wav\.scp: utterance 'u' has no line in .*text"),
        ({"segments": "u u 0"}, r"segments:1: expected 'UTTERANCE RECORDING START END"),
        ({"segments": "u u x 1"}, r"segments:1: expected 'UTTERANCE RECORDING START END"),
        ({"segments": "u v 0 1"}, r"segments:1: recording 'v' is not in wav\.scp"),
        ({"segments": "u u 2 1"}, r"segments:1: the end \(1 s\) is not after the start \(2 s\)"),
    ],
)
def test_bad_kaldi_directories(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, content in {"wav.scp": "u a.wav", "text": "u hello", **files}.items():
        write(tmp_path / name, content)
    with pytest.raises(ManifestError, match=message) as caught:
        read_corpus(tmp_path, "kaldi")
    assert "\n" not in str(caught.value)


def test_kaldi_cannot_express_everything(tmp_path: Path) -> None:
    row = Utterance("a", "/a.wav", 1.0, "x", split="dev", extra={"lang": "de", "gender": "f", "age": 7})
    with pytest.raises(ManifestError, match="id cannot have spaces"):
        write_corpus(tmp_path / "k", [replace(row, id="a b")])
    assert write_corpus(tmp_path / "k", [row]) == ["age", "split"]
    assert (tmp_path / "k" / "utt2lang").read_text(encoding="utf-8") == "a de\n"


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """Two seconds of a call, a speaker on either channel."""
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "call.wav", np.zeros((16000, 2), dtype=np.int16), 8000)
    return tmp_path / "call.wav"


@pytest.mark.parametrize(
    ("files", "channels"),
    [
        ({"segments": "a c 0 1 0\nb c 0 1 1\n"}, [0, 1]),
        ({"segments": "a c 0 1 A\nb c 0 1 b\n"}, [0, 1]),
        ({"segments": "a c 0 1\nb c 0 1\n"}, [None, None]),
        ({"segments": "a c 0 1\nb c 0 1 0\n", "reco2file_and_channel": "c call B\n"}, [1, 0]),
        ({"reco2file_and_channel": "a call B\nb call A\n", "wav.scp": "a {}\nb {}\n"}, [1, 0]),
        ({"wav.scp": "a sox {} -t wav - remix 2 |\nb cat {} |\n"}, [1, None]),
        ({"wav.scp": "c sph2pipe -f wav -p -c 2 {} |\n", "segments": "a c 0 1\nb c 0 1 0\n"}, [1, 1]),
    ],
)
def test_kaldi_channels_are_used(call: Path, files: dict[str, str], channels: list[int | None]) -> None:
    """Columns and files of a Kaldi directory are used, never dropped in silence: here, who speaks on which channel."""
    folder = call.parent / "k"
    for name, content in {"wav.scp": "c {}\n", "text": "a one\nb two\n", **files}.items():
        write(folder / name, content.format(call, call))
    notes: list[str] = []
    rows = list(read_corpus(folder, notes=notes))
    assert [u.channel for u in rows] == channels and {u.audio_filepath for u in rows} == {str(call)}
    assert bool(notes) == (channels == [None, None]) and all("they will be mixed" in note for note in notes)
    write_corpus(folder / "again", rows)
    assert list(read_corpus(folder / "again")) == rows


def test_kaldi_channels_that_are_not_there_are_refused(call: Path) -> None:
    folder = call.parent / "k"
    for files, message in (
        ({"segments": "a c 0 1 2\n"}, r"segments:1: there is no channel '2': .*call\.wav has 2"),
        ({"segments": "a c 0 1 1\n", "wav.scp": f"c sox {call} -t wav - remix 1 |"}, r"segments:1: channel '1', but"),
    ):
        for name, content in {"wav.scp": f"c {call}\n", "text": "a one\n", **files}.items():
            write(folder / name, content)
        with pytest.raises(ManifestError, match=message):
            read_corpus(folder)


def test_kaldi_files_are_used_or_named(call: Path) -> None:
    files = {"wav.scp": f"a {call}", "text": "a x", "utt2spk": "a ann", "spk2utt": "ann a"}
    files |= {"spk2gender": "ann f", "utt2lang": "a de", "feats.scp": "a f.ark:1", "utt2dur": "a 2", "strange": ""}
    for name, content in files.items():
        write(call.parent / "k" / name, content)
    notes: list[str] = []
    [row] = read_corpus(call.parent / "k", notes=notes)
    assert (row.speaker, row.extra) == ("ann", {"gender": "f", "lang": "de"})
    assert notes == [f"{call.parent / 'k'}: not used: feats.scp, strange, utt2dur"]


@pytest.mark.parametrize(
    ("entry", "read"),
    [
        ("a b.wav", ("a b.wav", None)),
        ("flac -c -d -s x.flac |", ("x.flac", None)),
        ("/opt/bin/flac -cds x.flac|", ("x.flac", None)),
        ("sph2pipe -f wav -p -c 2 'a b.sph' |", ("a b.sph", 1)),
        ("sox -t mp3 x -t wav -b 16 - remix 3 |", ("x", 2)),
        ("flac x.flac |", None),
        ("sph2pipe -t 1:2 x.sph |", None),
        ("sox -v 0.5 x.wav -t wav - |", None),
        ("sox x.wav -r 8000 -t wav - |", None),
        ("sox x.wav -t wav - remix 1,2 |", None),
        ("sox x.wav -t wav - trim 1 2 |", None),
        ("cat x.wav y.wav |", None),
        ("cat x.wav | tee y |", None),
        ("ffmpeg -i x.mp3 -f wav - |", None),
        ("sox 'x.wav |", None),
        ("|", None),
        ("x.ark:12", None),
    ],
)
def test_commands_that_only_unpack_are_read_and_all_others_refused(
    entry: str, read: tuple[str, int | None] | None
) -> None:
    if read:
        assert parse_entry(entry, "wav.scp:1") == read
    else:
        with pytest.raises(ManifestError, match=r"^wav\.scp:1: "):
            parse_entry(entry, "wav.scp:1")


def test_kaldi_recordings_of_one_name_stay_apart(tmp_path: Path) -> None:
    rows = [
        Utterance(f"u{i}", f"/{folder}/a.wav", 1.0, "x", offset=float(i), segment=True)
        for i, folder in enumerate("xyx")
    ]
    write_corpus(tmp_path / "k", rows)
    assert list(read_corpus(tmp_path / "k")) == rows
    write_corpus(tmp_path / "k", [replace(rows[0], segment=False, offset=0.0)])
    assert not (tmp_path / "k" / "segments").exists()


@pytest.fixture
def librispeech(tmp_path: Path, write_audio: WriteAudio) -> Path:
    """LibriSpeech/dev-clean and test-clean, two speakers each, two utterances a chapter."""
    root = tmp_path / "LibriSpeech"
    for split, speaker in (("dev-clean", 84), ("dev-clean", 174), ("test-clean", 61), ("test-clean", 121)):
        chapter = root / split / str(speaker) / "7000"
        lines = []
        for i in range(2):
            name = f"{speaker}-7000-{i:04}"
            write_audio(chapter / f"{name}.flac", 1.0 + i, seed=speaker + i)
            lines.append(f"{name} THE {i} CAT'S HAT\n")
        write(chapter / f"{speaker}-7000.trans.txt", "".join(lines))
    return root


@pytest.mark.parametrize(
    ("below", "count"), [("", 8), ("dev-clean", 4), ("test-clean/61", 2), ("test-clean/61/7000", 2)]
)
def test_librispeech_folders(librispeech: Path, below: str, count: int) -> None:
    manifest = read_corpus(librispeech / below)
    assert len(manifest) == count
    last = manifest[-1]
    if below.startswith("test-clean/61"):
        audio = librispeech / "test-clean" / "61" / "7000" / "61-7000-0001.flac"
        assert last == Utterance("61-7000-0001", str(audio), 2.0, "THE 1 CAT'S HAT", speaker="61", split="test-clean")
    assert {u.split for u in manifest} <= {"dev-clean", "test-clean"}


def test_librispeech_with_missing_parts(librispeech: Path) -> None:
    chapter = librispeech / "test-clean" / "61" / "7000"
    audio = chapter / "61-7000-0001.flac"
    content = audio.read_bytes()
    audio.unlink()
    with pytest.raises(ManifestError, match=r"61-7000\.trans\.txt:2: no audio '61-7000-0001\.flac'"):
        read_corpus(librispeech)
    audio.write_bytes(content)
    write(chapter / "61-7000.trans.txt", "61-7000-0000 ONE\n")
    with pytest.raises(ManifestError, match=r"61-7000-0001\.flac: no line in 61-7000\.trans\.txt"):
        read_corpus(librispeech)
    (chapter / "61-7000.trans.txt").unlink()
    with pytest.raises(ManifestError, match=r"61-7000-000\d\.flac: no \*\.trans\.txt beside it"):
        read_corpus(librispeech)


def test_librispeech_in_linked_folders(librispeech: Path, tmp_path: Path) -> None:
    """Linked folders are folders: none is skipped in silence, none is read twice, and loops end."""
    chosen = tmp_path / "chosen"
    (chosen / "mine").mkdir(parents=True)
    (chosen / "mine" / "61").symlink_to(librispeech / "test-clean" / "61")
    (chosen / "again").symlink_to(librispeech / "test-clean" / "61")
    (chosen / "loop").symlink_to(chosen)
    [first, second] = read_corpus(chosen)
    assert (first.id, second.id, first.speaker) == ("61-7000-0000", "61-7000-0001", "61")
    (chosen / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"broken: a broken link"):
        read_corpus(chosen)


def test_csv_with_other_peoples_columns(audio: Path, tmp_path: Path) -> None:
    table = "wav_filename,wav_filesize,transcript\r\n" + f'wavs/a.wav,32044,"hello, ""you"""\r\n{audio}/b.wav,7,\r\n'
    first, second = read_corpus(write(tmp_path / "t.csv", "\ufeff" + table))
    assert (first.id, first.text, first.duration, first.extra) == ("a", 'hello, "you"', 1.0, {"wav_filesize": "32044"})
    assert Path(first.audio_filepath) == audio / "a.wav" and (second.text, second.duration) == ("", 2.0)


def test_named_columns_and_separators(audio: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "clip;What was said;who;nr\nwavs/a.wav;a, b;ann;7\nwavs/b.wav;c;bob;8\n")
    with pytest.raises(ManifestError, match=r"t\.csv:1: no column for the audio \(found: clip, .*--audio-column"):
        read_corpus(path)
    with pytest.raises(UsageError, match=r"t\.csv:1: no column 'clips' \(did you mean 'clip'\?\)"):
        read_corpus(path, columns=Columns(audio="clips"))
    columns = Columns(audio="clip", text="What was said", id="nr", speaker="who")
    assert [(u.id, u.text, u.speaker) for u in read_corpus(path, columns=columns)] == [
        ("7", "a, b", "ann"),
        ("8", "c", "bob"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "path,text\na.wav,x,y\n", r"t\.csv:2: 3 fields, but the header has 2"),
        ("t.csv", 'path,text\na.wav,"x\n', r"t\.csv: not a table"),
        ("t.csv", "path,path,text\n", r"t\.csv:1: two columns have the same name"),
        ("t.csv", "path,text,duration\na.wav,x,1\n\nb.wav,x,long\n", r"t\.csv:4: 'duration' must be a number"),
        ("t.csv", "path,text,duration\na.wav,x,-1\n", r"t\.csv:2: 'duration' is negative"),
        ("t.tsv", "path\ttext\tduration\n\tx\t1\n", r"t\.tsv:2: the row has no 'audio_filepath'"),
        ("t.csv", "path,text,id,duration\na.wav,x,1,1\nb.wav,x,1,1\n", r"t\.csv:3: the id '1' is already used in .*:2"),
        ("t.csv", "path,text\n", r"t\.csv: no utterances in it"),
        ("t.csv", "", r"t\.csv:1: no column for the audio"),
        ("t.json", '[{"audio_filepath": "a", "duration": 1, "text": "x"}, 3]', "value 2 is not a JSON object"),
        ("t.json", '[\n{"audio_filepath": }]', r"t\.json:2: not valid JSON"),
        ("t.jsonl", '\n{"audio_filepath": }', r"t\.jsonl:2: not valid JSON"),
        ("t.jsonl", '{"wave": "a", "text": "x"}', r"t\.jsonl:1: no column for the audio"),
    ],
)
def test_bad_tables(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AsrError, match=message) as caught:
        read_corpus(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_tables_in_other_encodings_are_refused(tmp_path: Path) -> None:
    for name in ("t.csv", "t.tsv", "t.jsonl"):
        with pytest.raises(AsrError, match="not UTF-8"):
            read_corpus(write(tmp_path / name, "path\ttext\na.wav\t\u00e9\n", "latin-1"))


def test_json_arrays_and_other_keys(audio: Path, tmp_path: Path) -> None:
    rows = [{"key": "x", "wav": "wavs/a.wav", "txt": "one"}, {"key": "y", "wav": "wavs/b.wav", "txt": "two"}]
    expected = [("x", str(audio / "a.wav"), "one", 1.0), ("y", str(audio / "b.wav"), "two", 2.0)]
    lines = "\n".join(map(json.dumps, rows))
    for name, content in (("t.json", json.dumps(rows, indent=1)), ("t.jsonl", lines)):
        got = read_corpus(write(tmp_path / name, content))
        assert [(u.id, u.audio_filepath, u.text, u.duration) for u in got] == expected


COMMON_VOICE = "client_id\tpath\tsentence\tup_votes\tage\n"


def test_common_voice(audio: Path, tmp_path: Path) -> None:
    audio.rename(tmp_path / "clips")
    rows = 'ann\ta.wav\t"""Quoted"" here"\t2\t\nbob\tb.wav\t"Go!" he said, "now"\t3\ttwenties\n'
    path = write(tmp_path / "dev.tsv", COMMON_VOICE + rows)
    assert source_kind(path) == "commonvoice"
    first, second = read_corpus(path)
    assert (first.id, first.text, first.speaker, first.split) == ("a", '"Quoted" here', "ann", "dev")
    assert Path(first.audio_filepath) == tmp_path / "clips" / "a.wav" and first.extra == {"up_votes": "2"}
    assert (second.text, second.extra) == ('"Go!" he said, "now"', {"up_votes": "3", "age": "twenties"})
    with pytest.raises(UsageError, match=r"give one of its tables \(dev\.tsv\)"):
        read_corpus(tmp_path)


def test_texts_are_normalized_by_name(audio: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "path,text\nwavs/a.wav,Cafe\u0301  Well-Known!\n")
    assert read_corpus(path)[0].text == "Caf\u00e9 Well-Known!"
    assert read_corpus(path, normalizer="basic")[0].text == "caf\u00e9 well known"


def test_unreadable_audio_stops_or_is_left_out_by_name(audio: Path, tmp_path: Path) -> None:
    write(audio / "bad.wav", "no audio")
    path = write(tmp_path / "t.csv", "path,text\nwavs/a.wav,x\nwavs/bad.wav,x\nwavs/gone.wav,x\nwavs/b.wav,x\n")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        read_corpus(path)
    unreadable: list[str] = []
    assert [u.id for u in read_corpus(path, unreadable=unreadable)] == ["a", "b"]
    assert [error.split(": ")[0].rpartition("/")[2] for error in unreadable] == ["bad.wav", "gone.wav"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("u.csv", "path,text\nwavs/gone.wav,x\nwavs/lost.wav,y\n"),
        ("u.tsv", "path\ttext\nwavs/gone.wav\tx\n"),
        ("u.jsonl", '{"path": "wavs/gone.wav", "text": "x"}\n'),
        ("clips.tsv", "client_id\tpath\tsentence\nann\twavs/gone.wav\tx\n"),
    ],
)
def test_where_all_audio_is_missing_the_first_path_and_its_folder_are_named(
    name: str, content: str, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=r"none of its audio can be read, the first is .*wavs/gone\.wav") as caught:
        read_corpus(write(tmp_path / name, content), unreadable=[])
    assert f"relative paths start at {tmp_path}{'/clips' * (name == 'clips.tsv')})" in str(caught.value)


def test_paths_meant_from_the_current_folder_are_told(
    audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "lists" / "u.csv", "path,text\nwavs/a.wav,x\n")
    with pytest.raises(ManifestError, match=r"lists; wavs/a\.wav is in the current folder: move the table there\)"):
        read_corpus(path, unreadable=[])
    notes: list[str] = []
    read_corpus(write(path, "path,text,duration\nwavs/a.wav,x,1\n"), notes=notes)
    assert len(notes) == 1 and f"none of its audio exists here, the first is {path.parent}/wavs/a.wav (rel" in notes[0]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("t.csv", ["path,text", "wavs/a.wav,one", "wavs/b.wav,two"]),
        ("t.tsv", ["path\ttext", "wavs/a.wav\tone", "wavs/b.wav\ttwo"]),
        ("t.jsonl", ['{"path": "wavs/a.wav", "text": "one"}', '{"path": "wavs/b.wav", "text": "two"}']),
    ],
)
def test_tables_with_any_line_end_plain_or_compressed(
    name: str, rows: list[str], end: str, audio: Path, tmp_path: Path
) -> None:
    content = end.join(rows).encode()
    (tmp_path / name).write_bytes(content)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        assert [(u.id, u.text, u.duration) for u in read_corpus(path)] == [("a", "one", 1.0), ("b", "two", 2.0)]


def test_a_table_that_comes_through_a_pipe_is_opened_once(
    audio: Path, tmp_path: Path, piped: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, content in (("csv", "path,text\nwavs/a.wav,x\n"), ("jsonl", '[{"path": "wavs/a.wav", "text": "x"}]')):
        [row] = read_corpus(piped(content.encode()), kind)
        assert row.text == "x" and row.audio_filepath == str(audio / "a.wav")


def test_columns_are_kept_or_named(audio: Path, tmp_path: Path) -> None:
    """No column is dropped in silence, that of a name which another column takes among them."""
    path = write(tmp_path / "t.csv", "path,text,clean,start,end\nwavs/a.wav,One!,one,0,1\n")
    notes: list[str] = []
    [row] = read_corpus(path, columns=Columns(text="clean"), notes=notes)
    assert row.text == "one" and row.extra == {"original_text": "One!", "start": "0", "end": "1"}
    assert notes == [f"{path}:1: start, end: not used: windows of a recording need 'offset' and 'duration' (seconds)"]
    lines = write(tmp_path / "t.jsonl", '{"path": "wavs/a.wav", "text": "One!", "clean": "one", "note": 7}')
    [row] = read_corpus(lines, columns=Columns(text="clean"))
    assert row.text == "one" and row.extra == {"original_text": "One!", "note": 7}


def cut(source: dict[str, Any], **changed: Any) -> dict[str, Any]:
    supervision = {"id": "s1", "recording_id": "r", "start": 0.5, "duration": 1.0, "channel": 1, "text": "hello"}
    recording = {"id": "r", "sources": [source], "sampling_rate": 8000, "num_samples": 16000, "duration": 2.0}
    window = {"id": "c", "start": 0.25, "duration": 1.5, "channel": 1, "type": "MonoCut", "recording": recording}
    return {**window, "supervisions": [{**supervision, "speaker": "ann", "language": "de"}], **changed}


def test_lhotse_cuts_are_read(call: Path) -> None:
    path = call.parent / "cuts.jsonl.gz"
    source = {"type": "file", "channels": [0, 1], "source": str(call)}
    rows = [cut(source), cut(source, id="silence", supervisions=[])]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    notes: list[str] = []
    [row] = read_corpus(path, notes=notes)
    expected = {"offset": 0.75, "speaker": "ann", "channel": 1, "extra": {"language": "de"}, "segment": True}
    assert row == Utterance("s1", str(call), 1.0, "hello", **expected)  # type: ignore[arg-type]
    assert notes == [f"{path}: left out: 1 cut without a supervision"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "s", "recording_id": "r", "start": 0, "duration": 1, "text": "x"}, "lhotse cut simple"),
        ({"id": "r", "sources": [{"type": "file"}], "duration": 1}, "lhotse cut simple"),
        (cut({"type": "url", "source": "x"}), "audio of type 'url'"),
        (cut({"type": "file", "source": "x"}, type="MixedCut"), "a lhotse MixedCut"),
        (cut({"type": "file", "source": "x", "channels": [0]}), r"channels \[1\] of \[0\]"),
    ],
)
def test_what_else_lhotse_writes_is_refused_by_name(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", json.dumps(row))
    with pytest.raises(ManifestError, match=rf"x\.jsonl:1: .*{message}"):
        read_corpus(path)
    with pytest.raises(ManifestError, match=r"x\.jsonl:1: the row has no 'audio_filepath' .* it is from lhotse"):
        Manifest.read(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "csv"), ("a.TSV", "tsv"), ("a.jsonl", "jsonl"), ("a.json", "jsonl"), ("folder", "kaldi")],
)
def test_targets_are_told_by_name(name: str, kind: str, tmp_path: Path) -> None:
    assert target_kind(tmp_path / name) == kind


def test_unclear_formats_ask_for_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --to jsonl"):
        target_kind(tmp_path / "a.xml")
    with pytest.raises(UsageError, match="give --from jsonl"):
        read_corpus(write(tmp_path / "a.txt", "x"))
    with pytest.raises(ManifestError, match="no such file or folder"):
        read_corpus(tmp_path / "nothing")
    with pytest.raises(UsageError, match="neither a Kaldi directory"):
        read_corpus(tmp_path)
    with pytest.raises(UsageError, match="--from kaldi needs a folder"):
        read_corpus(tmp_path / "a.txt", "kaldi")
    with pytest.raises(UsageError, match="unknown format 'xml'"):
        read_corpus(tmp_path / "a.txt", "xml")


def test_output_is_replaced_as_a_whole(tmp_path: Path) -> None:
    def broken() -> Iterator[Utterance]:
        yield Utterance("a", "/a.wav", 1.0, "x")

    for name in ("a.csv", "a.tsv", "a.jsonl", "k"):
        write_corpus(tmp_path / name, list(broken()))
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"a.csv", "a.tsv", "a.jsonl", "wav.scp", "text", "utt2spk", "spk2utt"}
