"""Log-mel features: torchaudio is the oracle, and neither batch mates nor padding change an utterance's features."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.audio._torchaudio import transforms
from asr.audio.features import FeatureConfig, LogMel, frame_count
from asr.config import from_dict
from asr.types import ConfigError

PLAIN = FeatureConfig(normalize="none", preemphasis=0.0)


def waves(*lengths: int, padding: float = 0.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of those lengths in one padded batch `(batch, samples)`, and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.full((len(lengths), max(lengths)), padding)
    for row, length in enumerate(lengths):
        level = 10.0 ** (-3 * torch.rand(1, generator=generator))
        batch[row, :length] = level * torch.randn(length, generator=generator)
    return batch, torch.tensor(lengths)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("n_mels", [40, 80])
def test_equals_torchaudio(rate: int, n_mels: int) -> None:
    config = FeatureConfig(rate=rate, n_mels=n_mels, normalize="none", preemphasis=0.0)
    log_mel = LogMel(config)
    oracle = transforms.MelSpectrogram(
        sample_rate=rate,
        n_fft=log_mel.fft_size,
        win_length=rate // 40,
        hop_length=rate // 100,
        f_min=20.0,
        f_max=rate / 2,
        n_mels=n_mels,
        center=True,
        pad_mode="constant",
        power=2.0,
        norm=None,
        mel_scale="htk",
    )
    batch, lengths = waves(7321)
    features, frames = log_mel(batch, lengths)
    expected = oracle(batch).clamp(min=1e-10).log().transpose(1, 2)
    assert frames.tolist() == [expected.shape[1]]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_preemphasis_comes_before_the_spectrum() -> None:
    batch, lengths = waves(4000)
    emphasized = batch.clone()
    emphasized[:, 1:] -= 0.97 * batch[:, :-1]
    with_it = LogMel(FeatureConfig(normalize="none"))(batch, lengths)[0]
    torch.testing.assert_close(with_it, LogMel(PLAIN)(emphasized, lengths)[0], atol=1e-5, rtol=1e-5)


def signal(kind: str, length: int, level: float, seed: int) -> torch.Tensor:
    """`(length,)` samples; all but noise leave bins that hardly vary, where normalization magnifies rounding."""
    if kind == "tone":
        return level * torch.sin(2 * torch.pi * (100 + seed % 3000) * torch.arange(length) / 16000)
    if kind == "constant":
        return torch.full((length,), level)
    if kind == "pulses":
        return level * (torch.arange(length) % 160 == 0).float()
    return level * torch.randn(length, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    recordings=st.lists(
        st.tuples(
            st.sampled_from(["noise", "tone", "constant", "pulses"]),
            st.one_of(st.integers(1, 700), st.integers(1, 9000)),
            st.floats(-6.0, 0.0),
        ),
        min_size=1,
        max_size=5,
    ),
    extra=st.integers(0, 700),
    seed=st.integers(0, 2**20),
    garbage=st.sampled_from([0.0, 1e4, float("nan"), float("inf")]),
)
@example(recordings=[("noise", 300, -2.0), ("noise", 1, 0.0)], extra=0, seed=2**20, garbage=0.0)
@example(recordings=[("pulses", 381, -4.4), ("noise", 700, 0.0)], extra=0, seed=0, garbage=0.0)
def test_alone_as_in_any_batch(recordings: list[tuple[str, int, float]], extra: int, seed: int, garbage: float) -> None:
    log_mel = LogMel()
    lengths = [length for _, length, _ in recordings]
    batch = torch.full((len(lengths), max(lengths) + extra), garbage)
    for row, (kind, length, exponent) in enumerate(recordings):
        batch[row, :length] = signal(kind, length, 10.0**exponent, seed + row)
    counts = torch.tensor(lengths)
    together, frames = log_mel(batch, counts)
    assert together.dtype == torch.float32 and frames.dtype == torch.int64
    for row, length in enumerate(lengths):
        alone, own = log_mel(batch[row : row + 1, :length], counts[row : row + 1])
        assert own.item() == frames[row].item() == alone.shape[1]
        torch.testing.assert_close(together[row, : own.item()], alone[0], atol=5e-5, rtol=0.0)
        assert not together[row, own.item() :].any()


@settings(max_examples=50, deadline=None)
@given(
    samples=st.integers(0, 100_000), rate=st.sampled_from([8000, 16000, 22050]), hop=st.sampled_from([5.0, 10.0, 12.5])
)
def test_frame_count_is_what_comes_out(samples: int, rate: int, hop: float) -> None:
    config = FeatureConfig(rate=rate, hop_ms=hop)
    count = frame_count(samples, config)
    assert frame_count(torch.tensor([samples]), config).tolist() == [count]
    assert (count >= 1) == (samples >= 1)
    if samples < 5000:
        features, frames = LogMel(config)(torch.zeros(1, samples), torch.tensor([samples]))
        assert features.shape[1] == frames.item() == count


def test_normalized_over_the_valid_frames_only() -> None:
    features, frames = LogMel()(*waves(16000, 9000, padding=float("nan")))
    for row, count in enumerate(frames.tolist()):
        own = features[row, :count]
        torch.testing.assert_close(own.mean(0), torch.zeros(80), atol=1e-5, rtol=0.0)
        torch.testing.assert_close(own.var(0, correction=0), torch.ones(80), atol=1e-4, rtol=0.0)


def test_the_level_of_a_recording_does_not_matter() -> None:
    batch, lengths = waves(16000)
    torch.testing.assert_close(LogMel()(batch, lengths)[0], LogMel()(batch * 0.1, lengths)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 399])
def test_shorter_than_a_window(samples: int) -> None:
    features, frames = LogMel()(*waves(samples))
    assert frames.item() >= 1
    assert torch.isfinite(features).all()


def test_silence_gives_zeros_and_no_nan() -> None:
    silent = torch.zeros(2, 16000)
    silent[1, 8000:] = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    features, _ = LogMel()(silent, torch.tensor([16000, 16000]))
    assert not features[0].any()
    assert torch.isfinite(features).all()
    assert torch.isfinite(LogMel(PLAIN)(silent, torch.tensor([16000, 16000]))[0]).all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([0, 3, 20, 75]), st.sampled_from([0, 3, 20, 75]), st.integers(0, 100))
@example(before=0, after=3, seed=33)
def test_digital_silence_around_a_recording_leaves_its_features(before: int, after: int, seed: int) -> None:
    """Whole hops of silence give the features that a single zero behind the recording gives.

    Pre-emphasis, x[t] - 0.97 x[t-1], reaches one sample beyond the recording. Where the recording ends abruptly that
    sample is lost, so its last frames differ, most of all in the low bands, and with them the statistics.
    """
    noise = 0.01 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(seed))
    padded = torch.cat([torch.zeros(1, 160 * before), noise, torch.zeros(1, 160 * after)], dim=1)
    alone, _ = LogMel()(padded[:, 160 * before : 160 * before + 16001], torch.tensor([16000 + min(after, 1)]))
    within, _ = LogMel()(padded, torch.tensor([padded.shape[1]]))
    found = within[0, before : before + 101]
    torch.testing.assert_close(found, alone[0], atol=1e-4, rtol=0.0)
    assert torch.isfinite(within).all()
    assert torch.equal(within[0].amin(dim=0), found.amin(dim=0))  # nothing is lower than what was recorded


def test_a_recording_that_ends_abruptly_differs_in_its_last_frames_only() -> None:
    """Those whose windows hold the sample that pre-emphasis would carry over; without it, none."""
    noise = 0.01 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(33))
    followed = torch.cat([noise, torch.zeros(1, 1)], dim=1)
    for preemphasis, differing in ((0.97, {99, 100}), (0.0, set())):
        log_mel = LogMel(FeatureConfig(normalize="none", preemphasis=preemphasis))
        alone, within = (log_mel(x, torch.tensor([x.shape[1]]))[0][0] for x in (noise, followed))
        assert set(torch.nonzero((alone - within).abs().amax(dim=1) > 1e-4)[:, 0].tolist()) == differing


def test_constant_offset_and_steady_tone_stay_in_range() -> None:
    time = torch.arange(32000) / 16000
    batch = torch.stack([torch.full((32000,), 0.5), torch.sin(2 * torch.pi * 1000 * time)])
    features, _ = LogMel()(batch, torch.tensor([32000, 32000]))
    assert torch.isfinite(features).all() and features.abs().max() < 50


def test_nothing_in_nothing_out() -> None:
    assert LogMel()(torch.zeros(0, 100), torch.zeros(0, dtype=torch.int64))[0].shape == (0, 1, 80)
    features, frames = LogMel()(torch.zeros(2, 400), torch.tensor([400, 0]))
    assert frames.tolist() == [3, 0] and not features.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_under_autocast_and_in_a_half_precision_model(dtype: torch.dtype) -> None:
    batch, lengths = waves(8000)
    expected, _ = LogMel()(batch, lengths)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(LogMel()(batch, lengths)[0], expected)
    half = torch.nn.Sequential(LogMel()).to(dtype)[0]
    assert torch.equal(half(batch, lengths)[0], expected)


def test_carries_no_weights_and_can_be_pickled() -> None:
    log_mel = LogMel()
    assert not log_mel.state_dict()
    again = pickle.loads(pickle.dumps(log_mel))
    batch, lengths = waves(4000)
    assert torch.equal(again(batch, lengths)[0], log_mel(batch, lengths)[0])
    assert log_mel.hop_seconds == pytest.approx(0.01)


@pytest.mark.parametrize(("rate", "n_mels"), [(8000, 80), (16000, 128), (44100, 128), (16000, 256)])
def test_no_filter_is_empty(rate: int, n_mels: int) -> None:
    assert (LogMel(FeatureConfig(rate=rate, n_mels=n_mels)).filters.amax(dim=0) > 0).all()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"rate": 0}, "rate"),
        ({"high_hz": 9000.0}, "high_hz"),
        ({"low_hz": 8000.0}, "low_hz"),
        ({"preemphasis": 1.0}, "preemphasis"),
        ({"hop_ms": 0.01}, "hop_ms"),
        ({"log_floor": 0.0}, "log_floor"),
        ({"normalize": "batch"}, "normalize"),
        ({"n_mel": 80}, "n_mels"),
    ],
)
def test_settings_that_cannot_work_are_named(setting: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        from_dict(FeatureConfig, setting)
    assert "\n" not in str(caught.value)


def test_too_many_filters_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="n_mels 3000 is too many"):
        LogMel(FeatureConfig(n_mels=3000))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="found \\(100,\\) and \\(1,\\)"):
        LogMel()(torch.zeros(100), torch.tensor([100]))
    with pytest.raises(ValueError, match="length of 101"):
        LogMel()(torch.zeros(1, 100), torch.tensor([101]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_the_cpu() -> None:
    batch, lengths = waves(16000, 9000, 301, padding=float("nan"))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # TF32, as trainers set it
    try:
        device = LogMel().cuda()
        together, frames = device(batch.cuda(), lengths.cuda())
        expected, _ = LogMel()(batch, lengths)
        torch.testing.assert_close(together.cpu(), expected, atol=1e-3, rtol=1e-3)
        for row, length in enumerate(lengths.tolist()):
            alone, _ = device(batch[row : row + 1, :length].cuda(), lengths[row : row + 1].cuda())
            torch.testing.assert_close(together[row, : frames[row]], alone[0], atol=1e-4, rtol=1e-4)
    finally:
        torch.set_float32_matmul_precision(before)


def test_numpy_lengths_of_a_manifest_work_too() -> None:
    assert frame_count(int(np.int64(16000)), FeatureConfig()) == 101
