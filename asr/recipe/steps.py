"""The steps of a recipe: prepare, tokenizer, train, average, lm, evaluate; each is skipped when it is up to date."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from asr.config import to_dict
from asr.corpus.download import file_digest
from asr.files import Stamp, as_json, differences, file_state
from asr.lm.files import tuned_path
from asr.training.interruption import Signals, is_first_process
from asr.training.lock import locked
from asr.types import AudioError, ConfigError, UsageError

if TYPE_CHECKING:
    from asr.training.config import TrainConfig

STEPS = ("prepare", "tokenizer", "train", "average", "lm", "evaluate")
PREVIOUS = "previous"

# Settings that do not change what is learned: with another value a finished run is still up to date. Manifests count by
# their content, not by where they lie.
_INCIDENTAL = (
    *("name", "output", "checkpoint_minutes", "blank_plateau_epochs", "text.tokenizer_file", "averaging.last_k", "lm"),
    *(f"data.{key}" for key in ("train", "dev", "test", "workers", "cache_audio", "eval_batch_seconds")),
    *(f"trainer.{key}" for key in ("devices", "accelerator", "num_nodes", "strategy")),
    *(f"trainer.{key}" for key in ("log_every_n_steps", "enable_progress_bar")),
)
# Settings with which an earlier run can be continued, rather than begun again.
_CONTINUED = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "early_stopping")
# Arguments that every recipe has; the others are its preparation's own.
_SHARED_ARGUMENTS = {"config", "data", "output", "steps", "force", "overrides", "manifests", "lm_file"}


class Preparation(Protocol):
    """The recipe's own part, its module prepare.py."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Where the audio comes from, and whatever else can be chosen."""

    def sources(self, args: argparse.Namespace) -> list[Path]:
        """The files or folders that are read: when one changes, the preparation is done again."""

    def prepare(self, args: argparse.Namespace) -> None:
        """Write audio and manifests below `args.data`.

        `args.manifests` are those that the configuration names; `args.lm_file` is the language model that it names, if
        that lies below `args.data`, else None.
        """


