"""What a GPU makes of our models: the shapes that cuDNN is fast in, peers, `asr train` from end to end, transcription.

    python benchmarks/gpu.py [SECTION ...] [--output benchmarks/results/gpu.json]
    python benchmarks/gpu.py --device cpu --small --output /tmp/gpu.json     # whether it runs; the figures say nothing

Sections, each a few minutes at most: rows, widths, inputs, cells (recurrent layers alone, forward and backward, by
batch size, width, width of the input, and cell and precision), peers (a training step against the same network on
packed cells and against Deep Speech 2), train (`asr train` with files: seconds of audio a second, shares of waiting and
of the GPU being busy), transcribe (times real time by batch size). Each is written when it is done; a section that the
output file has from the same machine and revision is not run again without --again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_models import DeepSpeech2, PackedEncoder
from gpu_train import train_throughput
from torch import Tensor, nn

from asr.audio.features import FeatureConfig
from asr.config import to_dict
from asr.files import write_text
from asr.model.acoustic import AcousticModel
from asr.model.config import RecurrentConfig
from asr.model.recurrent import RecurrentEncoder, RecurrentLayer
from asr.training.losses.ctc import ctc_loss
from asr.training.record import provenance

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large everything is: that of the published tables, or small enough for a CPU to try the script."""

    device: str
    layers: int = 5
    width: int = 640
    frames: int = 375
    rows: int = 32
    seconds: float = 15.0
    rounds: int = 10
    small: bool = False

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


SMALL = {"layers": 1, "width": 16, "frames": 20, "rows": 2, "seconds": 1.0, "rounds": 1, "small": True}


def timed(scale: Scale, step: Callable[[], Any]) -> float:
    """Milliseconds of a step: the median after three that warm up."""
    times = []
    for _ in range(scale.rounds + (1 if scale.small else 3)):
        scale.wait()
        started = time.perf_counter()
        step()
        scale.wait()
        times.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(times[-scale.rounds :]), 2)


def layers_time(
    scale: Scale, *, rows: int = 0, width: int = 0, inputs: int = 0, cell: str = "lstm", dtype: str = "bfloat16"
) -> float:
    """Milliseconds of forward and backward through a stack of our bidirectional layers, `inputs` wide at first."""
    rows, width = rows or scale.rows, width or scale.width
    config = RecurrentConfig(cell=cell, hidden_size=width, layers=1, dropout=0.0)  # type: ignore[arg-type]
    widths = [inputs or 2 * width] + [2 * width] * (scale.layers - 1)
    layers = nn.ModuleList(RecurrentLayer(config, size) for size in widths).to(scale.device)
    x = torch.randn(rows, scale.frames, widths[0], device=scale.device)
    lengths = torch.full((rows,), scale.frames, device=scale.device)
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)

    def step() -> None:
        layers.zero_grad(set_to_none=True)
        with torch.autocast(scale.device, half or torch.bfloat16, enabled=half is not None):
            y = x
            for layer in layers:
                y = layer(y, lengths)
        y.float().square().mean().backward()

    return timed(scale, step)


def rows_section(scale: Scale) -> list[Row]:
    counts = (1, 2) if scale.small else (8, 15, 16, 20, 24, 26, 28, 31, 32, 33, 36, 40, 48, 63, 64, 96, 128)
    return [{"rows": rows, "ms": layers_time(scale, rows=rows)} for rows in counts]


def widths_section(scale: Scale) -> list[Row]:
    large = (256, 320, 384, 512, 576, 600, 640, 700, 704, 768, 800, 896, 1000, 1024, 1152, 1280, 1536)
    return [{"width": width, "ms": layers_time(scale, width=width)} for width in ((8, 16) if scale.small else large)]


def inputs_section(scale: Scale) -> list[Row]:
    """The first of the layers reads an input of this width."""
    sizes = (16, 20) if scale.small else (512, 600, 639, 640, 768, 1279, 1280, 1288, 1408)
    return [{"input": size, "ms": layers_time(scale, inputs=size)} for size in sizes]


def cells_section(scale: Scale) -> list[Row]:
    dtypes = ("float32", "bfloat16") if scale.small else ("float32", "bfloat16", "float16")
    return [
        {"cell": cell, "dtype": dtype, "ms": layers_time(scale, cell=cell, dtype=dtype)}
        for cell in ("lstm", "gru", "rnn")
        for dtype in dtypes
    ]


