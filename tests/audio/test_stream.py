"""A stream gives the samples, the duration and the warnings that reading at once gives."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.read import open_stream, read
from asr.audio.resample import Resampler, resample
from asr.types import AudioError


def streamed(source, **options):
    with open_stream(source, rate=16000, **options) as stream:
        samples = np.concatenate(list(stream))
        return samples, stream


@pytest.mark.parametrize(("rate", "tolerance"), [(16000, 0), (8000, 2e-6), (44100, 2e-6), (22050, 2e-6), (16001, 1e-3)])
def test_the_same_samples_as_at_once(noise, rate, tolerance, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.stack([noise(23.457, 1, rate), noise(23.457, 2, rate)], axis=1), rate, subtype="FLOAT")
    for channel in ("mix", 1):
        whole = read(path, channel=channel)
        samples, stream = streamed(path, channel=channel)
        assert samples.shape == whole.samples.shape
        assert np.abs(samples - whole.samples).max() <= tolerance
        assert (stream.duration, stream.warnings, stream.source_rate) == (whole.duration, whole.warnings, rate)
        assert stream.seconds == pytest.approx(whole.duration)
    window = read(path, offset=3.0, duration=12.5)
    samples, stream = streamed(path, offset=3.0, duration=12.5)
    assert np.abs(samples - window.samples).max() <= max(tolerance, 1e-7)
    assert stream.seconds == pytest.approx(12.5, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    rates=st.sampled_from([(44100, 16000), (8000, 16000), (48000, 16000), (11025, 8000), (96000, 16000)]),
    blocks=st.lists(st.integers(1, 150_000), min_size=1, max_size=8),
)
def test_resampling_in_blocks_of_any_size(rates, blocks):
    signal = np.random.default_rng(sum(blocks)).standard_normal(sum(blocks)).astype(np.float32)
    resampler = Resampler(*rates)
    parts = [resampler(part) for part in np.split(signal, np.cumsum(blocks)[:-1])]
    together = np.concatenate([*parts, resampler.finish()])
    whole = resample(signal, *rates)
    assert together.shape == whole.shape
    assert np.abs(together - whole).max() < 1e-5


def test_the_errors_and_warnings_of_reading(noise, tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        streamed(tmp_path / "gone.wav")
    broken = noise(20.0)
    broken[16000 * 15] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"NaN or infinite samples \(the first at 15\.000 s\)"):
        streamed(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "good.wav", noise(2.0), 16000)
    with pytest.raises(AudioError, match="no channel 3"):
        streamed(tmp_path / "good.wav", channel=3)
    with pytest.raises(AudioError, match="lies beyond the end"):
        streamed(tmp_path / "good.wav", offset=5.0)
    cut = (tmp_path / "good.wav").read_bytes()[:20000]
    (tmp_path / "cut.wav").write_bytes(cut)
    _, stream = streamed(tmp_path / "cut.wav")
    assert "truncated" in stream.warnings[0]
    with pytest.raises(AudioError, match="holds no samples"):
        streamed(_header_only(tmp_path))


def _header_only(folder):
    soundfile.write(folder / "none.wav", np.zeros(0, dtype=np.float32), 16000)
    return folder / "none.wav"


def test_the_length_is_known_before_reading(noise, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(2.0), 16000)
    for window, seconds in (
        ({}, 2.0),
        ({"offset": 1.25}, 0.75),
        ({"duration": 0.75}, 0.75),
        ({"offset": 1.5, "duration": 9.0}, 0.5),
    ):
        with open_stream(tmp_path / "a.wav", **window) as stream:
            assert stream.seconds == seconds
            assert stream.read().duration == stream.duration == seconds
