"""The command line itself: help without heavy imports, exit statuses, one-line errors, pipes and encodings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import asr
from asr import __main__ as cli
from asr.types import AudioError, ConfigError, UsageError

ROOT = Path(__file__).parents[2]
HEAVY = (
    "torch",
    "torchaudio",
    "pytorch_lightning",
    "numpy",
    "numba",
    "soundfile",
    "rapidfuzz",
    "sentencepiece",
    "matplotlib",
)


def modules_after(code):
    """The modules that a fresh interpreter has loaded after running `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import asr; asr.load, asr.Transcript, asr.Word, asr.Failure, asr.__version__",
        "from asr.__main__ import main; main(['--help'])",
        "from asr.__main__ import main; main(['--version'])",
        "from asr.__main__ import main; main(['nonsense'])",
    ],
)
def test_import_and_help_load_nothing_heavy(code):
    assert not modules_after(code).intersection(HEAVY)


@pytest.mark.parametrize("name", ["transcribe", "evaluate", "info"])
def test_help_of_a_command_loads_no_model_code(name):
    code = f"from asr.__main__ import main\ntry: main(['{name}', '--help'])\nexcept SystemExit: pass"
    assert not modules_after(code).intersection({"torch", "torchaudio", "pytorch_lightning", "rapidfuzz"})


def test_transcribing_loads_neither_lightning_nor_scoring(tiny_model, write_audio, tmp_path):
    path = write_audio(tmp_path / "a.wav", 0.3)
    arguments = ["transcribe", str(path), "-m", str(tiny_model), "--decoder", "greedy"]  # the beam search needs numba
    code = f"from asr.__main__ import main\nassert main({arguments!r}) == 0"
    assert not modules_after(code).intersection({"pytorch_lightning", "lightning", "rapidfuzz", "numba", "matplotlib"})


def test_the_version_is_that_of_the_distribution():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', text, re.MULTILINE)[1] == asr.__version__


def test_overview_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    assert cli.main([]) == 2
    assert "usage: asr COMMAND" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"asr {asr.__version__}\n"


def test_every_command_of_the_table_is_there():
    for module, summary in cli.COMMANDS.values():
        assert (ROOT / Path(*module.split("."))).with_suffix(".py").is_file()
        assert summary


@pytest.mark.parametrize(
    "arguments", [["transcrbe"], ["--hlep"], ["transcribe"], ["transcribe", "a.wav"], ["info", "--x"]]
)
def test_wrong_usage_is_status_2(arguments, capsys):
    try:
        status = cli.main(arguments)
    except SystemExit as stop:  # argparse
        status = stop.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_unknown_command_names_the_nearest(capsys):
    cli.main(["evalute"])
    assert (
        capsys.readouterr().err
        == "asr: error: unknown command 'evalute' (did you mean 'evaluate'?); see `asr --help`\n"
    )


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UsageError("no such thing"), 2, "asr: error: no such thing\n"),
        (ConfigError("bad key"), 2, "asr: error: bad key\n"),
        (AudioError("a.wav: empty"), 1, "asr: error: a.wav: empty\n"),
        (KeyboardInterrupt(), 130, "asr: interrupted\n"),
        (OSError(28, "No space left on device", "out/a.txt"), 1, "asr: error: out/a.txt: No space left on device\n"),
        (
            ModuleNotFoundError("No module named 'jiwer'", name="jiwer"),
            1,
            "asr: error: the Python package 'jiwer' is not installed; see `asr doctor`\n",
        ),
    ],
)
def test_errors_for_people_are_one_line_with_the_right_status(error, status, message, monkeypatch, capsys):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main([]) == status
    assert capsys.readouterr().err == message


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    def fail(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main([])


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_goes_away_ends_the_run_quietly():
    script = "from asr.__main__ import main; import sys; sys.exit(main(['--help']))"
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, check=False
    )
    os.close(write_end)
    assert done.returncode == 141
    assert done.stderr == b""


def test_output_is_utf8_whatever_the_locale(asr_command, tiny_model, write_audio, tmp_path):
    path = write_audio(tmp_path / "naïve señorita 你好.wav", 0.5)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = asr_command("transcribe", path, "-m", tiny_model, "--json", env=environment)
    assert done.returncode == 0
    assert '"id": "naïve señorita 你好"' in done.stdout
