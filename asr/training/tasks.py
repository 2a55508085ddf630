"""The registry of tasks: a model's task decides what a validation decodes, how it is scored, and what is best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from asr.config import nearest
from asr.corpus.labels import label_of
from asr.corpus.manifest import Manifest
from asr.decoding.greedy import GreedyDecoder
from asr.model.acoustic import AcousticModel, Outputs
from asr.model.config import CLASSIFICATION
from asr.scoring.breakdown import task_rates
from asr.scoring.classes import class_rates
from asr.scoring.edits import score
from asr.text.normalize import normalize
from asr.text.tokenizer import Tokenizer
from asr.training.config import TrainConfig
from asr.training.dataset import Batch
from asr.training.losses.attention import attention_loss, padded_tokens
from asr.training.losses.ctc import ctc_loss
from asr.types import ConfigError


class Task(Protocol):
    """A validation: `start`, `add` for each batch, `totals`, to be summed over the ranks, and `metrics` of the sums.

    `monitor`, `mode` and `rates` are class attributes, so that the registry has them without a model.
    """

    monitor: str  # the metric that chooses checkpoints, one of `rates`
    mode: Literal["min", "max"]  # whether less or more of it is better
    rates: Mapping[str, str]  # the metrics shown to people, as percentages: name -> label
    example: tuple[str, str]  # a reference and its hypothesis, to be shown

    def start(self) -> None: ...

    def add(self, outputs: Outputs | None, batch: Batch) -> None:
        """Decode a batch. Unreadable utterances count as wrong; `outputs` is None if all are unreadable."""

    def totals(self) -> Tensor:
        """Sums (n,) float64 of this rank. Rates are computed from sums, not as means over ranks."""

    def metrics(self, totals: Tensor) -> dict[str, float]:
        """The metrics by the names under which they are logged (`dev/...`): all `rates`, and `dev/loss` if any.

        If `data.dev` names several manifests, also `dev/NAME/...` for each.
        """

    def choose_example(self, number: int) -> None:
        """Set `example` to utterance `number` modulo their count."""


def format_rates(task: type[Task] | Task, metrics: Mapping[str, Any], width: int = 0) -> str:
    """The task's rates in a line, `WER 12.34%  CER 5.67%`, with numbers at least `width` wide."""
    return "  ".join(f"{label} {float(metrics[name]):{width}.2%}" for name, label in task.rates.items())


def format_parts(task: type[Task] | Task, metrics: Mapping[str, Any]) -> str:
    """The `monitor` of each of several dev manifests, `(a 12.34%, b 5.67%)`; "" for a single one."""
    before, _, after = task.monitor.partition("/")
    names = [name for name in metrics if name.startswith(f"{before}/") and name.endswith(f"/{after}")]
    parts = [(name[len(before) + 1 : -len(after) - 1], float(metrics[name])) for name in names if name != task.monitor]
    return f"({', '.join(f'{part} {rate:.2%}' for part, rate in parts)})" if parts else ""


def short_names(paths: Sequence[str]) -> list[str]:
    """A name for each manifest: that of the file, with the name of its folder or a number if it is not unique."""
    names = [Path(path).name.removesuffix(".gz").removesuffix(".jsonl") for path in paths]
    count = Counter(names)
    folders = [Path(path).absolute().parent.name for path in paths]
    names = [f"{f}-{name}" if count[name] > 1 else name for f, name in zip(folders, names, strict=True)]
    count = Counter(names)
    return [f"{name}-{i}" if count[name] > 1 else name for i, name in enumerate(names, 1)]


def _rates(task: str) -> dict[str, str]:
    return {{"word": "dev/wer", "char": "dev/cer"}[unit]: label for label, unit in task_rates(task)}


