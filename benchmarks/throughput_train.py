"""How fast training steps are: forward, CTC loss, backward and update on noise, by batch size and threads."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from throughput_measure import peak_bytes, reset_peak

from asr.model.checkpoint import ModelFile
from asr.training.losses.ctc import ctc_loss

TOKENS_PER_SECOND = 10  # spoken English has about that many characters


def bench_train(
    file: ModelFile, *, seconds: float, batch_sizes: Sequence[int], threads: Sequence[int], steps: int
) -> Iterator[dict[str, Any]]:
    """A row of figures for each combination; the median of `steps` steps after one that warms up. Float32."""
    device = next(file.model.parameters()).device
    before = torch.get_num_threads()
    try:
        for count, size in product(threads, batch_sizes):
            torch.set_num_threads(count)
            yield {"threads": count, "batch_size": size, **_measure(file, seconds, size, steps, device)}
    finally:
        torch.set_num_threads(before)


def _measure(file: ModelFile, seconds: float, size: int, steps: int, device: torch.device) -> dict[str, Any]:
    model = copy.deepcopy(file.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    samples = round(seconds * file.feature_config.rate)
    generator = torch.Generator().manual_seed(0)
    waveforms = (torch.randn(size, samples, generator=generator) * 0.1).to(device)
    lengths = torch.full((size,), samples, device=device)
    token_lengths = torch.full((size,), max(1, int(TOKENS_PER_SECOND * seconds)), device=device)
    tokens = torch.randint(1, model.vocab_size, (int(token_lengths.sum()),), generator=generator).to(device)
    times: list[float] = []
    reset_peak(device)
    for _ in range(steps + 1):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        log_probs, frames = model(waveforms, lengths)
        ctc_loss(log_probs, frames, tokens, token_lengths).loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    step = statistics.median(times[1:])
    audio_seconds = size * seconds
    return {
        "audio_seconds": audio_seconds,
        "seconds": round(step, 4),
        "real_time_factor": round(step / audio_seconds, 6),
        "hours_per_hour": round(audio_seconds / step, 1),
        "peak_bytes": peak_bytes(device),
    }
