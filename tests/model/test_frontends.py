"""The front ends against PyTorch's own layers on unpadded utterances; masked batch norm; what each can subsample by."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from asr.config import from_dict
from asr.model.config import SUBSAMPLING, ModelConfig
from asr.model.frontends import FRONT_ENDS, subsampled_length
from asr.types import ConfigError

KINDS = [(name, factor) for name, factors in SUBSAMPLING.items() for factor in factors]


def reference(name: str, front_end: nn.Module, features: Tensor) -> Tensor:
    """What a front end in evaluation makes of one utterance (frames, mels): (frames', channels * bins)."""
    x = features[None, None]
    for number, layer in enumerate(front_end.layers):
        x = layer(x)
        if name == "deepspeech2":
            norm = front_end.norms[number]
            x = functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
            x = x.clamp(0, 20)
        else:
            x = x.relu()
        if name == "vgg" and number in (1, 3):
            x = functional.max_pool2d(x, 2, ceil_mode=True)
    return torch.cat([*x[0]], dim=1)


@pytest.mark.parametrize("name, factor", KINDS)
def test_it_equals_the_plain_layers_on_each_utterance(name: str, factor: int) -> None:
    torch.manual_seed(0)
    front_end = FRONT_ENDS[name](13, factor, 3)
    lengths = torch.tensor([41, 1, 0, 18, 7])
    features = torch.randn(5, 45, 13)
    for _ in range(3 if name == "deepspeech2" else 0):
        front_end(features, lengths)  # statistics other than those at the beginning
    front_end.eval()
    features[torch.arange(45) >= lengths[:, None]] = torch.nan  # padding must not matter
    states, frames = front_end(features, lengths)
    assert states.isfinite().all() and states.size(2) == front_end.output_size
    assert frames.tolist() == [subsampled_length(length, factor) for length in lengths.tolist()]
    for row, length in enumerate(lengths.tolist()):
        if length:
            expected = reference(name, front_end, features[row, :length])
            assert expected.shape == (frames[row], front_end.output_size)
            torch.testing.assert_close(states[row, : frames[row]], expected, atol=1e-5, rtol=1e-5)


@given(st.integers(1, 400), st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_lengths_are_what_the_layers_give(frames: int, kind: tuple[str, int]) -> None:
    name, factor = kind
    front_end = FRONT_ENDS[name](5, factor, 1)
    out, lengths = front_end(torch.zeros(1, frames, 5), torch.tensor([frames]))
    assert out.size(1) == int(lengths) == subsampled_length(frames, factor)
    assert out.size(2) == front_end.output_size


@pytest.mark.parametrize("name, factor", KINDS)
def test_reach_says_which_frames_an_output_depends_on(name: str, factor: int) -> None:
    torch.manual_seed(0)
    front_end = FRONT_ENDS[name](9, factor, 6).double().eval()
    features = torch.randn(1, 96, 9, dtype=torch.float64, requires_grad=True)
    states, _ = front_end(features, torch.tensor([96]))
    [gradient] = torch.autograd.grad(states[0, 48 // factor].square().sum(), features)
    touched = gradient[0].abs().sum(1).nonzero().flatten()
    before, after = front_end.reach
    assert 48 - before <= int(touched.min()) and int(touched.max()) <= 48 + after
    if name != "vgg":  # where the maximum decides which
        assert (int(touched.min()), int(touched.max())) == (48 - before, 48 + after)


def test_a_front_end_that_cannot_subsample_so_is_one_line() -> None:
    with pytest.raises(ConfigError, match="model: frontend vgg needs a subsampling of 4, found 2"):
        from_dict(ModelConfig, {"frontend": "vgg", "subsampling": 2}, "model")
    with pytest.raises(ConfigError, match="deepspeech2 needs a subsampling of 2 or 4, found 8"):
        from_dict(ModelConfig, {"frontend": "deepspeech2", "subsampling": 8}, "model")
