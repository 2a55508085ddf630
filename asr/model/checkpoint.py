"""The model file: one pickle-free safetensors file that holds everything needed to transcribe."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.audio.features import FeatureConfig
from asr.config import from_dict, to_dict
from asr.files import replacing
from asr.model.config import CLASSIFICATION, ModelConfig
from asr.text.normalize import recorded, versioned
from asr.types import AsrError, ModelFileError, UsageError

if TYPE_CHECKING:
    from asr.model.acoustic import AcousticModel
    from asr.text.tokenizer import Tokenizer

ENGLISH = "english-14h"


@dataclass(frozen=True)
class BundledModel:
    """A model that is part of the package, found by its name. `purpose` says what it is for and what it is not for."""

    name: str
    purpose: str
    license: str
    data: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path(__file__).with_name(f"{self.name}.asr")


BUNDLED = {
    ENGLISH: BundledModel(
        ENGLISH,
        "a start for fine-tuning on English speech (57 % WER on read books), not a transcriber",
        "CC BY 4.0",
        ("LibriSpeech", "speechocean762", "CMU Arctic", "Kathleen", "African Storybook", "LJSpeech", "VCTK"),
    )
}

FORMAT = "asr-ctc"
FORMAT_VERSION = 2  # 1: before there was a choice of encoders
_MAX_HEADER_BYTES = 100_000_000  # the safetensors limit; a larger number means that the file is something else


@dataclass
class ModelFile:
    """A loaded model file. `training` is the free-form summary of the run that made it (WER, data, seed, versions).

    `task` is a name in `asr.training.tasks.TASKS`. The tokenizer of a classifier is its LabelSet.
    """

    model: AcousticModel
    tokenizer: Tokenizer
    normalizer: str
    training: dict[str, Any] = field(default_factory=dict)
    task: str = "ctc"

    @property
    def feature_config(self) -> FeatureConfig:
        return self.model.feature_config

    @property
    def model_config(self) -> ModelConfig:
        return self.model.config

    @property
    def has_ctc(self) -> bool:
        """Whether the output layer was trained with CTC, by the training record; True if it does not say."""
        setting = self.training.get("config", {}).get("objectives", {"ctc": 1.0}).get("ctc", 0.0)
        return bool(setting.get("weight", 1.0) if isinstance(setting, dict) else setting)

    def need_ctc(self, what: str) -> None:
        """Raise UsageError if the model was trained without CTC, which `what` needs."""
        if not self.has_ctc:
            trained = ", ".join(self.training["config"]["objectives"])
            raise UsageError(f"the model was trained without CTC (objectives: {trained}), which {what} needs")


def find_model(model: str | Path) -> Path:
    """The file of a model given as a path or as the name of a bundled model. A file of that name takes precedence.

    Raises ModelFileError for a bare name that is neither.
    """
    path, name = Path(model), str(model)
    if (path.exists() and not path.is_dir()) or path.suffix or len(path.parts) != 1:
        return path
    if name in BUNDLED:
        return BUNDLED[name].path
    if path.is_dir():
        return path
    raise ModelFileError(f"{name}: no such file, and no bundled model of that name (available: {', '.join(BUNDLED)})")


def bundled_model(model: str | Path) -> BundledModel | None:
    """The bundled model that a path or name stands for, if it is one."""
    path = find_model(model)
    return next((bundled for bundled in BUNDLED.values() if bundled.path == path.absolute()), None)


def save_model(
    path: str | Path,
    model: AcousticModel,
    tokenizer: Tokenizer,
    normalizer: str,
    training: dict[str, Any] | None = None,
    task: str = "ctc",
    *,
    half: bool = False,
) -> Path:
    """Write `model` with its tokenizer, feature settings and training summary to one file, atomically.

    `half` stores the weights as float16, in half the space; they are loaded as float32. Raises ModelFileError for
    weights that float16 cannot hold.
    """
    import torch
    from safetensors.torch import save

    from asr.model.classifier import Classifier
    from asr.text.tokenizer import LabelSet
    from asr.types import VERSION

    path = Path(path)
    symbols: dict[str, Any] = {"tokenizer": tokenizer.to_dict()}
    if isinstance(model, Classifier) and isinstance(tokenizer, LabelSet):
        symbols = {"labels": tokenizer.labels, "label_counts": tokenizer.counts, "pooling": model.pooling.kind}
    description = {
        "task": task,
        "model": to_dict(model.config),
        "features": to_dict(model.feature_config),
        **symbols,
        "normalizer": versioned(normalizer),
        "vocab_size": model.vocab_size,
        "training": training or {},
        "written_by": f"asr-ctc {VERSION}",
    }
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "asr": json.dumps(description, ensure_ascii=False),
    }
    dtype = torch.float16 if half else torch.float32
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    if half and not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ModelFileError(f"{path}: the model has weights that half precision cannot hold: store it in full")
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, metadata))
    return path


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The description in a model file, read without loading tensors.

    Keys: task (`ctc` in files from before there were others), model, features, tokenizer (of a classifier: labels,
    label_counts, pooling), normalizer (with its version), training, and the shapes of the tensors. Raises
    ModelFileError, in one line, if the file is missing, is not one of our models, or has a newer format.
    """
    path = find_model(path)
    try:
        size = path.stat().st_size
        if not (path.is_file() or path.is_dir()):
            raise ModelFileError(f"{path}: a model cannot be read from a pipe: save it as a file")
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if not 0 < header_bytes <= min(_MAX_HEADER_BYTES, size - 8):
                raise ModelFileError(_not_a_model(path))
            header = json.loads(file.read(header_bytes))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read the model file: {error.strerror or error}") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise ModelFileError(_not_a_model(path)) from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ModelFileError(_not_a_model(path))
    version = metadata.get("version", "")
    if not version.isdigit() or int(version) > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: model format {version or '?'} is newer than this version of asr-ctc reads ({FORMAT_VERSION}); "
            "upgrade with: pip install -U asr-ctc"
        )
    try:
        description = json.loads(metadata["asr"])
        description.setdefault("task", "ctc")
        description["normalizer"] = recorded(description["normalizer"])
        description["tensors"] = {k: v["shape"] for k, v in header.items() if k != "__metadata__"}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the model's description is damaged ({error}); copy the file again") from error
    return description


