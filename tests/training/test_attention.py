"""The objective and the task `attention`: formulas, padding, and a tiny training that is transcribed right."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import asr
from asr.__main__ import main
from asr.audio.features import FeatureConfig
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model, save_model
from asr.model.config import DecoderConfig, RecurrentConfig
from asr.recognition.acoustics import Windows, stitched
from asr.recognition.inputs import as_recording
from asr.training.config import parse_config
from asr.training.dataset import Batch
from asr.training.losses.attention import AttentionObjective, attention_loss
from asr.training.objectives import build_objective
from asr.training.run import train
from asr.types import ConfigError, UsageError

DECODER = {
    "hidden_size": 32, "embedding_size": 8, "attention_size": 16, "location_width": 11, "dropout": 0.0,
}  # fmt: skip
RATE = 16000


def tiny() -> AcousticModel:
    torch.manual_seed(3)
    decoder = DecoderConfig(hidden_size=6, embedding_size=3, attention_size=5, location_width=3, dropout=0.0)
    config = RecurrentConfig(subsampling_channels=4, hidden_size=8, layers=1, dropout=0.0, decoder=decoder)
    return AcousticModel(config, FeatureConfig(n_mels=20), vocab_size=6)


def batch_of(rows: list[int]) -> Batch:
    lengths, tokens = [9000, 16000, 4000], [[3, 5], [1, 2, 2, 4], []]
    torch.manual_seed(1)
    waveforms = torch.randn(3, 16000) * 0.1
    kept = [lengths[i] for i in rows]
    return Batch(
        waveforms[rows, : max(kept)],
        torch.tensor(kept),
        torch.tensor([token for i in rows for token in tokens[i]], dtype=torch.int64),
        torch.tensor([len(tokens[i]) for i in rows]),
        rows,
    )


def loss_of(model: AcousticModel, rows: list[int], **options: float) -> Tensor:
    objective = build_objective("attention", {"weight": 1.0, **options}, model)
    objective.train(model.training)
    batch = batch_of(rows)
    loss: Tensor = objective(model.outputs(batch.waveforms, batch.lengths), batch).loss
    return loss


def test_smoothed_cross_entropy_equals_the_formula_term_by_term() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(2, 4, 5).log_softmax(-1)
    tokens, counts = torch.tensor([[3, 1, 0], [2, 0, 0]]), torch.tensor([2, 1])
    targets = [[3, 1, 0], [2, 0]]
    for smoothing in (0.0, 0.1, 0.5):
        expected = 0.0
        for row, wanted in enumerate(targets):
            for step, target in enumerate(wanted):
                p = log_probs[row, step].tolist()
                expected -= (1 - smoothing) * p[target] + smoothing * sum(p) / 5
        assert float(attention_loss(log_probs, tokens, counts, smoothing)) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_batch_is_the_sum_of_its_utterances_by_the_number_of_tokens() -> None:
    model = tiny().eval()
    with torch.no_grad():
        alone = [float(loss_of(model, [i], label_smoothing=0.1)) * max(1, count) for i, count in enumerate((2, 4, 0))]
        assert float(loss_of(model, [0, 1, 2], label_smoothing=0.1)) == pytest.approx(sum(alone) / 6, rel=1e-4)


def test_gradients_reach_the_decoder_and_the_encoder_and_the_output_layer_gets_zeros() -> None:
    model = tiny()
    loss_of(model, [0, 1]).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.abs().sum() > 0) is not name.startswith("output."), name


def test_scheduled_sampling_gives_the_decoder_its_own_tokens_in_training_only() -> None:
    model = tiny().train()
    assert model.decoder is not None
    states, lengths = torch.randn(2, 7, 16), torch.tensor([7, 5])
    first, second = torch.tensor([[1, 2, 3], [4, 5, 1]]), torch.tensor([[5, 5, 5], [3, 3, 3]])
    forced = model.decoder(states, lengths, first)
    assert torch.equal(model.decoder(states, lengths, first, 0.0), forced)
    always = []
    for tokens in (first, second):  # what is drawn does not depend on the tokens given, once none of them is used
        torch.manual_seed(1)
        always.append(model.decoder(states, lengths, tokens, 1.0))
    assert torch.equal(always[0], always[1]) and torch.equal(always[0][:, 0], forced[:, 0])
    assert not torch.allclose(always[0], forced)
    assert not torch.equal(loss_of(model, [0, 1], scheduled_sampling=0.9), loss_of(model, [0, 1]))
    model.eval()
    assert torch.equal(loss_of(model, [0, 1], scheduled_sampling=0.9), loss_of(model, [0, 1]))


def test_settings_that_contradict_each_other_are_one_line(settings: Callable[..., dict[str, Any]]) -> None:
    both = {"ctc": 0.3, "attention": 0.7}
    for values, message in (
        (settings() | {"objectives": both}, "attention trains a decoder, and the model has none: set model.decoder"),
        (settings(model={"decoder": DECODER}), "nothing trains model.decoder: add attention"),
        (
            settings(model={"decoder": DECODER}) | {"objectives": {"attention": 1.0}},
            "task: ctc decodes with CTC, which no objective trains: set task: attention",
        ),
        (settings(task="attention"), "task: attention needs a model with a decoder"),
        (settings(model={"decoder": {"attention": "dott"}}), r"model.decoder.attention: 'dott' is not one of"),
        (
            settings(model={"decoder": DECODER}) | {"objectives": both | {"attention": {"label_smoothing": 1.0}}},
            r"objectives.attention: label_smoothing must lie in \[0, 1\)",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            train(parse_config(values))


@pytest.fixture(scope="module")
def learnt(tones: Path, settings_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A joint model that has learnt six utterances by heart, and their manifest."""
    folder = tmp_path_factory.mktemp("attention")
    rows = [json.loads(line) for line in (tones / "train.jsonl").read_text().splitlines()[:6]]
    for row in rows:
        row["audio_filepath"] = str(tones / row["audio_filepath"])
    manifest = folder / "six.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = settings_in(folder)(
        data={"train": str(manifest), "dev": str(manifest)},
        model={"decoder": DECODER, "dropout": 0.0},
        optimizer={"lr": 0.01, "schedule": "constant"},
        trainer={"max_epochs": 60, "check_val_every_n_epoch": 60},
    )
    values |= {"task": "attention", "augment": {}, "averaging": {"kind": "none"}}
    values |= {"objectives": {"ctc": 0.3, "attention": {"weight": 0.7, "label_smoothing": 0.02}}}
    result = train(parse_config(values))
    assert result.dev == {"dev/wer": 0.0, "dev/cer": 0.0}
    return result.model_path, manifest