def peers_section(scale: Scale) -> list[Row]:
    """A whole training step: ours, the same network on packed cells, and Deep Speech 2 on packed cells."""
    width = scale.width if scale.small else 1024
    config = RecurrentConfig(hidden_size=width, layers=scale.layers, dropout=0.0)
    samples = round(scale.seconds * 16000)
    lengths = torch.linspace(0.9 * samples, samples, scale.rows).long()
    waveforms = 0.1 * torch.randn(scale.rows, samples, device=scale.device)
    token_lengths = lengths // 1600
    tokens = torch.randint(1, 29, (int(token_lengths.sum()),), device=scale.device)
    found = []
    for dtype in ("bfloat16", "float16", "float32")[: 1 if scale.small else 3]:
        for name in ("ours", "packed", "deep speech 2"):
            model: nn.Module = AcousticModel(config, FeatureConfig(), 29)
            if name == "packed":
                assert isinstance(model, AcousticModel) and isinstance(model.encoder, RecurrentEncoder)
                model.encoder = PackedEncoder(model.encoder, config)
            elif name == "deep speech 2":
                model = DeepSpeech2(FeatureConfig(), width, scale.layers, 29)
            model.to(scale.device)
            step = _training_step(scale, model, dtype, waveforms, lengths, tokens, token_lengths)
            parameters = sum(p.numel() for p in model.parameters())
            found.append({"model": name, "dtype": dtype, "parameters": parameters, "ms": timed(scale, step)})
    return found


def _training_step(
    scale: Scale,
    model: nn.Module,
    dtype: str,
    waveforms: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(scale.device, half or torch.bfloat16, enabled=half is not None):
            log_probs, frames = model(waveforms, lengths)
        ctc_loss(log_probs, frames, tokens, token_lengths).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def train_section(scale: Scale) -> list[Row]:
    """`asr train` on flac files of noise, as long as those of LibriSpeech, with the networks of its recipes."""
    base = {"hidden_size": 640, "layers": 5}
    large = {"hidden_size": 1024, "layers": 6, "projection": 512}
    runs: list[tuple[dict[str, Any], float]] = [(base, seconds) for seconds in (400.0, 800.0, 1600.0)]
    runs += [(large, seconds) for seconds in (800.0, 1600.0)]
    if scale.small:
        runs = [({"hidden_size": 8, "layers": 1, "subsampling_channels": 2}, 4.0)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for model, batch_seconds in runs:
            row = train_throughput(Path(folder), scale.device, model, batch_seconds, scale.small)
            found.append(model | {"batch_seconds": batch_seconds} | row)
            print(f"  {found[-1]}", file=sys.stderr, flush=True)
    return found


def transcribe_section(scale: Scale) -> list[Row]:
    """Greedy transcription of audio in memory, the copy to the device and decoding included."""
    from asr.decoding.greedy import GreedyDecoder
    from asr.text.tokenizer import CharTokenizer

    config = RecurrentConfig(hidden_size=scale.width, layers=scale.layers, dropout=0.0)
    model = AcousticModel(config, FeatureConfig(), 29).to(scale.device).eval()
    decoder = GreedyDecoder(CharTokenizer(["", " ", "'", *"abcdefghijklmnopqrstuvwxyz"]), model.frame_seconds)
    samples = round(scale.seconds * 16000)
    found = []
    for dtype in ("float32", "bfloat16"):
        for rows in (1, 2) if scale.small else (1, 8, 16, 32, 64, 96, 128):
            waveforms, lengths = 0.1 * torch.randn(rows, samples), torch.full((rows,), samples)

            def step(waveforms: Tensor = waveforms, lengths: Tensor = lengths, half: bool = dtype != "float32") -> None:
                with torch.inference_mode(), torch.autocast(scale.device, torch.bfloat16, enabled=half):
                    log_probs, frames = model(waveforms.to(scale.device), lengths)
                for row, count in zip(log_probs.cpu(), frames.tolist(), strict=True):
                    decoder.decode(row[:count])

            ms = timed(scale, step)
            found.append(
                {"dtype": dtype, "rows": rows, "ms": ms, "times_real_time": round(1e3 * rows * scale.seconds / ms)}
            )
    return found


SECTIONS: dict[str, Callable[[Scale], list[Row]]] = {
    "rows": rows_section,
    "widths": widths_section,
    "inputs": inputs_section,
    "cells": cells_section,
    "peers": peers_section,
    "train": train_section,
    "transcribe": transcribe_section,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny shapes, to see whether everything runs")
    parser.add_argument("--again", action="store_true", help="run sections again that the output file has")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.sections if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]}")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA GPU (--device cpu --small tries the script without one)")
    scale = Scale(args.device, **(SMALL if args.small else {}))  # type: ignore[arg-type]
    conditions = provenance() | {"cudnn": torch.backends.cudnn.version(), "scale": to_dict(scale)}
    report = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
    for name in args.sections or SECTIONS:
        before = report.get(name, {})
        if not args.again and all(before.get(key) == conditions[key] for key in ("machine", "revision", "scale")):
            print(f"{name}: done before", file=sys.stderr)
            continue
        started = time.monotonic()
        torch.manual_seed(0)
        results = SECTIONS[name](scale)
        report[name] = conditions | {"results": results}
        write_text(args.output, json.dumps(report, indent=1) + "\n")
        print(f"{name} ({time.monotonic() - started:.0f} s)")
        for row in results:
            print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        if args.device == "cuda":
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
