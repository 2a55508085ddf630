"""Your own recordings: read in any format, split by speaker, with a configuration that suits them and the machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from asr.corpus.formats import read_corpus
from asr.corpus.manifest import Utterance
from asr.corpus.pairs import SETS
from asr.files import write_text
from asr.recipe.sets import split_by, write_sets
from asr.text.normalize import normalizer
from asr.training.config import parse_config
from asr.training.plan import plan
from asr.types import ManifestError, UsageError

INITIAL = "english-14h"  # the bundled model that training on English starts from
NORMALIZER = "basic"
_ENGLISH = frozenset("abcdefghijklmnopqrstuvwxyz' ")
_RARE = 0.001  # the largest share of other characters in a text that counts as English
_MEMORY = 0.7  # the share of the GPU's memory that the largest batch may take
_LARGE_ALPHABET = 200
_MOST_HELD_OUT = 5.0  # hours


@dataclass(frozen=True)
class Size:
    """Settings for up to this many hours of training audio. Batches are in seconds; epochs are those from scratch."""

    hours: float
    hidden_size: int
    layers: int
    batch_seconds: float
    epochs: int
    warmup_steps: int
    dropout: float
    ema_decay: float


# The first row is that of the an4 recipe, the last two are those of librispeech; the others are interpolated.
SIZES = (
    Size(2, 256, 3, 60, 110, 200, 0.35, 0.998),
    Size(10, 384, 4, 120, 90, 500, 0.35, 0.999),
    Size(50, 512, 4, 240, 80, 1000, 0.3, 0.999),
    Size(300, 640, 5, 400, 80, 2000, 0.3, 0.999),
    Size(float("inf"), 1024, 6, 800, 40, 5000, 0.2, 0.999),
)
_TUNED_BELOW = 50.0  # hours: with more, there is enough to train a larger model from scratch


@dataclass
class Collection:
    """The sets of a corpus, and notes about them for the user."""

    sets: dict[str, list[Utterance]]
    notes: list[str] = field(default_factory=list)

    @property
    def hours(self) -> float:
        """The hours of the training set."""
        return sum(utterance.duration for utterance in self.sets["train"]) / 3600


def collect(source: str | Path, test: str | Path | None = None) -> Collection:
    """Read a corpus and split it; if `test` names another corpus, that is the test set.

    Speakers come from the data or from folders. An existing split (folders or values called train, dev, test) is kept,
    and missing sets are held out of the training set: whole speakers, or utterances if there are too few speakers, with
    a note. Raises UsageError and ManifestError if nothing can be read.
    """
    notes: list[str] = []
    rows = _read(source, notes)
    sets: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": _read(test, notes) if test else []}
    known = {name: [u for u in rows if SETS.get(u.split.lower()) == name] for name in sets}
    if known["train"] and (known["dev"] or known["test"]):
        for name in ("train", "dev") if test else sets:
            sets[name] = known[name]
        if others := len(rows) - sum(map(len, known.values())):
            notes.append(f"{source}: left out: {others} utterances of sets other than train, dev and test")
    else:
        sets["train"] = rows
    wanted = [name for name in ("dev", "test") if not sets[name]]
    if wanted:
        hours = sum(u.duration for u in sets["train"]) / 3600
        share = min(0.1, _MOST_HELD_OUT / max(hours, 1e-9))
        shares = {name: share if name in wanted else 0.0 for name in ("dev", "test")}
        held = _hold_out(sets["train"], shares, notes)
        sets |= {name: held[name] for name in ("train", *wanted)}
    return Collection(sets, notes)


def _read(source: str | Path, notes: list[str]) -> list[Utterance]:
    unreadable: list[str] = []
    rows = list(read_corpus(source, unreadable=unreadable, notes=notes))
    notes += [f"left out: {problem}" for problem in unreadable[:5]]
    if len(unreadable) > 5:
        notes.append(f"left out: {len(unreadable) - 5} more recordings that cannot be read")
    kept = [row for row in rows if normalizer(NORMALIZER)(row.text)]
    if len(kept) < len(rows):
        notes.append(f"{source}: left out: {len(rows) - len(kept)} utterances whose texts have no words")
    if not kept:
        raise ManifestError(f"{source}: no utterance has a text")
    if not any(Path(row.audio_filepath).exists() for row in kept[:100]):
        raise ManifestError(f"{source}: its audio files do not exist; the first is {kept[0].audio_filepath}")
    return kept


def _hold_out(rows: Sequence[Utterance], shares: dict[str, float], notes: list[str]) -> dict[str, list[Utterance]]:
    wanted = sum(share > 0 for share in shares.values())
    speakers = {row.speaker for row in rows} - {""}
    unnamed = sum(not row.speaker for row in rows)
    if len(speakers) > wanted and not unnamed:
        return split_by(lambda u: u.speaker, rows, **shares)
    if unnamed:
        problem = "not all speakers are known" if speakers else "the speakers are not known"
    else:
        problem = f"there are too few speakers ({len(speakers)})"
    notes.append(
        f"{problem}: sets are split by utterance and may share voices, so that error rates are lower than they will be "
        "for new voices (to avoid it, add a `speaker` column or use a folder per speaker)"
    )
    if len(rows) <= wanted:
        raise UsageError(f"{len(rows)} utterance{'s' * (len(rows) != 1)} cannot be split into {wanted + 1} sets")
    return split_by(lambda u: u.id, rows, **shares)


def configuration(collected: Collection, data: Path, output: Path, memory: float) -> dict[str, Any]:
    """The values of a configuration for these sets, whose manifests belong in `data`; adds notes.

    `memory` is that of the GPU in bytes, 0 without one.
    """
    train = collected.sets["train"]
    seconds = np.array([u.duration for u in train], dtype=np.float32)
    hours = collected.hours
    normalize = normalizer(NORMALIZER)
    counts = Counter(character for u in train for character in normalize(u.text))
    foreign = sum(count for character, count in counts.items() if character not in _ENGLISH) / sum(counts.values())
    english = foreign <= _RARE
    size = next(size for size in SIZES if hours <= size.hours)
    tuned = english and hours <= _TUNED_BELOW
    on_gpu = memory > 0
    subwords = hours > 50 and len(counts) <= _LARGE_ALPHABET
    values: dict[str, Any] = {
        "name": output.name,
        "output": str(output),
        "data": {
            "train": str(data / "train.jsonl"),
            "dev": str(data / "dev.jsonl"),
            "test": {"test": str(data / "test.jsonl")},
            "batch_seconds": size.batch_seconds,
            **({"cache_audio": True, "workers": 0} if hours <= 2 else {}),
        },
        "text": {"normalizer": NORMALIZER, "tokenizer": "bpe" if subwords else "char"},
        "augment": {
            "speed": [0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15] if hours <= 10 else [0.9, 1.0, 1.1],
            "gain_db": 6,
            "time_masks": 3 if hours <= 10 else 10,
            "time_mask_ratio": 0.08 if hours <= 10 else 0.05,
            "frequency_masks": 2,
            "frequency_mask_width": 20 if hours <= 10 else 27,
        },
        "model": {"hidden_size": size.hidden_size, "layers": size.layers, "dropout": size.dropout},
        "optimizer": {"lr": 0.002 if hours <= 2 else 0.001, "warmup_steps": size.warmup_steps, "weight_decay": 0.02},
        "averaging": {"kind": "ema", "ema_decay": size.ema_decay},
        "lm": {"order": 3},
        "trainer": {"max_epochs": size.epochs},
    }
    if subwords:
        values["text"]["vocab_size"] = 1000 if hours > 300 else 500
    if size.hidden_size >= 1024:
        values["model"]["projection"] = 512
    if tuned:  # the network is that of the model; consistency regularization only where its second view is cheap
        values |= {"init": INITIAL, "objectives": {"ctc": 1.0, **({"consistency": 0.2} if on_gpu else {})}}
        values["model"] = {"dropout": size.dropout}
        if hours <= 2:  # as measured in recipes/an4/finetune.yaml
            values["data"]["batch_seconds"] = 30
        values["optimizer"] |= {"lr": 0.0006, "warmup_steps": 100}
        values["averaging"]["ema_decay"] = 0.997 if hours <= 10 else 0.999
        values["trainer"]["max_epochs"] = (40 if hours <= 10 else 20) if on_gpu else (20 if hours <= 10 else 10)
    if on_gpu:
        values["trainer"]["precision"] = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
        _fit_batch(values, seconds, len(counts) + 1, memory)
    elif multiplies_bf16():
        values["trainer"]["precision"] = "bf16-mixed"
    _describe(collected, hours, counts, foreign, english, tuned)
    return values


def _fit_batch(values: dict[str, Any], seconds: np.ndarray, vocabulary: int, memory: float) -> None:
    """Halve `data.batch_seconds` until the largest batch fits."""
    while values["data"]["batch_seconds"] > 30:
        vocabulary = values["text"].get("vocab_size", vocabulary)
        if plan(parse_config(values), seconds, vocabulary).memory <= _MEMORY * memory:
            return
        values["data"]["batch_seconds"] /= 2


def _describe(
    collected: Collection, hours: float, counts: Counter[str], foreign: float, english: bool, tuned: bool
) -> None:
    letters = "".join(sorted(counts.keys() - {" "}, key=lambda character: (-counts[character], character)))
    shown = letters if len(letters) <= 60 else f"{letters[:60]} and {len(letters) - 60} more"
    rare = [f"'{c}' x {n}" for c, n in counts.most_common()[::-1] if c not in _ENGLISH] if english and foreign else []
    notes = collected.notes
    notes.append(f"{hours:.2f} hours for training; {len(letters)} characters, the most frequent first: {shown}")
    if rare:
        notes.append(f"rare characters, to be spelled out or corrected: {', '.join(rare[:10])}")
    if tuned:
        notes.append(f"the texts are in a to z: training starts from {INITIAL}")
    else:
        large = f"there are more than {_TUNED_BELOW:g} hours"
        notes.append(
            f"training starts from scratch: {large if english else f'{foreign:.1%} of the letters are not a to z'}"
        )
    longest = max(u.duration for u in collected.sets["train"])
    if longest > 30:
        notes.append(f"recordings longer than 30 s are not trained on (the longest has {longest:.0f} s): cut them")


def multiplies_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware, which about halves the time of a training step."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.11 may not have it
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def gpu_memory() -> float:
    """The memory, in bytes, of the smallest GPU that training would use; 0 without one."""
    if not torch.cuda.is_available():
        return 0.0
    return float(min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())))


def write(collected: Collection, values: dict[str, Any], data: Path) -> Path:
    """Write the manifests and, unless it exists, `data`/recipe.yaml, for the user to keep and change."""
    write_sets(data, collected.sets)
    path = data / "recipe.yaml"
    if not path.exists():
        write_text(path, as_yaml(values, collected.notes))
    return path


def as_yaml(values: dict[str, Any], notes: Sequence[str]) -> str:
    """The configuration as a YAML file, with its notes as comments."""
    comments = "".join(f"# {note}\n" for note in notes)
    return comments + yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
