"""A model on a device: padded batches that change nothing, memory that runs short, blank emissions for silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asr.model.checkpoint import load_model
from asr.recognition.acoustics import Acoustics, choose_device
from asr.types import AsrError, UsageError


@pytest.fixture(scope="module")
def acoustics(tiny_model):
    return Acoustics(load_model(tiny_model, "cpu"))


def test_emissions_are_log_probabilities_the_same_alone_and_in_a_batch(acoustics, noise):
    waveforms = [noise(seconds, seed) for seed, seconds in enumerate((1.0, 0.3, 2.0))]
    together = acoustics.emissions(waveforms)
    for waveform, log_probs in zip(waveforms, together, strict=True):
        assert log_probs.shape == (acoustics.model.output_length(len(waveform)), 7)
        assert log_probs.dtype == np.float32
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, atol=1e-4)
        np.testing.assert_allclose(acoustics.emissions([waveform])[0], log_probs, atol=1e-3)


@pytest.mark.parametrize("samples", [1, 159, 160, 640, 641, 16_000, 30_001])
def test_silence_has_as_many_frames_as_the_model_would_emit(acoustics, samples):
    [emitted] = acoustics.emissions([np.zeros(samples, dtype=np.float32)])
    blank = acoustics.silence(samples)
    assert blank.shape == emitted.shape and blank.dtype == np.float32
    assert (blank.argmax(axis=1) == 0).all()
    np.testing.assert_allclose(np.exp(blank).sum(axis=1), 1.0, atol=1e-5)


def test_only_what_does_not_fit_into_memory_alone_is_an_error(acoustics, noise, monkeypatch):
    emissions = acoustics.emissions

    def short_of_memory(waveforms, states):
        if len(waveforms) > 1 or len(waveforms[0]) > 1.5 * acoustics.rate:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return emissions(waveforms)

    monkeypatch.setattr(acoustics, "emissions", short_of_memory)
    first, second = acoustics.emissions_or_errors([noise(1.0), noise(120.0)])
    assert np.array_equal(first, emissions([noise(1.0)])[0])
    assert isinstance(second, AsrError)
    assert str(second) == "not enough memory on cpu for 2.0 minutes in one piece"


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("auto") in ("cpu", "cuda")
    assert choose_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="not one of auto, cpu, cuda"):
        choose_device("gpu")
