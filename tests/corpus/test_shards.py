"""Shards: what is stored, that anyone can read it, interruption, and what is said of damaged ones."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.__main__ import main
from asr.audio.members import file_of, member, member_path
from asr.audio.read import read
from asr.corpus import shards as shards_module
from asr.corpus.manifest import Manifest
from asr.corpus.shards import write_shards
from asr.types import AudioError, UsageError


@pytest.fixture
def corpus(tmp_path: Path, write_audio) -> Manifest:
    """Twelve utterances: FLAC, WAV, windows and a channel of a recording, 24 bits, names that tar files dislike."""
    folder = tmp_path / "corpus"
    rows = []
    for number in range(6):
        path = write_audio(folder / f"a{number}.{'flac' if number % 2 else 'wav'}", 0.3 + number / 10, number)
        rows.append({"audio_filepath": path.name, "text": f"text {number}", "speaker": f"s{number}", "lang": "en"})
    write_audio(folder / "long.wav", 3.0, 40, channels=2)
    for offset, channel in ((0.0, 0), (0.5, 1), (1.25, None)):
        row = {"audio_filepath": "long.wav", "text": "part", "offset": offset, "duration": 0.75}
        rows.append(row | ({} if channel is None else {"channel": channel}))
    generator = np.random.default_rng(1)
    soundfile.write(folder / "fine.wav", generator.uniform(-0.5, 0.5, 4000), 8000, subtype="PCM_24")
    rows.append({"audio_filepath": "fine.wav", "text": "fine"})
    write_audio(folder / "name.wav", 0.5, 7)
    rows += [{"audio_filepath": "name.wav", "text": "x", "id": name} for name in ("é/ü.1", "long" * 40)]
    path = folder / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Manifest.read(path)


def samples(utterance) -> np.ndarray:
    channel = "mix" if utterance.channel is None else utterance.channel
    offset, duration = utterance.window
    return read(utterance.audio_filepath, rate=None, channel=channel, offset=offset, duration=duration).samples


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_audio_texts_and_names_whichever_way_they_are_read(corpus: Manifest, tmp_path: Path) -> None:
    done: list[int] = []
    shards = write_shards(corpus, tmp_path / "out", most=5, advance=done.append)
    assert sum(done) == len(corpus) and len(shards.tars) == 3 and not shards.left_out
    written = {utterance.id: utterance for utterance in Manifest.read(shards.index)}
    assert list(written) != [utterance.id for utterance in corpus]  # shuffled
    for utterance in corpus:
        stored = written[utterance.id]
        assert (stored.text, stored.speaker, stored.extra) == (utterance.text, utterance.speaker, utterance.extra)
        assert stored.duration == utterance.duration
        np.testing.assert_array_equal(samples(stored), samples(utterance))
    keys = []
    for path in shards.tars:
        with tarfile.open(path) as tar:
            names = tar.getnames()
            listed = subprocess.run(["tar", "tf", str(path)], capture_output=True, text=True, check=True)
            assert listed.stdout.split("\n")[:-1] == names
            for audio, about in zip(names[::2], names[1::2], strict=True):  # one sample's files side by side
                key, suffix = audio.split(".")
                assert about == f"{key}.json" and suffix == "flac"
                keys.append(key)
                row = json.load(tar.extractfile(about))
                stored = written[row["id"]]
                place = member(stored.audio_filepath)
                assert place.name == audio and place.position == tar.getmember(audio).offset
                assert row["text"] == stored.text
    assert len(set(keys)) == len(corpus)


def test_sizes_and_order_are_kept_to(corpus: Manifest, tmp_path: Path) -> None:
    shards = write_shards(corpus, tmp_path / "out", size=60_000, shuffle=False)
    assert [u.id for u in Manifest.read(shards.index)] == [u.id for u in corpus]
    assert len(shards.tars) == 3


def test_several_processes_a_killed_run_and_an_unbroken_one_write_the_same(
    corpus: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(corpus, tmp_path / "unbroken", most=3)
    write_shards(corpus, tmp_path / "processes", most=3, jobs=2)
    broken = tmp_path / "broken"
    real, count = shards_module._stored, []

    def dies(utterance):
        count.append(utterance)
        if len(count) == 8:  # in the third shard
            (broken / ".0123456789ab.part").write_bytes(b"what kill -9 leaves")
            raise KeyboardInterrupt
        return real(utterance)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards_module, "_stored", dies)
        write_shards(corpus, broken, most=3)
    assert sorted(path.name for path in broken.glob("*.tar")) == ["shard-000000.tar", "shard-000001.tar"]
    assert not (broken / "index.jsonl").exists()
    (broken / "shard-000001.tar").write_bytes(b"")  # and a power failure
    times = []
    monkeypatch.setattr(shards_module, "_stored", lambda utterance: times.append(utterance.id) or real(utterance))
    write_shards(corpus, broken, most=3)
    assert len(times) == 9
    expected = contents(tmp_path / "unbroken")
    assert contents(broken) == expected == contents(tmp_path / "processes")
    write_shards(corpus, broken, most=3)
    assert len(times) == 9  # nothing to do
    with pytest.raises(UsageError, match="other data or with other settings"):
        write_shards(corpus, broken, most=4)


def test_damaged_shards_are_named_in_one_line(corpus: Manifest, tmp_path: Path) -> None:
    shards = write_shards(corpus, tmp_path / "out", most=6, shuffle=False)
    first, last = Manifest.read(shards.index)[0], Manifest.read(shards.index)[5]
    tar, position, name = member(first.audio_filepath)
    other = member(last.audio_filepath)
    for path, reason in (
        (member_path(tar, other.position, name), f"the tar member there is {other.name}"),
        (member_path(tar, position + 512, name), "no tar member there"),
        (member_path(tar, position + 10**9, name), "cut off"),
        (member_path(Path(tar).with_name("shard-000009.tar"), 0, name), "no such file"),
    ):
        with pytest.raises(AudioError, match=reason) as error:
            read(path)
        assert "\n" not in str(error.value) and str(error.value).startswith(file_of(path))
    with Path(tar).open("r+b") as file:
        file.truncate(other.position + 1000)
    assert len(samples(first))
    with pytest.raises(AudioError, match="cut off before its end"):
        read(last.audio_filepath)
    with pytest.raises(AudioError, match="name the manifest beside it"):
        read(shards.tars[1])


def test_the_command_and_what_reads_its_manifest(
    corpus: Manifest, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, given = tmp_path / "out", Path(corpus.path)
    broken = {"audio_filepath": "none.wav", "duration": 1.0, "text": "gone"}
    with given.open("a", encoding="utf-8") as file:
        file.write(json.dumps(broken) + "\n")
    command = ["data", "shard", str(given), "-o", str(out), "--utterances", "4", "--jobs", "1", "--keep-order"]
    for _ in range(2):  # the second time nothing is left to do
        assert main(command) == 1
        said = capsys.readouterr()
        assert "12 utterances" in said.out and "4 shards" in said.out
        [line] = said.err.splitlines()
        assert "left out: utterance 'none'" in line and "no such file" in line
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--size", "5"])
    assert "'5' is not a size such as 500MB" in capsys.readouterr().err
    index = str(out / "index.jsonl")
    assert main(["data", "check", index, "--read"]) == 1
    assert "the same audio as" in capsys.readouterr().out  # as of the files: name.wav is there twice
    assert main(["data", "stats", index]) == 0
    lines = given.read_text(encoding="utf-8").splitlines()[:12]
    (tmp_path / "corpus" / "twelve.jsonl").write_text("\n".join(lines), encoding="utf-8")
    capsys.readouterr()
    texts = []
    for path in (index, str(tmp_path / "corpus" / "twelve.jsonl")):
        assert main(["transcribe", path, "-m", str(tiny_model), "--decoder", "greedy"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        texts.append([(row["id"], row["text"]) for row in rows])
        assert main(["evaluate", path, "-m", str(tiny_model), "--decoder", "greedy", "--json"]) == 0
        texts.append(json.loads(capsys.readouterr().out)["wer"])
    assert texts[:2] == texts[2:]
    assert main(["data", "convert", index, str(tmp_path / "moved.jsonl")]) == 0
    moved = Manifest.read(tmp_path / "moved.jsonl")
    np.testing.assert_array_equal(samples(moved[3]), samples(Manifest.read(tmp_path / "corpus" / "twelve.jsonl")[3]))
