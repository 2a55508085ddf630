"""Long recordings: error rate of concatenated utterances against that of the utterances; memory for hours of audio.

    python benchmarks/long_form.py MODEL MANIFEST [--hours 2] [--output benchmarks/results/long_form.json]

The utterances of a manifest of real speech are concatenated in several random orders, with half a second of faint
noise between them, and recognized as one recording: in windows, as `asr transcribe` does it, and in one piece. The word
error rates are compared with that of the utterances one by one. Then a file of `--hours` hours is transcribed by the
command in a process of its own, whose peak memory is measured. Fails beyond 0.3 % absolute or 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import asr
from asr.audio.read import read
from asr.corpus.manifest import Manifest
from asr.errors import AsrError
from asr.long_form import Windows
from asr.recognizer import Recognizer
from asr.scoring.edits import Score, score
from asr.text.normalize import normalize
from asr.training.provenance import provenance

WER_LIMIT = 0.003
MEMORY_LIMIT = 1.5e9  # bytes


def concatenated(waveforms: list[np.ndarray], gap: float, rate: int, seed: int) -> np.ndarray:
    """The waveforms (time,) with `gap` seconds of noise 60 dB below full scale after each."""
    generator = np.random.default_rng(seed)
    parts = []
    for waveform in waveforms:
        noise = generator.standard_normal(round(gap * rate)).astype(np.float32) * 1e-3
        parts += [waveform, noise]
    return np.concatenate(parts)


def rates(result: Score) -> dict[str, Any]:
    counts = result.counts
    return {
        "wer": round(result.rate, 5),
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "words": counts.reference_length,
    }


def compare(recognizer: Recognizer, manifest: str, gap: float, orders: int) -> dict[str, Any]:
    """Error rates of the utterances by themselves, and concatenated."""
    utterances = list(Manifest.read(manifest))
    audio = [read(u.audio_filepath, offset=u.window[0], duration=u.window[1], rate=recognizer.rate) for u in utterances]
    waveforms = [a.samples for a in audio]
    references = [normalize(u.text, recognizer.normalizer) for u in utterances]
    apart = recognizer.transcribe_many([(waveform, recognizer.rate) for waveform in waveforms])
    texts = [normalize(getattr(result, "text", ""), recognizer.normalizer) for result in apart]
    found: dict[str, Any] = {"utterance_wise": rates(score(references, texts))}
    for name, windows in (("windows", Windows()), ("one_piece", None)):
        recognizer.windows = windows
        heard, spoken = [], []
        for seed in range(1, orders + 1):
            order = list(range(len(waveforms)))
            random.Random(seed).shuffle(order)
            long = concatenated([waveforms[i] for i in order], gap, recognizer.rate, seed)
            heard.append(normalize(recognizer.transcribe((long, recognizer.rate)).text, recognizer.normalizer))
            spoken.append(" ".join(references[i] for i in order))
        found[name] = rates(score(spoken, heard))
    found |= {"orders": orders, "gap_seconds": gap, "minutes": round(sum(a.duration for a in audio) / 60, 2)}
    found["difference"] = round(found["windows"]["wer"] - found["utterance_wise"]["wer"], 5)
    return found


def memory(model: str, manifest: str, hours: float, rate: int) -> dict[str, Any]:
    """Peak memory and real-time factor of `asr transcribe` on a file of that length."""
    paths = [(u.audio_filepath, u.window) for u in Manifest.read(manifest)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        with soundfile.SoundFile(path, "w", rate, 1) as file:
            i = 0
            while file.frames < hours * 3600 * rate:
                name, (offset, duration) = paths[i % len(paths)]
                file.write(
                    concatenated([read(name, offset=offset, duration=duration, rate=rate).samples], 0.5, rate, i)
                )
                i += 1
        started = time.perf_counter()
        command = [sys.executable, "-m", "asr", "transcribe", str(path), "-m", model, "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "hours": hours,
        "peak_bytes": peak,
        "seconds": round(seconds, 1),
        "real_time_factor": round(seconds / (hours * 3600), 5),
        "words": len(done.stdout.split()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("manifest")
    parser.add_argument("--hours", type=float, default=2.0, help="0: leave the memory out")
    parser.add_argument("--gap", type=float, default=0.5)
    parser.add_argument("--orders", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    recognizer = asr.load(args.model, device="cpu")
    report = provenance() | {"model": Path(args.model).name, "manifest": Path(args.manifest).name}
    report["error_rates"] = compare(recognizer, args.manifest, args.gap, args.orders)
    if args.hours:
        report["memory"] = memory(args.model, args.manifest, args.hours, recognizer.rate)
    print(json.dumps(report, indent=1))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.hours and report["memory"]["peak_bytes"] > MEMORY_LIMIT:
        sys.exit(f"more than {MEMORY_LIMIT / 1e9:.1f} GB")
    if report["error_rates"]["difference"] > WER_LIMIT:
        sys.exit(f"the error rate of windows is more than {WER_LIMIT:.1%} above that of utterances")


if __name__ == "__main__":
    try:
        main()
    except AsrError as error:
        sys.exit(f"long_form.py: error: {error}")
