"""Manifests: what is accepted, what is refused and how it is said, ids, paths, selections, and a million rows."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.corpus.manifest import Manifest, Utterance, repeats, write_manifest
from asr.types import ManifestError

ROW = {"audio_filepath": "a.wav", "duration": 1.5, "text": "hello"}
WriteAudio = Callable[..., Path]


def line(**changes: Any) -> str:
    row = {**ROW, **changes}
    return json.dumps({key: value for key, value in row.items() if value is not ...}, ensure_ascii=False)


def write(path: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"audio_filepath": "a.wav"}]', ":1: this is a JSON array, .* run 'asr data convert FILE NEW.jsonl'"),
        ('[\n{"audio_filepath": "a.wav"}\n]', ":1: this is a JSON array"),
        (
            line() + '\n{"audio_filepath": "a.wav"',
            r":2: not valid JSON \(.* column \d+\): .*one whole JSON object per line",
        ),
        ('{\n "audio_filepath": "a.wav"\n}', ":1: not valid JSON"),
        ("path,text\na.wav,x", ":1: not JSON .*'asr data convert' makes manifests from CSV"),
        ("17", ":1: 17 is not a JSON object"),
        ("null", ":1: null is not a JSON object"),
        (line() + "\n\n" + line(audio_filepath=...), r":3: the row has no 'audio_filepath' \(it has: duration, text\)"),
        (line(audio_filepath=7), ":1: 'audio_filepath' must be a string, found 7"),
        (line(audio_filepath=" "), ":1: 'audio_filepath' is empty"),
        (line(text=...), ":1: the row has no 'text' .*: add it"),
        (line(text=None), ":1: the row has no 'text'"),
        (line(text=["a"]), r""":1: 'text' must be a string, found \["a"\]"""),
        (line(duration="3"), """:1: 'duration' must be a number of seconds, found "3\""""),
        (line(duration=True), ":1: 'duration' must be a number"),
        (line(duration=-0.5), r":1: 'duration' is negative \(-0.5 s\): leave it out to have it read"),
        (line(duration=float("nan")), ":1: 'duration' is not a finite number"),
        (line(duration=10**400), ":1: 'duration' is not a finite number"),
        (line(offset=-1), ":1: 'offset' is negative"),
        (line(offset="0"), ":1: 'offset' must be a number"),
        (line(channel=-1), ":1: 'channel' must be a number from 0 up, found -1"),
        (line(channel="left"), """:1: 'channel' must be a number from 0 up, found "left\""""),
        (line(id=""), ":1: 'id' is \"\": give a printable name, or leave the key out"),
        (line(id="a\tb"), ":1: 'id' is .*printable"),
        (line(id=["a"]), ":1: 'id' must be a string"),
        (line(speaker=1.5), ":1: 'speaker' must be a string, found 1.5"),
        (line(split=3), ":1: 'split' must be a string, found 3"),
        ('{"audio_filepath": "a", "duration": 1, "text": "\\ud800"}', ":1: 'text' has half a surrogate pair"),
        (line(id="a") + "\n\n" + line(id="a"), r":3: the id 'a' is already used in .*\.jsonl:1"),
        (line(duration=..., audio_filepath="gone.wav"), r":1: the row has no 'duration' .*gone\.wav"),
        ("[" * 100_000, ":1: "),
        ("", "the manifest has no rows"),
        ("\n\r\n  \n", "the manifest has no rows"),
    ],
)
def test_bad_manifest_is_one_line_with_file_line_and_remedy(content: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.jsonl", content)
    with pytest.raises(ManifestError, match=message) as caught:
        Manifest.read(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "latin-1"])
def test_other_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", line(text="\u00e9"), encoding=encoding)
    with pytest.raises(ManifestError, match=r"m\.jsonl:1: not UTF-8.*: save the file as UTF-8"):
        Manifest.read(path)


def test_missing_manifest_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.jsonl: cannot be read: No such file"):
        Manifest.read(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match=r"a folder, not a manifest: .*asr data convert"):
        Manifest.read(tmp_path)
    with pytest.raises(ManifestError, match="no manifest given"):
        Manifest.read([])


