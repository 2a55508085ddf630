"""How fast decoders are: the same emissions, of a manifest or of noise, through each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from throughput_material import Clip
from throughput_measure import peak_bytes, percentile, reset_peak

from asr.decoding.make import DecodingConfig, make_decoder
from asr.model.checkpoint import ModelFile
from asr.recognition.inputs import Recording
from asr.recognition.recognizer import Recognizer
from asr.scoring.edits import score
from asr.text.normalize import normalize


def bench_decode(file: ModelFile, clips: Sequence[Clip], *, decoders: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row of figures for each decoder; the acoustic model runs once. `wer` where the clips have texts."""
    recognizer = Recognizer(file)
    recognizer.windows = None
    emissions = [
        recognizer.emissions_of(
            Recording(clip.path, audio_filepath=clip.path, offset=clip.offset, duration=clip.duration)
        )
        for clip in clips
    ]
    for name in decoders:
        decoder = make_decoder(DecodingConfig(decoder=name), file.tokenizer, recognizer.frame_seconds)
        yield {"decoder": name, **_measure(decoder, [e.log_probs for e in emissions], file, clips)}


def _measure(decoder: Any, emissions: Sequence[np.ndarray], file: ModelFile, clips: Sequence[Clip]) -> dict[str, Any]:
    decoder.decode(emissions[0])  # compiles what is to be compiled
    reset_peak(torch.device("cpu"))
    times, texts = [], []
    for log_probs in emissions:
        started = time.perf_counter()
        texts.append(decoder.decode(log_probs)[0].text)
        times.append(time.perf_counter() - started)
    frames = sum(map(len, emissions))
    row: dict[str, Any] = {
        "audio_seconds": round(frames * file.model.frame_seconds, 2),
        "seconds": round(sum(times), 4),
        "real_time_factor": round(sum(times) / (frames * file.model.frame_seconds), 7),
        "microseconds_per_frame": round(1e6 * sum(times) / frames, 3),
        "latency_p50": round(percentile(times, 50), 5),
        "latency_p95": round(percentile(times, 95), 5),
        "peak_bytes": peak_bytes(torch.device("cpu")),
    }
    if all(clip.text for clip in clips):
        references = [normalize(clip.text, file.normalizer) for clip in clips]
        row["wer"] = round(score(references, [normalize(text, file.normalizer) for text in texts], "word").rate, 8)
    return row
