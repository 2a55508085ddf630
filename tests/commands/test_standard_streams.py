"""Standard streams that are closed or full: one line and exit status 1, in every command, and nothing at exit."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from asr import standard_streams
from asr.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full")


@contextlib.contextmanager
def full_stdout():
    """Not a fixture: pytest sets its own stdout once more before a test begins."""
    descriptor = os.open(FULL, os.O_WRONLY)
    with contextlib.redirect_stdout(standard_streams.output(descriptor)):
        yield
        sys.stdout.flush()  # as the interpreter does at exit: it must not fail again
    os.close(descriptor)


@needs_full
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_into_a_full_disk_is_one_line(arguments, capsys):
    with full_stdout():
        assert main(arguments) == 1
    assert capsys.readouterr().err == "asr: error: stdout: No space left on device\n"


@needs_full
@pytest.mark.parametrize("command", ["score", "compare", "stats", "train", "perplexity", "info", "transcribe", "align"])
def test_results_into_a_full_disk_are_one_line(command, tmp_path, tiny_model, write_audio, capsys):
    text = tmp_path / "x.txt"
    text.write_text("a b\nc\n")
    audio, model = str(write_audio(tmp_path / "a.wav", 0.3)), str(tiny_model)
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav", "duration": 0.3, "text": "a"}\n')
    lm = Path(__file__).parents[1] / "lm" / "lmplz" / "pruned.arpa"
    arguments = {
        "score": ["score", text, text],
        "compare": ["compare", text, text, text],
        "stats": ["data", "stats", manifest],
        "train": ["lm", "train", text, "-o", tmp_path / "x.arpa", "--order", "1"],
        "perplexity": ["lm", "perplexity", lm, text],
        "info": ["info", model],
        "transcribe": ["transcribe", audio, audio, "-m", model, "--decoder", "greedy"],
        "align": ["align", audio, "a", "-m", model],
    }
    with full_stdout():
        assert main(list(map(str, arguments[command]))) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "asr: error: stdout: No space left on device"


def run(arguments: str, redirections: str) -> tuple[int, str, str]:
    """A command of this interpreter in a shell: exit status, stdout, stderr."""
    line = f'"$0" -m asr {arguments} {redirections}'
    done = subprocess.run(["sh", "-c", line, sys.executable], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
@pytest.mark.parametrize(
    ("arguments", "redirections", "expected"),
    [
        ("--version", ">&-", (1, "", "asr: error: stdout: closed, results cannot be written\n")),
        pytest.param(
            "--version", "> /dev/full", (1, "", "asr: error: stdout: No space left on device\n"), marks=needs_full
        ),
        ("nonsense", "2>&-", (2, "", "")),
        ("nonsense", "<&- >&- 2>&-", (2, "", "")),
        ("lm train - -o x.arpa", "<&- 2>&1 | tail -n 1", (0, "asr: error: stdin: cannot be read: closed\n", "")),
    ],
)
def test_a_process_whose_streams_are_closed_or_full(arguments, redirections, expected):
    assert run(arguments, redirections) == expected


def test_what_is_written_while_stderr_is_closed_goes_nowhere(tmp_path, tiny_model, write_audio):
    """A closed descriptor is the next one that is opened: messages must not end in a file, and results must come."""
    audio = write_audio(tmp_path / "a.wav", 0.3)
    arguments = f"transcribe {audio} -m {tiny_model} --decoder greedy --progress -f json -o {tmp_path}"
    assert run(arguments, "<&- >&- 2>&-") == (0, "", "")
    assert '"duration": 0.3' in (tmp_path / "a.json").read_text()