class CTCTask:
    """Task `ctc`: greedy decoding, word and character error rates from summed edits, and the CTC loss per token."""

    monitor = "dev/wer"
    mode: Literal["min", "max"] = "min"
    rates: Mapping[str, str] = _rates("ctc")

    def __init__(self, model: AcousticModel, tokenizer: Tokenizer, normalizer: str, dev: Manifest) -> None:
        self.normalizer, self.dev = normalizer, dev
        self.files, self.names = dev.files, short_names(dev.paths)
        self.decoder = GreedyDecoder(tokenizer, model.frame_seconds)
        self.example = ("", "")
        self.start()

    def start(self) -> None:
        self.hypotheses: list[tuple[int, str]] = []  # with the index of the utterance
        self.loss = torch.zeros(2, dtype=torch.float64)

    def add(self, outputs: Outputs | None, batch: Batch) -> None:
        self.hypotheses += [(index, "") for index, _ in batch.failures]
        if outputs is not None:
            total, tokens, texts = self.decoded(outputs, batch)
            self.loss += torch.stack([total, tokens]).double().cpu()
            self.hypotheses += zip(batch.indices, texts, strict=True)

    def decoded(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, list[str]]:
        """The loss of a batch in nats, its number of target tokens, and the text of each utterance."""
        result = ctc_loss(outputs.log_probs, outputs.lengths, batch.tokens, batch.token_lengths)
        emissions = zip(outputs.log_probs.cpu(), outputs.lengths.tolist(), strict=True)
        texts = [self.decoder.decode(emission[:frames])[0].text for emission, frames in emissions]
        return result.total, result.tokens, texts

    def totals(self) -> Tensor:
        references = [self._reference(index) for index, _ in self.hypotheses]
        hypotheses = [hypothesis for _, hypothesis in self.hypotheses]
        characters = score(references, hypotheses, "char").counts
        counts = [characters.errors, characters.reference_length, len(references)]
        words = [0] * (2 * len(self.names))  # errors and words of each manifest
        for (index, _), edits in zip(self.hypotheses, score(references, hypotheses, "word").utterances, strict=True):
            words[2 * self.files[index]] += edits.errors
            words[2 * self.files[index] + 1] += edits.reference_length
        return torch.cat([self.loss, torch.tensor([*counts, *words], dtype=torch.float64)])

    def metrics(self, totals: Tensor) -> dict[str, float]:
        loss, tokens, character_errors, characters, utterances, *counts = totals.tolist()
        errors, words = counts[::2], counts[1::2]
        parts = {f"dev/{name}/wer": e / max(w, 1) for name, e, w in zip(self.names, errors, words, strict=True)}
        return {
            "dev/wer": sum(errors) / max(sum(words), 1),
            "dev/cer": character_errors / max(characters, 1),
            "dev/loss": loss / max(tokens, 1),
            "dev/utterances": utterances,
            **(parts if len(parts) > 1 else {}),
        }

    def choose_example(self, number: int) -> None:
        if self.hypotheses:
            index, hypothesis = self.hypotheses[number % len(self.hypotheses)]
            self.example = (self._reference(index), hypothesis)

    def _reference(self, index: int) -> str:
        return normalize(self.dev[index].text, self.normalizer)


def _ctc_task(name: str, monitor: str = "dev/wer") -> type[CTCTask]:
    """`CTCTask` with the rates of the task `name`."""
    return type(name, (CTCTask,), {"monitor": monitor, "rates": _rates(name)})


class AttentionTask(CTCTask):
    """Task `attention`: like `ctc`, but with greedy decoding by the attention decoder and its cross-entropy."""

    def __init__(self, model: AcousticModel, tokenizer: Tokenizer, normalizer: str, dev: Manifest) -> None:
        super().__init__(model, tokenizer, normalizer, dev)
        if model.decoder is None:
            raise ConfigError("task: attention needs a model with a decoder: set model.decoder")
        self.attention, self.tokenizer = model.decoder, tokenizer

    def decoded(self, outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, list[str]]:
        tokens, counts = padded_tokens(batch, outputs.states.device)
        loss = attention_loss(self.attention(outputs.states, outputs.lengths, tokens), tokens, counts)
        texts = [self.tokenizer.decode(ids) for ids in self.attention.greedy(outputs.states, outputs.lengths)]
        return loss, counts.sum().clamp(min=1), texts


_METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


class ClassificationTask:
    """Task `classification`: accuracy, balanced accuracy and macro F1 from summed counts, and the cross-entropy."""

    monitor = "dev/accuracy"
    mode: Literal["min", "max"] = "max"
    rates: Mapping[str, str] = {f"dev/{name}": label for name, label in _METRICS.items()}

    def __init__(self, model: AcousticModel, tokenizer: Tokenizer, normalizer: str, dev: Manifest) -> None:
        self.labels, self.dev = tokenizer, dev
        self.files, self.names = dev.files, short_names(dev.paths)
        self.example = ("", "")
        self.start()

    @classmethod
    def led_by(cls, metric: str) -> type[ClassificationTask]:
        """The same task with another of its metrics as `monitor`."""
        first = {f"dev/{metric}": _METRICS[metric]}
        return type(cls.__name__, (cls,), {"monitor": f"dev/{metric}", "rates": first | dict(cls.rates)})

    def start(self) -> None:
        classes = self.labels.vocab_size
        self.counts = np.zeros((len(self.names), classes, classes + 1))  # file, label, predicted class or none
        self.loss = 0.0
        self.pairs: list[tuple[int, int]] = []  # label and predicted class

    def add(self, outputs: Outputs | None, batch: Batch) -> None:
        for index, _ in batch.failures:
            [label] = self.labels.encode(label_of(self.dev[index]))
            self.counts[self.files[index], label, -1] += 1
        if outputs is None:
            return
        log_probs = outputs.log_probs[:, 0]
        self.loss += float(functional.nll_loss(log_probs, batch.tokens, reduction="sum"))
        pairs = list(zip(batch.tokens.tolist(), log_probs.argmax(dim=1).tolist(), strict=True))
        for index, (label, predicted) in zip(batch.indices, pairs, strict=True):
            self.counts[self.files[index], label, predicted] += 1
        self.pairs += pairs

    def totals(self) -> Tensor:
        return torch.from_numpy(np.append(self.counts.ravel(), self.loss))

    def metrics(self, totals: Tensor) -> dict[str, float]:
        *counts, loss = totals.tolist()
        tables = np.array(counts).reshape(self.counts.shape)
        metrics = {f"dev/{name}": rate for name, rate in class_rates(tables.sum(axis=0)).items()}
        read = tables[..., :-1].sum()
        metrics |= {"dev/loss": loss / max(read, 1.0), "dev/utterances": float(tables.sum())}
        if len(self.names) > 1:
            parts = zip(self.names, map(class_rates, tables), strict=True)
            metrics |= {f"dev/{part}/{name}": rate for part, rates in parts for name, rate in rates.items()}
        return metrics

    def choose_example(self, number: int) -> None:
        if self.pairs:
            label, predicted = self.pairs[number % len(self.pairs)]
            self.example = (self.labels.labels[label], self.labels.labels[predicted])


# Classes made with (model, tokenizer, normalizer, dev), by the name of `task` in the configuration and the model file.
TASKS: dict[str, Any] = {
    "ctc": CTCTask,
    "ctc-characters": _ctc_task("ctc-characters", "dev/cer"),  # for texts without spaces between words
    "ctc-spaced": _ctc_task("ctc-spaced"),  # characters separated by spaces: the word rate is a character rate
    "ctc-phones": _ctc_task("ctc-phones"),  # phones separated by spaces: the word rate is the phone error rate
    "attention": AttentionTask,
    CLASSIFICATION: ClassificationTask,
}


def task_of(config: TrainConfig) -> Any:
    """The class of a configuration's task, with the metric that it chooses. Raises ConfigError."""
    if config.task not in TASKS:
        raise ConfigError(f"task: unknown '{config.task}'{nearest(config.task, TASKS)}")
    task = TASKS[config.task]
    return task.led_by(config.classification.metric) if issubclass(task, ClassificationTask) else task
