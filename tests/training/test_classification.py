"""Task `classification` from manifests with labels to a model file: what is learned, chosen, weighted and refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr.audio.features import FeatureConfig
from asr.corpus.labels import label_set
from asr.corpus.manifest import Manifest
from asr.model.acoustic import AcousticModel, Outputs
from asr.model.checkpoint import load_model, read_metadata, save_model
from asr.model.classifier import Classifier, Pooling
from asr.model.config import RecurrentConfig
from asr.model.encoders import build_encoder
from asr.model.self_attention import RecurrentAttentionConfig
from asr.text.tokenizer import CharTokenizer, LabelSet, tokenizer_from_dict
from asr.training.callbacks import best_checkpoints
from asr.training.config import parse_config
from asr.training.dataset import Sample, collate
from asr.training.losses.classification import ClassificationObjective, MixedBatch
from asr.training.plan import corpus, plan
from asr.training.run import train
from asr.training.tasks import task_of
from asr.types import AsrError, ConfigError, ManifestError

RATE = 16000
PITCHES = {"low": 300.0, "mid": 900.0, "high": 2400.0}


def write_set(folder: Path, name: str, labels: Sequence[str | None], seed: int) -> Path:
    """Tones of a class's pitch, `name`.jsonl with their labels and without texts."""
    rng = np.random.default_rng(seed)
    rows = []
    for i, label in enumerate(labels):
        t = np.arange(int(rng.uniform(0.3, 0.6) * RATE)) / RATE
        pitch = PITCHES.get(label or "", 500.0) * rng.uniform(0.9, 1.1)
        samples = 0.3 * np.sin(2 * np.pi * pitch * t) + 0.01 * rng.standard_normal(len(t))
        soundfile.write(folder / f"{name}{i}.wav", samples, RATE, subtype="PCM_16")
        rows.append(
            {"audio_filepath": f"{name}{i}.wav", "duration": len(t) / RATE} | ({"label": label} if label else {})
        )
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pitches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pitches")
    write_set(folder, "train", ["low", "mid", "high"] * 8, 1)
    write_set(folder, "dev", ["high", "low", "mid", "low"] * 2, 2)
    return folder