def parameter_count(description: dict[str, Any]) -> int:
    """The number of a model's parameters. The running statistics of batch norm are tensors of the file, but no
    parameters.
    """
    statistics = ("running_mean", "running_var")
    return sum(math.prod(shape) for name, shape in description["tensors"].items() if not name.endswith(statistics))


def check_task(path: str | Path, description: dict[str, Any], classifies: bool = False) -> None:
    """Raise UsageError for a classifier or, with `classifies`, for a recognizer."""
    is_classifier = description["task"] == CLASSIFICATION
    if is_classifier and not classifies:
        raise UsageError(
            f"{path}: a classifier ({len(description['labels'])} classes), but this needs a recognizer; "
            "`asr transcribe` and `asr evaluate` take both"
        )
    if classifies and not is_classifier:
        raise UsageError(f"{path}: a recognizer (task {description['task']}), but this needs a classifier")


def load_model(path: str | Path, device: str = "cpu") -> ModelFile:
    """Load a model file, in evaluation mode, onto `device`. Raises ModelFileError in one line."""
    path = find_model(path)
    description = read_metadata(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from asr.model.classifier import build_model
    from asr.text.tokenizer import LabelSet, tokenizer_from_dict

    try:
        if description["task"] == CLASSIFICATION:
            tokenizer: Tokenizer = LabelSet(description["labels"], description["label_counts"])
        else:
            tokenizer = tokenizer_from_dict(description["tokenizer"])
        if tokenizer.vocab_size != (width := int(description["vocab_size"])):
            raise ValueError(f"the tokenizer has {tokenizer.vocab_size} entries, the output layer {width}")
        model = build_model(
            from_dict(ModelConfig, description["model"], "model"),
            from_dict(FeatureConfig, description["features"], "features"),
            tokenizer,
            description.get("pooling", "mean"),
        )
        model.load_state_dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: the model file is damaged or cut short ({error}); copy it again") from error
    except (KeyError, TypeError, ValueError, RuntimeError, AsrError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(f"{path}: the description does not fit this version of asr-ctc ({reason})") from error
    training = description.get("training", {})
    return ModelFile(model.to(device).eval(), tokenizer, description["normalizer"], training, description["task"])


def _not_a_model(path: Path) -> str:
    return f"{path}: not an asr-ctc model file (expected the .asr file that a recipe writes)"
