"""`asr transcribe`: stdout, stderr and files; bad recordings among good ones; resume, force, interruption."""

from __future__ import annotations

import errno
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import asr
from asr.__main__ import main
from asr.decoding.beam.stream import BeamStream
from asr.recognition.acoustics import Windows
from asr.recognition.recognizer import Recognizer
from asr.recognition.writers import WRITERS


@pytest.fixture
def run(tiny_model, capsys):
    """`run(*arguments)`: the command in this process; (status, stdout, stderr)."""

    def call(*arguments):
        capsys.readouterr()
        status = main(["transcribe", *map(str, arguments), "-m", str(tiny_model)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def talk(write_audio, tmp_path):
    return write_audio(tmp_path / "in" / "talk.wav", 1.5)


@pytest.fixture
def text_of(tiny_model):
    """`text_of(path)`: what the library hears."""
    model = asr.load(tiny_model)
    return lambda path: model.transcribe(path).text


def rows(out):
    return [json.loads(line) for line in out.splitlines()]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_input_is_its_text(run, talk, text_of):
    status, out, err = run(talk)
    assert (status, out) == (0, text_of(talk) + "\n")
    assert "1 transcribed: 0:00:02 of audio" in err
    assert "real-time factor" in err


def test_several_inputs_are_json_lines_in_input_order(run, talk, write_audio, tmp_path, text_of):
    other = write_audio(tmp_path / "in" / "a.flac", 0.7, seed=3)
    status, out, _ = run(talk, other)
    assert status == 0
    assert [row["id"] for row in rows(out)] == ["talk", "a"]
    assert [row["text"] for row in rows(out)] == [text_of(talk), text_of(other)]
    assert all(word["start"] < word["end"] <= row["duration"] for row in rows(out) for word in row["words"])
    _, out, _ = run(talk.parent)
    assert [row["id"] for row in rows(out)] == ["a", "talk"]
    _, out, _ = run(talk.parent / "*.flac")
    assert [row["id"] for row in rows(out)] == ["a"]


def test_one_input_as_json_words_or_another_format(run, talk, text_of):
    _, out, _ = run(talk, "--json")
    [row] = rows(out)
    assert row["text"] == text_of(talk)
    _, out, _ = run(talk, "--words")
    assert [line.split("\t")[3] for line in out.splitlines()] == row["text"].split()
    _, out, _ = run(talk, "-f", "srt")
    assert out.startswith("1\n00:00:0")
    _, out, _ = run(talk, talk.parent / "missing.wav", "-f", "ctm")
    assert len(out.splitlines()) == len(row["words"])


def test_stdin(run, talk, text_of, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(talk.read_bytes()), encoding="utf-8"))
    assert run("-")[:2] == (0, text_of(talk) + "\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b""), encoding="utf-8"))
    status, out, err = run("-", talk)
    assert status == 1
    assert "stdin: the file is empty" in err
    assert ["error" in row for row in rows(out)] == [True, False]


def test_raw_audio(run, talk, text_of, tmp_path):
    samples, _ = soundfile.read(talk, dtype="int16")
    (tmp_path / "talk.raw").write_bytes(samples.astype(">i2").tobytes())
    options = ("--raw-rate", 16000, "--raw-byte-order", "big")
    assert run(tmp_path / "talk.raw", *options)[:2] == (0, text_of(talk) + "\n")
    assert run(talk, "--raw-byte-order", "big")[0] == 2


def test_a_manifest_gives_a_line_per_row_and_files_by_id(run, talk, text_of, tmp_path):
    manifest = tmp_path / "m.jsonl"
    lines = [
        {"id": "spk/u1", "audio_filepath": "in/talk.wav", "duration": 1.5},
        {"id": "spk/u2", "audio_filepath": "in/talk.wav", "duration": 0.5, "offset": 1.0},
        {"id": "spk/u3", "audio_filepath": "in/gone.wav", "duration": 0.5},
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    status, out, _ = run(manifest)
    assert status == 1
    assert [row["id"] for row in rows(out)] == ["spk/u1", "spk/u2", "spk/u3"]
    assert rows(out)[0]["text"] == text_of(talk)
    assert rows(out)[1]["duration"] == 0.5
    assert "gone.wav: no such file" in rows(out)[2]["error"]
    run(manifest, "-o", tmp_path / "out", "-f", "trn")
    assert files(tmp_path / "out") == ["spk/u1.trn", "spk/u2.trn"]


def test_files_mirror_the_tree(run, talk, write_audio, tmp_path, text_of):
    other = write_audio(tmp_path / "in" / "deep" / "talk.wav", 0.6, seed=9)
    status, out, _ = run(tmp_path / "in", "-o", tmp_path / "out", "-f", "txt,srt")
    assert (status, out) == (0, "")
    assert files(tmp_path / "out") == ["deep/talk.srt", "deep/talk.txt", "talk.srt", "talk.txt"]
    for path, written in ((talk, "talk.txt"), (other, "deep/talk.txt")):
        assert (tmp_path / "out" / written).read_text(encoding="utf-8") == text_of(path) + "\n"


def test_every_format_is_written_and_json_can_go_to_stdout_too(run, talk, tmp_path):
    status, out, _ = run(talk, "-o", tmp_path / "out", "-f", "all", "--json")
    assert status == 0
    assert files(tmp_path / "out") == sorted(f"talk.{name}" for name in WRITERS)
    assert rows(out) == [json.loads((tmp_path / "out" / "talk.json").read_text(encoding="utf-8"))]


def test_existing_files_are_left_and_the_others_done(run, talk, write_audio, tmp_path):
    write_audio(tmp_path / "in" / "b.wav", 0.5)
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    (out_dir / "talk.txt").write_text("by hand\n", encoding="utf-8")
    status, _, err = run(tmp_path / "in", "-o", out_dir)
    assert status == 1
    assert "talk.txt: already exists" in err
    assert (out_dir / "talk.txt").read_text(encoding="utf-8") == "by hand\n"
    assert (out_dir / "b.txt").is_file()

    status, _, err = run(tmp_path / "in", "-o", out_dir, "--resume")
    assert status == 0
    assert "0 transcribed, 2 already done" in err
    status, _, err = run(tmp_path / "in", "-o", out_dir, "--resume", "-f", "txt,json")
    assert status == 0
    assert "2 transcribed" in err
    assert (out_dir / "talk.txt").read_text(encoding="utf-8") == "by hand\n"

    assert run(tmp_path / "in", "-o", out_dir, "--force")[0] == 0
    assert (out_dir / "talk.txt").read_text(encoding="utf-8") != "by hand\n"


def test_one_name_that_cannot_be_written_does_not_stop_the_others(run, talk, tmp_path):
    """One bad input fails alone; names too long for a file are cut, and found again by --resume."""
    names = ["x" * 300, "ok.txt/a", "/".join(["z" * 200] * 30), "\u8a9e" * 90]
    rows = [{"id": name, "audio_filepath": "in/talk.wav", "duration": 1.5} for name in ["ok", *names]]
    rows.append({"id": "path", "audio_filepath": "p" * 300 + ".wav", "duration": 1.5})
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    status, _, err = run(manifest, "-o", tmp_path / "out")
    assert status == 1 and "3 transcribed, 3 failed" in err
    assert err.count("cannot be written") == 2 and err.count("File name too long") == 2
    assert err.count("asr: note: names too long for a file were shortened") == 1
    assert len(files(tmp_path / "out")) == 3
    assert "3 already done, 3 failed" in run(manifest, "-o", tmp_path / "out", "--resume")[2]


def test_a_full_disk_stops_with_one_line_and_keeps_what_was_written(run, talk, tmp_path, monkeypatch):
    for i in range(4):
        shutil.copy(talk, talk.with_name(f"{i}.wav"))
    real = Path.replace

    def full(self, target):
        if target.name == "2.txt":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    status, _, err = run(talk.parent, "-o", tmp_path / "out")
    assert status == 1 and "2 transcribed, 1 failed" in err
    assert err.count("No space left") == 1 and "2.txt: cannot be written: No space left on device: stopped" in err
    assert files(tmp_path / "out") == ["0.txt", "1.txt"]


def test_a_manifest_in_a_pipe_is_several_recordings(run, talk, tmp_path, piped, text_of, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"id": name, "audio_filepath": "in/talk.wav", "duration": 1.5}) for name in "ab"]
    status, out, _ = run(piped("\n".join(rows).encode()))
    assert status == 0 and [(row["id"], row["text"]) for row in map(json.loads, out.splitlines())] == [
        ("a", text_of(talk)),
        ("b", text_of(talk)),
    ]
    assert run(piped(talk.read_bytes()))[:2] == (0, text_of(talk) + "\n")


def test_resume_with_nothing_left_does_not_load_the_model(run, talk, tmp_path, monkeypatch):
    run(talk, "-o", tmp_path / "out")
    monkeypatch.setattr(asr, "load", lambda *a, **k: pytest.fail("loaded the model"))
    assert run(talk, "-o", tmp_path / "out", "--resume")[0] == 0


def test_channels(run, write_audio, tmp_path):
    stereo = write_audio(tmp_path / "in" / "call.wav", 1.0, seed=20, channels=2)
    write_audio(tmp_path / "in" / "mono.wav", 0.5)
    _, out, _ = run(stereo, "--channel", "each", "--json")
    assert [row["channel"] for row in rows(out)] == [0, 1]
    _, second, _ = run(stereo, "--channel", "1")
    assert second.strip() == rows(out)[1]["text"]
    assert run(tmp_path / "in", "--channel", "each", "-o", tmp_path / "out")[0] == 0
    assert files(tmp_path / "out") == ["call.ch0.txt", "call.ch1.txt", "mono.ch0.txt"]
    status, _, err = run(tmp_path / "in", "--channel", "each", "-o", tmp_path / "out", "--resume")
    assert "0 transcribed, 2 already done" in err
    (tmp_path / "out" / "call.ch1.txt").unlink()
    _, _, err = run(tmp_path / "in", "--channel", "each", "-o", tmp_path / "out", "--resume")
    assert "1 transcribed, 1 already done" in err
    status, out, err = run(tmp_path / "in", "--channel", "1")
    assert status == 1
    assert "no channel 1" in err


def test_the_bad_audio_matrix(asr_command, tiny_model, write_audio, noise, tmp_path):
    """Each bad recording is one line on stderr that names it; all others are transcribed. In a process of its own."""
    folder = tmp_path / "matrix"
    good = write_audio(folder / "good.wav", 1.0)
    write_audio(folder / "stereo.wav", 1.0, channels=2)
    write_audio(folder / "telephone.wav", 1.0, rate=8000)
    write_audio(folder / "cd.flac", 1.0, rate=44100)
    (folder / "truncated.wav").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("This is not audio.\n" * 50, encoding="utf-8")
    soundfile.write(folder / "headeronly.wav", np.zeros(0, dtype=np.float32), 16000)
    broken = noise(1.0)
    broken[8000] = np.nan
    soundfile.write(folder / "nan.wav", broken, 16000, subtype="FLOAT")
    (folder / "folder.wav").mkdir()
    done = asr_command("transcribe", *sorted(folder.iterdir()), folder / "missing.wav", "-m", tiny_model)
    assert done.returncode == 1
    results = {row["audio_filepath"].rpartition("/")[2]: row for row in rows(done.stdout)}
    failed = {name for name, row in results.items() if "error" in row}
    assert failed == {"empty.wav", "text.wav", "headeronly.wav", "nan.wav", "folder.wav", "missing.wav"}
    assert all(row["text"] for name, row in results.items() if name not in failed)
    errors = [line for line in done.stderr.splitlines() if line.startswith("asr: error: ")]
    assert len(errors) == len(failed)
    for name in failed:
        assert sum(f"/{name}: " in line for line in errors) == 1
    assert "truncated" in results["truncated.wav"]["warnings"][0]
    assert "asr: warning: " in done.stderr
    assert "asr: 1 recording resampled from 44100 Hz to 16000 Hz" in done.stderr
    assert "5 transcribed, 6 failed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_fail_fast_stops_at_the_first(run, talk):
    status, out, err = run("missing.wav", talk, "--fail-fast")
    assert status == 1
    assert len(rows(out)) == 1
    assert "0 transcribed, 1 failed" in err


def test_repeated_warnings_are_counted(run, write_audio, tmp_path):
    for i in range(3):
        write_audio(tmp_path / "in" / f"{i}.wav", 0.3, rate=8000)
    _, _, err = run(tmp_path / "in")
    assert err.count("recorded at 8000 Hz") == 2
    assert "asr: warning: 3 recordings in all: recorded at 8000 Hz" in err


def test_ctrl_c_keeps_what_was_done(run, write_audio, tmp_path, monkeypatch):
    for i in range(4):
        write_audio(tmp_path / "in" / f"{i}.wav", 0.3, seed=i)
    recognize = Recognizer.recognize

    def interrupted(self, *args, **kwargs):
        for i, result in enumerate(recognize(self, *args, **kwargs)):
            if i == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(Recognizer, "recognize", interrupted)
    status, out, err = run(tmp_path / "in", "-o", tmp_path / "out", "--json")
    assert status == 130
    assert len(rows(out)) == 2
    assert files(tmp_path / "out") == ["0.txt", "1.txt"]
    assert "interrupted; 2 transcribed" in err


def test_progress_is_shown_only_when_asked_for_or_on_a_terminal(run, talk):
    assert "100%" not in run(talk)[2]
    assert "100%" in run(talk, "--progress")[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decoder", "greedy", "--beam-width", "9"], "--beam-width has no effect with --decoder greedy"),
        (["--decoder", "flashlight", "--hotwords", "a"], "--hotwords has no effect with --decoder flashlight"),
        (["--alpha", "0.5"], "give --lm"),
        (["--oov", "forbid"], "give --lm or --lexicon"),
        (["--sentence-pause", "0.5"], "--sentence-pause is for a language model: give --lm"),
        (["--lm", "x.arpa", "--sentence-pause", "-1"], "--sentence-pause: at least 0 seconds expected"),
        (["-f", "docx"], "unknown output format 'docx'"),
        (["-f", "txt,srt"], "give -o DIR"),
        (["--resume"], "give -o DIR"),
        (["--force"], "give -o DIR"),
        (["--nbest", "0"], "--nbest must be at least 1"),
        (["--batch-seconds", "0"], "batch seconds must be positive"),
        (["--device", "tpu"], "not one of auto, cpu, cuda"),
        (["--flag-below", "0"], "must lie between 0 and 1"),
        (["--flag-below", "0.5", "-f", "srt"], "marks words in txt"),
        (["--flag-below", "0.5", "--json"], "marks words in txt"),
        (["--chunk-length", "0.5"], "at least 1 s"),
        (["--chunk-overlap", "31"], "between 0 and their length"),
        (["--words", "-o", "DIR"], "--words is for text on stdout"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(run, talk, tmp_path, options, message):
    status, out, err = run(talk, *[str(tmp_path / "out") if option == "DIR" else option for option in options])
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_subtitles_of_several_inputs_need_a_folder(run, talk):
    status, _, err = run(talk.parent, "-f", "srt")
    assert status == 2
    assert "needs -o DIR" in err


@pytest.mark.parametrize("channel", ["left", "-1", "1.5"])
def test_channels_are_checked(run, talk, channel):
    status, _, err = run(talk, f"--channel={channel}")
    assert status == 2
    assert err == f"asr: error: --channel must be mix, each or a number from 0, found '{channel}'\n"


def test_a_file_that_is_no_model_is_one_line(talk, tmp_path, capsys):
    (tmp_path / "x.asr").write_text("hello", encoding="utf-8")
    assert main(["transcribe", str(talk), "-m", str(tmp_path / "x.asr")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"asr: error: {tmp_path / 'x.asr'}: not an asr-ctc model file")


def test_shards_share_the_inputs_out(run, write_audio, tmp_path):
    for i in range(5):
        write_audio(tmp_path / "in" / f"{i}.wav", 0.3, seed=i)
    _, out, _ = run(tmp_path / "in")
    whole = rows(out)
    parts = [rows(run(tmp_path / "in", "--shard", f"{i}/3")[1]) for i in (1, 2, 3)]
    assert [len(part) for part in parts] == [2, 2, 1]
    texts = {row["id"]: row["text"] for part in parts for row in part}
    assert texts == {row["id"]: row["text"] for row in whole}
    for i in (1, 2, 3, 1):
        run(tmp_path / "in", "--shard", f"{i}/3", "-o", tmp_path / "out", "--resume")
    assert files(tmp_path / "out") == [f"{i}.txt" for i in range(5)]
    assert rows(run(tmp_path / "in" / "0.wav", "--shard", "2/2", "--json")[1]) == []


def test_the_last_run_joins_the_shards_in_input_order(run, write_audio, tmp_path):
    for i in range(4):
        write_audio(tmp_path / "in" / f"{i}.wav", 0.3, seed=i)
    (tmp_path / "in" / "2.wav").write_bytes(b"no audio")
    whole = rows(run(tmp_path / "in")[1])
    output = ("-o", tmp_path / "out", "-f", "txt,json", "--resume")
    assert run(tmp_path / "in", "--shard", "2/2", *output)[:2] == (0, "")
    for _ in range(2):
        status, out, err = run(tmp_path / "in", *output, "--json")
        assert status == 1 and "2.wav" in err  # what failed is tried again
        assert rows(out) == whole
    assert "3 already done" in err
    (tmp_path / "out" / "0.json").write_text("{", encoding="utf-8")
    status, out, err = run(tmp_path / "in", *output, "--json")
    assert status == 1 and "0.json: not JSON" in err and rows(out)[1:] == whole[1:]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/", "a/b", "-1/2"])
def test_a_shard_is_a_part_of_a_whole(run, talk, shard):
    with pytest.raises(SystemExit) as stop:
        run(talk, f"--shard={shard}")
    assert stop.value.code == 2


def test_long_recordings_come_out_as_they_are_heard(run, write_audio, tmp_path, tiny_model):
    path = write_audio(tmp_path / "long.wav", 7.0, seed=7)
    options = ("--chunk-length", "2", "--chunk-overlap", "0.5", "--decoder", "greedy")
    model = asr.load(tiny_model, decoder="greedy")
    model.windows = Windows(2.0, 0.5)
    expected = model.transcribe(path).text
    assert run(path, *options)[:2] == (0, expected + "\n")
    assert rows(run(path, "--json", *options)[1])[0]["text"] == expected
    model.windows = None
    assert run(path, "--chunk-length", "0", "--decoder", "greedy")[:2] == (0, model.transcribe(path).text + "\n")


def test_text_is_printed_while_a_recording_is_read(run, talk, text_of, monkeypatch):
    """The decoder's certain words come first, the rest with the result; together they are the text."""
    text = text_of(talk)
    monkeypatch.setattr("asr.recognition.acoustics.Windows.longest", 0.1)
    grown = [text[: len(text) // 3], text[: len(text) // 2]]
    feed = BeamStream.stable
    seen = iter(grown)
    monkeypatch.setattr(BeamStream, "stable", lambda self: next(seen, grown[-1]))
    assert run(talk)[:2] == (0, text + "\n")
    monkeypatch.setattr(BeamStream, "stable", feed)
    assert run(talk)[:2] == (0, text + "\n")


def test_doubtful_words_can_be_marked(run, talk, tmp_path, text_of):
    _, out, _ = run(talk, "--flag-below", "1.0")
    assert out.split() == [f"[{word}?]" for word in text_of(talk).split()]
    _, out, _ = run(talk, "--flag-below", "0.000001")
    assert out == text_of(talk) + "\n"
    run(talk, "--flag-below", "1", "-o", tmp_path / "out", "-f", "txt,json")
    assert (tmp_path / "out" / "talk.txt").read_text(encoding="utf-8").startswith("[")
    assert json.loads((tmp_path / "out" / "talk.json").read_text(encoding="utf-8"))["text"] == text_of(talk)
