"""Self-conditioning: against a forward pass written out, alone and in a batch, in files, and from another tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr.__main__ import main
from asr.audio.features import FeatureConfig
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import load_model, save_model
from asr.model.config import RecurrentConfig
from asr.text.tokenizer import CharTokenizer
from asr.training.initial import InitialModel

FEATURES = FeatureConfig(n_mels=12)
SHAPE = RecurrentConfig(hidden_size=8, layers=3, subsampling_channels=2, dropout=0.0, self_conditioning=(1, 2))
TOKENIZER = CharTokenizer(["", " ", *"abc"])


@pytest.fixture
def model() -> AcousticModel:
    torch.manual_seed(2)
    made = AcousticModel(SHAPE, FEATURES, TOKENIZER.vocab_size).eval()
    with torch.no_grad():
        made.conditioning.feedback["16"].weight *= 5.0
    return made


def log_probs(model: AcousticModel, *waves: Tensor) -> list[Tensor]:
    lengths = torch.tensor([len(wave) for wave in waves])
    with torch.no_grad():
        found, frames = model(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=5.0), lengths)
    return [row[:count] for row, count in zip(found, frames.tolist(), strict=True)]


def waves(*samples: int) -> list[Tensor]:
    return [0.1 * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in samples]


def test_posteriors_of_a_layer_are_added_to_the_input_of_the_next(model: AcousticModel) -> None:
    [wave] = waves(9000)
    encoder = model.encoder
    with torch.no_grad():
        features, frames = model.features(wave[None], torch.tensor([9000]))
        x, lengths = encoder.subsampling(features, frames)  # type: ignore[attr-defined]
        x = encoder.input_norm(x)  # type: ignore[attr-defined]
        model.keep_layers = True
        kept = model.recognize(features, frames).layers
        for number, layer in enumerate(encoder.layers, 1):  # type: ignore[attr-defined]
            x = layer(x, lengths)
            assert torch.equal(kept[number - 1][0], x) and torch.equal(kept[number - 1][1], lengths)
            if number < 3:
                posteriors = (x @ model.output.weight.T + model.output.bias).softmax(-1)
                x = x + posteriors @ model.conditioning.feedback["16"].weight.T
        expected = model.output(x).log_softmax(-1)[0]
    torch.testing.assert_close(log_probs(model, wave)[0], expected, atol=1e-6, rtol=0)
    plain = AcousticModel(replace(SHAPE, self_conditioning=()), FEATURES, TOKENIZER.vocab_size).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "conditioning" not in k})
    assert (log_probs(plain, wave)[0] - expected).abs().max() > 0.01


@pytest.mark.parametrize("multiple", [1, 8])
def test_an_utterance_is_the_same_alone_and_in_any_batch(model: AcousticModel, multiple: int) -> None:
    utterances = waves(16000, 5333, 799)
    model.row_multiple = multiple
    together = log_probs(model, *utterances)
    model.row_multiple = 1
    for wave, found in zip(utterances, together, strict=True):
        torch.testing.assert_close(found, log_probs(model, wave)[0], atol=1e-5, rtol=0)


def test_the_model_file_holds_it(model: AcousticModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_model(tmp_path / "m.asr", model, TOKENIZER, "basic")
    loaded = load_model(path).model
    assert loaded.config == SHAPE
    assert torch.equal(log_probs(loaded, *waves(7000))[0], log_probs(model, *waves(7000))[0])
    assert main(["info", str(path)]) == 0
    assert "recurrent: self_conditioning [1, 2], " in capsys.readouterr().out


def test_symbols_that_both_tokenizers_have_keep_what_they_feed_back(model: AcousticModel, tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.asr", model, TOKENIZER, "basic")
    tokenizer = CharTokenizer(["", " ", *"xcé"])
    ours = AcousticModel(SHAPE, FEATURES, tokenizer.vocab_size)
    InitialModel.read(str(path), SHAPE, FEATURES).copy_to(ours, tokenizer)
    mine, theirs = (m.conditioning.feedback["16"].weight for m in (ours, model))
    assert torch.equal(mine[:, [0, 1, 3]], theirs[:, [0, 1, 4]])
    assert not torch.isclose(mine[:, [2, 4]], theirs[:, [2, 3]]).any()
