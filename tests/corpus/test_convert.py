"""Other people's formats: read, written, read again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.corpus.convert import read_corpus, source_kind, target_kind, write_corpus
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
def corpora(draw: st.DrawFn, texts: st.SearchStrategy[str], plain: bool = False) -> list[Utterance]:
    ids = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    windows = draw(st.booleans()) and not plain

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
            channel=None if plain else draw(st.none() | st.integers(0, 3)),
            extra={} if plain else draw(st.dictionaries(st.sampled_from(["lang", "age"]), words)),
            segment=windows,
        )

    return [one(name) for name in ids]


fixture_is_only_a_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
@fixture_is_only_a_folder
@given(utterances=corpora(awkward))
def test_tables_round_trip(name: str, utterances: list[Utterance], tmp_path: Path) -> None:
    write_corpus(tmp_path / name, Manifest.from_utterances(utterances))
    assert list(read_corpus(tmp_path / name)) == utterances


@fixture_is_only_a_folder
@given(utterances=corpora(sentences))
def test_kaldi_round_trip(utterances: list[Utterance], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("kaldi")
    expected = [replace(u, split="", extra={}, channel=None) for u in utterances]
    if any(not u.segment for u in expected):
        expected = [replace(u, duration=1.0) for u in expected]  # Kaldi directories hold durations of segments only
        source = [replace(u, audio_filepath=str(folder / f"{u.id}.wav")) for u in expected]
        for u in source:
            write_silence(Path(u.audio_filepath))
        expected = source
    write_corpus(folder / "data", Manifest.from_utterances(expected))
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
        ({"wav.scp": "u sph2pipe -f wav x.sph |"}, r"wav\.scp:1: 'sph2pipe -f wav x.sph \|' is a command"),
        ({"wav.scp": "u raw.ark:1234"}, r"wav\.scp:1: 'raw.ark:1234' lies inside a Kaldi archive"),
        ({"wav.scp": "u a.wav\nu b.wav"}, r"wav\.scp:2: 'u' is already on line 1"),
        ({"wav.scp": "u"}, r"wav\.scp:1: 'u' stands alone"),
        ({"text": "u x\nv y"}, r"text:2: utterance 'v' is not in .*wav\.scp"),
        ({"text": ""}, r"wav\.scp: utterance 'u' has no line in .*text"),
        ({"segments": "u u 0"}, r"segments:1: expected 'UTTERANCE RECORDING START END'"),
        ({"segments": "u u x 1"}, r"segments:1: expected 'UTTERANCE RECORDING START END'"),
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
    for bad, message in (({"id": "a b"}, "id cannot hold spaces"), ({"channel": 0}, "split the audio first")):
        row = replace(Utterance("a", "/a.wav", 1.0, "x"), **bad)  # type: ignore[arg-type]
        with pytest.raises(ManifestError, match=message):
            write_corpus(tmp_path / "k", Manifest.from_utterances([row]))


def test_kaldi_recordings_of_one_name_stay_apart(tmp_path: Path) -> None:
    rows = [
        Utterance(f"u{i}", f"/{folder}/a.wav", 1.0, "x", offset=float(i), segment=True)
        for i, folder in enumerate("xyx")
    ]
    write_corpus(tmp_path / "k", Manifest.from_utterances(rows))
    assert list(read_corpus(tmp_path / "k")) == rows
    write_corpus(tmp_path / "k", Manifest.from_utterances([replace(rows[0], segment=False, offset=0.0)]))
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
        ("t.csv", "path,text\na.wav,x,y\n", r"t\.csv:2: 3 fields, the header has 2"),
        ("t.csv", 'path,text\na.wav,"x\n', r"t\.csv: not a table"),
        ("t.csv", "path,path,text\n", r"t\.csv:1: a column name stands twice"),
        ("t.csv", "path,text,duration\na.wav,x,1\n\nb.wav,x,long\n", r"t\.csv:4: 'duration' must be a number"),
        ("t.csv", "path,text,duration\na.wav,x,-1\n", r"t\.csv:2: 'duration' is negative"),
        ("t.tsv", "path\ttext\tduration\n\tx\t1\n", r"t\.tsv:2: the row has no 'audio_filepath'"),
        ("t.csv", "path,text,id,duration\na.wav,x,1,1\nb.wav,x,1,1\n", r"t\.csv:3: the id '1' is that of .*:2"),
        ("t.csv", "path,text\n", r"t\.csv: holds no utterances"),
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
    with pytest.raises(UsageError, match=r"name one of its tables \(dev\.tsv\)"):
        read_corpus(tmp_path)


@fixture_is_only_a_folder
@given(utterances=corpora(awkward, plain=True))
def test_common_voice_round_trip(utterances: list[Utterance], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("cv")
    (folder / "clips").mkdir()
    placed = [
        replace(u, audio_filepath=str(folder / "clips" / f"{u.id}.wav"), duration=1.0, split="train")
        for u in utterances
    ]
    for u in placed:
        write_silence(Path(u.audio_filepath))
    write_corpus(folder / "train.tsv", Manifest.from_utterances(placed), "commonvoice")
    header, first, *_ = (folder / "train.tsv").read_text(encoding="utf-8").split("\n")
    assert header == "client_id\tpath\tsentence" and first.split("\t")[1] == f"{placed[0].id}.wav"
    assert list(read_corpus(folder / "train.tsv")) == placed


def test_common_voice_has_whole_files_only(tmp_path: Path) -> None:
    segment = Utterance("a", "/a.wav", 1.0, "x", offset=2.0, segment=True)
    with pytest.raises(ManifestError, match="whole files only"):
        write_corpus(tmp_path / "t.tsv", Manifest.from_utterances([segment]), "commonvoice")


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
    with pytest.raises(ManifestError, match="none of its audio can be read"):
        read_corpus(write(tmp_path / "u.csv", "path,text\nwavs/gone.wav,x\n"), unreadable=[])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "csv"), ("a.TSV", "tsv"), ("a.jsonl", "jsonl"), ("a.json", "jsonl"), ("folder", "kaldi")],
)
def test_targets_are_told_by_name(name: str, kind: str, tmp_path: Path) -> None:
    assert target_kind(tmp_path / name) == kind


def test_unclear_formats_ask_for_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say --to jsonl"):
        target_kind(tmp_path / "a.xml")
    with pytest.raises(UsageError, match="say --from jsonl"):
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
        write_corpus(tmp_path / name, Manifest.from_utterances(broken()))
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"a.csv", "a.tsv", "a.jsonl", "wav.scp", "text", "utt2spk", "spk2utt"}
