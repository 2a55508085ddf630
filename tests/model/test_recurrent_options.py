"""Options of the recurrent encoder against what they say, computed plainly, and configurations that cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asr.config import from_dict
from asr.model.config import ModelConfig, RecurrentConfig
from asr.model.encoders import build_encoder
from asr.model.recurrent import Dropout, Lookahead, RecurrentEncoder, RecurrentLayer, join_pairs
from asr.types import ConfigError

SMALL = RecurrentConfig(hidden_size=6, layers=3, subsampling_channels=2, dropout=0.0)
LENGTHS = torch.tensor([9, 0, 4, 1])


def inputs(width: int, rows: int = 4, frames: int = 9) -> Tensor:
    return torch.randn(rows, frames, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("width", [12, 5])
def test_a_residual_layer_adds_its_input_through_a_linear_layer_where_widths_differ(width: int) -> None:
    layer = RecurrentLayer(replace(SMALL, residual=True), width)
    plain = RecurrentLayer(SMALL, width)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("skip")})
    x = inputs(width)
    around = x if width == 12 else x @ layer.skip.weight.T  # type: ignore[union-attr]
    assert isinstance(layer.skip, nn.Identity) == (width == 12)
    torch.testing.assert_close(layer(x, LENGTHS), around + plain(x, LENGTHS))


def test_layer_drop_goes_around_a_layer_and_scales_the_others_to_the_same_mean() -> None:
    config = replace(SMALL, residual=True, layer_drop=0.3)
    layer, x = RecurrentLayer(config, 12), inputs(12, rows=400)
    lengths = torch.full((400,), 9)
    with torch.no_grad():
        whole = layer.eval()(x, lengths) - x
        torch.manual_seed(2)
        found = layer.train()(x, lengths) - x
    dropped = (found.abs().amax((1, 2)) < 1e-6).tolist()
    assert abs(sum(dropped) / 400 - 0.3) < 0.07
    for row, gone in enumerate(dropped):
        torch.testing.assert_close(found[row], whole[row] * (0 if gone else 1 / 0.7), atol=1e-5, rtol=1e-5)


def test_locked_dropout_drops_the_same_channels_in_all_frames_of_an_utterance() -> None:
    torch.manual_seed(3)
    x = torch.ones(5, 30, 200)
    out = Dropout(0.4, locked=True).train()(x)
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert abs((out == 0).float().mean().item() - 0.4) < 0.06
    assert not torch.equal(out[0], out[1])
    assert torch.equal(Dropout(0.4, locked=True).eval()(x), x)
    torch.manual_seed(3)
    ours = Dropout(0.4, locked=False)(x)
    torch.manual_seed(3)
    assert torch.equal(ours, nn.Dropout(0.4)(x))


@pytest.mark.parametrize("ahead", [1, 3, 20])
def test_lookahead_is_a_sum_over_frames_of_the_future(ahead: int) -> None:
    lookahead, x = Lookahead(4, ahead), inputs(4)
    torch.testing.assert_close(lookahead(x, LENGTHS)[0], x[0])  # it begins as the identity
    nn.init.normal_(lookahead.weight)
    found = lookahead(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        for frame in range(length):
            wanted = torch.zeros(4)
            for step in range(min(ahead + 1, length - frame)):
                wanted += lookahead.weight[:, 0, step] * x[row, frame + step]
            torch.testing.assert_close(found[row, frame], wanted)


def test_a_one_directional_model_sees_as_far_ahead_as_it_says() -> None:
    torch.manual_seed(4)
    encoder = build_encoder(replace(SMALL, bidirectional=False, lookahead=2, subsampling=2), 8)
    assert isinstance(encoder, RecurrentEncoder) and encoder.lookahead
    nn.init.normal_(encoder.lookahead.weight)
    features = torch.randn(1, 40, 8, requires_grad=True)
    states, _ = encoder(features, torch.tensor([40]))
    seen = torch.autograd.grad(states[0, 5].sum(), features)[0][0].abs().sum(-1).nonzero()
    assert int(seen.max()) == 2 * (5 + 2) + 1  # the convolution of subsampling sees one frame beyond


def test_frames_are_joined_in_pairs_and_padding_is_zero() -> None:
    x = inputs(3)
    found, lengths = join_pairs(x, LENGTHS)
    assert lengths.tolist() == [5, 0, 2, 1] and found.shape == (4, 5, 6)
    for row, length in enumerate(LENGTHS.tolist()):
        frames = [*x[row, :length], *torch.zeros(10 - length, 3)]
        for number in range(5):
            torch.testing.assert_close(found[row, number], torch.cat(frames[2 * number : 2 * number + 2]))


@given(st.integers(1, 90), st.sampled_from([2, 4]), st.sets(st.integers(1, 3)))
@settings(max_examples=25, deadline=None)
def test_lengths_and_stride_follow_time_reduction(frames: int, subsampling: int, reduced: set[int]) -> None:
    options = {"subsampling": subsampling, "time_reduction": sorted(reduced), "layers": 3, "hidden_size": 3}
    encoder = build_encoder(from_dict(ModelConfig, options | {"subsampling_channels": 1}, "model"), 8)
    seen: list[tuple[int, int, int]] = []

    def after_layer(number: int, x: Tensor, lengths: Tensor) -> Tensor:
        seen.append((x.size(1), int(lengths[0]), x.size(2)))
        return x

    states, lengths = encoder(torch.randn(2, frames, 8), torch.tensor([frames, 0]), after_layer)
    assert encoder.stride == subsampling * 2 ** len(reduced)
    assert states.size(1) == lengths[0] == encoder.output_length(frames) and lengths[1] == 0
    assert encoder.output_length(frames) == -(-frames // encoder.stride)
    expected, length = [], -(-frames // subsampling)
    for number in (1, 2, 3):
        length = -(-length // 2) if number in reduced else length
        expected.append((length, length, 6))
    assert seen == expected and encoder.layer_sizes == (6, 6, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lookahead": 3}, "lookahead is for unidirectional models: set bidirectional to false"),
        ({"lookahead": -1, "bidirectional": False}, "lookahead must be 0 .off. or a number of frames, found -1"),
        ({"layer_drop": 0.1}, "layer_drop needs residual connections: set residual to true"),
        ({"layers": 2, "time_reduction": [3]}, r"time_reduction takes layers from 1 to 2, each once, found \[3\]"),
        ({"time_reduction": [2, 2]}, "each once"),
        ({"zoneout": 1.0}, r"zoneout must lie in \[0, 1\), found 1.0"),
        ({"norm": "batch", "layer_norm": True}, r"model: layer_norm .now norm. means 'layer', but norm is 'batch'"),
        ({"layer_norm": "yes"}, "unknown configuration key 'model.layer_norm'"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(ModelConfig, options, "model")


def test_norm_is_understood_by_its_old_name() -> None:
    assert from_dict(ModelConfig, {"layer_norm": False}, "model") == RecurrentConfig(norm="none")
    assert from_dict(ModelConfig, {"layer_norm": True, "norm": "layer"}, "model") == RecurrentConfig()
