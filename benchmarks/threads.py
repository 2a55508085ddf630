"""What a busy neighbor does to a training on the CPU, and what helps: steps of a recipe's model under several settings.

    python benchmarks/threads.py --output benchmarks/results/threads.json

OpenMP threads that have nothing to do spin, by default, so as to be ready at once: where another process wants the same
core, the others wait for a thread that is not running. Each setting runs in a process of its own, in turn, alone and
beside a process that keeps one core busy; seconds are the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SETTINGS: dict[str, dict[str, str]] = {
    "PyTorch's default": {},
    "passive wait": {"OMP_WAIT_POLICY": "PASSIVE"},
    "short spin": {"GOMP_SPINCOUNT": "1000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def measure(steps: int, hidden: int, layers: int, batch: int, seconds: float) -> float:
    """Seconds of `steps` training steps on noise, after two that warm up."""
    import torch

    from asr.audio.features import FeatureConfig
    from asr.model.acoustic import AcousticModel
    from asr.model.config import RecurrentConfig
    from asr.training.losses.ctc import ctc_loss

    torch.manual_seed(0)
    model = AcousticModel(RecurrentConfig(hidden_size=hidden, layers=layers), FeatureConfig(), 29)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    samples = round(seconds * 16000)
    waveforms = torch.randn(batch, samples) * 0.1
    lengths = torch.linspace(0.8 * samples, samples, batch).long()
    token_lengths = (lengths // 1600).long()
    tokens = torch.randint(1, 29, (int(token_lengths.sum()),))
    started = 0.0
    for step in range(steps + 2):
        if step == 2:
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        log_probs, frames = model(waveforms, lengths)
        ctc_loss(log_probs, frames, tokens, token_lengths).loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.6, help="of the longest utterance")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(measure(args.steps, args.hidden, args.layers, args.batch, args.seconds))
        return
    from asr.training.record import provenance

    times: dict[str, dict[str, list[float]]] = {name: {"alone": [], "neighbor": []} for name in SETTINGS}
    shape = [f"--{key}={getattr(args, key)}" for key in ("steps", "hidden", "layers", "batch", "seconds")]
    for _ in range(args.rounds):
        for company in ("alone", "neighbor"):
            neighbor = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if company == "neighbor" else None
            try:
                for name, variables in SETTINGS.items():
                    command = [sys.executable, __file__, "--child", *shape]
                    done = subprocess.run(
                        command, env={**os.environ, **variables}, capture_output=True, text=True, check=True
                    )
                    times[name][company].append(float(done.stdout))
            finally:
                if neighbor is not None:
                    neighbor.kill()
                    neighbor.wait()
    print(f"{'':20} {'alone':>8} {'neighbor':>9}   seconds of {args.steps} steps")
    results = {name: {c: round(statistics.median(t), 3) for c, t in both.items()} for name, both in times.items()}
    for name, row in results.items():
        print(f"{name:20} {row['alone']:8.2f} {row['neighbor']:9.2f}")
    if args.output:
        report = provenance() | {"shape": " ".join(shape), "results": results}
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
