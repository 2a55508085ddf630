"""From a cold start to the result: `asr --help`, `import asr`, and `asr transcribe` of a 5 s file, each a new process.

    python benchmarks/cold_start.py [--model MODEL.asr --audio FILE] [--output benchmarks/results/cold_start.json]

Without a model and a file it makes them: an untrained 3x320 BiLSTM and 5 s of noise; the work is the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(command: list[str], runs: int) -> dict[str, float]:
    """Wall-clock seconds of `command` over several runs."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return {
        "minimum": round(min(times), 3),
        "median": round(statistics.median(times), 3),
        "maximum": round(max(times), 3),
    }


def make_model_and_audio(folder: Path) -> tuple[Path, Path]:
    import numpy as np
    import soundfile

    from asr.audio.features import FeatureConfig
    from asr.model.acoustic import AcousticModel
    from asr.model.checkpoint import save_model
    from asr.model.config import RecurrentConfig
    from asr.text.tokenizer import train_char

    tokenizer = train_char(["abcdefghijklmnopqrstuvwxyz' "])
    model = AcousticModel(RecurrentConfig(), FeatureConfig(), tokenizer.vocab_size)
    audio = folder / "noise.wav"
    soundfile.write(audio, np.random.default_rng(0).standard_normal(5 * 16000) * 0.05, 16000)
    return save_model(folder / "model.asr", model, tokenizer, "basic"), audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, audio = (args.model, args.audio) if args.model else make_model_and_audio(Path(folder))
        asr = [sys.executable, "-m", "asr"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import asr": [sys.executable, "-c", "import asr"],
            "asr --help": [*asr, "--help"],
            "asr transcribe, 5 s file": [*asr, "transcribe", str(audio), "-m", str(model)],
        }
        results = {}
        for name, command in commands.items():
            results[name] = seconds(command, args.runs)
            print("{:26s} minimum {minimum:6.3f} s   median {median:6.3f} s".format(name, **results[name]))
    if args.output:
        from asr.training.record import provenance

        args.output.parent.mkdir(parents=True, exist_ok=True)
        report = provenance() | {"runs": args.runs, "results": results}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