@dataclass
class Run:
    """One run of a recipe: its configuration, with all paths, and the steps as methods."""

    config: TrainConfig
    args: argparse.Namespace
    preparation: Preparation
    folder: Path
    signals: Signals

    def steps(self, chosen: Sequence[str], forced: Sequence[str]) -> int:
        """Do the chosen steps that are not up to date (or are forced), in order; return the exit status."""
        if not is_first_process():  # only the training is shared
            chosen = [step for step in chosen if step == "train"]
        with contextlib.ExitStack() as locks:
            for step in chosen:
                if step != "prepare":
                    locks.enter_context(locked(self.output))
                getattr(self, step)(step in forced)
                self.signals.check()
        return 0

    def prepare(self, force: bool) -> None:
        """Audio and manifests."""
        wanted = [*self.args.manifests, *([self.args.lm_file] if self.args.lm_file else [])]
        chosen = {k: str(v) for k, v in vars(self.args).items() if k not in _SHARED_ARGUMENTS and v is not None}
        inputs = {
            "arguments": chosen,
            "sources": [file_state(path) for path in self.preparation.sources(self.args)],
            "recipe": {
                path.name: file_digest(path) for path in sorted(self.folder.glob("*.py")) if path.name != "run.py"
            },
            "manifests": sorted(str(path) for path in wanted),
        }
        stamp = Stamp(self.args.data / ".prepared.json")
        if not self._due("prepare", stamp, inputs, wanted, force):
            return
        with locked(self.args.data):
            self.preparation.prepare(self.args)
        missing = [str(path) for path in wanted if not path.exists()]
        if missing:
            raise ConfigError(f"the configuration names {missing[0]}, which this recipe does not prepare")
        stamp.write(inputs)

    def tokenizer(self, force: bool) -> None:
        """The tokenizer, from the training transcripts alone, and a look at the symbols of the other sets."""
        from asr.corpus.check import unknown_symbols
        from asr.corpus.manifest import Manifest
        from asr.text.tokenizer import load_tokenizer
        from asr.training.config import manifests
        from asr.training.prepare import make_tokenizer

        text = self.config.text
        inputs = {"text": to_dict(text), "manifests": self._hashes(manifests(self.config.data.train))}
        stamp = Stamp(self._stamps / "tokenizer.json")
        if not self._due("tokenizer", stamp, inputs, [self._tokenizer_file], force):
            return
        if text.tokenizer_file:
            tokenizer = load_tokenizer(text.tokenizer_file)
        else:
            tokenizer = make_tokenizer(text, Manifest.read(manifests(self.config.data.train)))
            self.output.mkdir(parents=True, exist_ok=True)
            tokenizer.save(self._tokenizer_file)
        for path in [*manifests(self.config.data.dev), *self.config.data.test.values()]:
            unknown = unknown_symbols(Manifest.read(path), tokenizer, text.normalizer)
            if unknown:
                table = ", ".join(f"{s.symbol!r} x {s.count} (e.g. {s.examples[0]})" for s in unknown[:8])
                _say("tokenizer", f"warning: {path} has symbols that no model of this recipe can write: {table}")
        stamp.write(inputs)
        _say("tokenizer", f"{tokenizer.kind}, {tokenizer.vocab_size} symbols with the blank")

    def train(self, force: bool) -> None:
        """The model: an interrupted run goes on, one with other settings or data is set aside."""
        from asr.training.config import manifests
        from asr.training.resume import checkpoints, set_aside
        from asr.training.run import train

        data = self.config.data
        settings = _without(to_dict(self.config), _INCIDENTAL)
        sets = {"train": self._hashes(manifests(data.train)), "dev": self._hashes(manifests(data.dev))}
        inputs = {**settings, "manifests": sets, "tokenizer": self._hashes([str(self._tokenizer_file)])}
        stamp = Stamp(self._stamps / "train.json")
        stored = stamp.read()
        if not self._due("train", stamp, inputs, [self.model_file], force):
            return
        before, now = stored.get("inputs") or as_json(inputs), as_json(inputs)
        same = not differences(_without(before, _CONTINUED), _without(now, _CONTINUED))
        if is_first_process():
            if checkpoints(self.output) and (force or not same):
                stay = {self._stamps.name, self._tokenizer_file.name}
                stay |= {path.name for path in self.output.glob(f"{PREVIOUS}-*")}
                aside = set_aside(self.output, self.output / f"{PREVIOUS}-", stay)
                _say("train", f"starting afresh; the earlier run was moved to {aside}")
            stamp.write(inputs, finished=False)
        config = replace(self.config, text=replace(self.config.text, tokenizer_file=str(self._tokenizer_file)))
        result = train(config, resume="auto")
        if is_first_process():
            stamp.write(inputs, result={"dev_wer": result.dev_wer, "epochs": result.epochs, "seconds": result.seconds})
            self._averaged().write(self._average_inputs())  # training ends with averaging by these settings
            _say(
                "train",
                f"dev WER {result.dev_wer:.2%} after {result.epochs} epochs in {result.seconds / 60:.1f} minutes",
            )

    def average(self, force: bool) -> None:
        """The mean of the best checkpoints, again, when `averaging.last_k` was changed after the training."""
        import torch

        from asr.model.checkpoint import load_model, save_model
        from asr.training.record import average_checkpoints

        inputs = self._average_inputs()
        if self.config.averaging.kind != "last_k":
            return _say("average", f"nothing to do (averaging.kind is {self.config.averaging.kind})")
        if not self._due("average", self._averaged(), inputs, [self.model_file], force):
            return
        chosen = [self.output / "checkpoints" / name for name in inputs["checkpoints"]]
        file = load_model(self.model_file)
        weights = average_checkpoints(chosen)
        with torch.no_grad():
            file.model.load_state_dict(weights)
        summary = file.training | {"averaging": "last_k", "checkpoints": inputs["checkpoints"]}
        summary.pop("dev_wer", None)  # it was measured on other weights
        summary.pop("dev_cer", None)
        save_model(self.model_file, file.model, file.tokenizer, file.normalizer, summary)
        self._averaged().write(inputs)
        _say("average", f"{self.model_file} is the mean of {len(chosen)} checkpoints")

    def lm(self, force: bool) -> None:
        """The language model of the beam search, and its weights, tuned on the dev set."""
        from asr.recipe.results import has_language_model, make_language_model, tune_language_model
        from asr.training.config import manifests

        config = self.config
        if not has_language_model(config):
            return _say("lm", "nothing to do (lm.order is 0)")
        texts = [config.lm.file] if config.lm.file else [*manifests(config.data.train), *manifests(config.lm.text)]
        inputs = {
            "lm": to_dict(config.lm),
            "normalizer": config.text.normalizer,
            "texts": self._hashes(texts),
            "dev": self._hashes(manifests(config.data.dev)),
            "model": self._hashes([str(self.model_file)]),
        }
        stamp = Stamp(self._stamps / "lm.json")
        if not self._due("lm", stamp, inputs, [self.lm_file], force):
            return

        def warn(message: str) -> None:
            _say("lm", f"warning: {message}")

        make_language_model(config, self.lm_file, warn)
        tuning = tune_language_model(config, self.model_file, self.lm_file, self.output / "tuning", warn)
        best = tuning.best
        stamp.write(inputs)
        _say(
            "lm",
            f"alpha {best.alpha:g}, beta {best.beta:g}, beam width {best.beam_width}: dev WER {tuning.wer(best):.2%}",
        )

    def evaluate(self, force: bool) -> None:
        """Each test set on its own, then the table and how to go on."""
        from asr.recipe.results import GREEDY, evaluate_sets, result_folders, results_table

        tests = self.config.data.test
        if not tests:
            return _say("evaluate", "nothing to do (data.test names no test set)")
        lm = self._lm_in_use()
        inputs = {
            "model": file_digest(self.model_file) if self.model_file.exists() else "",
            "lm": [file_digest(path) for path in (lm, tuned_path(lm))] if lm else [],
            "tests": {name: self._hashes([path]) for name, path in tests.items()},
        }
        stamp = Stamp(self._stamps / "evaluate.json")
        summaries = [folder / "summary.json" for folder in result_folders(self.results, tests, lm).values()]
        if self._due("evaluate", stamp, inputs, summaries, force):
            rows = evaluate_sets(self.model_file, tests, self.results, lm, lambda line: _say("evaluate", line))
            stamp.write(inputs, result=rows)
        rows = stamp.read()["result"]
        print(results_table(rows))
        print(f"model: {self.model_file}")
        language_model = f" --lm {shlex.quote(str(lm))}" if lm else ""
        print(f"transcribe with: asr transcribe AUDIO -m {shlex.quote(str(self.model_file))}{language_model}")
        unreadable = sum(row["unreadable"] for row in rows if row["decoding"] == GREEDY)
        if unreadable:
            raise AudioError(f"{unreadable} recordings of the test sets cannot be read; they count as not recognized")

    @property
    def output(self) -> Path:
        return Path(self.config.output)

    @property
    def model_file(self) -> Path:
        return self.output / "model.asr"

    @property
    def lm_file(self) -> Path:
        return self.output / "words.lm"

    def _lm_in_use(self) -> Path | None:
        """The language model, where the recipe wants one and has tuned it."""
        from asr.recipe.results import has_language_model

        return self.lm_file if has_language_model(self.config) and tuned_path(self.lm_file).exists() else None

    @property
    def results(self) -> Path:
        return self.output / "results"

    @property
    def _stamps(self) -> Path:
        return self.output / "steps"

    @property
    def _tokenizer_file(self) -> Path:
        return Path(self.config.text.tokenizer_file or self.output / "tokenizer.json")

    def _averaged(self) -> Stamp:
        return Stamp(self._stamps / "average.json")

    def _average_inputs(self) -> dict[str, Any]:
        """The best `last_k` of the checkpoints that the training kept, by the dev WER in their names."""
        found = sorted((self.output / "checkpoints").glob("*-wer*.ckpt"), key=lambda path: _wer_in(path.name))
        return {"checkpoints": [path.name for path in found[: self.config.averaging.last_k]]}

    def _hashes(self, paths: Sequence[str]) -> list[str]:
        for path in paths:
            if not Path(path).is_file():
                raise UsageError(f"{path} does not exist; run the earlier steps first, or without --steps")
        return [file_digest(path) for path in paths]

    def _due(self, step: str, stamp: Stamp, inputs: dict[str, Any], outputs: Sequence[Path], force: bool) -> bool:
        reason = "forced" if force else stamp.why(inputs, outputs)
        _say(step, reason or "up to date")
        return bool(reason)


def _without(settings: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Nested settings without some of them, given by dotted names."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if key in keys:
            continue
        below = [k.partition(".")[2] for k in keys if k.startswith(key + ".")]
        result[key] = _without(value, below) if below and isinstance(value, dict) else value
    return result


def _wer_in(name: str) -> tuple[float, str]:
    number = name.rpartition("-wer")[2].removesuffix(".ckpt").partition("-")[0]
    try:
        return float(number), name
    except ValueError:
        return float("inf"), name


def _say(step: str, line: str) -> None:
    if is_first_process():
        print(f"[{step}] {line}", file=sys.stderr, flush=True)
