"""Every recipe alike: its page says what its code says, and it runs from the official layout to a score."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from asr.corpus.manifest import Manifest
from asr.recipe.run import main
from asr.training.config import read_config

ROOT = Path(__file__).parents[2]
FOLDERS = {path.parent.name: path.parent for path in sorted((ROOT / "recipes").glob("*/prepare.py"))}
RECIPES = [name for name in FOLDERS if (FOLDERS[name] / "recipe.yaml").exists()]  # `custom` writes its own
LONGEST_PREPARATION = 100  # lines
_LONGER = {"an4", "librispeech", "mini", "english"}  # from before the shared code; english mixes corpora
TINY = (
    "init=",
    *("model.hidden_size=8", "model.layers=1", "model.subsampling_channels=4", "features.n_mels=20"),
    *("text.tokenizer=char", "lm.order=0", "data.batch_seconds=30", "data.workers=0", "data.allow_skips=true"),
    *("trainer.max_steps=1", "trainer.precision=32-true", "trainer.accelerator=cpu", "augment.speed=[1.0]"),
)


def layout(name: str) -> ModuleType:
    """`layouts/NAME.py`: its `make(folder)` makes a tiny corpus as it is published; the arguments that name it."""
    path = Path(__file__).parent / "layouts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"layout_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FOLDERS)
def test_the_page_says_what_the_code_says(name: str, recipe_module: Callable[[str, str], ModuleType]) -> None:
    page = (FOLDERS[name] / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE))
    facts = dict(recipe_module(name, "prepare").CORPUS.facts())
    assert {key: rows.get(key) for key in facts} == facts
    assert rows["one GPU"] and rows["WER"]
    assert f"python recipes/{name}/run.py" in page
    table = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    assert f"({name}/README.md)" in table


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_is_copied(name: str) -> None:
    folder = FOLDERS[name]
    if name != "custom":
        assert (folder / "run.py").read_text(encoding="utf-8") == (ROOT / "recipes/an4/run.py").read_text("utf-8")
    if name not in _LONGER:
        lines = (folder / "prepare.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) <= LONGEST_PREPARATION
    for path in [*folder.glob("*.yaml"), *folder.glob("systems/*.yaml")]:
        read_config(path)


@pytest.mark.parametrize("name", RECIPES)
def test_from_the_official_layout_to_a_score(
    name: str,
    recipe_module: Callable[[str, str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    official = tmp_path / "official"
    official.mkdir()
    argv = layout(name).make(official)
    prepare = recipe_module(name, "prepare")
    monkeypatch.chdir(tmp_path)

    assert main(FOLDERS[name], prepare, [*argv, "--output", "run", *TINY]) == 0, capsys.readouterr().err
    config = read_config(FOLDERS[name] / "recipe.yaml")
    for test in config.data.test:
        decoding = "labels" if config.task == "classification" else "greedy"
        summary = json.loads((tmp_path / "run" / "results" / test / decoding / "summary.json").read_text("utf-8"))
        assert summary["utterances"] > 0 and not summary["unreadable"]
    sets = [Manifest.read(tmp_path / "data" / name / f"{path.stem}.jsonl") for path in manifests_of(config)]
    ids = [utterance.id for manifest in sets for utterance in manifest]
    assert len(set(ids)) == len(ids)
    capsys.readouterr()
    assert main(FOLDERS[name], prepare, [*argv, "--output", "run", *TINY]) == 0
    steps = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert all("up to date" in step or "nothing to do" in step for step in steps), steps


def manifests_of(config: object) -> list[Path]:
    from asr.training.config import TrainConfig, manifests

    assert isinstance(config, TrainConfig)
    names = [*manifests(config.data.train), *manifests(config.data.dev), *config.data.test.values()]
    return [Path(name) for name in dict.fromkeys(names)]