@pytest.fixture(scope="module")
def without_ctc(learnt: tuple[Path, Path]) -> Path:
    """The same model with the record of a training without CTC."""
    file = load_model(learnt[0])
    record = {**file.training, "config": {**file.training["config"], "objectives": {"attention": 1.0}}}
    with torch.no_grad():
        file.model.output.weight.normal_()
    return save_model(
        learnt[0].with_name("alone.asr"), file.model, file.tokenizer, file.normalizer, record, "attention"
    )


@pytest.mark.parametrize("decoder", ["attention", "joint", "rescore"])
def test_what_was_learnt_is_transcribed(
    learnt: tuple[Path, Path], decoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, manifest = learnt
    assert main(["transcribe", str(manifest), "-m", str(model), "--decoder", decoder, "--nbest", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    texts = [json.loads(line)["text"] for line in manifest.read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    for row in rows:
        assert [word["word"] for word in row["words"]] == row["text"].split()
        assert all(0 <= w["start"] < w["end"] <= row["duration"] and 0 < w["confidence"] <= 1 for w in row["words"])
        assert len(row["nbest"]) == 2 and row["nbest"][0]["score"] >= row["nbest"][1]["score"]


@pytest.mark.parametrize("decoder", ["attention", "joint"])
def test_silence_noise_and_long_recordings_come_to_an_end(learnt: tuple[Path, Path], decoder: str) -> None:
    spoken = [json.loads(line) for line in learnt[1].read_text().splitlines()]
    recognizer = asr.load(learnt[0], decoder=decoder)
    rng = np.random.default_rng(0)
    assert recognizer.transcribe((np.zeros(2 * RATE, np.float32), RATE)).text == ""
    recognizer.windows = None
    noise = recognizer.transcribe((0.1 * rng.standard_normal(30 * RATE).astype(np.float32), RATE))
    assert noise.duration == 30.0 and len(noise.text) <= 30 * 25

    recognizer.windows = Windows(1.5, 0.2)
    pause = 0.0005 * rng.standard_normal(RATE).astype(np.float32)
    words = [soundfile.read(row["audio_filepath"], dtype="float32")[0] for row in spoken[3:6]]
    samples = np.concatenate([np.zeros(RATE, np.float32), *(part for word in words for part in (word, pause))])
    said: list[str] = []
    recognizer.on_text = lambda _, text: said.append(text)
    long = recognizer.transcribe((samples, RATE))
    # The same window by window, at the frame where each begins.
    frames, texts, starts = 0, [], []
    for window in stitched(recognizer.acoustics, [samples], recognizer.windows, 60.0, states=True):
        [best] = recognizer.decoder.decode(window)
        texts += [best.text] if best.text else []
        starts += [word.start + (frames + window.before) * recognizer.frame_seconds for word in best.words]
        frames += window.before + len(window.states) + window.after
    assert frames == recognizer.acoustic_model.output_length(len(samples))
    assert long.text == " ".join(texts) and len(texts) >= 3 and said[-1] == long.text
    assert [word.word for word in long.words] == long.text.split()
    assert [word.start for word in long.words] == pytest.approx(starts) and starts == sorted(starts)
    assert starts[0] > 0.5  # the recording begins with silence


def test_a_model_without_ctc_says_what_it_cannot_do(
    learnt: tuple[Path, Path], without_ctc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = json.loads(learnt[1].read_text().splitlines()[0])
    audio, model = first["audio_filepath"], str(without_ctc)
    assert main(["transcribe", audio, "-m", model]) == 0  # attention is its default
    captured = capsys.readouterr()
    assert captured.out == first["text"] + "\n"
    assert "asr: warning: the model was trained without CTC: words have neither times nor conf" in captured.err
    assert asr.load(model).transcribe(audio).words == ()
    for command in (
        ["transcribe", audio, "--decoder", "greedy"],
        ["transcribe", audio, "--decoder", "joint"],
        ["transcribe", audio, "-f", "srt"],
        ["align", audio, first["text"]],
        ["calibrate", str(learnt[1])],
    ):
        assert main([*command, "-m", model]) == 2, command
        err = capsys.readouterr().err
        assert "the model was trained without CTC (objectives: attention), which" in err and "Traceback" not in err
    assert main(["evaluate", str(learnt[1]), "-m", model, "--html", str(tmp_path / "report.html")]) == 0
    assert "WER   0.00%" in capsys.readouterr().out and "decoder attention" in (tmp_path / "report.html").read_text()
    with pytest.raises(UsageError, match="which alignment needs"):
        asr.load(model).emissions_of(as_recording(audio))


def test_models_without_a_decoder_refuse_attention(
    tiny_model: Path, write_audio: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = write_audio(tmp_path / "a.wav")
    for decoder in ("attention", "joint", "rescore"):
        assert main(["transcribe", str(audio), "-m", str(tiny_model), "--decoder", decoder]) == 2
        assert f"--decoder {decoder} needs a model with an attention decoder" in capsys.readouterr().err


def test_a_run_begins_from_a_model_with_and_without_a_decoder(
    learnt: tuple[Path, Path], settings: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    model, manifest = learnt
    values = settings(data={"train": str(manifest), "dev": str(manifest)}, trainer={"max_epochs": 1})
    values |= {"init": str(model), "model": {}, "features": {}, "objectives": {"ctc": 0.3, "attention": 0.7}}
    train(parse_config(values))
    assert "its encoder and its output layer and its attention decoder" in capsys.readouterr().err
    other = {"decoder": {"attention": "dot"}}
    config = parse_config(values | {"model": other, "output": values["output"] + "2"})
    assert config.model.decoder == DecoderConfig(attention="dot")
    train(replace(config, seed=2))
    err = capsys.readouterr().err
    assert "its encoder and its output layer\n" in err
    with pytest.raises(ConfigError, match=r"was trained with model.decoder=\{.*\}, this configuration says None"):
        train(parse_config(values | {"model": {"decoder": None}, "objectives": {"ctc": 1.0}}))


def test_options_are_read_with_the_objective() -> None:
    objective = build_objective("attention", {"label_smoothing": 0.1, "scheduled_sampling": 0.2}, tiny())
    assert isinstance(objective, AttentionObjective)
    assert objective.options == AttentionObjective.Options(0.1, 0.2)
    assert not list(objective.parameters())  # they are the model's
    with pytest.raises(ConfigError, match=r"objectives\.attention\.smoothing"):
        build_objective("attention", {"smoothing": 0.1}, tiny())