def test_mark_crlf_blank_lines_and_no_final_newline(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(f"\ufeff{line(id='a')}\r\n\r\n  \r\n{line(id='b', text='')}\r\n{line(id='c')}".encode())
    manifest = Manifest.read(path)
    assert [u.id for u in manifest] == ["a", "b", "c"]
    assert [manifest.where(i).rpartition(":")[2] for i in range(3)] == ["1", "4", "5"]


def test_fields_and_defaults(tmp_path: Path) -> None:
    everything = line(id=7, offset=0, speaker=103, split="dev", channel=1, lang="de", pred=[1, {"a": None}])
    path = write(tmp_path / "m.jsonl", everything, line(id="b", offset=None, speaker=None, channel=None))
    first, second = Manifest.read(path)
    extra = {"lang": "de", "pred": [1, {"a": None}]}
    audio = str(tmp_path / "a.wav")
    assert first == Utterance("7", audio, 1.5, "hello", 0.0, "103", "dev", 1, extra, segment=True)
    assert second == Utterance("b", audio, 1.5, "hello")
    assert first.window == (0.0, 1.5)  # offset 0 is a window too: a recording may be an hour long
    assert second.window == (0.0, None)


def test_paths_are_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    rows = [line(id=str(i), audio_filepath=p) for i, p in enumerate(["x/a.wav", "../b.wav", "/abs/c.wav", "~/d.wav"])]
    write(tmp_path / "sub" / "m.jsonl", *rows)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    manifest = Manifest.read("sub/m.jsonl")
    monkeypatch.chdir("/")
    sub = tmp_path / "sub"
    expected = [f"{sub}/x/a.wav", f"{sub}/../b.wav", "/abs/c.wav", "/home/me/d.wav"]
    assert [u.audio_filepath for u in manifest] == expected


def test_text_may_be_missing_where_it_is_not_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", line(text=...))
    assert Manifest.read(path, require_text=False)[0].text == ""


def test_missing_durations_are_read_from_the_audio(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio(tmp_path / "a.wav", 1.234)
    rows = [line(id="whole", duration=...), line(id="rest", duration=None, offset=0.5), line(id="said", duration=9)]
    path = write(tmp_path / "m.jsonl", *rows)
    manifest = pickle.loads(pickle.dumps(Manifest.read(path)))
    assert [u.duration for u in manifest] == pytest.approx([1.234, 0.734, 9.0], abs=1e-12)
    assert manifest.durations == pytest.approx([1.234, 0.734, 9.0])
    assert [u.duration for u in manifest.select([1, 0])] == pytest.approx([0.734, 1.234], abs=1e-12)
    write(path, line(duration=..., offset=5))
    with pytest.raises(ManifestError, match=r":1: .*the offset 5 s is after its end \(1.234 s\)"):
        Manifest.read(path)


def test_ids_are_made_from_file_names_then_paths_then_numbers(tmp_path: Path) -> None:
    rows = [
        line(audio_filepath="x/one two.wav"),
        line(audio_filepath="x/same.wav"),
        line(audio_filepath="y/same.wav"),
        line(audio_filepath="y/same.wav"),
        line(audio_filepath="long.wav", offset=1.25),
        line(audio_filepath="long.wav", offset=2),
        line(audio_filepath="long.wav", channel=1),
        line(id="x/same"),
    ]
    manifest = Manifest.read(write(tmp_path / "m.jsonl", *rows))
    ids = [u.id for u in manifest]
    assert ids == ["one_two", "x/same~2", "y/same", "y/same~2", "long@1.250", "long@2.000", "long#1", "x/same"]
    assert [u.id for u in manifest.select([3, 1])] == ["y/same~2", "x/same~2"]
    assert [u.id for u in Manifest.read(write(tmp_path / "m.jsonl", *rows))] == ids


@given(names=st.lists(st.sampled_from(["a", "x/a", "y/a", "b", "x/b"]), min_size=1, max_size=12))
def test_made_ids_are_always_unique(names: list[str]) -> None:
    rows: list[dict[str, Any]] = [{**ROW, "audio_filepath": f"{name}.wav"} for name in names]
    ids = [u.id for u in Manifest.from_rows(rows, "")]
    assert len(set(ids)) == len(ids)


def test_several_manifests_are_one(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one = write(tmp_path / "one.jsonl", line(id="a"), line(id="b", duration=2))
    two = write(tmp_path / "sub" / "two.jsonl", line(id="c", duration=3))
    both = Manifest.read([one, two])
    assert [(u.id, u.audio_filepath) for u in both][2] == ("c", str(tmp_path / "sub" / "a.wav"))
    assert both.durations.tolist() == [1.5, 2.0, 3.0] and both.durations.dtype == np.float32
    assert both.path == f"{one}, {two}"
    write(two, line(id="c"), line(id="a"))
    with pytest.raises(ManifestError, match=r"two\.jsonl:2: the id 'a' is already used in .*one\.jsonl:1"):
        Manifest.read([one, two])


def test_bad_rows_can_be_collected(tmp_path: Path) -> None:
    rows = [line(id="a"), "{", line(id="b"), line(id="a"), line(duration=-1), line(id="c", text="last")]
    bad: list[ManifestError] = []
    manifest = Manifest.read(write(tmp_path / "m.jsonl", *rows), bad_rows=bad)
    assert [u.id for u in manifest] == ["a", "b", "c"] and manifest[2].text == "last"
    assert sorted(str(error).split(":")[1] for error in bad) == ["2", "4", "5"]
    with pytest.raises(ManifestError, match=":1: not valid JSON"):
        Manifest.read(write(tmp_path / "m.jsonl", "{", "{"), bad_rows=[])


def test_a_manifest_is_a_sequence(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", *(line(id=f"u{i}", duration=i) for i in range(5)))
    manifest = Manifest.read(path)
    assert len(manifest) == 5 and manifest[-1].id == "u4"
    assert [u.id for u in manifest[1:4:2]] == ["u1", "u3"]
    assert [u.id for u in reversed(manifest)] == ["u4", "u3", "u2", "u1", "u0"]
    for index in (5, -6):
        with pytest.raises(IndexError):
            manifest[index]


def test_selections_nest_and_have_their_own_hash(tmp_path: Path) -> None:
    manifest = Manifest.read(write(tmp_path / "m.jsonl", *(line(id=f"u{i}", duration=i) for i in range(6))))
    chosen = manifest.select([4, 1, 3])
    assert [u.id for u in chosen] == ["u4", "u1", "u3"] and chosen.durations.tolist() == [4, 1, 3]
    assert [u.id for u in chosen.select(np.array([True, False, True]))] == ["u4", "u3"]
    assert chosen.where(0).endswith(":5")
    assert chosen.sha256 == manifest.select([4, 1, 3]).sha256 != manifest.select([1, 4, 3]).sha256
    assert len(manifest.select([])) == 0


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = write(tmp_path / "m.jsonl", line(), "", end="\r\n")
    assert Manifest.read(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_manifest_that_changes_in_use_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", line(), line(audio_filepath="b.wav"))
    manifest = Manifest.read(path)
    stored = pickle.dumps(manifest)
    with path.open("a", encoding="utf-8") as file:
        file.write(line(audio_filepath="c.wav") + "\n")
    for stale in (manifest, pickle.loads(stored)):
        with pytest.raises(ManifestError, match="changed while in use"):
            stale[1]
    path.unlink()
    with pytest.raises(ManifestError, match="cannot be read"):
        pickle.loads(stored)[0]


def test_a_replaced_manifest_stays_readable_where_it_is_open(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", line(text="old"))
    manifest = Manifest.read(path)
    write_manifest(path, [Utterance("x", "a.wav", 1.0, "new")])
    assert manifest[0].text == "old" and Manifest.read(path)[0].text == "new"


def test_a_pipe_is_held_in_memory(tmp_path: Path, piped: Callable[[bytes], Path], monkeypatch: Any) -> None:
    """A pipe is opened once; it has no folder, so that relative paths start at the current one."""
    monkeypatch.chdir(tmp_path)
    manifest = Manifest.read(piped(f"{line(id='a')}\n{line(id='b')}".encode()))
    assert [u.id for u in pickle.loads(pickle.dumps(manifest))] == ["a", "b"]
    assert manifest[0].audio_filepath == str(tmp_path / "a.wav")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_compressed_manifests_and_lone_carriage_returns(end: str, tmp_path: Path) -> None:
    rows = [line(id="a"), "", line(id="b", text="two")]
    plain = write(tmp_path / "m.jsonl", *rows, end=end)
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, tmp_path / "m.jsonl.gz"):
        manifest = pickle.loads(pickle.dumps(Manifest.read(path)))
        assert [(u.id, u.text) for u in manifest] == [("a", "hello"), ("b", "two")]
        assert manifest.where(1) == f"{path}:3" and manifest[0].audio_filepath == str(tmp_path / "a.wav")
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes())[:-9])
    with pytest.raises(ManifestError, match=r"m\.jsonl\.gz: the gzip data is cut off"):
        Manifest.read(tmp_path / "m.jsonl.gz")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
utterances = st.builds(
    Utterance,
    id=st.just(""),
    audio_filepath=st.from_regex(r"/[a-z]{1,3}(/[a-z\u00e9 ]{1,3}){0,2}/[a-z]{1,4}\.wav", fullmatch=True),
    duration=st.floats(0, 1e5),
    text=texts,
    offset=st.just(0.0),
    speaker=texts,
    split=st.sampled_from(["", "train"]),
    channel=st.none() | st.integers(0, 7),
    extra=st.dictionaries(st.sampled_from(["lang", "note"]), texts | st.integers() | st.lists(st.booleans())),
)


@given(rows=st.lists(st.tuples(utterances, st.none() | st.floats(0, 1e4)), min_size=1, max_size=5))
def test_written_manifests_read_back_equal(rows: list[tuple[Utterance, float | None]], tmp_path_factory: Any) -> None:
    import dataclasses

    originals = [
        dataclasses.replace(u, id=f"u{i}", offset=offset or 0.0, segment=offset is not None)
        for i, (u, offset) in enumerate(rows)
    ]
    path = tmp_path_factory.mktemp("w") / "m.jsonl"
    write_manifest(path, originals)
    assert list(Manifest.read(path)) == originals


def test_written_paths_are_relative_where_the_corpus_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "exp" / "data"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    audio = ["below/a.wav", "b.wav", f"{tmp_path}/wavs/c.wav", "../d.wav", "/elsewhere/e.wav"]
    write_manifest("m.jsonl", [Utterance(str(i), path, 1.0, "") for i, path in enumerate(audio)])
    written = [json.loads(row)["audio_filepath"] for row in Path("m.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written == ["below/a.wav", "b.wav", "../../wavs/c.wav", "../d.wav", "/elsewhere/e.wav"]


def test_written_paths_hold_through_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "a.wav").write_bytes(b"x")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "deep")
    write_manifest(link / "m.jsonl", [Utterance("a", str(tmp_path / "wavs" / "a.wav"), 1.0, "")])
    row = json.loads((link / "m.jsonl").read_text(encoding="utf-8"))
    assert row["audio_filepath"] == "../../wavs/a.wav"
    assert Path(Manifest.read(link / "m.jsonl")[0].audio_filepath).exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", line(text="old"))

    def broken() -> Any:
        yield Utterance("a", "a.wav", 1.0, "new")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_manifest(path, broken())
    assert Manifest.read(path)[0].text == "old" and list(tmp_path.iterdir()) == [path]


@given(st.lists(st.integers(-3, 3)))
def test_repeats(values: list[int]) -> None:
    expected = [i for i, value in enumerate(values) if values.count(value) > 1]
    assert repeats(np.array(values, dtype=np.int64)).tolist() == expected


MEMORY_PROGRAM = """
import multiprocessing, sys
from asr.corpus.manifest import Manifest

def pss():
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(row.split()[1]) for row in file if row.startswith("Pss:")) / 1024

def work(manifest, queue, done):
    for i in range(0, len(manifest), 200):
        assert manifest[i].text
    queue.put(pss())
    done.wait()

if __name__ == "__main__":
    manifest = Manifest.read(sys.argv[1])
    assert len(manifest) == 1_000_000
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue, done = context.Queue(), context.Event()
        workers = [context.Process(target=work, args=(manifest, queue, done)) for _ in range(2)]
        for worker in workers:
            worker.start()
        print(sum(queue.get() for _ in workers) + pss())
        done.set()
        for worker in workers:
            worker.join()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured through Linux's /proc")
def test_a_million_rows_in_all_workers_together_stay_below_500_mb(tmp_path: Path) -> None:
    """Rows of LibriSpeech's length (290 MB of JSON), a parent and two workers, each reading a part."""
    text = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG " * 4
    rows = "".join(
        f'{{"id": "SPEAKER-{i:04}", "audio_filepath": "train-clean-360/SPEAKER/{i % 9}/SPEAKER-{i:04}.flac", '
        f'"duration": {5 + i / 100}, "text": "{text}", "speaker": "SPEAKER"}}\n'
        for i in range(1000)
    )
    path = tmp_path / "million.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for speaker in range(1000):
            file.write(rows.replace("SPEAKER", str(speaker)))
    program = tmp_path / "measure.py"
    program.write_text(MEMORY_PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    forked, spawned = map(float, done.stdout.split())
    assert forked < 500 and spawned < 500
