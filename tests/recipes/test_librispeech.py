"""The LibriSpeech preparation: archives served here, in a folder, or unpacked; restarts; configurations."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asr.corpus.archive import ArchiveError, extract
from asr.corpus.download import DownloadError
from asr.corpus.manifest import Manifest
from asr.recipe.run import main
from asr.types import UsageError

ROOT = Path(__file__).parents[2]
ALL = ("train-clean-100", "dev-clean", "test-clean", "test-other")


class Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 (one list for all requests)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(librispeech_archives: Path) -> Iterator[str]:
    Quiet.asked.clear()
    handler = functools.partial(Quiet, directory=str(librispeech_archives))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def official(monkeypatch: pytest.MonkeyPatch, prepare: object, folder: Path) -> None:
    """Make the tiny archives the official ones."""
    sums = {s: (hashlib.md5((folder / f"{s}.tar.gz").read_bytes()).hexdigest(), 0.1) for s in ALL}
    monkeypatch.setattr(prepare, "SPLITS", sums)


def check(data: Path, split: str, number: int) -> None:
    utterances = list(Manifest.read(data / f"{split}.jsonl"))
    assert [u.id for u in utterances] == [f"{number}-{c}{number - 1:02d}-{i:04d}" for c in (1, 2) for i in range(3)]
    assert {u.text for u in utterances} == {"IT'S SENTENCE A", "IT'S SENTENCE B", "IT'S SENTENCE C"}
    assert {(u.speaker, u.split) for u in utterances} == {(str(number), split)}
    assert [round(u.duration, 3) for u in utterances] == [1.0, 1.1, 1.2] * 2
    assert all(Path(u.audio_filepath).is_file() for u in utterances)


def test_download_and_restart(
    recipe_module: Callable,
    arguments: Callable,
    served: str,
    librispeech_archives: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    prepare, data = recipe_module("librispeech", "prepare"), tmp_path / "data"
    official(monkeypatch, prepare, librispeech_archives)
    args = arguments(prepare, data, "--download", "--mirror", served, manifests=("train-clean-100", "test-other"))
    prepare.prepare(args)
    check(data, "train-clean-100", 1)
    check(data, "test-other", 4)
    assert Quiet.asked == ["/train-clean-100.tar.gz", "/test-other.tar.gz"]
    assert not (data / "dev-clean.jsonl").exists()

    prepare.prepare(args)
    assert len(Quiet.asked) == 2  # all done: nothing is fetched again
    (data / "test-other.done").unlink()  # as if stopped while unpacking
    prepare.prepare(args)
    check(data, "test-other", 4)
    assert len(Quiet.asked) == 2  # the archive was there, complete


def test_a_slice_is_not_taken_for_the_official_split(
    recipe_module: Callable,
    arguments: Callable,
    served: str,
    librispeech_archives: Path,
    tmp_path: Path,
) -> None:
    prepare, data = recipe_module("librispeech", "prepare"), tmp_path / "data"
    here = ("--archive", str(librispeech_archives), "--no-checksum")
    prepare.prepare(arguments(prepare, data, *here, manifests=("dev-clean",)))
    prepare.prepare(arguments(prepare, data, manifests=("dev-clean",)))  # what is there is used when nothing is said
    with pytest.raises(DownloadError, match="expected"):
        prepare.prepare(arguments(prepare, data, "--download", "--mirror", served, manifests=("dev-clean",)))
    assert Quiet.asked == ["/dev-clean.tar.gz"]


def test_wrong_checksum_and_missing_file(
    recipe_module: Callable, arguments: Callable, served: str, tmp_path: Path
) -> None:
    prepare, data = recipe_module("librispeech", "prepare"), tmp_path / "data"
    args = arguments(prepare, data, "--download", "--mirror", served, manifests=("dev-clean",))
    with pytest.raises(DownloadError, match="expected 42e2234ba48799c1f50f24a7926300a1"):
        prepare.prepare(args)
    args.manifests = [data / "train-other-500.jsonl"]
    with pytest.raises(DownloadError, match="404"):
        prepare.prepare(args)
    assert not list(data.glob("*.jsonl")) and not list(data.glob("*.done"))


def test_archive_folder(
    recipe_module: Callable, arguments: Callable, librispeech_archives: Path, tmp_path: Path
) -> None:
    prepare, data = recipe_module("librispeech", "prepare"), tmp_path / "data"
    here = ("--archive", str(librispeech_archives))
    with pytest.raises(ArchiveError, match="--no-checksum"):
        prepare.prepare(arguments(prepare, data, *here, manifests=("dev-clean",)))
    prepare.prepare(arguments(prepare, data, *here, "--no-checksum", manifests=("dev-clean",)))
    check(data, "dev-clean", 2)
    with pytest.raises(UsageError, match=r"no dev-other\.tar\.gz, no train-other-500\.tar\.gz .* recipes/custom"):
        prepare.prepare(arguments(prepare, data, *here, manifests=("test-clean", "dev-other", "train-other-500")))
    assert not (data / "test-clean.jsonl").exists()  # nothing is unpacked before it says what is missing
    one = ("--archive", str(librispeech_archives / "test-clean.tar.gz"), "--no-checksum")
    prepare.prepare(arguments(prepare, data, *one, manifests=("test-clean", "test-other")))  # the other lies beside it
    check(data, "test-other", 4)


def test_archive_of_another_split_is_refused(
    recipe_module: Callable, arguments: Callable, librispeech_archives: Path, tmp_path: Path
) -> None:
    prepare, data = recipe_module("librispeech", "prepare"), tmp_path / "data"
    (librispeech_archives / "test-clean.tar.gz").rename(librispeech_archives / "dev-other.tar.gz")
    args = arguments(prepare, data, "--archive", str(librispeech_archives), "--no-checksum", manifests=("dev-other",))
    with pytest.raises(ArchiveError, match="no folder LibriSpeech/dev-other"):
        prepare.prepare(args)


@pytest.mark.parametrize("below", ["", "LibriSpeech"])
def test_unpacked_folder_is_used_in_place(
    recipe_module: Callable, arguments: Callable, librispeech_archives: Path, tmp_path: Path, below: str
) -> None:
    prepare, data = recipe_module("librispeech", "prepare"), tmp_path / "data"
    corpus = tmp_path / "corpus"
    extract(librispeech_archives / "test-clean.tar.gz", corpus)
    prepare.prepare(arguments(prepare, data, "--unpacked", str(corpus / below), manifests=("test-clean",)))
    check(data, "test-clean", 3)
    assert sorted(p.name for p in data.iterdir()) == ["test-clean.done", "test-clean.jsonl"]


def test_nothing_is_fetched_unasked(recipe_module: Callable, arguments: Callable, tmp_path: Path) -> None:
    prepare = recipe_module("librispeech", "prepare")
    with pytest.raises(UsageError, match=r"--download \(6.7 GB: 2 files"):
        prepare.prepare(arguments(prepare, tmp_path / "data", manifests=("train-clean-100", "dev-clean")))
    with pytest.raises(UsageError, match="no split 'dev-cleen'"):
        prepare.prepare(arguments(prepare, tmp_path / "data", "--download", manifests=("dev-cleen",)))


def test_a_plan_names_the_missing_archives(
    recipe_module: Callable,
    librispeech_archives: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (librispeech_archives / "dev-clean.tar.gz").unlink()
    monkeypatch.chdir(tmp_path)
    argv = ["--archive", str(librispeech_archives), "--dry-run", "--steps", "prepare"]
    assert main(ROOT / "recipes" / "librispeech", recipe_module("librispeech", "prepare"), argv) == 0
    archives = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line[:7] == "archive"]
    assert [line.partition("; ")[0].removeprefix(f"{librispeech_archives}/") for line in archives] == [
        *("dev-clean.tar.gz: missing", "test-clean.tar.gz: here", "test-other.tar.gz: here"),
        "train-clean-100.tar.gz: here",
    ]
    assert not (tmp_path / "data").exists()


def test_every_configuration_is_valid_and_its_own() -> None:
    from asr.training.config import manifests, read_config

    folder = ROOT / "recipes" / "librispeech"
    configs = {path.stem: read_config(path) for path in folder.glob("*.yaml")}
    assert len({c.output for c in configs.values()}) == len(configs) == 12
    cells = {(c.text.tokenizer, c.model.cell, len(manifests(c.data.train))) for c in configs.values()}
    assert cells == {(t, c, n) for t in ("char", "bpe") for c in ("lstm", "gru") for n in (1, 2, 3)}
    for name, config in configs.items():
        assert list(config.data.test) == ["test-clean", "test-other"]
        assert name == "recipe" or config.name == f"librispeech-{name}"


def test_official_language_model(
    recipe_module: Callable,
    arguments: Callable,
    served: str,
    librispeech_archives: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    prepare, data = recipe_module("librispeech", "prepare"), tmp_path / "data"
    official(monkeypatch, prepare, librispeech_archives)
    name = "3-gram.pruned.3e-7.arpa.gz"
    (librispeech_archives / name).write_bytes(b"a language model")

    def run(lm: str, *argv: str) -> bytes:
        args = arguments(prepare, data, *argv)
        args.lm_file = data / lm
        prepare.prepare(args)
        return (data / lm).read_bytes()

    with pytest.raises(UsageError, match=r"not an official language model .*4-gram"):
        run("mine.arpa", "--download")
    with pytest.raises(UsageError, match="does not exist: use --download"):
        run(name, "--archive", str(tmp_path))
    assert run(name, "--download", "--lm-url", served) == b"a language model"
    assert Quiet.asked == [f"/{name}"]
    assert run(name) == b"a language model" and len(Quiet.asked) == 1  # it is there
    (data / name).unlink()
    assert run(name, "--archive", str(librispeech_archives)) == b"a language model" and len(Quiet.asked) == 1
