"""Recipes' modules loaded as their run.py sees them, and tiny archives in the official layouts."""

from __future__ import annotations

import argparse
import importlib
import io
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # for archives.py: pytest imports test files without touching the path
RECIPE_MODULES = ("prepare", "selection", "sentences", "synthesize", "synthesized", "run")


@pytest.fixture
def recipe_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """`recipe_module("an4", "prepare")`: a module of one recipe, imported from its folder as a script would."""

    def load(recipe: str, name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / "recipes" / recipe))
        return importlib.import_module(name)

    yield load
    for name in RECIPE_MODULES:  # every recipe has a `prepare`
        sys.modules.pop(name, None)


@pytest.fixture
def arguments() -> Callable[..., argparse.Namespace]:
    """The arguments of a preparation as its recipe's run.py makes them."""

    def make(module: ModuleType, data: Path, *argv: str, manifests: tuple[str, ...] = ()) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        args = parser.parse_args(argv)
        args.data, args.manifests = data, [data / f"{name}.jsonl" for name in manifests]
        args.lm_file = None
        data.mkdir(parents=True, exist_ok=True)
        return args

    return make


@pytest.fixture
def add_file() -> Callable[[tarfile.TarFile, str, bytes], None]:
    def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))

    return add


@pytest.fixture
def an4_archive(tmp_path: Path, add_file: Callable[..., None]) -> tuple[Path, dict[str, np.ndarray]]:
    """An archive in AN4's layout, 3 utterances of each of 12 speakers, and the samples by utterance id."""
    speakers = [f"f{x}aa" for x in "abcd"] + [f"m{x}bb" for x in "abcdef"] + ["mzzz", "mzzz2"]
    chance = np.random.default_rng(0)
    samples: dict[str, np.ndarray] = {}
    texts: dict[str, list[str]] = {"train": [], "test": []}
    path = tmp_path / "an4_raw.bigendian.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for speaker in [*speakers, "ftst"]:
            split = "test" if speaker == "ftst" else "train"
            for i in range(3):
                identifier = f"an{i}-{speaker}-b"
                samples[identifier] = chance.integers(-3000, 3000, 8000 + 800 * i).astype(np.int16)
                folder = f"an4/wav/an4{'test' if split == 'test' else ''}_clstk/{speaker}"
                add_file(tar, f"{folder}/{identifier}.raw", samples[identifier].astype(">i2").tobytes())
                words = "U M ++NOISE++ SIX" if i else "YES"
                marked = words if split == "test" and i else f"<s> {words} </s>"
                texts[split].append(f"{marked} ({identifier})\n")
        for split, lines in texts.items():
            add_file(tar, f"an4/etc/an4_{split}.transcription", "".join(lines).encode())
    return path, samples


@pytest.fixture
def librispeech_archives(tmp_path: Path, add_file: Callable[..., None]) -> Path:
    """A folder with train-clean-100, dev-clean, test-clean and test-other archives in the official layout."""
    folder = tmp_path / "archives"
    folder.mkdir()
    chance = np.random.default_rng(1)
    for number, split in enumerate(("train-clean-100", "dev-clean", "test-clean", "test-other")):
        with tarfile.open(folder / f"{split}.tar.gz", "w:gz") as tar:
            add_file(tar, "LibriSpeech/LICENSE.TXT", b"CC BY 4.0")
            for chapter in (100 + number, 200 + number):
                stem = f"{number + 1}-{chapter}"
                place = f"LibriSpeech/{split}/{number + 1}/{chapter}"
                lines = []
                for i in range(3):
                    content = io.BytesIO()
                    soundfile.write(content, chance.normal(0, 0.1, 16000 + 1600 * i), 16000, format="FLAC")
                    add_file(tar, f"{place}/{stem}-{i:04d}.flac", content.getvalue())
                    lines.append(f"{stem}-{i:04d} IT'S SENTENCE {'ABC'[i]}\n")
                add_file(tar, f"{place}/{stem}.trans.txt", "".join(lines).encode())
    return folder
