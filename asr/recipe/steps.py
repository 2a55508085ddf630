"""The steps of a recipe: prepare, tokenizer, train, average, lm, evaluate; each is skipped if it is up to date.

Because it imports torch and Lightning, this is imported after reading the arguments and setting up signal handlers.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import asr
from asr.config import from_dict, to_dict
from asr.corpus.download import file_digest
from asr.corpus.labels import label_numbers
from asr.corpus.manifest import Manifest
from asr.files import Stamp, as_json, differences, file_state
from asr.lm.estimate import encode_corpus, estimate, read_sentences
from asr.lm.files import tuned_path
from asr.lm.ngram import NGramLM
from asr.model.checkpoint import find_model, load_model, save_model
from asr.model.config import CLASSIFICATION
from asr.recipe.corpus import WHERE, Corpus, source_paths
from asr.recipe.results import decodings_of, evaluate_all, results_folders, results_table
from asr.recipe.sets import ShardConverted
from asr.recognition.tuning import tune_on_manifest, write_tuning
from asr.scoring.breakdown import task_rates
from asr.text.normalize import normalizer
from asr.text.tokenizer import LabelSet, load_tokenizer
from asr.training.callbacks import best_checkpoints
from asr.training.checkpoints import average_checkpoints, checkpoints, set_aside
from asr.training.config import TrainConfig, manifests, training_sets
from asr.training.data import describe_unknown_symbols, read_manifest, training_symbols
from asr.training.process import Signals, is_first_process, locked, say
from asr.training.run import MODEL, TOKENIZER, train
from asr.training.tasks import task_of
from asr.types import AudioError, ConfigError, ModelFileError, UsageError

PREVIOUS = "previous"
UP_TO_DATE = "up to date"

# Settings that do not affect what is learned: a finished run stays up to date when they change. Manifests are compared
# by content, not by path.
_INCIDENTAL = (
    *("name", "output", "checkpoint_minutes", "blank_plateau_epochs", "text.tokenizer_file", "averaging.last_k", "lm"),
    *(f"data.{key}" for key in ("train", "dev", "test", "workers", "cache_audio", "eval_batch_seconds")),
    *(f"trainer.{key}" for key in ("devices", "accelerator", "num_nodes", "strategy")),
    *(f"trainer.{key}" for key in ("log_every_n_steps", "enable_progress_bar")),
)
# Settings that may change when an earlier run is continued.
_CONTINUED = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "early_stopping")
# Arguments that every recipe has; the others belong to its preparation.
_SHARED_ARGUMENTS = {
    *("config", "data", "output", "steps", "force", "overrides", "manifests", "lm_file"),
    *("dry_run", "train_hours", "shard"),
    *WHERE,
}


class Planned(Exception):
    """Ends a step of a dry run. `reason` is why it would be done, "" if it would not; then `word` tells why not."""

    def __init__(self, reason: str, word: str = UP_TO_DATE) -> None:
        super().__init__(reason or word)
        self.reason = reason


class Preparation(Protocol):
    """A recipe's own part, its module prepare.py.

    It may also have `sources(args)`, the files or folders that `prepare` reads (default: `source_paths`), so that it is
    repeated when they change; `archives(args)`, those of CORPUS that it needs; and, for a recipe without a recipe.yaml,
    `configure(args)`, which returns the values of the configuration.
    """

    CORPUS: Corpus

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add arguments for the source of the audio, and for anything else the user can choose."""

    def prepare(self, args: argparse.Namespace) -> None:
        """Write audio and manifests below `args.data`.

        `args.manifests` are those that the configuration names; `args.lm_file` is the language model that it names if
        its path is below `args.data`, else None.
        """


