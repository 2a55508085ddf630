"""How fast recordings become text, by parts, batch size, threads and precision; what precision costs in accuracy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from throughput_material import Clip, with_precision
from throughput_measure import Stopwatch, peak_bytes, percentile, reset_peak

from asr.audio.read import read
from asr.decoding.make import DecodingConfig, make_decoder
from asr.model.acoustic import AcousticModel
from asr.model.checkpoint import ModelFile
from asr.scoring.edits import score
from asr.text.normalize import normalize

PARTS = ("reading", "features", "acoustic model", "decoding")


def bench_transcribe(
    file: ModelFile,
    clips: Sequence[Clip],
    *,
    batch_sizes: Sequence[int],
    threads: Sequence[int],
    precisions: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """A row of figures for each combination; real-time factors are seconds of work per second of audio.

    Everything runs one after the other, so the parts add up (`asr transcribe` reads ahead, too). Latency is that of
    one file by itself, from opening it to its text; it is measured with batch size 1. `cpu_factor` is CPU time of all
    threads per second of audio, which other programs on the machine disturb less. `wer` (a fraction) where the
    clips have texts, `wer_change` against float32 where that is among the precisions.
    """
    device = next(file.model.parameters()).device
    before = torch.get_num_threads()
    exact: float | None = None
    try:
        for precision in sorted(precisions, key=lambda name: name != "float32"):
            model = with_precision(file.model, precision)
            for count, size in product(threads, batch_sizes):
                torch.set_num_threads(count)
                row = _measure(file, model, clips, size, device)
                if precision == "float32" and "wer" in row:
                    exact = row["wer"]
                if exact is not None:
                    row["wer_change"] = round(row["wer"] - exact, 8)
                yield {"precision": precision, "threads": count, "batch_size": size, **row}
    finally:
        torch.set_num_threads(before)


def _measure(
    file: ModelFile, model: AcousticModel, clips: Sequence[Clip], size: int, device: torch.device
) -> dict[str, Any]:
    decoder = make_decoder(DecodingConfig(decoder="greedy"), file.tokenizer, file.model.frame_seconds)
    rate = file.feature_config.rate
    _recognize(model, [_samples(clip, rate) for clip in clips[:size]], device, Stopwatch(device))  # warm
    reset_peak(device)
    clock, audio_seconds, used = Stopwatch(device), 0.0, time.process_time()
    latencies: list[float] = []
    texts: list[str] = []
    for first in range(0, len(clips), size):
        started = time.perf_counter()
        with clock("reading"):
            waveforms = [_samples(clip, rate) for clip in clips[first : first + size]]
        emissions = _recognize(model, waveforms, device, clock)
        with clock("decoding"):
            texts += [decoder.decode(log_probs)[0].text for log_probs in emissions]
        latencies.append(time.perf_counter() - started)
        audio_seconds += sum(map(len, waveforms)) / rate
    total, used = sum(clock.seconds.values()), time.process_time() - used
    row: dict[str, Any] = {
        "audio_seconds": round(audio_seconds, 2),
        "seconds": round(total, 4),
        "real_time_factor": round(total / audio_seconds, 6),
        "cpu_factor": round(used / audio_seconds, 6),
        "parts": {part: round(clock.seconds[part] / audio_seconds, 6) for part in PARTS},
        "peak_bytes": peak_bytes(device),
    }
    if size == 1:
        row["latency_p50"] = round(percentile(latencies, 50), 4)
        row["latency_p95"] = round(percentile(latencies, 95), 4)
    if all(clip.text for clip in clips):
        references = [normalize(clip.text, file.normalizer) for clip in clips]
        hypotheses = [normalize(text, file.normalizer) for text in texts]
        row["wer"] = round(score(references, hypotheses, "word").rate, 8)
    return row


def _samples(clip: Clip, rate: int) -> np.ndarray:
    return read(clip.path, rate=rate, offset=clip.offset, duration=clip.duration).samples


def _recognize(
    model: AcousticModel, waveforms: Sequence[np.ndarray], device: torch.device, clock: Stopwatch
) -> list[np.ndarray]:
    """Log-probabilities of a padded batch. The model's own `features` are timed by themselves, then handed to it."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(w) for w in waveforms], batch_first=True)
    with torch.inference_mode():
        with clock("features"):
            features, frames = model.features(padded.to(device), lengths.to(device))
        with clock("acoustic model"):
            outputs = model.recognize(features, frames)
            arrays = outputs.log_probs.cpu().numpy()
    return [array[:count] for array, count in zip(arrays, outputs.lengths.tolist(), strict=True)]
