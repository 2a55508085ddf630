"""One training step of ours against the same network on packed `nn.LSTM` or `nn.GRU`: gradients and times.

    python benchmarks/train_step.py [--device cuda] [--output benchmarks/results/train_step.json]

Both networks hold the same weights and see the same batch in the same process; the step is forward, CTC loss, backward.
Rounds alternate between the two, and ours in bf16, and the median of each is compared, so that a busy machine slows all
alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_models import PackedEncoder

from asr.audio.features import FeatureConfig
from asr.model.acoustic import AcousticModel
from asr.model.config import RecurrentConfig
from asr.model.recurrent import RecurrentEncoder, RecurrentLayer
from asr.training.losses.ctc import ctc_loss
from asr.training.record import provenance


def gradient_difference(ours: AcousticModel, packed: AcousticModel) -> float:
    """Largest difference of a gradient element, relative to the largest gradient of its tensor."""
    assert isinstance(packed.encoder, PackedEncoder) and isinstance(ours.encoder, RecurrentEncoder)
    worst = 0.0
    for layer, cell in zip(ours.encoder.layers, packed.encoder.cells, strict=True):
        assert isinstance(layer, RecurrentLayer) and layer.backward_cell is not None
        for suffix, source in (("", layer.forward_cell), ("_reverse", layer.backward_cell)):
            for name, parameter in source.named_parameters():
                reference = getattr(cell, name + suffix).grad
                assert parameter.grad is not None
                difference = (parameter.grad - reference).abs().max() / reference.abs().max().clamp(min=1e-12)
                worst = max(worst, float(difference))
    return worst


def compare(cell: str, args: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(0)
    device = torch.device(args.device)
    config = RecurrentConfig(cell=cell, hidden_size=args.hidden, layers=args.layers, dropout=0.0)  # type: ignore[arg-type]
    ours = AcousticModel(config, FeatureConfig(), args.vocab).to(device)
    packed = AcousticModel(config, FeatureConfig(), args.vocab)
    packed.load_state_dict(ours.state_dict())
    assert isinstance(packed.encoder, RecurrentEncoder)
    packed.encoder = PackedEncoder(packed.encoder, config)
    packed.to(device)

    samples = round(args.seconds * 16000)
    lengths = torch.linspace(args.shortest * samples, samples, args.batch, device=device).long()
    waveforms = torch.randn(args.batch, samples, device=device) * 0.1
    token_lengths = (lengths // 1600).long()
    tokens = torch.randint(1, args.vocab, (int(token_lengths.sum()),), device=device)

    def step(model: AcousticModel, bf16: bool = False) -> Callable[[], float]:
        def once() -> float:
            model.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                log_probs, frames = model(waveforms, lengths)
            ctc_loss(log_probs, frames, tokens, token_lengths).loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - started

        return once

    steps = step(ours), step(packed), step(ours, bf16=True)
    for warm in steps[:2]:
        warm()
    difference = gradient_difference(ours, packed)
    steps[2]()
    times = [[once() for once in steps] for _ in range(args.rounds)]
    ours_seconds, packed_seconds, bf16_seconds = (statistics.median(column) for column in zip(*times, strict=True))
    return {
        "ours_seconds": round(ours_seconds, 4),
        "packed_seconds": round(packed_seconds, 4),
        "ratio": round(packed_seconds / ours_seconds, 2),
        "bf16_seconds": round(bf16_seconds, 4),
        "gradient_difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--seconds", type=float, default=16.0, help="of the longest utterance; x4 subsampling: 400 frames"
    )
    parser.add_argument(
        "--shortest", type=float, default=0.9, help="shortest utterance relative to the longest, as in length buckets"
    )
    parser.add_argument("--vocab", type=int, default=29)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)

    shape = f"{args.layers}x{args.hidden}, batch {args.batch} x {args.seconds:g} s"
    report = provenance() | {"shape": shape, "device": args.device, "threads": torch.get_num_threads()}
    report["results"] = {}
    print(f"training step, {shape}, {args.device}, {torch.get_num_threads()} threads")
    for cell in ("lstm", "gru"):
        result = report["results"][cell] = compare(cell, args)
        print(
            f"{cell:5s} ours {result['ours_seconds']:7.3f} s   packed {result['packed_seconds']:7.3f} s   "
            f"{result['ratio']:5.2f}x   ours in bf16 {result['bf16_seconds']:7.3f} s   "
            f"largest relative gradient difference {result['gradient_difference']:.1e}"
        )
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if any(result["gradient_difference"] > 1e-4 for result in report["results"].values()):
        sys.exit("gradients differ by more than 1e-4")


if __name__ == "__main__":
    main()