@dataclass
class Run:
    """One run of a recipe: its configuration, with all paths, and the steps as methods."""

    config: TrainConfig
    args: argparse.Namespace
    preparation: Preparation
    folder: Path
    signals: Signals

    def __post_init__(self) -> None:
        self.output = Path(self.config.output)
        self.model_file = self.output / MODEL
        self.lm_file = self.output / "words.lm"
        self.tokenizer_file = Path(self.config.text.tokenizer_file or self.output / TOKENIZER)
        self.stamps = self.output / "steps"

    def sources(self) -> Sequence[Path]:
        """The files or folders that the preparation reads."""
        sources: Callable[[argparse.Namespace], Sequence[Path]] = getattr(self.preparation, "sources", source_paths)
        return sources(self.args)

    def steps(self, chosen: Sequence[str], forced: Sequence[str]) -> None:
        """Run the chosen steps that are forced or not up to date, in order; with --shard only the preparation."""
        if getattr(self.args, "shard", None):
            chosen = [step for step in chosen if step == "prepare"]
        if not is_first_process():  # processes share only the training
            chosen = [step for step in chosen if step == "train"]
        with contextlib.ExitStack() as locks:
            for step in chosen:
                if step != "prepare":
                    locks.enter_context(locked(self.output))
                getattr(self, step)(step in forced)
                self.signals.check()

    def reasons(self, chosen: Sequence[str], forced: Sequence[str]) -> dict[str, tuple[bool, str]]:
        """For each chosen step, whether it would be done, and why or why not. Nothing is done."""
        reasons: dict[str, tuple[bool, str]] = {}
        for step in chosen:
            first = next((name for name, (due, _) in reasons.items() if due), "")
            try:
                getattr(self, step)(step in forced)
            except Planned as plan:
                reasons[step] = (bool(plan.reason), str(plan))
            except (UsageError, ModelFileError):  # it reads what an earlier step makes
                if not first:
                    raise
                reasons[step] = (True, "")
            if first and not reasons[step][1].startswith("nothing to do"):
                reasons[step] = (True, f"after {first}")
        return reasons

    def prepare(self, force: bool) -> None:
        """Audio and manifests."""
        wanted = [*self.args.manifests, *([self.args.lm_file] if self.args.lm_file else [])]
        chosen = {k: str(v) for k, v in vars(self.args).items() if k not in _SHARED_ARGUMENTS and v is not None}
        code = [path for path in sorted(self.folder.glob("*.py")) if path.name != "run.py"]
        inputs = {
            "arguments": chosen,
            "sources": [file_state(path) for path in self.sources()],
            "recipe": {path.name: file_digest(path) for path in code},
            "manifests": sorted(str(path) for path in wanted),
        }
        stamp = Stamp(self.args.data / ".prepared.json")
        if not inputs["sources"]:  # without a source, the user means what was prepared before
            inputs["sources"] = stamp.read().get("inputs", {}).get("sources", [])
        if not self._is_due("prepare", stamp, inputs, wanted, force):
            return
        if getattr(self.args, "shard", None):  # other processes are at work in the folder
            if not self.args.unpacked:
                raise UsageError("--shard does not unpack archives: name the unpacked corpus with --unpacked DIR")
            with contextlib.suppress(ShardConverted):
                self.preparation.prepare(self.args)
            say("[prepare] this part is converted; once all parts are, run the same command without --shard")
            return
        with locked(self.args.data):
            self.preparation.prepare(self.args)
        missing = [str(path) for path in wanted if not path.exists()]
        if missing:
            raise ConfigError(f"the configuration names {missing[0]}, which this recipe does not prepare")
        stamp.write(inputs)

    def tokenizer(self, force: bool) -> None:
        """The tokenizer, from the training transcripts only; symbols of other sets that it lacks are reported."""
        text, data = self.config.text, self.config.data
        inputs = {"text": to_dict(text), "manifests": _digests(manifests(data.train))}
        stamp = Stamp(self.stamps / "tokenizer.json")
        if not self._is_due("tokenizer", stamp, inputs, [self.tokenizer_file], force):
            return
        if text.tokenizer_file:
            tokenizer = load_tokenizer(text.tokenizer_file)
        else:
            tokenizer = training_symbols(self.config, read_manifest(self.config, manifests(data.train)))
            self.output.mkdir(parents=True, exist_ok=True)
            tokenizer.save(self.tokenizer_file)
        for path in [*manifests(data.dev), *data.test.values()]:
            rows = read_manifest(self.config, [path])
            if isinstance(tokenizer, LabelSet):
                label_numbers(rows, tokenizer)
            elif unknown := describe_unknown_symbols(rows, tokenizer, text.normalizer):
                say(f"[tokenizer] warning: {path} has symbols that no model of this recipe can write: {unknown}")
        stamp.write(inputs)
        noun = "classes" if isinstance(tokenizer, LabelSet) else "symbols with the blank"
        say(f"[tokenizer] {tokenizer.kind}, {tokenizer.vocab_size} {noun}")

    def train(self, force: bool) -> None:
        """The model: an interrupted run is continued, a run with other settings or data is set aside."""
        data = self.config.data
        sets: dict[str, Any] = {"train": _digests(manifests(data.train)), "dev": _digests(manifests(data.dev))}
        weights = [training_set.weight for training_set in training_sets(data.train)]
        if any(weight != 1 for weight in weights):
            sets["weights"] = weights
        settings = _without(to_dict(self.config), _INCIDENTAL)
        inputs = {**settings, "manifests": sets, "tokenizer": _digests([self.tokenizer_file])}
        stamp = Stamp(self.stamps / "train.json", _with_current_settings)
        stored = stamp.read()
        if self.config.init:  # also by content; a run that has started no longer needs it
            init = find_model(self.config.init)
            digest = file_digest(init) if init.is_file() else stored.get("inputs", {}).get("init_sha256")
            inputs["init_sha256"] = digest
        if not self._is_due("train", stamp, inputs, [self.model_file], force):
            return
        before, now = stored.get("inputs") or as_json(inputs), as_json(inputs)
        same = not differences(_without(before, _CONTINUED), _without(now, _CONTINUED))
        if is_first_process():
            if checkpoints(self.output) and (force or not same):
                keep = {self.stamps.name, self.tokenizer_file.name}
                keep |= {path.name for path in self.output.glob(f"{PREVIOUS}-*")}
                aside = set_aside(self.output, self.output / f"{PREVIOUS}-", keep)
                say(f"[train] starting over; the earlier run was moved to {aside}")
            stamp.write(inputs, finished=False)
        config = replace(self.config, text=replace(self.config.text, tokenizer_file=str(self.tokenizer_file)))
        result = train(config, resume="auto")
        if is_first_process():
            stamp.write(inputs, result={"dev": result.dev, "epochs": result.epochs, "seconds": result.seconds})
            # Training ends by averaging with these settings.
            Stamp(self.stamps / "average.json").write(self._average_inputs())
            say(f"[train] {result.scores} after {result.epochs} epochs in {result.seconds / 60:.1f} minutes")

    def average(self, force: bool) -> None:
        """The mean of the best checkpoints, again, if `averaging.last_k` was changed after the training."""
        if self.config.averaging.kind != "last_k":
            return self._nothing_to_do("average", f"averaging.kind is {self.config.averaging.kind}")
        inputs, stamp = self._average_inputs(), Stamp(self.stamps / "average.json")
        if not self._is_due("average", stamp, inputs, [self.model_file], force):
            return
        names = inputs["checkpoints"]
        file = load_model(self.model_file)
        file.model.load_state_dict(average_checkpoints([self.output / "checkpoints" / name for name in names]))
        # The error rates on the dev set were measured with other weights.
        summary = {key: value for key, value in file.training.items() if not key.startswith("dev_")}
        summary |= {"averaging": "last_k", "checkpoints": names}
        save_model(self.model_file, file.model, file.tokenizer, file.normalizer, summary, file.task)
        stamp.write(inputs)
        say(f"[average] {self.model_file} is the mean of {len(names)} checkpoints")

    def lm(self, force: bool) -> None:
        """The language model for the beam search, and its weights, tuned on the dev set."""
        config, dev = self.config, manifests(self.config.data.dev)
        if not self._wants_lm():
            return self._nothing_to_do("lm", "lm.order is 0" if config.task != CLASSIFICATION else "no texts")
        texts = [config.lm.file] if config.lm.file else [*manifests(config.data.train), *manifests(config.lm.text)]
        inputs = {
            "lm": to_dict(config.lm),
            "normalizer": config.text.normalizer,
            "texts": _digests(texts),
            "dev": _digests(dev),
            "model": _digests([self.model_file]),
        }
        stamp = Stamp(self.stamps / "lm.json")
        if not self._is_due("lm", stamp, inputs, [self.lm_file], force):
            return
        self._make_language_model(texts)
        folder = self.output / "tuning"
        recognizer = asr.load(self.model_file)
        tuning = tune_on_manifest(recognizer, self.model_file, self.lm_file, Manifest.read(dev), folder, warn=_warn_lm)
        write_tuning(tuning, folder, config.name)
        stamp.write(inputs)
        best = tuning.best
        weights = f"alpha {best.alpha:g}, beta {best.beta:g}, beam width {best.beam_width}"
        label = next(label for label, unit in task_rates(config.task) if unit == "word")
        say(f"[lm] {weights}: dev {label} {tuning.wer(best):.2%}")

    def evaluate(self, force: bool) -> None:
        """The error rates on each test set with each decoder, as files and as a table."""
        tests = self.config.data.test
        if not tests:
            return self._nothing_to_do("evaluate", "data.test names no test set")
        lm = self.lm_file if self._wants_lm() and tuned_path(self.lm_file).exists() else None
        inputs = {
            "model": file_digest(self.model_file) if self.model_file.exists() else "",
            "lm": [file_digest(path) for path in (lm, tuned_path(lm))] if lm else [],
            "tests": {name: _digests([path]) for name, path in tests.items()},
        }
        folders = results_folders(self.output / "results", tests, decodings_of(self.config, lm))
        first = next(iter(folders))[1]
        stamp = Stamp(self.stamps / "evaluate.json")
        if self._is_due("evaluate", stamp, inputs, [folder / "summary.json" for folder in folders.values()], force):
            stamp.write(inputs, result=evaluate_all(self.model_file, tests, folders, lm))
        rows = stamp.read()["result"]
        print(results_table(rows, self.config.task))
        print(f"model: {self.model_file}")
        language_model = f" --lm {shlex.quote(str(lm))}" if lm else ""
        print(f"transcribe with: asr transcribe AUDIO -m {shlex.quote(str(self.model_file))}{language_model}")
        unreadable = sum(row["unreadable"] for row in rows if row["decoding"] == first)
        if unreadable:
            raise AudioError(f"{unreadable} recordings of the test sets cannot be read; they count as not recognized")

    def _is_due(self, step: str, stamp: Stamp, inputs: dict[str, Any], outputs: Sequence[Path], force: bool) -> bool:
        reason = "forced" if force else stamp.why(inputs, outputs)
        if self.args.dry_run:
            raise Planned(reason)
        say(f"[{step}] {reason or UP_TO_DATE}")
        return bool(reason)

    def _nothing_to_do(self, step: str, why: str) -> None:
        if self.args.dry_run:
            raise Planned("", f"nothing to do ({why})")
        say(f"[{step}] nothing to do ({why})")

    def _average_inputs(self) -> dict[str, Any]:
        """The names of the best `last_k` checkpoints that the training kept."""
        best = best_checkpoints(self.output, task_of(self.config))
        return {"checkpoints": [path.name for path in best[: self.config.averaging.last_k]]}

    def _wants_lm(self) -> bool:
        return bool(self.config.lm.order or self.config.lm.file) and self.config.task != CLASSIFICATION

    def _make_language_model(self, texts: Sequence[str]) -> None:
        """Write the binary language model: that of `lm.file`, or one of `lm.order` from texts with a sentence per line.

        The texts are normalized by the recipe's normalizer.
        """
        config = self.config
        if config.lm.file:
            lm = NGramLM.read(config.lm.file, verify=True)
        else:
            corpus = encode_corpus(read_sentences(texts, normalizer(config.text.normalizer)))
            lm = NGramLM.from_tables(estimate(corpus, config.lm.order, warn=_warn_lm).tables)
        self.output.mkdir(parents=True, exist_ok=True)
        lm.write_binary(self.lm_file)


def _with_current_settings(inputs: dict[str, Any]) -> dict[str, Any]:
    """The recorded inputs of a training, with the defaults of newer settings and the new names of renamed ones."""
    known = {field.name for field in fields(TrainConfig)} - set(_INCIDENTAL)
    try:
        config = from_dict(TrainConfig, {key: value for key, value in inputs.items() if key in known})
    except ConfigError:
        return inputs
    return inputs | as_json(_without(to_dict(config), _INCIDENTAL))


def _digests(paths: Sequence[str | Path]) -> list[str]:
    for path in paths:
        if not Path(path).is_file():
            raise UsageError(f"{path} does not exist: run the earlier steps first, or omit --steps")
    return [file_digest(path) for path in paths]


def _without(settings: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Nested settings without those named by dotted `keys`."""
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if key in keys:
            continue
        below = [k.partition(".")[2] for k in keys if k.startswith(key + ".")]
        result[key] = _without(value, below) if below and isinstance(value, dict) else value
    return result


def _warn_lm(message: str) -> None:
    say(f"[lm] warning: {message}")