@pytest.fixture
def settings(pitches: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def make(**sections: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            "task": "classification",
            "output": str(tmp_path / "run"),
            "data": {"train": str(pitches / "train.jsonl"), "dev": str(pitches / "dev.jsonl"), "batch_seconds": 4.0}
            | {"workers": 0},
            "features": {"n_mels": 16},
            "model": {"hidden_size": 16, "layers": 1, "subsampling_channels": 4, "dropout": 0.0},
            "optimizer": {"lr": 0.02, "warmup_steps": 2},
            "averaging": {"kind": "none"},
            "trainer": {"max_epochs": 4, "accelerator": "cpu", "num_sanity_val_steps": 0},
        }
        for name, section in sections.items():
            values[name] = values.get(name, {}) | section if isinstance(section, dict) else section
        return values

    return make


def test_training_learns_chooses_and_writes_a_classifier(
    settings: Callable[..., dict[str, Any]], pitches: Path
) -> None:
    objectives = {"classification": {"class_weights": "balanced", "mixup": 0.2}}
    config = parse_config(
        settings(objectives=objectives, classification={"metric": "macro_f1", "pooling": "attention"}, early_stopping=9)
    )
    result = train(config)
    assert result.dev["dev/macro_f1"] == result.dev["dev/accuracy"] == 1.0
    assert result.scores.startswith("dev macro F1 100.00%  accuracy 100.00%")
    assert best_checkpoints(Path(config.output), task_of(config))
    metadata = read_metadata(result.model_path)
    assert metadata["labels"] == ["high", "low", "mid"] and metadata["label_counts"] == [8, 8, 8]
    assert metadata["pooling"] == "attention" and "tokenizer" not in metadata
    file = load_model(result.model_path)
    assert isinstance(file.model, Classifier) and isinstance(file.tokenizer, LabelSet)
    samples, _ = soundfile.read(pitches / "dev0.wav", dtype="float32")
    log_probs, _ = file.model(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    assert file.tokenizer.labels[int(log_probs[0, 0].argmax())] == "high"

    more = parse_config(
        settings(trainer={"max_epochs": 5}, objectives=objectives, classification={"metric": "macro_f1"})
    )
    with pytest.raises(ConfigError, match="pooling"):
        train(more)


def test_a_classifier_begins_from_a_recognizer_and_the_reverse(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    model = AcousticModel(
        RecurrentConfig(subsampling_channels=4, hidden_size=16, layers=1), FeatureConfig(n_mels=16), 5
    )
    recognizer = save_model(tmp_path / "ctc.asr", model, CharTokenizer(["", " ", "l", "o", "w"]), "basic")
    values = settings(init=str(recognizer), trainer={"max_epochs": 1})
    config = parse_config({key: value for key, value in values.items() if key not in ("features", "model")})
    path = train(config).model_path
    assert read_metadata(path)["training"]["init"]["file"] == "ctc.asr"
    from asr.training.initial import InitialModel

    config = parse_config({"init": str(path), "data": values["data"]})
    fresh = AcousticModel(config.model, config.features, 5)
    before = fresh.output.weight.clone()
    said = InitialModel.read(config.init, config.model, config.features).copy_to(fresh, CharTokenizer(["", *" low"]))
    assert "0 of 5 rows" in said and torch.equal(fresh.output.weight, before)


@pytest.mark.parametrize("kind", ["mean", "attention", "last"])
def test_pooling_is_what_it_says_and_the_same_in_any_batch(kind: Any) -> None:
    torch.manual_seed(1)
    config = RecurrentConfig(subsampling_channels=2, hidden_size=6, layers=2, dropout=0.0)
    model = Classifier(config, FeatureConfig(n_mels=8), 4, kind).eval()
    model.encoder.initialize()
    lengths = torch.tensor([9000, 4000, 1200])
    waveforms = 0.1 * torch.randn(3, 9000)  # beyond an utterance's length there is anything
    together, _ = model(waveforms, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, _ = model(waveforms[row : row + 1, :length], torch.tensor([length]))
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    outputs = model.outputs(waveforms, lengths)
    pooled = model.pooling(outputs.states, outputs.lengths)
    frames = int(outputs.lengths[1])
    states = outputs.states[1, :frames]
    if kind == "mean":
        expected = states.sum(dim=0) / frames
    elif kind == "attention":
        scores = [float(model.pooling.score(state).detach()) for state in states]
        shares = np.exp(scores) / np.exp(scores).sum()
        expected = sum(float(share) * state for share, state in zip(shares, states, strict=True))  # type: ignore
    else:
        expected = torch.cat([states[-1, :6], states[0, 6:]])
    assert torch.allclose(pooled[1], torch.as_tensor(expected), atol=1e-5)
    assert torch.isfinite(Pooling(kind, model.encoder)(outputs.states, torch.zeros(3, dtype=torch.int64))).all()
    mixed = build_encoder(RecurrentAttentionConfig(hidden_size=4, layers=1, subsampling_channels=2), 8)
    assert torch.equal(Pooling("last", mixed)(states[None], torch.tensor([frames]))[0], states[-1])


def outputs_of(log_probs: torch.Tensor) -> Outputs:
    empty = torch.zeros(len(log_probs), 1, 1)
    return Outputs(log_probs[:, None], torch.ones(len(log_probs)), empty, empty, torch.ones(len(log_probs)))


def test_cross_entropy_with_weights_and_mixup_equals_the_sums_by_hand() -> None:
    torch.manual_seed(2)
    model = AcousticModel(RecurrentConfig(subsampling_channels=2, hidden_size=4, layers=1), FeatureConfig(n_mels=8), 3)
    labels = LabelSet(["a", "b", "c"], [6, 2, 1])
    samples = [
        Sample(i, torch.full((3 + i,), float(i + 1)), torch.tensor([k]), 1.0) for i, k in enumerate([0, 2, 1, 0])
    ]
    batch = collate(samples)
    log_probs = torch.log_softmax(torch.randn(4, 3), dim=-1)
    for weights, expected in (
        ("none", [1, 1, 1]),
        ("balanced", [9 / 3 / 6, 9 / 3 / 2, 9 / 3 / 1]),
        ({"c": 4.0}, [1, 1, 4]),
    ):
        objective = ClassificationObjective(model, ClassificationObjective.Options(class_weights=weights))
        objective.prepare(labels)
        terms = [(expected[k], -float(log_probs[i, k])) for i, k in enumerate(batch.tokens.tolist())]
        by_hand = sum(w * loss for w, loss in terms) / sum(w for w, _ in terms)
        assert float(objective(outputs_of(log_probs), batch).loss) == pytest.approx(by_hand, rel=1e-5)
    with pytest.raises(ConfigError, match="no class 'd'"):
        ClassificationObjective(model, ClassificationObjective.Options(class_weights={"d": 2.0})).prepare(labels)

    objective = ClassificationObjective(model, ClassificationObjective.Options(mixup=0.4))
    mixed = objective.mixed(batch)
    assert isinstance(mixed, MixedBatch) and mixed.partners is not None and mixed.shares is not None
    total = 0.0
    for i, (j, share) in enumerate(zip(mixed.partners.tolist(), mixed.shares.tolist(), strict=True)):
        assert 0.5 <= share <= 1
        assert torch.allclose(mixed.waveforms[i], share * batch.waveforms[i] + (1 - share) * batch.waveforms[j])
        assert mixed.lengths[i] == max(batch.lengths[i], batch.lengths[j])
        ours, theirs = (-float(log_probs[i, batch.tokens[k]]) for k in (i, j))
        total += share * ours + (1 - share) * theirs
    assert float(objective(outputs_of(log_probs), mixed).loss) == pytest.approx(total / 4, rel=1e-5)


def test_validation_counts_what_could_not_be_read_as_wrong(
    settings: Callable[..., dict[str, Any]], pitches: Path
) -> None:
    from asr.types import Failure

    dev = Manifest.read(pitches / "dev.jsonl", require_text=False)
    labels = label_set(dev)
    task = task_of(parse_config(settings()))(None, labels, "none", dev)
    batch = collate(
        [Sample(i, torch.ones(4), torch.tensor([labels._ids[k]]), 1.0) for i, k in enumerate(("high", "low"))]
    )
    batch.failures.append((2, Failure("dev2", "", "gone")))
    task.add(outputs_of(torch.log(torch.tensor([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1]]))), batch)
    metrics = task.metrics(task.totals())
    assert metrics["dev/accuracy"] == pytest.approx(1 / 3) and metrics["dev/utterances"] == 3
    assert metrics["dev/loss"] == pytest.approx(-(np.log(0.8) + np.log(0.1)) / 2)


def test_the_plan_of_a_training_needs_no_texts(settings: Callable[..., dict[str, Any]]) -> None:
    config = parse_config(settings(objectives={"classification": {"class_weights": {"low": 2.0}}}))
    durations, classes = corpus(config)
    assert classes == 3 and plan(config, durations, classes, run=True).throughput > 0


@pytest.mark.parametrize(
    ("labels", "dev_labels", "message"),
    [
        (["low", None, "mid"], ["low"], r"train\.jsonl:2: the row has no 'label' \(it has: audio_filepath\)"),
        (["low", "low"], ["low"], "all 2 rows have the label 'low'"),
        (["low", "mid"], ["low", "hum"], r"dev\.jsonl:2: the label 'hum' is none of the 2 classes"),
        (["low", "mid"], ["low", None], r"dev\.jsonl:2: the row has no 'label'"),
    ],
)
def test_bad_labels_are_one_line(
    labels: list[str | None],
    dev_labels: list[str | None],
    message: str,
    settings: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    sets = write_set(tmp_path, "train", labels, 1), write_set(tmp_path, "dev", dev_labels, 2)
    config = parse_config(settings(data=dict(zip(("train", "dev"), map(str, sets), strict=True))))
    with pytest.raises(ManifestError, match=message) as error:
        train(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objectives": {"ctc": 1.0}}, "task is classification, objectives ctc"),
        ({"task": "ctc", "objectives": {"classification": 1.0}}, "task is ctc, objectives classification"),
        ({"augment": {"join": 0.5}}, "augment.join"),
        ({"classification": {"pooling": "max"}}, "'max' is not one of mean, attention, last"),
    ],
)
def test_settings_that_contradict_each_other(
    values: dict[str, Any], message: str, settings: Callable[..., dict[str, Any]]
) -> None:
    config = settings()
    config |= values
    with pytest.raises(AsrError, match=message):
        parse_config(config)


def test_a_set_of_labels_is_written_and_read() -> None:
    labels = LabelSet(["no", "yes"], [3, 4])
    assert (
        tokenizer_from_dict(labels.to_dict()) == labels and labels.encode("yes") == [1] and labels.decode([1]) == "yes"
    )
    with pytest.raises(AsrError, match="did you mean 'yes'"):
        labels.encode("yess")
